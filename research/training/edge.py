"""Edge map: from how far the ensemble leans, and how much the market moves, to what a trade earns before costs.

One slope through zero, pooled over symbols and sides: the result of the trade that the lean asks for, over trailing volatility, is
regressed on the lean's size, so that every cell weighs 1 / volatility^2. What a chain may count on is never the estimate: nothing unless
the one-sided 99 % lower bound is above zero, so that without an edge in the data nothing is traded, and then the estimate shrunk by the
square of how far noise alone reaches at that level (as Stein's estimators shrink, Efron & Morris 1973): from nothing at the gate towards
the whole where the evidence is strong. The bound itself pays costs a period or two too late; a laxer bound jumps at the gate, and trades
much on noise.

The error is a jackknife over blocks of time, all symbols together, as neighbouring trades share bars and symbols share markets (Efron &
Stein 1981; Cameron & Miller 2015 on clusters). Blocks that hold most of the information count as few: the quantile is Student's t with
effective blocks minus one, 1 / sum of squared shares of the fit's information (Carter, Schnepel & Steigerwald 2017).
"""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8, N_KNOTS, NS_PER_HOUR

SHORTEST_BLOCK = 72 * NS_PER_HOUR
LEVEL = 0.99  # one-sided, of the lower bound that must be above zero
NEWTON_STEPS, RIDGE = 12, 1.0  # of the logistic curve; the ridge is worth one trade
MIN_CELLS, MIN_BLOCKS = 1_000, 8.0  # labelled cells and effective blocks; with fewer there is no edge


@dataclass(frozen=True)
class EdgeMap:
    """A fitted map.

    slope: return before costs for a lean of 1 and a volatility of 1; error: its standard error; counts: what may be counted on of it.
    variance: of a trade's result around the map, for a volatility of 1. n_cells: trades that it was fitted on; n_blocks: of time,
    n_effective of them by their share of the information.
    """

    slope: float = 0.0
    error: float = float("inf")
    counts: float = 0.0
    variance: float = 0.0
    n_cells: int = 0
    n_blocks: int = 0
    n_effective: float = 0.0

    @classmethod
    def fit(cls, lean: F8, volatility: F8, results: F8, block: I8) -> Self:
        """Fit on cells of any shape; those with a NaN, without a lean or without volatility are left out.

        lean: p_buy - p_sell. volatility: of a bar's return, above 0. results: of the trade on the side that it leans to, before costs.
        block: number of the block of time that a cell lies in. Too few cells or blocks give a map of zero.
        """
        lean, volatility, results, block = lean.ravel(), volatility.ravel(), results.ravel(), block.ravel()
        known = np.isfinite(lean) & np.isfinite(results) & np.isfinite(volatility) & (lean != 0.0) & (volatility > 0.0)
        x, y = np.abs(lean[known]), results[known] / volatility[known]
        names, at = np.unique(block[known], return_inverse=True)
        squares, products = np.bincount(at, x * x, len(names)), np.bincount(at, x * y, len(names))
        whole, m = squares.sum(), len(names)
        effective = float(whole * whole / np.sum(squares * squares)) if m else 0.0
        counted: dict[str, Any] = {"n_cells": len(x), "n_blocks": m, "n_effective": effective}
        if len(x) < MIN_CELLS or effective < MIN_BLOCKS:
            return cls(**counted)
        slope = products.sum() / whole
        without = (products.sum() - products) / (whole - squares)
        error = np.sqrt((m - 1) / m * np.sum((without - slope) ** 2))
        reach, variance = quantile(effective) * error, float(np.mean((y - slope * x) ** 2))
        counts = float(slope * (1.0 - (reach / slope) ** 2)) if slope > reach else 0.0
        return cls(float(slope), float(error), counts, variance, **counted)

    def gross(self, lean: F8, volatility: F8) -> F8:
        """Return what a trade on the side that a cell leans to may be counted on to earn before costs, a fraction; NaN where unknown."""
        return self.counts * np.abs(lean) * volatility


def fit_win(lean: F8, results: F8, costs: float) -> F8:
    """Return how often a trade pays its costs at each of the leans 0, 1/32 ... 1, [33]: a logistic curve in the size of the lean.

    lean, results: as in `EdgeMap.fit`. NaN where fewer than `MIN_CELLS` trades are known.
    """
    lean, results = np.abs(lean.ravel()), results.ravel()
    known = np.isfinite(lean) & np.isfinite(results) & (lean != 0.0)
    if np.count_nonzero(known) < MIN_CELLS:
        return np.full(N_KNOTS, np.nan)
    x, pays = np.stack([np.ones(np.count_nonzero(known)), lean[known]]), (results[known] > costs).astype(np.float64)
    weights = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-(weights @ x)))
        slope, curve = x @ (pays - p) - RIDGE * weights, (x * (p * (1.0 - p))) @ x.T + RIDGE * np.eye(2)
        weights = weights + np.linalg.solve(curve, slope)
    at = np.linspace(0.0, 1.0, N_KNOTS).tolist()
    return np.array([1.0 / (1.0 + math.exp(-min(max(weights[0] + weights[1] * size, -30.0), 30.0))) for size in at])


def quantile(n_effective: float) -> float:
    """Return the quantile of Student's t that a one-sided bound of `LEVEL` takes with so many effective blocks."""
    from scipy.stats import t

    return float(t.ppf(LEVEL, max(1.0, n_effective - 1.0)))


def blocks_of(close_time: I8, horizon_ns: int) -> I8:
    """Return the number of the block that each decision time [n], ns UTC, lies in: 72 hours, longer where trades last longer than 24.

    >>> blocks_of(np.array([0, 71, 72, 144]) * NS_PER_HOUR, NS_PER_HOUR).tolist()
    [0, 0, 1, 2]
    """
    numbers: NDArray[np.int64] = close_time // block_ns(horizon_ns)
    return numbers


def block_ns(horizon_ns: int) -> int:
    """Return the length of a block of time in which trades last `horizon_ns`, ns."""
    return max(SHORTEST_BLOCK, 3 * horizon_ns)


def leaning(lean: F8, outcomes: F8) -> F8:
    """Return the outcome on the side that each cell leans to; NaN without a lean. lean [n, S]; outcomes [2, n, S]: of a short, a long."""
    chosen: F8 = np.where(lean > 0.0, outcomes[1], np.where(lean < 0.0, outcomes[0], np.nan))
    return chosen
