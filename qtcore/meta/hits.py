"""Backing of a bet by the recent hit rates of the voters, an input of the meta layer of mode `bet`. Are those right of late for it?

A result counts at the close that ends its horizon, so nothing looks forward. What is remembered of a bar is five leans and the close.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from qtcore.jit import kernel
from qtcore.types import F8, N_MODELS

# A week of hourly bars. The rate of a coin strays by 0.04, by 0.06 where leans last as long as a horizon of 5 bars, by 0.10 at one of 24;
# in a mean of 48 bars by 0.07, 0.12 and 0.17 (2026-12).
HIT_SPAN = 168  # bars
HIT_WEIGHT = 2.0 / (HIT_SPAN + 1.0)  # of the newest result
UNTRIED = 0.5  # before the first result


@kernel(inline=True)
def hit_rule(rate, lean, begun, close, weight):
    """Move `rate` towards 1.0 where `lean` had the side of the move from `begun` to `close`, towards 0.0 where it had the other.

    No side, no move and NaN do not count.
    """
    is_up, is_down = close > begun, close < begun
    bought, sold = lean > 0.0, lean < 0.0
    hit = 1.0 if (is_up & bought) | (is_down & sold) else 0.0
    return rate + weight * (hit - rate) if (is_up | is_down) & (bought | sold) else rate


@kernel(inline=True)
def backing_rule(rate, lean, side):
    """Return how often, by a voter's hit rate, `side` is right: the rate where it leans there, the rest of 1.0 where it leans away.

    A regression cannot use the bare rate, which is as good for the bet of a voter as against the bet of another.
    """
    agrees = lean * side
    return rate if agrees > 0.0 else (1.0 - rate if agrees < 0.0 else UNTRIED)


@kernel
def count_hits(lean, close, rate, before, weight, out):
    """Write how every voter's hit rate backs the side that the voters together lean to, at each close, into out [5, n, S].

    The side is that of the sum of leans, whatever the weights of the ensemble: settings of a sweep share the answers of the meta layer.

    lean [5, n, S]: p_buy - p_sell, NaN absent; close [n, S], NaN where there was no bar. rate [5, S], and before [h, 6, S]: leans and
    closes of the last h bars, carried on in place. weight: of the newest result.
    """
    n, h, n_symbols = close.shape[0], before.shape[0], close.shape[1]
    for t in range(n):
        for m in range(N_MODELS):
            for s in range(n_symbols):
                said = before[t, m, s] if t < h else lean[m, t - h, s]
                begun = before[t, N_MODELS, s] if t < h else close[t - h, s]
                rate[m, s] = hit_rule(rate[m, s], said, begun, close[t, s], weight)
        for s in range(n_symbols):
            side = 0.0
            for m in range(N_MODELS):
                side += lean[m, t, s] if lean[m, t, s] == lean[m, t, s] else 0.0
            for m in range(N_MODELS):
                out[m, t, s] = backing_rule(rate[m, s], lean[m, t, s], side)
    for i in range(h):
        row = n - h + i  # of the block, where it is that long
        for s in range(n_symbols):
            for m in range(N_MODELS):
                before[i, m, s] = before[i + n, m, s] if row < 0 else lean[m, row, s]
            before[i, N_MODELS, s] = before[i + n, N_MODELS, s] if row < 0 else close[row, s]


@dataclass(frozen=True)
class Hits:
    """Hit rates, carried from block to block. rate [5, S]; before [h, 6, S]: leans and closes of the last h bars."""

    rate: F8
    before: F8

    @classmethod
    def fresh(cls, horizon: int, n_symbols: int) -> Self:
        """Return what is known before the first bar. horizon: bars after which a lean was right or wrong, 0 where nobody asks."""
        return cls(np.full((N_MODELS, n_symbols), UNTRIED), np.full((horizon, N_MODELS + 1, n_symbols), np.nan))

    def advance(self, lean: F8, close: F8) -> F8:
        """Take the next block and return each voter's backing of the bet at its closes, [5, n, S]. lean [5, n, S], close [n, S]."""
        out = np.empty(lean.shape)
        count_hits(lean, close, self.rate, self.before, HIT_WEIGHT, out)
        return out
