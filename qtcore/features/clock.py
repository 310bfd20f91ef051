"""Features of the clock: where a bar ends in the day or the week, and what its hour of the week was like before."""

import math

import numpy as np

from qtcore.jit import kernel
from qtcore.types import NS_PER_HOUR

HOURS = 168  # of a week
MONDAY = 96 * NS_PER_HOUR  # the first one after 1970-01-01
MEMORY = 8.0  # weeks


@kernel
def turn(memory, close_time, period, quarter, out, start, symbols, rows):
    """Write the sine of the time of the close in a cycle of `period` hours that begins on a Monday; quarter 0.25: its cosine."""
    length = int(period) * NS_PER_HOUR
    for t in range(rows):
        share = float((close_time[start + t] - MONDAY) % length) / float(length)
        angle = math.sin(2.0 * math.pi * (share + quarter))
        row = np.uintp(out + t * symbols)
        for s in range(np.uintp(symbols)):
            memory[row + s] = angle


@kernel
def hourly(memory, x, mask, state, out, alpha, is_before, close_time, start, symbols, rows):
    """Write the mean of x in the hour of the week that begins at the close, over past weeks; NaN before the first.

    is_before: not 0 for the hour before the one in which the bar ends, instead.
    Each bar moves the mean of the hour in which it ends, by `alpha` or 1 / count where that is more. state: count and mean of every hour
    of every symbol, [2, 168, S] from `state` on.
    """
    hours = np.uintp(HOURS * symbols)
    for t in range(rows):
        ended = (close_time[start + t] - 1 - MONDAY) // NS_PER_HOUR % HOURS
        hour = (ended + HOURS - 1 if is_before != 0.0 else (close_time[start + t] - MONDAY) // NS_PER_HOUR) % HOURS
        row, at, known = np.uintp(t * symbols), np.uintp(state + ended * symbols), np.uintp(state + hour * symbols)
        values, seen, to = np.uintp(x) + row, np.uintp(mask) + row, np.uintp(out) + row
        for s in range(np.uintp(symbols)):
            has_bar, count, mean = memory[seen + s] > 0.0, memory[at + s] + 1.0, memory[at + hours + s]
            share = 1.0 / count
            moved = mean + (share if share > alpha else alpha) * (memory[values + s] - mean)
            memory[at + s] = count if has_bar else count - 1.0
            memory[at + hours + s] = moved if has_bar else mean
        for s in range(np.uintp(symbols)):
            memory[to + s] = memory[known + hours + s] if memory[known + s] > 0.0 else math.nan
