"""Causality check: the future is rewritten after a cut, and the past must keep its bits."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, Bars

PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Difference:
    """The first cell in which two arrays differ: row, symbol's column (None for per-bar arrays), name, both values."""

    name: str
    bar: int
    symbol: int | None
    left: float
    right: float

    @property
    def distance(self) -> float:
        """Absolute distance; infinite where one side is NaN."""
        gap = abs(self.left - self.right)
        return float(gap) if gap == gap else float("inf")


def rewrite_future(bars: Bars, after: int, seed: int) -> Bars:
    """Return bars whose rows from `after` on are another seeded world: other prices, volumes and holes; the clock stays.

    The new prices continue from each symbol's last close before the cut (1.0 before its listing), so they are plausible ones.
    """
    rng = np.random.default_rng([seed, after])
    n, width = bars.n - after, len(bars.symbols)
    start = np.ones(width)
    for row in bars.close[max(0, after - 500) : after]:
        start = np.where(row == row, row, start)
    close = start * np.exp(np.cumsum(rng.normal(0.0, 0.03, (n, width)), axis=0))
    open_ = np.vstack([start[None], close])[:n] * np.exp(rng.normal(0.0, 0.005, (n, width)))
    new = {
        "open": open_,
        "high": np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.01, (n, width)))),
        "low": np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.01, (n, width)))),
        "close": close,
        "volume": rng.lognormal(5.0, 2.0, (n, width)),
    }
    holes = rng.random((n, width)) < 0.02
    planes: dict[str, Any] = {}
    for name, plane in new.items():
        plane[holes] = np.nan
        planes[name] = np.vstack([getattr(bars, name)[:after], plane])
    if bars.funding is not None:
        planes["funding"] = np.vstack([bars.funding[:after], rng.normal(0.0, 1e-4, (n, width))])
    return replace(bars, **planes)


def touch_bar(bars: Bars, row: int, seed: int) -> Bars:
    """Return bars in which one row alone was changed: every price by its own factor a symbol, the volume tripled; holes stay."""
    rng = np.random.default_rng([seed, row])
    factor = np.exp(rng.choice([-1.0, 1.0], len(bars.symbols)) * rng.uniform(0.05, 0.15, len(bars.symbols)))
    planes: dict[str, Any] = {}
    for name in (*PRICES, "volume"):
        plane = getattr(bars, name).copy()
        plane[row] *= factor if name in PRICES else 3.0
        planes[name] = plane
    return replace(bars, **planes)


def same_bits(a: NDArray, b: NDArray) -> NDArray[np.bool_]:
    """Compare cell by cell by bits: -0.0 is not 0.0, a NaN equals the same NaN. Shapes and dtypes must agree."""
    if a.dtype.kind != "f":
        return np.asarray(a == b)
    as_int = {2: np.int16, 4: np.int32, 8: np.int64}[a.dtype.itemsize]
    return np.asarray(np.ascontiguousarray(a).view(as_int) == np.ascontiguousarray(b).view(as_int))


def first_difference(name: str, a: NDArray, b: NDArray) -> Difference | None:
    """Find the first row, then symbol, in which `a` and `b` differ by bits; None when they are the same.

    Arrays are [n], [n, S] or [..., n, S] with planes in front. A shape or dtype that differs is a difference at bar 0.
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return Difference(f"{name} ({a.dtype} {list(a.shape)} against {b.dtype} {list(b.shape)})", 0, None, float("nan"), float("nan"))
    differs = ~same_bits(a, b)
    if not differs.any():
        return None
    if a.ndim == 1:
        row = int(np.argmax(differs))
        return Difference(name, row, None, float(a[row]), float(b[row]))
    planes, others, marks = (x.reshape(-1, *x.shape[-2:]) for x in (a, b, differs))
    row, column = divmod(int(np.argmax(marks.any(axis=0))), marks.shape[2])
    plane = int(np.argmax(marks[:, row, column]))
    label = f"{name}[{plane}]" if a.ndim > 2 else name
    return Difference(label, row, column, float(planes[plane, row, column]), float(others[plane, row, column]))


def cut_points(n: int, k: int, seed: int) -> list[int]:
    """Draw up to `k` different cut rows in [1, n), sorted."""
    rng = np.random.default_rng(seed)
    return sorted({int(c) for c in rng.integers(1, n, k)}) if n > 1 else []


def known(plane: F8) -> NDArray[np.bool_]:
    """Cells that hold a number."""
    return np.asarray(plane == plane)
