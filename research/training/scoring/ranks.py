"""Rank correlations of what was said with what came, and the lower ends of their intervals.

Ranks are taken symbol by symbol, so neither drift nor volatility of a symbol counts as knowledge.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, Action
from research.training.scoring.bootstrap import Bootstrap
from research.training.scoring.opinions import Opinion

Z = 2.58  # standard errors from a figure to the lower end of its interval: one-sided 99.5 %
Part = tuple[slice, slice] | NDArray[np.bool_]  # rows and symbols, or a mask of cells [n, S]
MOST_LAGS = 128  # at which the memory of a lean is looked at; farther ones are stepped over
MIN_CELLS = 30  # of a symbol, below which it has no ranks


def lean(opinion: Opinion) -> F8:
    """Say which way and how strongly, [n, S]: p_buy - p_sell, or the confidence with the sign of the action; NaN where nothing was said."""
    side: Any
    if opinion.probs is not None:
        side = opinion.probs[..., Action.BUY] - opinion.probs[..., Action.SELL]
    else:
        side = (opinion.action - 1.0) * np.where(opinion.action == Action.HOLD, 0.0, opinion.confidence)
    known: F8 = np.where(opinion.action >= 0, side, np.nan)
    return known


def standard_ranks(plane: F8) -> F8:
    """Rank the known values of every symbol, ties in the middle, to mean 0 and variance 1; NaN where unknown, few or all alike, [n, S]."""
    from scipy.stats import rankdata

    out = np.full(plane.shape, np.nan)
    for s, column in enumerate(plane.T):
        known = column == column
        if np.count_nonzero(known) < MIN_CELLS:
            continue
        ranks = rankdata(column[known])
        if (spread := ranks.std()) > 0.0:
            out[known, s] = (ranks - ranks.mean()) / spread
    return out


def correlations(pairs: Sequence[tuple[F8, F8, int]], horizon: int, bootstrap: Bootstrap) -> list[tuple[float, float]]:
    """Correlate u[t] with v[t + lag], planes of standard ranks [n, S], over cells where both are known: value and lower end of each pair.

    The bootstrap draws what each bar adds to the correlation r to first order, `u v - r (u^2 + v^2) / 2`. horizon: bars that v reads; the
    end is never above that of Fisher's transform for as many pairs as are `independent`. NaN where no cell has both.
    """
    adds, found = np.zeros((bootstrap.n_rows, len(pairs))), []
    for k, (u, v, lag) in enumerate(pairs):
        shared = max(0, len(u) - abs(lag))
        x, y = u[max(0, -lag) :][:shared], v[max(0, lag) :][:shared]
        both = ~(np.isnan(x) | np.isnan(y))
        x, y = np.where(both, x, 0.0), np.where(both, y, 0.0)
        a, b = np.vdot(x, x), np.vdot(y, y)
        if not a * b > 0.0:
            found.append((np.nan, np.nan))
            continue
        r = float(np.vdot(x, y) / np.sqrt(a * b))
        squares = np.einsum("ns,ns->n", x, x) / a + np.einsum("ns,ns->n", y, y) / b
        adds[max(0, -lag) :][: len(x), k] = np.einsum("ns,ns->n", x, y) / np.sqrt(a * b) - 0.5 * r * squares
        found.append((r, fisher(r, independent(x, both, horizon), Z)))
    errors = bootstrap.sums(adds).std(axis=0)
    return [(r, min(r - Z * float(error), most)) for (r, most), error in zip(found, errors)]


def ranks_in(plane: F8, parts: Sequence[Part]) -> list[F8]:
    """Rank a plane [n, S] within each of the parts."""
    return [standard_ranks(np.where(part, plane, np.nan) if isinstance(part, np.ndarray) else plane[part]) for part in parts]


def within(said: Sequence[F8], came: Sequence[F8], horizon: int) -> list[tuple[float, float]]:
    """Correlate the ranks of two planes within parts of them (`ranks_in`): value and lower end of each, NaN without ranks.

    The lower ends are those of as many looks: all of them together are wrong as seldom as one figure is.
    """
    from scipy.stats import norm

    z = float(norm.isf(norm.sf(Z) / max(len(said), 1)))
    found = []
    for u, v in zip(said, came):
        both = ~(np.isnan(u) | np.isnan(v))
        u, v = np.where(both, u, 0.0), np.where(both, v, 0.0)
        size = float(np.sqrt(np.vdot(u, u) * np.vdot(v, v)))
        r = float(np.vdot(u, v)) / size if size > 0.0 else np.nan
        found.append((r, fisher(r, independent(u, both, horizon), z)))
    return found


def fisher(r: float, n: float, z: float) -> float:
    """Return the lower end of a correlation of `n` independent pairs, `z` standard errors of Fisher's transform below it."""
    return float(np.tanh(np.arctanh(min(r, 1.0 - 1e-12)) - z / np.sqrt(max(n - 3.0, 1.0))))


def independent(x: F8, known: NDArray[np.bool_], horizon: int) -> float:
    """Count the independent pairs of x with what reads `horizon` bars ahead of each, by Bartlett's formula; symbols of a bar are one pair.

    Neighbouring windows share bars, which makes fewer pairs only as far as x stays what it was: a side that is kept counts once a window,
    one that is drawn anew counts on every bar. x [n, S]: 0 where not `known`.

    >>> kept, anew = np.ones((400, 1)), np.random.default_rng(0).choice([-1.0, 1.0], (400, 1))
    >>> round(independent(kept, kept > 0.0, 4)), round(independent(anew, kept > 0.0, 4))
    (100, 342)
    """
    squares, shared, step = x * x, 1.0, -(-horizon // MOST_LAGS)
    for k in range(step, min(horizon, len(x)), step):
        size = np.sqrt(float(np.vdot(squares[k:], known[:-k])) * float(np.vdot(squares[:-k], known[k:])))
        shared += 2.0 * step * (1.0 - k / horizon) * max(float(np.vdot(x[k:], x[:-k])) / size, 0.0) if size > 0.0 else 0.0
    return float(np.count_nonzero(known.any(axis=1)) / shared)
