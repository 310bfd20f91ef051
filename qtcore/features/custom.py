"""Custom features: a researcher adds one as a function of bars and the number of bars that it looks back.

>>> import numpy as np
>>> def gap(bars):
...     out = np.full(bars.close.shape, np.nan)
...     out[1:] = bars.open[1:] / bars.close[:-1] - 1.0
...     return out
>>> Feature("gap", gap, lookback=1)  # doctest: +ELLIPSIS
Feature(name='gap', ...)

`FeatureBank(..., custom=(Feature("gap", gap, lookback=1),))` then makes the plane `gap`. The function sees the block with `lookback` rows
in front of it (holes before the first bar); it must use nothing older and nothing later, which `research.verify.check_layer` tries out.
"""

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from qtcore.features.registry import ALIASES, FEATURES
from qtcore.own_code import own_code, shown
from qtcore.types import F8, Bars, InputError

_PRICES = ("open", "high", "low", "close", "volume")


@dataclass(frozen=True)
class Feature:
    """A feature of one's own. function: Bars of n rows -> [n, S]. lookback: bars before the present one that it reads."""

    name: str
    function: Callable[[Bars], F8]
    lookback: int = 0

    def __post_init__(self) -> None:
        name = ALIASES.get(self.name, self.name) if isinstance(self.name, str) else ""
        if not name or name in FEATURES:
            was = f"{self.name!r}, the name of a built-in one" if name else repr(self.name)
            raise InputError(f"name of an own feature must be a text that no built-in feature has, was {was}; choose another")
        if not callable(self.function):
            raise InputError(f"function of the feature {self.name} must take Bars and return an array, was {self.function!r}")
        if not isinstance(self.lookback, int | np.integer):
            raise InputError(f"lookback of the feature {self.name} must be a whole number of bars, was {self.lookback!r}")
        if self.lookback < 0:
            raise InputError(f"lookback of the feature {self.name} must be 0 or more bars, was {self.lookback}")


def own_features(custom: Iterable[Feature]) -> tuple[Feature, ...]:
    """Return own features as a tuple. Raises InputError on what is none, such as a plain function, and on two of one name."""
    with own_code("custom must be a list of Feature(name, function, lookback)"):
        given = (custom,) if isinstance(custom, Feature) or not isinstance(custom, Iterable) else tuple(custom)
    if isinstance(custom, Feature) or (wrong := [one for one in given if not isinstance(one, Feature)]):
        was = "a single Feature" if isinstance(custom, Feature) else f"with {_named(wrong[0])}"
        raise InputError(f"custom must be a list of Feature(name, function, lookback), was {was}; write custom=[Feature(...)]")
    names = [feature.name for feature in given]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"own features must have one name each, was {twice!r} twice; rename one")
    return given


def _named(thing: object) -> str:
    return f"the function {thing.__name__}" if inspect.isroutine(thing) else shown(thing)


class CustomFeatures:
    """Own features of one bank, with the rows that they look back at."""

    def __init__(self, features: Sequence[Feature], n_symbols: int, interval: int) -> None:
        self.features, self.interval = tuple(features), interval
        self.rows = max((f.lookback for f in self.features), default=0)
        self.state = {
            "own_prices": np.full((len(_PRICES), self.rows, n_symbols), np.nan),
            "own_times": np.zeros((2, self.rows), np.int64),
            "own_count": np.zeros(1, np.int64),
        }

    def compute(self, bars: Bars, out: F8) -> None:
        """Write the planes of the next block into out [features, n, S]; NaN at a hole."""
        prices, times, count = (self.state[name] for name in ("own_prices", "own_times", "own_count"))
        if count[0] == 0 and bars.n:
            steps = self.interval * np.arange(-self.rows, 0)
            times[:] = bars.open_time[0] + steps, bars.open_time[0] + steps + self.interval
        block = np.stack([getattr(bars, name) for name in _PRICES])
        whole = np.concatenate([prices, block], axis=1)
        when = np.concatenate([times, np.stack([bars.open_time, bars.close_time])], axis=1)
        hole = np.isnan(bars.close)
        for feature, plane in zip(self.features, out, strict=True):
            first = self.rows - feature.lookback
            open_, high, low, close, volume = (np.ascontiguousarray(plane[first:]) for plane in whole)
            seen = Bars(when[0, first:], when[1, first:], open_, high, low, close, volume, bars.symbols, bars.interval)
            with own_code(f"the feature {feature.name} must return an array"):
                values = np.asarray(feature.function(seen), np.float64)
            if values.shape != seen.close.shape:
                raise InputError(f"the feature {feature.name} must return shape {list(seen.close.shape)}, was {list(values.shape)}")
            plane[:] = np.where(hole, np.nan, values[feature.lookback :])
        keep = slice(whole.shape[1] - self.rows, None)
        prices[:], times[:] = whole[:, keep], when[:, keep]
        count += bars.n
