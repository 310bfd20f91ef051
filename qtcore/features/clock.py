"""Features of the clock: where a bar ends in the day or the week, and what its hour of the week was like before."""

import math

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
        for i in range(t * symbols, (t + 1) * symbols):
            memory[out + i] = angle


@kernel
def hourly(memory, x, mask, state, out, alpha, close_time, start, symbols, rows):
    """Write the mean of x in the hour of the week that begins at the close, over past weeks; NaN before the first.

    Each bar moves the mean of the hour in which it ends, by `alpha` or 1 / count where that is more. state: count and mean of every hour
    of every symbol, [2, 168, S] from `state` on.
    """
    for t in range(rows):
        hour = (close_time[start + t] - MONDAY) // NS_PER_HOUR % HOURS
        ended = (close_time[start + t] - 1 - MONDAY) // NS_PER_HOUR % HOURS
        for s in range(symbols):
            i, at = t * symbols + s, state + ended * symbols + s
            if memory[mask + i] > 0.0:
                memory[at] += 1.0
                mean = at + HOURS * symbols
                memory[mean] += max(alpha, 1.0 / memory[at]) * (memory[x + i] - memory[mean])
            known = state + hour * symbols + s
            memory[out + i] = memory[known + HOURS * symbols] if memory[known] > 0.0 else math.nan
