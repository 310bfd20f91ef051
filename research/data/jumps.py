"""Price jumps: a candle is judged by itself and by what came before it, so that a file and a live feed name the same ones.

A move is how many times larger the larger of two closes is than the smaller, less 1; candles that are masked are no closes. It is a jump
where it is above 10 % and above 20 times the usual move, the median of the symbol's last 100 moves before it (at least 5 of them).
"""

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8

JUMP, USUAL_MOVES = 0.10, 20.0
REMEMBERED, LEAST = 100, 5  # moves that make a usual one


def is_jump(move: F8, past: F8) -> NDArray[np.bool_]:
    """Say which moves [N] jump against the moves before each of them [N, K], NaN where there was none. A NaN move does not."""
    out = np.zeros(len(move), bool)
    asked = np.flatnonzero(move > JUMP)  # false for NaN
    asked = asked[(~np.isnan(past[asked])).sum(axis=1) >= LEAST]
    out[asked] = move[asked] > USUAL_MOVES * np.nanmedian(past[asked], axis=1)
    return out


def moves_of(before: F8, close: F8) -> F8:
    """Return the move from each close to the next; NaN where one of them is missing."""
    return np.maximum(close / before, before / close) - 1.0


class Moves:
    """The last close and the last moves of S symbols, carried on from row to row or from block to block."""

    def __init__(self, n_symbols: int) -> None:
        self._last, self._past, self._at = np.full(n_symbols, np.nan), np.full((n_symbols, REMEMBERED), np.nan), np.zeros(n_symbols, int)

    def step(self, close: F8) -> NDArray[np.bool_]:
        """Take the next row of closes [S], NaN at holes; say which of them jump."""
        move = moves_of(self._last, close)
        jumps = is_jump(move, self._past)
        moved = np.flatnonzero(move == move)
        self._past[moved, self._at[moved]] = move[moved]
        self._at[moved] = (self._at[moved] + 1) % REMEMBERED
        self._last = np.where(close == close, close, self._last)
        return jumps

    def block(self, code: NDArray[np.int32], close: F8) -> NDArray[np.bool_]:
        """Take the next closes [N] of the symbols `code` [N], sorted by symbol, then time, NaN at holes; say which of them jump."""
        jumps = np.zeros(len(close), bool)
        edges = np.searchsorted(code, np.arange(len(self._last) + 1))
        for s in range(len(self._last)):
            mine = edges[s] + np.flatnonzero(~np.isnan(close[edges[s] : edges[s + 1]]))
            if not len(mine):
                continue
            closes = np.append(self._last[s], close[mine])
            known = np.append(np.append(self._past[s, self._at[s] :], self._past[s, : self._at[s]]), moves_of(closes[:-1], closes[1:]))
            first = REMEMBERED + int(np.isnan(known[REMEMBERED]))  # the very first close has not moved
            asked = np.flatnonzero(known[first:] > JUMP)
            known = np.delete(known, REMEMBERED) if first > REMEMBERED else known
            windows = np.lib.stride_tricks.sliding_window_view(known, REMEMBERED)
            for part in np.array_split(asked, len(asked) // 8_192 + 1):
                jumps[mine[part + first - REMEMBERED]] = is_jump(known[part + REMEMBERED], windows[part])
            newest = known[-REMEMBERED:]
            self._past[s], self._at[s], self._last[s] = newest, 0, closes[-1]
        return jumps
