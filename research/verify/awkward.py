"""Awkward bars: holes, a late listing, a delisting, a constant price and a jump, on which a layer of one's own is tried."""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import NS_PER_HOUR, Bars, Votes

N_BARS = 240
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")


def awkward_world(seed: int = 0, like: Bars | None = None) -> tuple[Bars, Votes]:
    """Make 240 hourly bars of four symbols and random votes on them, or as many as `like` has, at its times and of its symbols."""
    if like is None:
        time = NS_PER_HOUR * (470_000 + np.arange(N_BARS, dtype=np.int64))
        clock: tuple[Any, ...] = (time, time + NS_PER_HOUR, SYMBOLS, NS_PER_HOUR)
    else:
        clock = (like.open_time, like.close_time, like.symbols, like.interval)
    rng = np.random.default_rng(seed)
    n, width = len(clock[0]), len(clock[2])
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, (n, width)), axis=0))
    open_ = np.vstack([close[:1], close[:-1]])
    high, low = np.maximum(open_, close) * 1.003, np.minimum(open_, close) * 0.997
    volume = rng.lognormal(6.0, 1.0, (n, width))

    def rows(first: int, stop: int = N_BARS) -> slice:
        return slice(first * n // N_BARS, stop * n // N_BARS)

    for plane in (open_, high, low, close):
        plane[rows(90, 110), 2 % width] = plane[rows(90).start, 2 % width]
        plane[rows(150), 3 % width] *= 10.0
    volume[rows(60, 75), 0] = 0.0
    holes = rng.integers(0, n, 6)
    for plane in (open_, high, low, close, volume):
        plane[rows(0, 40), 1 % width] = np.nan
        plane[rows(200), 2 % width] = np.nan
        plane[rows(120).start : rows(120).start + 3] = np.nan
        plane[holes, 0] = np.nan
    bars = Bars(clock[0], clock[1], open_, high, low, close, volume, clock[2], clock[3])
    action = rng.integers(0, 3, (5, n, width)).astype(np.int8)
    confidence = rng.uniform(0.4, 1.0, action.shape)
    absent = (rng.random(action.shape) < 0.2) | np.isnan(close)
    return bars, Votes(np.where(absent, -1, action).astype(np.int8), np.where(absent, np.nan, confidence))


def fresh(thing: Any) -> Any:
    """Copy bars or votes with their arrays: what one call does to its inputs may not reach the next."""
    return replace(thing, **{name: value.copy() for name, value in vars(thing).items() if isinstance(value, np.ndarray)})


def permuted(bars: Bars, order: NDArray[np.int64]) -> Bars:
    """Return bars with their symbols in another order."""
    planes: dict[str, Any] = {k: np.ascontiguousarray(getattr(bars, k)[:, order]) for k in ("open", "high", "low", "close", "volume")}
    return replace(bars, symbols=tuple(bars.symbols[i] for i in order), **planes)
