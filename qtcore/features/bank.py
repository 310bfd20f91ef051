"""What did the market look like at every bar? One object that turns blocks of bars into feature planes."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qtcore.features.registry import ALIASES, CHAIN, FEATURE_SETS, known
from qtcore.features.slice import compute_all
from qtcore.params import Params
from qtcore.types import F8, Bars


@dataclass(frozen=True)
class Planes:
    """Features of a block: `values[i]` is the plane `[n, S]` of `names[i]`, NaN where unknown; `valid [n, S]` is past the warm-up."""

    names: tuple[str, ...]
    values: F8
    valid: Any

    def __getitem__(self, name: str) -> F8:
        """Return the plane of a feature, by name or alias."""
        plain = ALIASES.get(name, name)
        if plain not in self.names:
            raise ValueError(f"planes hold {', '.join(self.names)}, was asked for {name!r}; name it when making the FeatureBank")
        return self.values[self.names.index(plain)]

    @property
    def arbiter(self) -> F8:
        """The six inputs of the arbiter `[6, n, S]`, in the order of ARBITER_INPUTS."""
        return self.values[:6]

    @property
    def regime(self) -> F8:
        """Volatility and trend strength `[2, n, S]`, in the order of REGIME_INPUTS."""
        return self.values[6:8]


class FeatureBank:
    """Turn blocks of bars into planes; what a later block needs of the earlier ones is in `state`."""

    def __init__(
        self, params: Params, symbols: Iterable[str], interval_ns: int, names: Iterable[str] | None = None, custom: tuple[Any, ...] = ()
    ) -> None:
        self.params, self.symbols, self.interval = params, tuple(symbols), int(interval_ns)
        wanted = FEATURE_SETS[params.features.feature_set.name.lower()] if names is None else tuple(names)
        self.names = known((*CHAIN, *wanted))
        self.benchmark = _benchmark(self.symbols, params.features.benchmark)
        self._seen: list[F8] = []

    def compute(self, bars: Bars) -> Planes:
        """Make the planes of the next block."""
        block = np.stack([bars.high, bars.low, bars.close, bars.volume])
        self._seen.append(block)
        h, low, x, v = np.concatenate(self._seen, axis=1)
        with np.errstate(all="ignore"):
            planes = compute_all(h, low, x, v, self.params, self.interval, self.benchmark)
        hole = np.isnan(x)
        values = np.stack([np.where(hole, np.nan, planes[name]) for name in self.names])
        valid = (np.cumsum(~hole, axis=0) > self.params.features.warmup) & ~hole
        return Planes(self.names, np.ascontiguousarray(values[:, -bars.n :]), np.ascontiguousarray(valid[-bars.n :]))

    @property
    def state(self) -> dict[str, Any]:
        """Arrays that a later block needs."""
        return {"history": np.concatenate(self._seen, axis=1) if self._seen else np.empty((4, 0, len(self.symbols)))}


def _benchmark(symbols: tuple[str, ...], name: str) -> int:
    """Column of the benchmark; -1 when there is none."""
    if name:
        if name not in symbols:
            raise ValueError(f"features.benchmark must be one of the symbols, was {name!r}; leave it empty for the first BTC symbol")
        return symbols.index(name)
    return next((i for i, symbol in enumerate(symbols) if symbol.upper().startswith("BTC")), -1)


def matrix(planes: Planes, names: Iterable[str]) -> Any:
    """Pack planes by name into what a model reads: `[n, S, F]` float32, NaN rows where not valid."""
    names = tuple(names)
    out = np.empty((*planes.valid.shape, len(names)), np.float32)
    for i, name in enumerate(names):
        out[..., i] = np.where(planes.valid, planes[name], np.nan)
    return out
