"""Feature interpreter: a block of bars becomes planes, piece by piece through the list of operations that the plan wrote.

`memory` (float64) holds everything that is computed: planes with a past, recursive means, the regime's rings, planes without a past,
constants, and at the end the wanted planes `[slots, n, S]`. A plane with a past has its last rows in front of the present chunk: row r
since the start lies at row `r % CHUNK`, whatever the cuts, and the last rows move to the front when a chunk is full. So one bar costs
one row, no window crosses a seam, and the same bars leave the same bits. `table` (int64) holds sizes, addresses, counters and operations.
"""

import math

import numpy as np

from qtcore.features import table as tb
from qtcore.features.across import across
from qtcore.features.clock import hourly, turn
from qtcore.features.holes import hide, mend
from qtcore.features.primitives import ADD4, RATIOS, elementwise, windowed
from qtcore.features.recursions import ema_bank, wilder
from qtcore.features.regime import rank
from qtcore.features.table import place
from qtcore.jit import kernel


@kernel
def copy(source, start, memory, to, size):
    """Copy `size` cells of `source` from `start` into `memory` at `to`."""
    start, to, n = np.uintp(start), np.uintp(to), np.uintp(size)
    for i in range(n):
        memory[to + i] = source[start + i]


@kernel(inline=True)
def load_holes(open_, high, low, close, volume, table, memory, at, start, size):
    """Copy bars with holes: the last close and volume stay, a volume to be summed is 0."""
    symbols, quiet = table[tb.SYMBOLS], table[table[tb.COUNTERS] + tb.QUIET]
    x, mask, for_worker = table[tb.HEAD + tb.CLOSE] + at, table[tb.HEAD + tb.MASK] + at, table[tb.HEAD + tb.MOVED] + at
    v, last_v = table[tb.HEAD + tb.VOLUME] + at, table[tb.HEAD + tb.LAST_VOLUME] + at
    o, h, lo = table[tb.HEAD + tb.OPEN] + at, table[tb.HEAD + tb.HIGH] + at, table[tb.HEAD + tb.LOW] + at
    for first in range(0, size, symbols):
        quiet += 1
        for i in range(first, first + symbols):
            old, new = memory[x + i - symbols], close[start + i]
            has_bar, has_old = new == new, old == old
            memory[x + i] = new if has_bar else (old if has_old else math.nan)
            memory[mask + i] = 1.0 if has_bar else 0.0
            memory[for_worker + i] = 1.0 if has_bar and has_old else 0.0
            memory[v + i] = volume[start + i] if has_bar else 0.0
            memory[last_v + i] = volume[start + i] if has_bar else (memory[last_v + i - symbols] if has_old else math.nan)
            memory[o + i] = open_[start + i] if has_bar else math.nan
            memory[h + i] = high[start + i] if has_bar else math.nan
            memory[lo + i] = low[start + i] if has_bar else math.nan
            quiet = quiet if has_bar and has_old else 0
    table[table[tb.COUNTERS] + tb.QUIET] = quiet


@kernel
def load(open_, high, low, close, volume, table, memory, at, start, size):
    """Copy `size` cells of the bars from `start` to `at` in the chunk; return whether all are bars with a close before them."""
    symbols, quiet, x = table[tb.SYMBOLS], table[tb.COUNTERS] + tb.QUIET, table[tb.HEAD + tb.CLOSE] + at
    copy(close, start, memory, x, size)
    n_unknown = 0
    for i in range(np.uintp(x - symbols), np.uintp(x + size)):
        n_unknown += 1 if memory[i] != memory[i] else 0
    is_whole = n_unknown == 0
    if is_whole:
        for k in range(tb.VOLUME, tb.N_INPUTS):
            if table[tb.HEAD + k] < table[tb.PASTLESS]:
                source = open_ if k == tb.OPEN else (high if k == tb.HIGH else (low if k == tb.LOW else volume))
                copy(source, start, memory, table[tb.HEAD + k] + at, size)
        for i in range(at, at + size if table[quiet] < 2 * table[tb.CHUNK] + table[tb.PAST] else at):  # later every cell is 1 already
            memory[table[tb.HEAD + tb.MASK] + i] = 1.0
            memory[table[tb.HEAD + tb.MOVED] + i] = 1.0
        table[quiet] += size // symbols
    else:
        load_holes(open_, high, low, close, volume, table, memory, at, start, size)
    x, inverse = np.uintp(x), np.uintp(table[tb.HEAD + tb.INVERSE] + at)
    for i in range(np.uintp(size)):
        memory[inverse + i] = 1.0 / memory[x + i]
    return is_whole


@kernel(inline=True)
def mark_valid(table, memory, valid, is_whole, at, start, size):
    """Count the bars of every symbol and say which cells are valid: past the warm-up and no hole."""
    symbols, seen, mask = table[tb.SYMBOLS], table[tb.COUNTERS] + tb.SEEN, table[tb.HEAD + tb.MASK] + at
    is_ripe = is_whole
    for s in range(symbols):
        is_ripe = is_ripe and table[seen + s] >= table[tb.WARMUP]
    if is_ripe:
        for s in range(symbols):
            table[seen + s] += size // symbols
        for i in range(np.uintp(start), np.uintp(start + size)):
            valid[i] = True
    else:
        for first in range(0, size, symbols):
            for s in range(symbols):
                has_bar = memory[mask + first + s] > 0.0
                table[seen + s] += 1 if has_bar else 0
                valid[start + first + s] = has_bar and table[seen + s] > table[tb.WARMUP]


@kernel
def advance(open_, high, low, close, volume, close_time, table, memory, valid):
    """Make the planes of the next block of bars `[n, S]`; they lie at `table[OUT]` of `memory`, `[slots, n, S]`; valid [n, S] is bool.

    One long kernel: LLVM works through all callees again at every level of calls (1.5 s, 2026-11).
    """
    n, symbols, counters, pastless, planes = close.shape[0], table[tb.SYMBOLS], table[tb.COUNTERS], table[tb.PASTLESS], table[tb.OUT]
    block = n * symbols
    o, h, lo, x, v = open_.reshape(block), high.reshape(block), low.reshape(block), close.reshape(block), volume.reshape(block)
    ok = valid.reshape(block)
    done = n - n
    while done < n:
        first = table[counters + tb.ROWS] % table[tb.CHUNK]
        rows = min(min(table[tb.CHUNK] - first, table[tb.PIECE]), n - done)
        start, at, size = done * symbols, first * symbols, rows * symbols
        quiet = table[counters + tb.QUIET]
        is_whole = load(o, h, lo, x, v, table, memory, at, start, size)
        mask = table[tb.HEAD + tb.MASK] + at
        j = done - done
        while j < table[tb.N_OPERATIONS]:
            p, constants = tb.OPERATIONS + tb.WIDTH * j, table[tb.CONSTANTS] + 2 * j
            code, when, state = table[p], table[p + 1], table[p + 9]
            a, b = place(table[p + 2], pastless, at, planes, block, start), place(table[p + 3], pastless, at, planes, block, start)
            c, d = place(table[p + 4], pastless, at, planes, block, start), place(table[p + 5], pastless, at, planes, block, start)
            e = place(table[p + 6], pastless, at, planes, block, start)
            out, second = place(table[p + 7], pastless, at, planes, block, start), place(table[p + 8], pastless, at, planes, block, start)
            k, empty = memory[constants], memory[constants + 1]
            is_full = is_whole and quiet >= abs(when)
            n_together = 1
            if (when > 0 and is_full) or (when < 0 and not is_full):
                pass
            elif code < ADD4:
                elementwise(code, memory, a, b, c, d, out, k, empty, size)
            elif code <= RATIOS:
                windowed(code, memory, a, b, c, d, e, out, second, k, empty, size)
            elif code == tb.EMA:
                n_together = table[p + 3]
                ema_bank(memory, table, p, n_together, constants, mask, is_whole, at, start, block, rows)
            elif code == tb.WILDER:
                wilder(memory, a, b, state, out, k, symbols, rows)
            elif code == tb.RANK:
                rank(memory, a, state, table[counters + tb.ROWS], out, symbols, rows)
            elif code == tb.TURN:
                turn(memory, close_time, k, empty, out, done, symbols, rows)
            elif code == tb.HOURLY:
                hourly(memory, a, b, state, out, k, empty, close_time, done, symbols, rows)
            elif code >= tb.ROW_MEAN:
                across(code, memory, a, b, table[tb.COUNTS], out, k, symbols, rows)
            else:
                mend(memory, a, b, when, k, out, second if state > 0 else -1, table[tb.COUNTS], symbols, rows)
            j += n_together
        for j in range(0 if is_whole else table[tb.N_SLOTS]):
            hide(memory, mask, planes + j * block + start, size)
        mark_valid(table, memory, ok, is_whole, at, start, size)
        table[counters + tb.ROWS] += rows
        for j in range(table[tb.N_SHIFTS] if first + rows == table[tb.CHUNK] else 0):
            p = table[tb.SHIFTS] + 3 * j
            to = table[p] - table[p + 1]
            copy(memory, to + table[p + 2], memory, to, table[p + 1])
        done += rows
