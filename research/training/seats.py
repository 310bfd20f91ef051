"""Seats: which layers act in a period, by what the chain earned with and without them in the periods before.

A chain with a layer and one without it trade the same bars; their difference is summed by block of time, all symbols together, and its
mean has a one-sided 95 % bound by Student's t. A base voter keeps its place until the chain earned less with it (the upper bound is below
0). The arbiter acts only where the chain earned more with it (the lower bound is above 0), beside an ensemble with a map counted from its
first map on; else it is heard and does not act.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8
from research.training.edge import MIN_BLOCKS

LEVEL = 0.95  # one-sided


@dataclass(frozen=True)
class Gain:
    """What a chain earned more than another in a block of time, as a return: mean, one-sided bounds, number of blocks."""

    mean: float = 0.0
    lower: float = float("-inf")
    upper: float = float("inf")
    n_blocks: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON holds them: None where there is no bound."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


def gain(with_it: F8, without: F8, block: I8) -> Gain:
    """Compare two chains by their equity [m] on the same bars, which lie in the blocks of time `block` [m]."""
    if len(block) < 2:
        return Gain()
    difference = _returns(with_it) - _returns(without)
    _, at = np.unique(block[1:], return_inverse=True)
    sums = np.bincount(at, difference)
    m, mean = len(sums), float(np.mean(sums))
    if m < MIN_BLOCKS:
        return Gain(mean, n_blocks=m)
    reach = _quantile(m) * float(np.std(sums, ddof=1)) / np.sqrt(m)
    return Gain(mean, mean - reach, mean + reach, m)


def gains(with_it: F8, without: F8, block: I8, starts: Sequence[int], has_map: NDArray[np.bool_]) -> list[Gain]:
    """Compare two chains [n] before each of the rows `starts`, from the first period in which one of them had a map (`has_map` [F])."""
    found = []
    for k, stop in enumerate(starts):
        known = np.flatnonzero(has_map[:k])
        rows = slice(starts[known[0]] - 1, stop) if len(known) else slice(0, 0)
        found.append(gain(with_it[rows], without[rows], block[rows]))
    return found


def _returns(equity: F8) -> F8:
    """Return the return of each bar but the first, 0 where nothing is left."""
    out: F8 = np.divide(np.diff(equity), equity[:-1], out=np.zeros(len(equity) - 1), where=equity[:-1] > 0.0)
    return out


def _quantile(m: int) -> float:
    from scipy.stats import t

    return float(t.ppf(LEVEL, m - 1))
