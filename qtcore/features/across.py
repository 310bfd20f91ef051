"""Features across symbols: mean, rank and deviation of a row, over the symbols that have a value there, and the value of one of them.

A symbol without a bar or a value neither enters nor shifts the others. Fewer than LEAST values say nothing: the row is neutral, `k`.
"""

import math

import numpy as np

from qtcore.features.registry import LEAST
from qtcore.features.table import ROW_MEAN, ROW_PICK, ROW_RANK
from qtcore.jit import kernel

ROUNDING = 1e-12  # of the mean: values that differ by less are the same
MOST, COARSE, FINE = 1e6, 2.0**30, 2.0**82  # what counts at most; units of 1: the sums of 5,000 values fit into 64 bits each


@kernel(inline=True)
def row_mean(memory, x, mask, first, symbols, k):
    """Return the mean of a row, k below LEAST values. It is added up in whole units, so another order of the symbols has the same bits."""
    n, coarse, fine = 0, np.int64(0), np.int64(0)
    for s in range(symbols):
        v = memory[x + first + s]
        counts = memory[mask + first + s] > 0.0 and v == v
        v = min(max(v, -MOST), MOST) if counts else 0.0
        whole = np.rint(v * COARSE)
        coarse += np.int64(whole)
        fine += np.int64(np.rint((v - whole / COARSE) * FINE))
        n += 1 if counts else 0
    return (coarse / COARSE + fine / FINE) / n if n >= LEAST else k


@kernel(inline=True)
def row_value(memory, x, mask, at):
    """Return the value of one cell; 0 where it has none."""
    v = memory[x + at]
    return v if (memory[mask + at] > 0.0) & (v == v) else 0.0


@kernel
def across(op, memory, x, mask, row, out, k, symbols, rows):
    """Write for each row of x its mean, the rank of each value in [-0.5, 0.5], its distance from the mean in deviations, or one value.

    mask: 1 at a bar. What is NaN or no bar does not count; its own rank and distance are k. Equal values share a rank. The one value is
    that of column k, 0 where it has none. row: scratch for one number per symbol.
    """
    x, mask, row, out, m = np.uintp(x), np.uintp(mask), np.uintp(row), np.uintp(out), np.uintp(symbols)
    for first in range(np.uintp(0), m * np.uintp(rows), m):
        n, total, squares = 0.0, 0.0, 0.0
        if (op == ROW_MEAN) | (op == ROW_PICK):
            v = row_mean(memory, x, mask, first, m, k) if op == ROW_MEAN else row_value(memory, x, mask, first + np.uintp(k))
            for s in range(m):
                memory[out + first + s] = v
            continue
        for s in range(m):
            v = memory[x + first + s]
            counts = memory[mask + first + s] > 0.0 and v == v
            memory[row + s] = v if counts else math.nan
            n += 1.0 if counts else 0.0
            total += v if counts else 0.0
        mean = total / n if n >= LEAST else k
        for s in range(m):
            v = memory[row + s] - mean
            squares += v * v if v == v else 0.0
        deviation = math.sqrt(squares / (n - 1.0)) if n >= LEAST else 0.0
        differs = deviation > ROUNDING * abs(mean)
        for s in range(m):
            v, value = memory[row + s], k
            if differs and v == v:
                value = (v - mean) / deviation
                if op == ROW_RANK:
                    below, same = 0, 0  # whole numbers are counted in SIMD
                    for j in range(m):
                        below += 1 if memory[row + j] < v else 0
                        same += 1 if memory[row + j] == v else 0
                    value = (below + 0.5 * (same - 1.0)) / (n - 1.0) - 0.5
            memory[out + first + s] = value
