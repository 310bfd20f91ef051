"""Score residuals: what a score says of SELL, HOLD and BUY, by how far it was off on the purged slice that stopped its training.

A model that was fitted to the target itself says a number. With its residuals taken for those of every row, the target lies above a limit
as often as score plus residual does: the distribution of the residuals, at `KNOTS` of their quantiles and on straight lines between them,
gives three probabilities, and p_buy - p_sell rises with the score.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from qtcore.types import F8

KNOTS = 256
TINY = 1e-300  # two knots nearer than that are one
LEVELS = (np.arange(KNOTS) + 0.5) / KNOTS


@dataclass(frozen=True)
class Residuals:
    """Residuals of a score. knots [KNOTS]: their quantiles, ascending; low, high: limits of SELL and BUY; n: residuals there were."""

    knots: F8
    low: float
    high: float
    n: int

    @classmethod
    def fit(cls, off: F8, low: float, high: float) -> Self:
        """Take the quantiles of targets less scores [N], one or more."""
        return cls(np.quantile(off, LEVELS), low, high, len(off))

    def probs(self, score: F8) -> F8:
        """Return probabilities [N, 3] of scores [N]; cell by cell, so one row has the bits of a history."""
        sell, above = self._share(self.low - score), self._share(self.high - score)
        return np.stack([sell, above - sell, 1.0 - above], axis=1)

    def _share(self, x: F8) -> F8:
        """Share of the residuals below x."""
        knots, levels = self.knots, LEVELS
        right = np.clip(np.searchsorted(knots, x, side="right"), 1, KNOTS - 1)
        left, gap = right - 1, knots[right] - knots[right - 1]
        at = np.divide(x - knots[left], gap, out=np.ones(len(x)), where=gap > TINY)
        return np.clip(levels[left] + np.clip(at, 0.0, 1.0) / KNOTS, LEVELS[0], LEVELS[-1])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return {"knots": self.knots.tolist(), "low": self.low, "high": self.high, "n": self.n}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Read `to_dict`. Raises ValueError on anything else."""
        knots, low, high = np.array(stored["knots"], np.float64), float(stored["low"]), float(stored["high"])
        if knots.shape != (KNOTS,) or not np.isfinite([*knots, low, high]).all() or (np.diff(knots) < 0.0).any() or not low < high:
            raise ValueError(f"residuals must be {KNOTS} ascending numbers and two limits, was otherwise")
        return cls(knots, low, high, int(stored["n"]))
