"""Market regimes: the regime of every cell, and the sixteen slices that figures are given for.

A cell's regime is one of 3 volatilities times 3 trends (`spec` 1.9). Sufficient statistics are gathered for the nine only; the six margins
and the total are sums of them, so no slice can disagree with another.
"""

import numpy as np
from numpy.typing import NDArray

from research.data.grid import filled

VOLATILITY = ("volatility_low", "volatility_medium", "volatility_high")
TREND = ("trend_downtrend", "trend_sideways", "trend_uptrend")
CELLS = tuple(f"{volatility}.{trend}" for volatility in VOLATILITY for trend in TREND)
SLICES = ("total", *CELLS, *VOLATILITY, *TREND)
N_CELLS = len(CELLS)

NEUTRAL_VOLATILITY, NEUTRAL_TREND = 0.5, 0.0  # `spec` 1.9: before there is enough history


def _groups() -> NDArray[np.float64]:
    groups = np.zeros((len(SLICES), N_CELLS))
    groups[0] = 1.0
    for row, name in enumerate(SLICES[1:], start=1):
        groups[row] = [name in (cell, *cell.split(".")) for cell in CELLS]
    return groups


GROUPS = _groups()  # [16, 9]: which cells a slice adds up


def regime_cells(volatility: NDArray[np.float64], trend_strength: NDArray[np.float64]) -> NDArray[np.int8]:
    """Return every cell's regime, 0..8 in the order of `CELLS`.

    volatility, trend_strength [n, S]: NaN at a hole, where the last known regime of the symbol goes on (money is made there too).
    """
    v = filled(volatility, NEUTRAL_VOLATILITY)
    s = filled(trend_strength, NEUTRAL_TREND)
    level = (v >= 0.4).astype(np.int8) + (v >= 0.6)
    direction = (s >= -0.2).astype(np.int8) + (s > 0.2)
    return (level * 3 + direction).astype(np.int8)


def slice_sums(per_cell: NDArray) -> NDArray[np.float64]:
    """Add nine cells up to sixteen slices along the first axis: [9, ...] -> [16, ...]."""
    return np.tensordot(GROUPS, per_cell, axes=1)
