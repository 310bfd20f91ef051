"""Weights of the voters: names that a user gave weights to become the five numbers of a run, once its voters are known."""

from dataclasses import replace
from typing import NamedTuple, Protocol

from qtcore.params import BY_NAME, Params
from research.errors import ConfigError, refusing
from research.training.regime_weights import FACTORS, regime_factors


class Voters(Protocol):
    """Predictions, or a schedule of models."""

    @property
    def names(self) -> tuple[str, ...]:
        """Who votes in each of the five slots."""

    @property
    def slots(self) -> tuple[str, ...]:
        """Those of them that take part."""


class Named(NamedTuple):
    """The voters of a log."""

    names: tuple[str, ...]
    slots: tuple[str, ...]


def settled(params: Params, voters: Voters) -> Params:
    """Return `params` with the five weights and the factors by regime of `voters`; what is settled already stays as it is.

    A new voter that was given no weight gets an equal share (`qtcore.voters.weights_of`). Raises UserError on a weight or a factor of
    somebody who is none of them.
    """
    first = BY_NAME[FACTORS]
    table = {path.removeprefix(first): factor for path, factor in params.named if path.startswith(first)}
    if table:
        ensemble = replace(params.ensemble, regime_factors=tuple(regime_factors(table, voters.names)))
        rest = tuple(pair for pair in params.named if not pair[0].startswith(first))
        params = replace(params, ensemble=ensemble, named=rest)
    with refusing(ConfigError):
        return params.for_voters(voters.names, voters.slots)


def weights_by_name(params: Params, voters: Voters) -> dict[str, float]:
    """Return the weight of every voter that takes part, in the order of the slots. params: settled."""
    return {name: weight for name, weight in zip(voters.names, params.ensemble.weights, strict=True) if name in voters.slots}


def silent(params: Params, voters: Voters) -> tuple[str, ...]:
    """Say who votes with a weight of 0, one sentence each. params: settled."""
    weightless = [name for name, weight in weights_by_name(params, voters).items() if weight == 0.0]
    return tuple(f"{name} votes with a weight of 0 and moves no sum; --set ensemble.weights.{name}=1 gives it one" for name in weightless)
