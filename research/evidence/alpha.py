"""Alpha: what an account earned beyond the equal-weight market, in blocks of time whose signs a test may flip.

`spec` D-98. The net return of each tested day is regressed by least squares, with constant coefficients, on three series: the market's
return m, m / sigma and m / sigma^2, sigma^2 being the exponentially weighted variance of m (0.94 a day) that was known the day before. With
m alone a book sized by 1 / volatility without any skill would be an edge: it holds more of a rising market on calm days. Never on the
account's own exposure bar by bar: for one symbol that is the account itself, and all skill of timing would vanish.

A block is five UTC days, `day // 5`, whoever asks. Where fewer than LEAST_BLOCKS of these cover the test, it is cut into PIECES or more
equal pieces of time, and three of them make a block, named by its start (ns UTC).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from qtcore.sweep.hedge import Hedged, hedge_rows
from qtcore.types import F8, I8, NS_PER_DAY, Bars
from research.data import bars_per_year
from research.runs.benchmark import market_returns
from research.runs.record import RunRecord
from research.runs.tables import tested_rows

DECAY = 0.94  # of the market's variance, a day (RiskMetrics 1996)
FIRST_PERIODS = 20  # whose mean square it begins with
BLOCK_DAYS, BLOCK_PIECES = 5, 3
LEAST_BLOCKS, PIECES = 20, 60
COLLINEAR = 1e-6  # of a series' length; a series that others explain but for this is left out


@dataclass(frozen=True)
class Outcome:
    """What P accounts earned, as the test sees it.

    keys [B]: names of the blocks; units [P, B]: hedged sums of the blocks, whole numbers, each row of length `unit_of(B)`, 0 where an
    account never moved or is the market; measured [P, Hedged]: t value, alpha and more.
    """

    keys: I8
    units: NDArray[np.int32]
    measured: F8

    @property
    def t(self) -> F8:
        """T value of each account [P], NaN where it never moved or is the market."""
        values: F8 = self.measured[:, Hedged.T]
        return values

    def rows(self, at: NDArray[np.int64]) -> "Outcome":
        """Return some of the accounts."""
        return Outcome(self.keys, self.units[at], self.measured[at])


def unit_of(n_blocks: int) -> int:
    """Return what stands for 1 in the sums of so many blocks: any signed sum of them stays below 2**24, where float32 is exact."""
    return int(2 ** (23 - (int(n_blocks - 1).bit_length() + 1) // 2))


@dataclass(frozen=True)
class Hedge:
    """Periods, blocks and market of a test on the bars [first, ...).

    ends [D]: last bar of each period; keys [B]: names of the blocks; edges [B + 1]: their first periods, and D; basis [K, D], weights [D]:
    as `qtcore.sweep.hedge.hedge_rows` takes them; is_daily: whether periods are days; per_year: periods a year.
    """

    first: int
    ends: I8
    keys: I8
    edges: I8
    basis: F8
    weights: F8
    is_daily: bool
    per_year: float

    @classmethod
    def of(cls, bars: Bars, rows: slice) -> Self:
        """Lay out the tested `rows` of `bars`, one or more; the market's variance knows the bars before them."""
        first, stop = rows.start, rows.stop
        period, key, decay = _periods(bars, first, stop)
        every = np.flatnonzero(np.append(period[1:] != period[:-1], True))
        ends = every[every >= first]
        basis, weights = _hedge_of(_factors(market_returns(bars.close[:stop], every), decay)[:, len(every) - len(ends) :])
        block = key[ends]
        edges = np.flatnonzero(np.append(True, block[1:] != block[:-1]))
        per_year = bars_per_year(bars) * len(ends) / (stop - first)
        return cls(first, ends, block[edges], np.append(edges, len(ends)), basis, weights, decay == DECAY, per_year)

    def outcome(self, equity: F8, before: F8) -> Outcome:
        """Hedge accounts: equity [P, D] at `ends`, and [P] before the tested rows."""
        n, n_blocks = len(equity), len(self.keys)
        units, measured = np.empty((n, n_blocks), np.int32), np.empty((n, len(Hedged)))
        length = max(1, round(len(self.ends) / n_blocks))  # sessions are fewer than days
        given = (np.ascontiguousarray(array, np.float64) for array in (equity, before, self.basis, self.weights))
        hedge_rows(*given, self.edges, length, float(unit_of(n_blocks)), units, measured)
        return Outcome(self.keys, units, measured)

    def blocks_of(self, is_held: NDArray[np.bool_]) -> int:
        """Count the blocks in which something was held. is_held [n]: of every bar."""
        begins = np.append(self.first, self.ends[self.edges[1:-1] - 1] + 1)
        return int(np.logical_or.reduceat(is_held[: self.ends[-1] + 1], begins).sum())


def hedged(run: RunRecord) -> tuple[Hedge, Outcome]:
    """Hedge a run: what its test is laid out on, and one row."""
    rows = tested_rows(run)
    hedge = Hedge.of(run.bars, rows)
    before = run.result.equity[rows.start - 1] if rows.start else run.params.broker.initial_cash
    return hedge, hedge.outcome(run.result.equity[None, hedge.ends], np.array([before], np.float64))


def _periods(bars: Bars, first: int, stop: int) -> tuple[I8, I8, float]:
    """Return the number of the period of each bar up to `stop`, the name of its block, and the decay of the market's variance a period."""
    day = (bars.close_time[:stop] - 1) // NS_PER_DAY
    block = day // BLOCK_DAYS
    if block[-1] - block[first] + 1 >= LEAST_BLOCKS:
        return day, block, DECAY
    start, interval = int(bars.open_time[first]), int(bars.interval)
    size = interval * max(1, (int(bars.close_time[stop - 1]) - start) // interval // PIECES)
    piece = (bars.close_time[:stop] - 1 - start) // size
    return piece, start + piece // BLOCK_PIECES * BLOCK_PIECES * size, DECAY ** (size / NS_PER_DAY)


def _factors(market: F8, decay: float) -> F8:
    """Return m, m / sigma and m / sigma^2 of the market's returns m [D], as [3, D]; 0 where nothing ever moved."""
    variance = np.empty(len(market))
    known = float(np.mean(market[:FIRST_PERIODS] ** 2))
    for d, m in enumerate(market.tolist()):
        variance[d] = known
        known = decay * known + (1.0 - decay) * m * m
    deviation = np.sqrt(np.where(variance > 0.0, variance, np.inf))
    return np.stack([market, market / deviation, market / deviation**2])


def _hedge_of(factors: F8) -> tuple[F8, F8]:
    """Return what factors [3, D] explain beside a constant (`basis`), and the `weights` whose mean with returns is their alpha.

    Sums are numpy's own, not those of BLAS, whose bits depend on the number of threads.
    """
    n = factors.shape[1]
    one = np.ones(n)
    rest, raw, centred = one, list[F8](), list[F8]()
    for factor in factors:
        raw += _remainder(factor, raw)
        centred += _remainder(factor - factor.mean(), centred)
    for row in raw:
        rest = rest - np.sum(one * row) * row
    if len(raw) > len(centred) or not np.sum(rest) > COLLINEAR * n:  # the market is a constant
        return np.empty((0, n)), one
    return np.array(centred).reshape(-1, n), rest * (n / np.sum(rest))


def _remainder(series: F8, basis: list[F8]) -> list[F8]:
    """Return what of a series its orthonormal `basis` leaves, of length 1; nothing where too little is left."""
    size = np.sqrt(np.sum(series * series))
    if not size > 0.0:
        return []
    left = series / size
    for _ in range(2):  # twice is enough (Kahan)
        for row in basis:
            left = left - np.sum(left * row) * row
    length = np.sqrt(np.sum(left * left))
    return [left / length] if length > COLLINEAR else []
