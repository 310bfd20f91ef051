"""Surrogate candles from real ones, all symbols of a row together: markets in which nothing can be foreseen.

| kind      | what is done                                      | keeps                                   | destroys            |
| --------- | ------------------------------------------------- | --------------------------------------- | ------------------- |
| sign_flip | bars are mirrored at random, all symbols together | sizes, clusters of volatility, volume   | direction, drift    |
| phase     | one random angle a frequency, for all symbols     | spectra, correlations, volume, wicks    | clusters, links to volume |
| bootstrap | rows are drawn with replacement, in blocks        | candles; what happens inside a block    | order of the blocks |

What predicts within a block survives `bootstrap`, so its default is blocks of one row; longer ones keep clusters of volatility and make
the test blind to edges that are shorter than they are. Holes stay where they were (`bootstrap`: go with their row).
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, Bars
from research.data.grid import filled
from research.errors import ConfigError

KINDS = ("sign_flip", "phase", "bootstrap")


@dataclass(frozen=True)
class Moves:
    """Candles as moves [n, S], 0.0 at holes: log of the open over the last close, and of close, high and low over the open."""

    gap: F8
    body: F8
    up: F8
    down: F8


def surrogate(bars: Bars, kind: str = "sign_flip", seed: int = 0, block: float = 1.0) -> Bars:
    """Make a surrogate market of `bars`: the same times, symbols and first prices.

    block: mean length in rows of what is drawn or mirrored together (`sign_flip`, `bootstrap`). Raises UserError on an unknown kind.

    >>> from research.data import simulate
    >>> surrogate(simulate("random_walk", n_bars=50), "phase", seed=1).n
    50
    """
    check_kind(kind, block)
    rng, holes = np.random.default_rng([seed, KINDS.index(kind)]), np.isnan(bars.close)
    moves = moves_of(bars)
    if kind == "bootstrap":
        rows = _drawn(bars.n, block, rng)
        drawn = Moves(*(np.ascontiguousarray(plane[rows]) for plane in vars(moves).values()))
        funding = None if bars.funding is None else np.ascontiguousarray(bars.funding[rows])
        return candles_of(replace(bars, volume=np.ascontiguousarray(bars.volume[rows]), funding=funding), drawn, holes[rows])
    made = _mirrored(moves, bars.n, block, rng) if kind == "sign_flip" else _rephased(moves, rng)
    return candles_of(bars, made, holes)


def check_kind(kind: str, block: float) -> None:
    """Raise UserError on an unknown kind, or a mean length in rows below one."""
    if kind not in KINDS:
        raise ConfigError(f"kind (--kind) must be one of {', '.join(KINDS)}, was {kind!r}")
    if not 1.0 <= block < math.inf:
        raise ConfigError(f"block (--block) must be 1 row or more, was {block:g}")


def moves_of(bars: Bars) -> Moves:
    """Take candles apart; `candles_of` puts them together again."""
    before = np.vstack([np.full((1, bars.close.shape[1]), np.nan), filled(bars.close, np.nan)[:-1]])

    def move(to: F8, base: F8) -> F8:
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.nan_to_num(np.log(to / base), nan=0.0, posinf=0.0, neginf=0.0)

    return Moves(move(bars.open, before), *(move(x, bars.open) for x in (bars.close, bars.high, bars.low)))


def candles_of(bars: Bars, moves: Moves, holes: NDArray[np.bool_]) -> Bars:
    """Build candles from moves, from each symbol's first open on; NaN at `holes`. Times, volume and funding are those of `bars`."""
    first = np.argmax(~np.isnan(bars.open), axis=0)
    start = np.log(bars.open[first, np.arange(len(first))])
    live = ~holes
    gap = moves.gap * live
    gap[np.argmax(live, axis=0), np.arange(gap.shape[1])] = 0.0
    close = start + np.cumsum(gap + moves.body * live, axis=0)
    open_ = close - moves.body * live
    planes = (np.exp(np.where(holes, np.nan, x)) for x in (open_, open_ + moves.up, open_ + moves.down, close))
    open_p, high, low, close_p = (np.ascontiguousarray(plane) for plane in planes)
    high, low = np.maximum(high, np.maximum(open_p, close_p)), np.minimum(low, np.minimum(open_p, close_p))  # exp rounds
    volume = np.where(holes, np.nan, np.nan_to_num(bars.volume))
    return replace(bars, open=open_p, high=high, low=low, close=close_p, volume=volume)


def _drawn(n: int, block: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Rows of a stationary bootstrap: each row follows the one before, or with chance 1 / block a new place begins."""
    fresh = rng.random(n) < 1.0 / block
    fresh[0] = True
    begin = np.flatnonzero(fresh)
    start = rng.integers(0, n, len(begin))
    run = np.cumsum(fresh) - 1
    return np.asarray((start[run] + np.arange(n) - begin[run]) % n, np.int64)


def _mirrored(moves: Moves, n: int, block: float, rng: np.random.Generator) -> Moves:
    """Mirror stretches of rows at random: what rose falls, highs become lows."""
    fresh = rng.random(n) < 1.0 / block
    sign = rng.choice([-1.0, 1.0], n)[np.cumsum(fresh) - fresh[0]][:, None]
    up, down = np.where(sign > 0.0, moves.up, -moves.down), np.where(sign > 0.0, moves.down, -moves.up)
    return Moves(sign * moves.gap, sign * moves.body, up, down)


def _rephased(moves: Moves, rng: np.random.Generator) -> Moves:
    """Turn each frequency of the returns by one angle for all symbols; gaps and the lengths of wicks stay with their row."""
    returns = moves.gap + moves.body
    n = len(returns)
    spectrum = np.fft.rfft(returns, axis=0)
    turn = np.exp(2j * np.pi * rng.random(len(spectrum)))
    turn[0] = 1.0
    if n % 2 == 0:
        turn[-1] = 1.0
    body = np.fft.irfft(spectrum * turn[:, None], n, axis=0) - moves.gap
    above, below = moves.up - np.maximum(moves.body, 0.0), moves.down - np.minimum(moves.body, 0.0)
    return Moves(moves.gap, body, np.maximum(body, 0.0) + above, np.minimum(body, 0.0) + below)
