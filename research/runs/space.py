"""Parameter space: axes of parameter values, and the settings that a grid or a random search makes of them."""

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import DecideRule
from qtcore.declare import Lane
from qtcore.params import BY_NAME, PARAMS, Params, lanes_of
from qtcore.reading import DECIDES, is_read, why_unread
from qtcore.types import F8, I8, InputError
from qtcore.voters import share_of
from research.errors import ConfigError

BLOCK = 4_096  # settings that are drawn, run and written together
SEARCHES = ("grid", "random", "adaptive")
MAX_VALUES = 1_000_000  # of one axis
WEIGHTS = "ensemble.weights"


@dataclass(frozen=True)
class Axis:
    """One parameter and what it may be: `values`, or anything from `low` to `high` where there are none."""

    name: str
    values: tuple[Any, ...]
    low: float = 0.0
    high: float = 0.0

    @property
    def is_free(self) -> bool:
        """Whether it is a range without a step."""
        return not self.values

    @property
    def parameter(self) -> str:
        """The declared parameter: the weight of one voter is part of `ensemble.weights`."""
        return WEIGHTS if self.name.startswith(BY_NAME[WEIGHTS]) else self.name

    @property
    def is_market(self) -> bool:
        """Whether it changes what the opinion sees, so that planes are made again."""
        return lanes_of()[self.parameter].kind == Lane.MARKET


@dataclass(frozen=True)
class Space:
    """The settings of a sweep: `size` rows, each a value for every axis over `base`.

    search: `grid` goes through every combination, the last axis fastest; `random` draws `size` settings from `seed`; `adaptive` is
    `research.sweep.adaptive`'s.
    """

    base: Params
    axes: tuple[Axis, ...]
    search: str
    size: int
    seed: int = 42

    @classmethod
    def of(cls, base: Params, grid: Mapping[str, Any], search: str = "grid", n: int = 0, seed: int = 42) -> Self:
        """Read a grid: a parameter's values as a sequence, or as text `a:b:step`, `a:b` (random search only) or `a,b,c`.

        base: resolved parameters. n: settings of a random search. Raises UserError or InputError with one sentence.
        """
        if base.stages:
            raise ConfigError(f"a sweep must have one set of parameters over time, was given {len(base.stages)} stages; leave them out")
        if search not in SEARCHES:
            raise ConfigError(f"--search must be one of {', '.join(SEARCHES)}, was {search!r}")
        axes = tuple(_axis(base, name, given) for name, given in grid.items())
        if not axes:
            raise ConfigError("a sweep must have at least one --grid, was none; name a parameter, e.g. governor.stop_loss=0.01:0.05:0.005")
        _check_weights(base, axes)
        free = [axis.name for axis in axes if axis.is_free]
        if search == "grid" and free:
            raise ConfigError(f"--grid {free[0]} must have a step, was a range without one; write low:high:step or use --search random")
        if search == "grid" and n:
            raise ConfigError(f"--settings must come with --search random or adaptive, was {n} with a grid, which tries all; leave it out")
        if search != "grid" and n < 1:
            raise ConfigError(f"--settings must be 1 or more, was {n}; a random or adaptive search tries so many")
        size = 1
        for axis in axes:
            size *= len(axis.values)
        return cls(base, axes, search, size if search == "grid" else n, seed)

    @cached_property
    def tried(self) -> dict[str, list[Any]]:
        """Checked values of the axes that decide whether others are read, as `is_read` takes them."""
        return {
            axis.name: [getattr(getattr(self.base.with_values({axis.name: value}), layer), key) for value in axis.values]
            for axis in self.axes
            if axis.name in DECIDES
            for layer, key in [axis.name.split(".")]
        }

    def check_read(self) -> None:
        """Raise ConfigError on an axis that no setting reads, which would show one outcome many times, or that asks for other maps."""
        if "ensemble.rule" in self.names and self.base.decide.rule == DecideRule.EDGE:
            what = "--grid must leave ensemble.rule as it is where decide.rule is edge, as the worth of opinions is found for one"
            raise ConfigError(f"{what}; make a run of each and compare them (qt compare)")
        for name in self.names:
            if not is_read(self.base, name, self.tried):
                raise ConfigError(f"--grid must name parameters that are read, was {name}, which is not {why_unread(self.base, name)}")

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that vary."""
        return tuple(axis.name for axis in self.axes)

    @property
    def batch(self) -> int:
        """Settings that must be run together; 0 where any number may be."""
        return 0

    def shown(self) -> list[list[Any]]:
        """Values of every axis as a table shows them; none of a free one."""
        return [[json.dumps(v) if isinstance(v, list) else v for v in axis.values] for axis in self.axes]

    def draw(self, first: int, last: int) -> list[NDArray]:
        """Return for every axis the settings [first, last): indices into its values, or numbers of a free one.

        A random search draws whole blocks, so a setting is the same however the search is cut.
        """
        if self.search == "grid":
            shape = tuple(len(axis.values) for axis in self.axes)
            return list(np.unravel_index(np.arange(first, last), shape))
        out: list[list[NDArray]] = [[] for _ in self.axes]
        start = first // BLOCK * BLOCK
        for block in range(start, last, BLOCK):
            rng = np.random.default_rng([self.seed, block // BLOCK])
            for drawn, axis in zip(out, self.axes, strict=True):
                drawn.append(rng.uniform(axis.low, axis.high, BLOCK) if axis.is_free else rng.integers(0, len(axis.values), BLOCK))
        return [np.concatenate(drawn)[first - start : last - start] for drawn in out]

    def pick(self, numbers: NDArray[np.int64]) -> list[NDArray]:
        """Return for every axis the settings `numbers`, ascending, as `draw` does."""
        cuts = np.flatnonzero(np.diff(numbers // BLOCK)) + 1
        parts = [(part, self.draw(int(part[0]), int(part[-1]) + 1)) for part in np.split(numbers, cuts) if len(part)]
        return [np.concatenate([drawn[i][part - part[0]] for part, drawn in parts]) for i in range(len(self.axes))]

    def records(self, drawn: Sequence[NDArray]) -> NDArray:
        """Return PARAMS [m] of drawn settings."""
        out = np.repeat(self.base.record(), len(drawn[0]))
        for axis, recorded, at in zip(self.axes, self._recorded, drawn, strict=True):
            layer, key = axis.parameter.split(".")
            if key in (PARAMS[layer].names or ()):
                slot = self.base.slot_of(axis.name)
                column = out[layer][key] if slot is None else out[layer][key][:, slot]
                column[:] = at if axis.is_free else recorded[at]
        self._share(out["ensemble"]["weights"])
        return out

    def _share(self, weights: F8) -> None:
        """Give those who have an equal share theirs anew where weights [m, 5] were given by name."""
        named = {axis.name for axis in self.axes if axis.parameter != axis.name}
        slots, voting = self.base.voters
        for name in self.base.sharing or () if named else ():
            if f"{BY_NAME[WEIGHTS]}{name}" not in named:
                weights[:, slots.index(name)] = share_of(weights, slots, voting)

    @cached_property
    def _recorded(self) -> list[NDArray]:
        """Values of every axis as kernels receive them; they take longer to make than a small piece of a sweep to run."""
        return [_recorded(self.base, axis) for axis in self.axes]

    def columns(self, drawn: Sequence[NDArray]) -> dict[str, NDArray]:
        """Return the values of drawn settings by parameter, as a table shows them."""
        told = zip(self.axes, self.shown(), drawn, strict=True)
        return {axis.name: at if axis.is_free else np.array(shown)[at] for axis, shown, at in told}

    def values(self, drawn: Sequence[NDArray], row: int) -> dict[str, Any]:
        """Return one drawn setting as `Params.with_values` takes it."""
        return {axis.name: float(at[row]) if axis.is_free else axis.values[int(at[row])] for axis, at in zip(self.axes, drawn, strict=True)}

    def settings(self, drawn: Sequence[NDArray]) -> list[Params]:
        """Return drawn settings as whole parameters."""
        return [self.base.with_values(self.values(drawn, row)) for row in range(len(drawn[0]))]

    def setting(self, number: int) -> dict[str, Any]:
        """Return setting `number` of the search as `Params.with_values` takes it."""
        if not 0 <= number < self.size:
            raise ConfigError(f"a trial must be one of the {self.size:,} of this sweep, was {number}; count from 0")
        return self.values(self.draw(number, number + 1), 0)

    def markets(self, drawn: Sequence[NDArray]) -> tuple[list[Params], I8]:
        """Return the distinct parameters of features among drawn settings, and which of them each has [m]."""
        columns = [at for axis, at in zip(self.axes, drawn, strict=True) if axis.is_market]
        if not columns:
            return [self.base], np.zeros(len(drawn[0]), np.int64)
        _, first, number = np.unique(np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True)
        names = {axis.name for axis in self.axes if axis.is_market}
        chosen = [{k: v for k, v in self.values(drawn, int(row)).items() if k in names} for row in first]
        return [self.base.with_values(values) for values in chosen], number.reshape(-1)

    def describe(self) -> dict[str, Any]:
        """Describe the space as JSON holds it."""
        axes = {axis.name: [axis.low, axis.high] if axis.is_free else list(axis.values) for axis in self.axes}
        return {"search": self.search, "size": self.size, "seed": self.seed, "axes": axes, "base": self.base.flat()}


@dataclass(frozen=True)
class Listed(Space):
    """Settings that are named one by one. chosen: for each axis [size], as `draw` returns them."""

    chosen: list[NDArray] = field(default_factory=list, compare=False, repr=False)

    def draw(self, first: int, last: int) -> list[NDArray]:
        """Return for every axis the settings [first, last)."""
        return [chosen[first:last] for chosen in self.chosen]


def _recorded(base: Params, axis: Axis) -> NDArray:
    """Values of an axis as kernels receive them; none of a free one, nor of one that no kernel receives."""
    layer, key = axis.parameter.split(".")
    if axis.is_free or key not in (PARAMS[layer].names or ()):
        return np.empty(0)
    if axis.parameter != axis.name:
        return np.array(axis.values)
    return np.concatenate([base.with_values({axis.name: value}).record()[layer][key] for value in axis.values])


def _axis(base: Params, name: str, given: Any) -> Axis:
    """Check every value of an axis against the declaration of its parameter."""
    known = base.flat()
    is_weight = name.startswith(BY_NAME[WEIGHTS])
    if name not in known and not is_weight:
        near = difflib.get_close_matches(name, list(known), n=1)
        raise ConfigError(
            f"--grid must name a parameter, was {name!r}" + (f"; did you mean {near[0]}?" if near else "; qt doctor --params lists all")
        )
    if isinstance(given, str) and given.count(":") == 1:
        low, high = _numbers(name, given)
        checked = _checked(base, name, (low, high))
        if not isinstance(checked[0], float) or not low < high:
            raise ConfigError(f"--grid {name} must be a rising range of a number, was {given!r}; write low:high")
        return Axis(name, (), low, high)
    values = _listed(name, given) if isinstance(given, str) else list(given)
    if not values:
        raise ConfigError(f"--grid {name} must have at least one value, was none")
    checked = _checked(base, name, values)
    if name == "broker.max_holding_bars":
        checked = [value or base.broker.max_holding_bars for value in checked]
    out = tuple(dict.fromkeys(json.dumps(value) for value in checked))
    return Axis(name, tuple(json.loads(text) for text in out))


def _checked(base: Params, name: str, values: Iterable[Any]) -> list[Any]:
    slot = base.slot_of(name)
    told = [_with(base, {name: value}) for value in values]
    return [params.flat()[name] if slot is None else params.ensemble.weights[slot] for params in told]


def _with(base: Params, values: Mapping[str, Any]) -> Params:
    try:
        return base.with_values(values)
    except InputError as error:
        raise ConfigError(f"--grid: {error}") from error


def _check_weights(base: Params, axes: Sequence[Axis]) -> None:
    """Raise ConfigError where weights are named twice, and where all that are given by name at their least leave no sum."""
    least = {axis.name: axis.low if axis.is_free else min(axis.values) for axis in axes if axis.parameter != axis.name}
    if least and any(axis.name == WEIGHTS for axis in axes):
        raise ConfigError(f"--grid must give weights by name or in order of the slots, was {WEIGHTS} and {next(iter(least))}; take one")
    _with(base, least)


def _listed(name: str, text: str) -> list[Any]:
    if ":" not in text:
        parts = [part.strip() for part in text.split(";" if ";" in text else ",")]
        return [part for part in parts if part]
    low, high, step = (_numbers(name, text) + [0.0] * 3)[:3]
    count = (high - low) / step if step > 0.0 else -1.0
    if text.count(":") != 2 or not count >= 0.0:
        raise ConfigError(f"--grid {name} must be low:high:step with low <= high and a step above 0, was {text!r}")
    if count >= MAX_VALUES:
        raise ConfigError(f"--grid {name} must have at most {MAX_VALUES:,} values, was {text!r}; take a larger step or --search random")
    return [round(low + step * k, 12) for k in range(int(count + 1e-9) + 1)]


def _numbers(name: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(":")]
    except ValueError:
        raise ConfigError(f"--grid {name} must be numbers between colons, was {text!r}; write low:high:step or a,b,c") from None
