"""Recursive features: exponential means, one value per symbol, unmoved by a hole, carried from block to block."""

import math

import numpy as np

from qtcore.features import table as tb
from qtcore.features.table import place
from qtcore.jit import kernel

NARROW = 8  # below so many symbols a row does not fill SIMD: time goes inside, the mean stays in a register


@kernel
def ema_bank(memory, table, first, n_means, constants, mask, is_whole, at, start, block, rows):
    """Move `n_means` exponential means towards their inputs, bar by bar: mean + alpha (x - mean); the first value is the first mean.

    From `table[first]` on lie their operations: x, output, means (one per symbol, NaN before the first value). From `memory[constants]`
    on two numbers per mean: alpha and nothing. mask: 0 at a hole, which moves nothing. is_whole: there is no hole and every mean has
    started. at, start, block: as `place` takes them.
    """
    symbols, pastless, planes = table[tb.SYMBOLS], table[tb.PASTLESS], table[tb.OUT]
    m = np.uintp(symbols)
    if symbols < NARROW:
        for e in range(0, n_means, 2):
            pair_up(memory, table, first + tb.WIDTH * e, e + 1 < n_means, constants + 2 * e, mask, at, start, block, rows)
        return
    for t in range(rows):  # the bank inside the bar: while one chain waits for its last bar, the others move
        for e in range(n_means):
            p, row = first + tb.WIDTH * e, t * symbols
            x = np.uintp(place(table[p + 2], pastless, at, planes, block, start) + row)
            out = np.uintp(place(table[p + 7], pastless, at, planes, block, start) + row)
            mean, bar, alpha = np.uintp(table[p + 9]), np.uintp(mask + row), memory[constants + 2 * e]
            if is_whole:
                for s in range(m):
                    new = memory[mean + s] + alpha * (memory[x + s] - memory[mean + s])
                    memory[mean + s] = new
                    memory[out + s] = new
            else:
                for s in range(m):
                    old = memory[mean + s]
                    new = memory[x + s] if old != old else old + alpha * (memory[x + s] - old)
                    memory[mean + s] = new if memory[bar + s] > 0.0 else old
                    memory[out + s] = new


@kernel
def pair_up(memory, table, first, has_second, constants, mask, at, start, block, rows):
    """Move two means of a bank together, symbol by symbol, in registers: too few symbols for SIMD, but two chains at a time.

    Arguments as `ema_bank` takes them; without a second mean the first one is moved twice, to the same place.
    """
    symbols, pastless, planes = table[tb.SYMBOLS], table[tb.PASTLESS], table[tb.OUT]
    p, q = first, first + tb.WIDTH if has_second else first
    alpha, beta = memory[constants], memory[constants + 2 if has_second else constants]
    x, y = place(table[p + 2], pastless, at, planes, block, start), place(table[q + 2], pastless, at, planes, block, start)
    out, second = place(table[p + 7], pastless, at, planes, block, start), place(table[q + 7], pastless, at, planes, block, start)
    for s in range(symbols):
        old, low = memory[table[p + 9] + s], memory[table[q + 9] + s]
        for i in range(s, s + rows * symbols, symbols):
            is_bar = memory[mask + i] > 0.0
            new = memory[x + i] if old != old else old + alpha * (memory[x + i] - old)
            late = memory[y + i] if low != low else low + beta * (memory[y + i] - low)
            old, low = new if is_bar else old, late if is_bar else low
            memory[out + i] = new
            memory[second + i] = late
        memory[table[p + 9] + s] = old
        memory[table[q + 9] + s] = low


@kernel
def wilder(memory, x, mask, state, out, alpha, symbols, rows):
    """Wilder's mean of x: the plain mean of the first 1 / alpha values, an exponential one from there; NaN until it has started.

    mask: 1 where x has a value. state: count, then mean of every symbol.
    """
    for i in range(rows * symbols):
        count, mean = state + i % symbols, state + symbols + i % symbols
        if memory[mask + i] > 0.0:
            memory[count] += 1.0
            base = memory[mean] if memory[count] * alpha > 1.0 else 0.0
            memory[mean] += alpha * (memory[x + i] - base)
        memory[out + i] = memory[mean] if memory[count] * alpha >= 1.0 else math.nan
