"""Stretches of longer bars in a symbol: daily rows before, after or between hours, or at times of their own."""

import math

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8, NS_PER_DAY, NS_PER_MINUTE
from research.data.lengths import CHANCE, FEW, two_lengths
from research.data.rows import Rows
from research.errors import DataError

LONG = 3  # intervals that a step between longer bars has at least
WIDE = 2.0  # times the usual range that longer bars have at least; the first and last bar of a session have less
CLOCK = 60 * NS_PER_MINUTE  # by which a day differs from 24 hours where clocks change


def check_stretches(rows: Rows, interval: int) -> None:
    """Refuse a stretch of longer bars: days before, after or between hours, with weekends and holidays between them. Rows are sorted.

    Raises UserError with both spans.
    """
    step = np.where(np.diff(rows.code) == 0, np.diff(rows.time), 0)
    edges = np.flatnonzero(np.diff((step >= LONG * interval).astype(np.int8), prepend=0, append=0)).reshape(-1, 2)
    for start, stop in edges[np.diff(edges, axis=1)[:, 0] >= FEW].tolist():
        own = np.flatnonzero(rows.code == rows.code[start])
        _check(rows, interval, own, np.arange(start, stop + 1), "resample first, or keep one part of it with --from and --to")


def check_phases(rows: Rows, interval: int) -> None:
    """Refuse longer bars among those of `interval` that open at times of their own: days at 00:30 among hours. Rows are sorted.

    Raises UserError with both spans.
    """
    phases, counts = np.unique(rows.time % interval, return_counts=True)
    if len(phases) < 2:
        return
    is_off = rows.time % interval != phases[np.argmax(counts)]
    for code in np.unique(rows.code[is_off]).tolist():
        own = np.flatnonzero(rows.code == code)
        _check(rows, interval, own, own[is_off[own]], "keep the rows of one, or resample first")


def _check(rows: Rows, interval: int, own: I8, some: I8, remedy: str) -> None:
    """Raise UserError where `some` of a symbol's `own` rows are longer bars.

    Their steps are whole multiples of their length, an hour more or less where clocks change, and most are that length. Where candles are
    missing by chance, a step is such a multiple, m bars, with a chance of at most 1/m (3/m with the hour), so k in a row come among n steps
    with at most n times its k-th power. A market that trades once a day for a while has the same times: what tells it apart is the range,
    that of a bar of b others being sqrt(b) times theirs.
    """
    step = np.diff(rows.time[some])
    lengths, counts = np.unique(step, return_counts=True)
    if len(step) < FEW or 2 * counts.max() < len(step) - 2:
        return
    length = int(lengths[np.argmax(counts)])
    slack = CLOCK if length >= NS_PER_DAY else 0
    is_whole = (np.abs(step - np.rint(step / length) * length) <= slack) & (step >= length - slack)
    while len(step) and not is_whole[0]:  # from the last of the shorter bars to the first longer one
        step, is_whole, some = step[1:], is_whole[1:], some[1:]
    while len(step) and not is_whole[-1]:
        step, is_whole, some = step[:-1], is_whole[:-1], some[:-1]
    others, base = np.setdiff1d(own, some), length / (interval + 2 * slack)
    if base <= 1.0 or len(others) < 2 or not is_whole.all() or len(step) < max(FEW, math.log(len(own) / CHANCE, base)):
        return
    ordinary, spread = _ranges(rows, others), _ranges(rows, some)
    usual = float(np.median(ordinary)) if len(ordinary) else 0.0
    n_bars = len(others) * length / max(length, int(rows.time[others[-1]] - rows.time[others[0]]))
    if usual <= 0.0 or not len(spread) or np.median(spread) < max(WIDE, 0.7 * math.sqrt(n_bars)) * usual:
        return
    spans = (interval, rows.time[others[[0, -1]]].tolist()), (length, rows.time[some[[0, -1]]].tolist())
    raise DataError(f"{two_lengths(rows.symbols[int(rows.code[some[0]])], *spans)}; {remedy}")


def _ranges(rows: Rows, at: NDArray[np.int64]) -> F8:
    """Logarithm of high over low, where it is known."""
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = np.log(rows.values[1, at] / rows.values[2, at])
    return spread[np.isfinite(spread)]
