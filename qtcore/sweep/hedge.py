"""Hedged block sums: what accounts earned beyond the market, summed over blocks of time, and the t value of these sums.

The returns of an account over periods of time are regressed by least squares on a constant and on the market; the hedged returns are the
residuals and alpha, weighted so that their mean is alpha, what was earned beyond the market. `research.evidence.alpha` lays out market and
blocks and says what the t value is compared with. One account after the other: its bits do not depend on who stands beside it. Block sums
are whole numbers, and so small that their sums with any signs are exact in single precision, in any order.
"""

import math
from enum import IntEnum

import numpy as np

from qtcore.jit import kernel, prange

MAX_LAG = 0.8  # autocorrelation that is corrected for at most
MARKET = 1e-6  # share of the variance that the market leaves unexplained; below it an account is the market


class Hedged(IntEnum):
    """Columns of what is measured of an account."""

    T = 0  # made smaller for skewness and autocorrelation; NaN where the account never moved or is the market
    T_RAW = 1
    ALPHA = 2  # mean per period
    ERROR = 3  # standard error of alpha, widened for autocorrelation
    SKEW = 4  # of the block sums
    LAG = 5  # autocorrelation of hedged returns from one period to the next, as far as it is corrected for
    UNEXPLAINED = 6  # variance that the market leaves, a share; 0 where the account never moved


@kernel(parallel=True)
def hedge_rows(equity, first, basis, weights, edges, length, unit, sums, measured):
    """Hedge accounts and sum them by block.

    equity [P, D]: at the ends of D periods; first [P]: before them. basis [K, D]: what the market explains beside a constant, orthonormal
    rows of mean 0; weights [D]: of mean 1, their mean with an account's returns is its alpha. edges [B + 1]: first period of each block,
    and D; length: periods of a block; unit: the number that stands for 1. Outputs: sums [P, B] int32, each row of length `unit`;
    measured [P, Hedged].
    """
    for p in prange(len(equity)):
        hedge_row(equity[p], first[p], basis, weights, edges, length, unit, sums[p], measured[p])


@kernel(allocates=True)
def hedge_row(equity, first, basis, weights, edges, length, unit, sums, measured):
    """Hedge one account; every array as in `hedge_rows`, without the first axis of those of accounts."""
    n, n_blocks = len(equity), len(sums)
    left, explained, blocks = np.empty(n), np.zeros(len(basis)), np.zeros(n_blocks)
    last, total, alpha = first, 0.0, 0.0
    for d in range(n):
        left[d] = equity[d] / last - 1.0 if last > 0.0 else 0.0
        last = equity[d]
        total += left[d]
        alpha += weights[d] * left[d]
        for k in range(len(basis)):
            explained[k] += basis[k, d] * left[d]
    mean, alpha, spread, rest = total / n, alpha / n, 0.0, 0.0
    for d in range(n):
        left[d] -= mean
        spread += left[d] * left[d]
        for k in range(len(basis)):
            left[d] -= explained[k] * basis[k, d]
        rest += left[d] * left[d]
    sums[:] = 0
    measured[:] = 0.0
    measured[Hedged.T] = np.nan
    measured[Hedged.ALPHA] = alpha
    measured[Hedged.UNEXPLAINED] = rest / spread if spread > 0.0 else 0.0
    if not measured[Hedged.UNEXPLAINED] >= MARKET:
        return
    scatter, product, squares = 0.0, 0.0, 0.0
    for d in range(n):
        left[d] = weights[d] * (left[d] + alpha)
        scatter += (left[d] - alpha) * (left[d] - alpha)
        if d > 0:
            product += (left[d] - alpha) * (left[d - 1] - alpha)
    for b in range(n_blocks):
        for d in range(edges[b], edges[b + 1]):
            blocks[b] += left[d]
        squares += blocks[b] * blocks[b]
    size, whole = math.sqrt(squares), 0
    for b in range(n_blocks):
        sums[b] = np.rint(blocks[b] / size * unit)
        whole += sums[b]
    centre, second, third = alpha * n / n_blocks, 0.0, 0.0
    for b in range(n_blocks):
        gap = blocks[b] - centre
        second += gap * gap
        third += gap * gap * gap
    second /= n_blocks
    skew = third / n_blocks / (second * math.sqrt(second)) if second > 0.0 else 0.0
    lag = min(max(product / scatter + 1.0 / n, 0.0), MAX_LAG)
    t, factor = whole / unit, lag_rule(lag, length)
    measured[Hedged.T] = min(t, hall_rule(t, skew, n_blocks)) / factor
    measured[Hedged.T_RAW] = t
    measured[Hedged.ERROR] = size / n * factor
    measured[Hedged.SKEW] = skew
    measured[Hedged.LAG] = lag


@kernel(inline=True)
def hall_rule(t, skew, n):
    """Correct the t value of n sums, not centred, for their skewness: Hall's transform (Hall 1992, "On the removal of skewness")."""
    centred = t / math.sqrt(max(1.0 - t * t / n, 1e-9))
    square = centred * centred
    cube = skew * skew * square * centred / (27.0 * n)
    moved = centred + skew * square / (3.0 * math.sqrt(n)) + cube + skew / (6.0 * math.sqrt(n))
    return moved / math.sqrt(1.0 + moved * moved / n)


@kernel(inline=True)
def lag_rule(lag, length):
    """By how much autocorrelation `lag`, that of an AR(1), makes the long-run deviation larger than that of blocks of `length` periods."""
    seen, power = 1.0, 1.0
    for k in range(1, length):
        power *= lag
        seen += 2.0 * (1.0 - k / length) * power
    return math.sqrt((1.0 + lag) / (1.0 - lag) / seen)
