"""Feature bank: the object that turns blocks of bars into feature planes and keeps the state between blocks."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.features.advanced import CORRELATION_WINDOW, SLOPE_WINDOW, correlation, simple_returns, volume_slope
from qtcore.features.custom import CustomFeatures, Feature, own_features
from qtcore.features.plan import lay_out
from qtcore.features.recipes import compose
from qtcore.features.registry import ALIASES, CHAIN, chosen, known
from qtcore.features.table import COUNTERS, OUT
from qtcore.features.tape import advance
from qtcore.params import Params
from qtcore.types import F8, I8, Bars, InputError

SLOPE, CORRELATION = "volume_slope_7", "btc_correlation"


@dataclass(frozen=True)
class Planes:
    """Features of a block.

    values [F, n, S]: NaN where unknown. slots: the plane of every name; two names may share one. valid [n, S]: bars past the symbol's
    warm-up; False at a hole.
    """

    values: F8
    slots: Mapping[str, int]
    valid: NDArray[np.bool_]

    @property
    def names(self) -> tuple[str, ...]:
        """Every name that has a plane here."""
        return tuple(self.slots)

    def slot(self, name: str) -> int:
        """Return the index of a feature's plane, by name or alias. Raises InputError on a name that is not here."""
        slot = self.slots.get(name, self.slots.get(ALIASES.get(name, name)))
        if slot is None:
            raise InputError(f"planes hold {', '.join(self.slots)}, was asked for {name!r}; name it when making the FeatureBank")
        return slot

    def __getitem__(self, name: str) -> F8:
        """Return the plane [n, S] of a feature."""
        return self.values[self.slot(name)]

    @property
    def arbiter(self) -> F8:
        """The arbiter's inputs [6, n, S], in the order of ARBITER_INPUTS."""
        return self.values[:6]

    @property
    def regime(self) -> F8:
        """Volatility and trend strength [2, n, S], in the order of REGIME_INPUTS."""
        return self.values[6:8]


class FeatureBank:
    """Turn blocks of bars into planes; what a later block needs of the earlier ones is in `state`.

    names: features beyond the chain's own, by default the set of `params.features`. custom: features of one's own, always made. chain:
    False leaves out what arbiter and regime read (planes 0 to 7 else). Raises InputError on an unknown name or benchmark.

    >>> FeatureBank(Params(), ("BTCUSDT",), 3_600_000_000_000, names=("ema_10",)).names[-1]
    'ema_10'
    """

    def __init__(
        self,
        params: Params,
        symbols: Iterable[str],
        interval_ns: int,
        names: Iterable[str] | None = None,
        custom: Sequence[Feature] = (),
        chain: bool = True,
    ) -> None:
        self.params, self.symbols, self.interval = params, tuple(symbols), int(interval_ns)
        self.benchmark = _benchmark(self.symbols, params.features.benchmark)
        custom = own_features(custom)
        own = tuple(feature.name for feature in custom)
        wanted = chosen(params.features.every_set, len(self.symbols)) if names is None else tuple(names)
        asked = known((*(CHAIN if chain else ()), *wanted, *own), own)
        late = tuple(name for name in (SLOPE, CORRELATION, *own) if name in asked)
        graph, nodes, slots = compose((n for n in asked if n not in late), len(self.symbols), params, self.interval, self.benchmark)
        self.slots = {**slots, **{name: len(nodes) + i for i, name in enumerate(late)}}
        self.names = tuple(self.slots)
        self._late, self._n_planes = late, len(nodes) + len(late)
        self._custom = CustomFeatures(custom, len(self.symbols), self.interval)
        layout = lay_out(graph, nodes, params.features.warmup)
        self._table, self._memory, self._state_size = layout.table, layout.memory, layout.state_size
        n = len(self.symbols)
        self._volumes = np.full((SLOPE_WINDOW - 1, n), np.nan)
        self._returns, self._last = np.full((CORRELATION_WINDOW - 1, n), np.nan), np.full(n, np.nan)

    def compute(self, bars: Bars, reuse: bool = False) -> Planes:
        """Make the planes of the next block. reuse: the values lie in the bank's memory and are overwritten by the next call."""
        if len(self.symbols) != bars.close.shape[1]:
            raise InputError(f"bars must have the bank's {len(self.symbols)} symbols, was {bars.close.shape[1]}")
        fixed, size = int(self._table[OUT]), self._n_planes * bars.close.size
        is_long = size > fixed and not reuse
        memory = self._wider(size) if is_long else self.room(bars.n)[1]  # a long block gets memory of its own: no copy, no idle copy
        valid = np.empty(bars.close.shape, np.bool_)
        advance(bars.open, bars.high, bars.low, bars.close, bars.volume, bars.close_time, self._table, memory, valid)
        if is_long:
            self._memory[:fixed] = memory[:fixed]
        values = memory[fixed : fixed + size].reshape(self._n_planes, *valid.shape)
        self._compute_late(bars, values)
        return Planes(values if is_long or reuse else values.copy(), self.slots, valid)

    def room(self, n: int) -> tuple[I8, F8]:
        """Return `table` and `memory` as the kernel `advance` takes them, with room for the planes of n bars."""
        size = self._n_planes * n * len(self.symbols)
        if len(self._memory) < self._table[OUT] + size:
            self._memory = self._wider(size)
        return self._table, self._memory

    def _wider(self, size: int) -> F8:
        """Copy the memory and put `size` cells behind it."""
        fixed = int(self._table[OUT])
        memory = np.empty(fixed + size)
        memory[:fixed] = self._memory[:fixed]
        return memory

    def _compute_late(self, bars: Bars, values: F8) -> None:
        """Make the planes that `advance` does not."""
        if SLOPE in self._late:
            volume = np.concatenate([self._volumes, np.where(np.isnan(bars.close), np.nan, bars.volume)])
            volume_slope(volume, SLOPE_WINDOW - 1, values[self.slots[SLOPE]])
            self._volumes[:] = volume[bars.n :]
        if CORRELATION in self._late:
            block = np.empty(bars.close.shape)
            simple_returns(bars.close, self._last, block)
            returns = np.concatenate([self._returns, block])
            sums = np.empty((6, len(self.symbols)))
            correlation(returns, bars.close, self.benchmark, sums, CORRELATION_WINDOW - 1, values[self.slots[CORRELATION]])
            self._returns[:] = returns[bars.n :]
        if self._custom.features:
            self._custom.compute(bars, values[self._n_planes - len(self._custom.features) :])

    @property
    def state(self) -> dict[str, NDArray[Any]]:
        """The arrays that a later block depends on, by name; assign a dict of the same arrays to continue from it."""
        parts = {"memory": self._memory[: self._state_size], "counters": self._table[self._table[COUNTERS] :]}
        if SLOPE in self._late:
            parts["volumes"] = self._volumes
        if CORRELATION in self._late:
            parts |= {"returns": self._returns, "last_close": self._last}
        return parts | (self._custom.state if self._custom.features else {})

    @state.setter
    def state(self, state: Mapping[str, NDArray[Any]]) -> None:
        for name, array in self.state.items():
            if name not in state or state[name].shape != array.shape:
                was = "missing" if name not in state else f"of shape {list(state[name].shape)}"
                raise InputError(f"the state's {name} must be of shape {list(array.shape)}, was {was}; make the bank with the same names")
            array[...] = state[name]


def _benchmark(symbols: tuple[str, ...], name: str) -> int:
    """Column of the benchmark; -1 when there is none."""
    if name:
        if name not in symbols:
            raise InputError(f"features.benchmark must be one of the symbols, was {name!r}; leave it empty for the first BTC symbol")
        return symbols.index(name)
    return next((i for i, symbol in enumerate(symbols) if symbol.upper().startswith("BTC")), -1)
