"""Missing values in windows: a window uses the values it has, if they are at least 80 % (`spec` D-82).

The loops over windows know nothing of holes: a hole adds 0. `mend` runs afterwards, on pieces whose windows may reach a hole, and repairs
the cells concerned; a cell whose window is full keeps its bits.
"""

import math

import numpy as np

from qtcore.jit import kernel


@kernel
def mend(memory, x, mask, window, k, mean, dev, counts, symbols, rows):
    """Repair window sums at `mean` (dev < 0), or means at `mean` and squared deviations at `dev`, where values of x are missing.

    A sum is scaled to a full window, deviations by (window - k) / (count - k), so that what reads them may divide as if it were full; both
    are NaN below 80 % and at a hole. mask: 1 where x has a value. counts: scratch for one number per symbol.
    """
    need, depth = (4 * window + 4) // 5, window * symbols
    for s in range(symbols):
        memory[counts + s] = 0.0
    for t in range(-window, rows):  # the rows before the piece fill the counts
        for s in range(symbols):
            i = t * symbols + s
            memory[counts + s] += memory[mask + i]
            if t < 0:
                continue
            memory[counts + s] -= memory[mask + i - depth]
            count = memory[counts + s]
            if count == window:
                continue
            if count < need or memory[mask + i] == 0.0:
                memory[mean + i] = math.nan
                if dev >= 0:
                    memory[dev + i] = math.nan
            elif dev < 0:
                memory[mean + i] *= window / count
            else:
                base, total, squares = memory[x + i], 0.0, 0.0
                for cell in range(i - depth + symbols, i + symbols, symbols):
                    total += memory[x + cell] - base if memory[mask + cell] > 0.0 else 0.0
                for cell in range(i - depth + symbols, i + symbols, symbols):
                    step = memory[x + cell] - base - total / count if memory[mask + cell] > 0.0 else 0.0
                    squares += step * step
                memory[mean + i] = base + total / count
                memory[dev + i] = squares * ((window - k) / (count - k))


@kernel(inline=True)
def hide(memory, mask, out, size):
    """Write NaN over those of the `size` cells at `out` whose `mask` is 0: holes."""
    mask, out = np.uintp(mask), np.uintp(out)
    for i in range(np.uintp(size)):
        memory[out + i] = memory[out + i] if memory[mask + i] > 0.0 else np.nan
