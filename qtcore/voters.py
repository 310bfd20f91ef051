"""Voters: the names of the base models of a run, the slot that each takes, and its weight.

The kernels count five slots. A known voter (`MODELS`) has a slot of its own; any other takes one that no voter of the run owns. A slot that
nobody takes keeps its known name, so that whoever reads its columns finds them, empty.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from qtcore.types import F8, MODELS, N_MODELS, InputError

ALIASES = {"patch": "patchtst", "lightgbm": "lgbm", "xgboost": "xgb"}  # other words for known voters, in the files of others
LAYERS = ("ensemble", "consensus", "meta", "arbiter", "raw", "final", "governor", "volatility", "trend")  # first words of other columns
FIGURES = ("mean", "max", "min", "std", "close", "open")  # names that would make columns of others
LONGEST = 40  # letters of a name


def check_name(name: object) -> str:
    """Return the name of a voter. Raises InputError on one that cannot head columns of its own."""
    text = name if isinstance(name, str) else ""
    if not (text.isascii() and text.isidentifier() and text[0].isalpha() and len(text) <= LONGEST):
        raise InputError(
            f"a voter's name must be letters, digits and underscores, a letter first, {LONGEST} at most, was {name!r}; choose another"
        )
    if text.lower().partition("_")[0] in LAYERS or text.lower() in FIGURES:
        raise InputError(
            f"a voter's name must not begin with the word {text.partition('_')[0]}, which names columns, was {text!r}; choose another"
        )
    if text not in MODELS and (known := ALIASES.get(text.lower(), text.lower())) in MODELS:
        raise InputError(f"a voter's name must be its own, was {text!r}, another way to write {known}; choose another, or {known}")
    return text


def check_names(voters: Iterable[object]) -> list[str]:
    """Return the names of voters. Raises InputError on one that `check_name` refuses, and on two that differ by capital letters at most."""
    names = [check_name(name) for name in voters]
    if len({name.lower() for name in names}) < len(names):
        raise InputError(f"voters must have different names, capital letters or not, was {', '.join(names)}; rename one")
    return names


def slots_of(voters: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the five slots: known voters in their own, others in the last free ones, in the order given.

    Raises InputError on more than five voters, and where `check_names` does.

    >>> slots_of(["forest", "lgbm"])
    ('xgb', 'lgbm', 'nhits', 'patchtst', 'forest')
    """
    names = check_names(voters)
    if len(names) > N_MODELS:
        raise InputError(f"voters must be at most {N_MODELS}, was {len(names)}: {', '.join(names)}; leave some out")
    new = [name for name in names if name not in MODELS]
    free = [m for m, known in enumerate(MODELS) if known not in names][N_MODELS - len(names) :] if new else []
    slots = list(MODELS)
    for m, name in zip(free, new, strict=True):
        slots[m] = name
    return tuple(slots)


def share_of(weights: F8, slots: tuple[str, ...], voting: Iterable[str]) -> F8:
    """Return the equal share [...] of a new voter: the mean of the positive weights [..., 5] of the known ones that take part, else 1.0."""
    total, count = np.zeros(weights.shape[:-1]), np.zeros(weights.shape[:-1])
    for m, name in enumerate(slots):
        if name in MODELS and name in voting:
            is_counted = weights[..., m] > 0.0
            total = np.where(is_counted, total + weights[..., m], total)
            count = count + is_counted
    share: F8 = np.where(count > 0.0, total / np.maximum(count, 1.0), 1.0)
    return share


def weights_of(
    weights: tuple[float, ...], slots: tuple[str, ...], voting: Iterable[str], named: Mapping[str, float], sharing: Iterable[str]
) -> tuple[float, ...]:
    """Return the weight of every slot.

    weights [5]: as they stand. named: weights by name, in their place. voting: who takes part; sharing: who of them gets an equal share
    (`share_of`). Raises InputError on an unknown name, and where names leave no voter a weight.

    >>> weights_of((0.25, 0.25, 0.30, 0.20, 0.0), slots_of(["lgbm", "forest"]), ["lgbm", "forest"], {}, ["forest"])
    (0.25, 0.25, 0.3, 0.2, 0.25)
    """
    if unknown := [name for name in named if name not in slots]:
        raise InputError(
            f"ensemble.weights must name voters of this run, {', '.join(voting) or 'none'}, was with {unknown[0]!r}; correct it"
        )
    own = [named.get(name, weight) for name, weight in zip(slots, weights, strict=True)]
    share = float(share_of(np.array(own), slots, voting))
    out = tuple(share if name in sharing else weight for name, weight in zip(slots, own, strict=True))
    if named and voting and not any(weight > 0.0 for name, weight in zip(slots, out, strict=True) if name in voting):
        raise InputError(f"ensemble.weights must have a sum above 0 over the voters {', '.join(voting)}, was 0; give one of them a weight")
    return out
