"""Stationary bootstrap cut in time: how many independent events bars are worth, and how far returns scatter.

Blocks of consecutive bars, of geometric length, are drawn with replacement; a block takes every symbol with it (`spec` D-93). What is
resampled are sums per bar (cells, hits, returns), never cells: a resample is a count of how often each bar was drawn, and all resampled
sums are one matrix product. 1,000 resamples of 81 sums over 58,000 bars take 0.2 s on one core;
drawing 622,000 cells takes minutes.
The sums are of whole numbers, hence exact and the same on every machine. `arch.bootstrap.StationaryBootstrap` is the oracle of the tests.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

MAX_GROUPS = 60_000  # more bars than this are drawn in groups of consecutive ones: 60 MB of counts
CHUNK = 100


@dataclass(frozen=True)
class Bootstrap:
    """Resampled bars.

    n_rows: bars; block: mean length of a block in bars. Above 60,000 bars block edges fall on multiples of `step` bars.
    """

    n_rows: int
    block: float
    n_resamples: int = 1_000
    seed: int = 42

    @property
    def step(self) -> int:
        """Bars that are always drawn together."""
        return max(1, -(-self.n_rows // MAX_GROUPS))

    @cached_property
    def counts(self) -> NDArray[np.uint8]:
        """How often each group of bars is drawn, [n_resamples, groups]; each row adds up to the number of groups."""
        rng = np.random.default_rng(self.seed)
        n = -(-self.n_rows // self.step)
        stop = min(1.0, self.step / max(self.block, 1.0))
        out = np.empty((self.n_resamples, n), np.uint8)
        for b in range(self.n_resamples):
            starts, lengths = _blocks(n, stop, rng)
            change = np.bincount(starts, minlength=2 * n + 1) - np.bincount(starts + lengths, minlength=2 * n + 1)
            drawn = np.cumsum(change[: 2 * n])
            out[b] = np.minimum(drawn[:n] + drawn[n:], 255)
        return out

    def sums(self, columns: NDArray) -> NDArray[np.float64]:
        """Sum `columns` [n_rows, K] over the bars of every resample: float64 [n_resamples, K].

        Whole numbers whose sums stay below 2^23 are exact in single precision, which takes half the time.
        """
        is_small = columns.dtype.kind in "iu" and int(np.abs(columns).max(initial=0)) * self.n_rows < 2**23
        kind = np.float32 if is_small else np.float64
        columns = columns.astype(kind)
        if self.step > 1:
            columns = np.add.reduceat(columns, np.arange(0, self.n_rows, self.step), axis=0)
        out = np.empty((self.n_resamples, columns.shape[1]))
        for b in range(0, self.n_resamples, CHUNK):
            out[b : b + CHUNK] = self.counts[b : b + CHUNK].astype(kind) @ columns
        return out


def _blocks(n: int, stop: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw starts and lengths of blocks that cover exactly n groups; a block may run over the end, back to the start."""
    lengths = np.empty(0, np.int64)
    while lengths.sum() < n:
        more = rng.geometric(stop, int(n * stop * 1.1) + 16)
        lengths = np.concatenate([lengths, np.minimum(more, n)])
    ends = np.minimum(np.cumsum(lengths), n)
    n_blocks = int(np.searchsorted(ends, n)) + 1
    lengths = np.diff(ends[:n_blocks], prepend=0)
    return rng.integers(0, max(n, 1), n_blocks), lengths


def block_length(series: list[NDArray[np.float64]], at_least: int) -> float:
    """Choose the mean block length in bars: the longest that Politis and White's rule asks for, at least the label's horizon.

    series: per-bar series, one a layer, whose dependence matters. Never above a tenth of the bars.
    """
    from arch.bootstrap import optimal_block_length

    n_rows = max((len(x) for x in series), default=0)
    wanted = [1.0]
    for x in series:
        if len(x) >= 50 and np.ptp(x) > 0.0:
            wanted.append(float(optimal_block_length(x)["stationary"].iloc[0]))
    longest = max(w for w in wanted if np.isfinite(w))
    return float(min(max(np.ceil(longest), at_least, 1), max(1.0, n_rows // 10)))


def interval(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the 2.5 and 97.5 % points down the first axis, NaN samples left out: [2, ...]."""
    known = np.where(np.isnan(samples).all(axis=0), 0.0, samples)
    points = np.nanquantile(known, [0.025, 0.975], axis=0)
    return np.where(np.isnan(samples).all(axis=0), np.nan, points)
