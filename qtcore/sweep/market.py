"""Shared market data of a sweep: bars, votes and indicators in blocks, with everything that no setting changes computed once."""

from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from qtcore.arbiter import score_cells
from qtcore.chain.patterns import number
from qtcore.chain.price import N_BIDS, N_PRICING, no_map
from qtcore.jit import kernel
from qtcore.rules import Reason
from qtcore.types import F8, I8, N_MODELS, Bars, Votes

BLOCK = 8_192  # cells of a block: long enough that 40 ns an array and call do not count, short enough for the second-level cache


@dataclass(frozen=True)
class Market:
    """What all rows of a sweep share, laid out in blocks of `size` bars.

    action [B, 5, C], confidence [B, 5, C], arbiter [B, 6, C], regime [B, 2, C]: C cells of a block, absent and NaN beyond the last bar.
    pattern, score [B, C]: number of the votes in the pattern table, score of the arbiter.
    probs [B, 3, C] of the meta model, [1, 3, 1] without one; problem [B, C] or [1, 1]: why it is silent, `Reason` codes.
    said [B, 5, 3 H C], the voters' probabilities, or [1, 5, 0], pricing [B, 3, C], or [1, 3, 0], and maps MAP [H * F], `first` in cells:
    what prices the opinion (`qtcore.chain.price`).
    cells [n, S] int8: the regime of every cell, 0 to 8, for metrics by regime; (0, 0) without them.
    traded [S]: quote volume of each symbol's last bar with any before the first bar here (`last_traded`), 0.0 where there was none.
    first: number of the first bar here since the account began, by which a book counts its rebalancings.
    kept: what `buffers` returned last.
    """

    bars: Bars
    size: int
    action: NDArray[np.int8]
    confidence: F8
    said: F8
    arbiter: F8
    regime: F8
    pattern: NDArray[np.int32]
    score: F8
    probs: F8
    problem: I8
    pricing: F8
    maps: NDArray
    cells: NDArray[np.int8]
    traded: F8
    first: int
    kept: list[tuple[NDArray[np.int8], F8, F8, I8]] = field(default_factory=list, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        bars: Bars,
        votes: Votes,
        arbiter: F8,
        regime: F8,
        cells: NDArray[np.int8] | None = None,
        probs: F8 | None = None,
        problem: I8 | None = None,
        pricing: F8 | None = None,
        maps: NDArray | None = None,
        traded: F8 | None = None,
        first: int = 0,
    ) -> Self:
        """Lay out checked bars (`as_bars`), votes (`as_votes`), the arbiter's inputs [6, n, S] and the regime's [2, n, S].

        cells: regimes, for metrics of each. probs [3, n, S], problem [n]: what the meta model said, and why it was silent. pricing
        [3, n, S] (`pricing_of`), maps (`maps_on`): for rows that read them. traded [S], first: where bars came before (`last_traded`).
        """
        n, n_symbols = bars.close.shape
        size = max(1, min(BLOCK // max(1, n_symbols), n))
        meta = np.full((1, 3, 1), np.nan) if probs is None else _blocked(probs, size, np.nan)
        silent = np.full((1, 1), int(Reason.MODEL_NOT_LOADED))
        if problem is not None:
            silent = np.ascontiguousarray(_blocked(np.repeat(problem, n_symbols).reshape(1, n, n_symbols), size, 0)[:, 0])
        action, confidence = _blocked(votes.action, size, -1), _blocked(votes.confidence, size, np.nan)
        planes = _blocked(arbiter, size, np.nan), _blocked(regime, size, np.nan)
        pattern, score = np.empty((len(action), action.shape[2]), np.int32), np.empty((len(action), action.shape[2]))
        prepare(action, planes[0], pattern, score)
        regimes = np.empty((0, 0), np.int8) if cells is None else np.require(cells, np.int8, ["C", "W"])
        prices = np.empty((1, N_PRICING, 0)) if pricing is None else _blocked(pricing, size, np.nan)
        known, said = no_map() if maps is None else maps, np.empty((1, N_MODELS, 0))
        if pricing is not None and votes.probs is not None:
            said = _blocked(votes.probs.reshape(N_MODELS, n, -1), size, np.nan)
        before = np.zeros(n_symbols) if traded is None else traded
        return cls(bars, size, action, confidence, said, *planes, pattern, score, meta, silent, prices, known, regimes, before, first)

    @property
    def n_horizons(self) -> int:
        """Number of horizons that the voters speak of."""
        return max(1, self.said.shape[2] // (3 * self.action.shape[2]))

    def buffers(self, n_threads: int) -> tuple[NDArray[np.int8], F8, F8, I8]:
        """Return the opinion that each thread laid out last, for it to use again.

        These are kind [T, n, S], sure [T, n, S], bids [T, 7, n * S] or [T, 7, 0] without prices, and its name [T]. It takes 2 ms for
        83,000 cells, a fifth of the time of 64 settings, and calls of few settings are many (2026-11).
        """
        if not self.kept or len(self.kept[0][3]) < n_threads:
            shape, n_priced = (n_threads, *self.bars.close.shape), self.bars.close.size if self.pricing.shape[2] else 0
            bids = np.empty((n_threads, N_BIDS, n_priced))
            self.kept[:] = [(np.empty(shape, np.int8), np.empty(shape), bids, np.full(n_threads, -1, np.int64))]
        return self.kept[0]


def _blocked(planes: NDArray, size: int, empty: float) -> NDArray:
    """Cut planes [K, n, S] into blocks of `size` bars, [B, K, size * S]; `empty` fills the last one up."""
    k, n, n_symbols = planes.shape
    n_blocks = max(1, -(-n // size))
    out = np.full((k, n_blocks * size, n_symbols), empty, planes.dtype)
    out[:, :n] = planes
    return np.ascontiguousarray(out.reshape(k, n_blocks, size * n_symbols).swapaxes(0, 1))


@kernel
def prepare(action, arbiter, pattern, score):
    """Work out what no row changes: pattern, score [B, C] of the votes and indicators, action [B, 5, C] and arbiter [B, 6, C]."""
    for b in range(len(action)):
        number(action[b], pattern[b], 0, pattern.shape[1])
        score_cells(arbiter[b], score[b], 0, score.shape[1])
