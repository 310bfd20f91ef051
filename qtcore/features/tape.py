"""How does a block of bars become planes? Piece by piece through the list of operations that the plan wrote.

`memory` (float64) holds everything that is computed: planes with a past, recursive means, the regime's rings, planes without a past,
constants, and at the end the wanted planes `[slots, n, S]`. A plane with a past has its last rows in front of the present chunk: row r
since the start lies at row `r % CHUNK`, whatever the cuts, and the last rows move to the front when a chunk is full. So one bar costs
one row, no window crosses a seam, and the same bars leave the same bits. `table` (int64) holds sizes, addresses, counters and operations.
"""

import math

import numpy as np

from qtcore.features.holes import hide, mend
from qtcore.features.primitives import ADD4, RATIOS, elementwise, windowed
from qtcore.features.recursions import ema_bank, wilder
from qtcore.features.regime import rank
from qtcore.jit import kernel

EMA, WILDER, RANK, MEND = range(RATIOS + 1, RATIOS + 5)  # operations beyond those of `primitives`

(
    SYMBOLS,  # S
    CHUNK,  # rows of a chunk
    PIECE,  # most rows that pass the operations at once: what one hands to the next stays in the cache
    WARMUP,  # bars before a symbol's first valid row
    PAST,  # rows of the longest past
    N_OPERATIONS,
    N_SHIFTS,
    N_SLOTS,
    PASTLESS,  # addresses from here on are the same in every piece
    OUT,  # address of the wanted planes
    COUNTS,  # address of scratch for one number per symbol
    CONSTANTS,  # address of two constants per operation
    PLACED,  # from here: addresses of the operations in the present piece
    SHIFTS,  # from here: address, length of the past and of the chunk of every plane with a past
    COUNTERS,  # from here: what a later block needs
    HEAD,
) = range(16)
ROWS, QUIET, SEEN = range(3)  # counters: rows since the start; rows since one where a symbol had no move; bars of every symbol
# The inputs, whose addresses stand from HEAD on: the last close, NaN before the listing; 1 / close; 1 at a bar; 1 at a bar that has one
# before it; volume, 0 at a hole; the last volume; high; low. The last three are copied only where somebody reads them.
CLOSE, INVERSE, MASK, MOVED, VOLUME, LAST_VOLUME, HIGH, LOW, N_INPUTS = range(9)
OPERATIONS = HEAD + N_INPUTS
# An operation: code; when (0 always, n where a window of n rows may reach a hole, -n where it cannot); five operands; output; second
# output; state. An address below 0 is the wanted plane of slot -1 - address.
WIDTH, OPERANDS = 10, 8


@kernel
def copy(source, start, memory, to, size):
    """Copy `size` cells of `source` from `start` into `memory` at `to`."""
    start, to, n = np.uintp(start), np.uintp(to), np.uintp(size)
    for i in range(n):
        memory[to + i] = source[start + i]


@kernel(inline=True)
def load_holes(high, low, close, volume, table, memory, at, start, size):
    """Copy bars with holes: the last close and volume stay, a volume to be summed is 0."""
    symbols, quiet = table[SYMBOLS], table[table[COUNTERS] + QUIET]
    x, v, last_v = table[HEAD + CLOSE] + at, table[HEAD + VOLUME] + at, table[HEAD + LAST_VOLUME] + at
    mask, moved, h, lo = table[HEAD + MASK] + at, table[HEAD + MOVED] + at, table[HEAD + HIGH] + at, table[HEAD + LOW] + at
    for i in range(size):
        old, new = memory[x + i - symbols], close[start + i]
        has_bar, has_old = new == new, old == old
        memory[x + i] = new if has_bar else (old if has_old else math.nan)
        memory[mask + i] = 1.0 if has_bar else 0.0
        memory[moved + i] = 1.0 if has_bar and has_old else 0.0
        memory[v + i] = volume[start + i] if has_bar else 0.0
        memory[last_v + i] = volume[start + i] if has_bar else (memory[last_v + i - symbols] if has_old else math.nan)
        memory[h + i] = high[start + i] if has_bar else math.nan
        memory[lo + i] = low[start + i] if has_bar else math.nan
        quiet += 1 if i % symbols == 0 else 0
        quiet = quiet if has_bar and has_old else 0
    table[table[COUNTERS] + QUIET] = quiet


@kernel
def load(high, low, close, volume, table, memory, at, start, size):
    """Copy `size` cells of the bars from `start` to `at` in the chunk; return whether all are bars with a close before them."""
    symbols, quiet, x = table[SYMBOLS], table[COUNTERS] + QUIET, table[HEAD + CLOSE] + at
    copy(close, start, memory, x, size)
    n_unknown = 0
    for i in range(np.uintp(x - symbols), np.uintp(x + size)):
        n_unknown += 1 if memory[i] != memory[i] else 0
    is_whole = n_unknown == 0
    if is_whole:
        for k in range(VOLUME, N_INPUTS):
            if table[HEAD + k] < table[PASTLESS]:
                copy(high if k == HIGH else (low if k == LOW else volume), start, memory, table[HEAD + k] + at, size)
        for i in range(at, at + size if table[quiet] < 2 * table[CHUNK] + table[PAST] else at):  # later every cell is 1 already
            memory[table[HEAD + MASK] + i] = 1.0
            memory[table[HEAD + MOVED] + i] = 1.0
        table[quiet] += size // symbols
    else:
        load_holes(high, low, close, volume, table, memory, at, start, size)
    x, inverse = np.uintp(x), np.uintp(table[HEAD + INVERSE] + at)
    for i in range(np.uintp(size)):
        memory[inverse + i] = 1.0 / memory[x + i]
    return is_whole


@kernel(inline=True)
def place(table, at, start, block):
    """Write where the operands of a piece are: `at` cells into the chunk, `start` cells into wanted planes of `block` cells."""
    for j in range(table[N_OPERATIONS]):
        p, q = OPERATIONS + WIDTH * j + 2, table[PLACED] + OPERANDS * j
        for i in range(7):
            address = table[p + i]
            inside = address + at if address < table[PASTLESS] else address
            table[q + i] = table[OUT] - (address + 1) * block + start if address < 0 else inside
        table[q + 7] = table[p + 7]


@kernel(inline=True)
def mark_valid(table, memory, valid, is_whole, at, start, size):
    """Count the bars of every symbol and say which cells are valid: past the warm-up and no hole."""
    symbols, seen, mask = table[SYMBOLS], table[COUNTERS] + SEEN, table[HEAD + MASK] + at
    is_ripe = is_whole
    for s in range(symbols):
        is_ripe = is_ripe and table[seen + s] >= table[WARMUP]
    if is_ripe:
        for s in range(symbols):
            table[seen + s] += size // symbols
        for i in range(np.uintp(start), np.uintp(start + size)):
            valid[i] = True
    else:
        for i in range(size):
            has_bar, s = memory[mask + i] > 0.0, seen + i % symbols
            table[s] += 1 if has_bar else 0
            valid[start + i] = has_bar and table[s] > table[WARMUP]


@kernel
def advance(high, low, close, volume, table, memory, valid):
    """Make the planes of the next block of bars `[n, S]`; they lie at `table[OUT]` of `memory`, `[slots, n, S]`; valid [n, S] is bool.

    One long kernel: LLVM works through all callees again at every level of calls (1.5 s, 2026-11).
    """
    n, symbols, counters = close.shape[0], table[SYMBOLS], table[COUNTERS]
    block = n * symbols
    h, lo, x, v, ok = high.reshape(block), low.reshape(block), close.reshape(block), volume.reshape(block), valid.reshape(block)
    done = n - n
    while done < n:
        first = table[counters + ROWS] % table[CHUNK]
        rows = min(min(table[CHUNK] - first, table[PIECE]), n - done)
        start, at, size = done * symbols, first * symbols, rows * symbols
        quiet = table[counters + QUIET]
        is_whole = load(h, lo, x, v, table, memory, at, start, size)
        place(table, at, start, block)
        mask = table[HEAD + MASK] + at
        j = done - done
        while j < table[N_OPERATIONS]:
            p, q, constants = OPERATIONS + WIDTH * j, table[PLACED] + OPERANDS * j, table[CONSTANTS] + 2 * j
            code, when, state, out, second = table[p], table[p + 1], table[p + 9], table[q + 5], table[q + 6]
            a, b, c, d, e = table[q], table[q + 1], table[q + 2], table[q + 3], table[q + 4]
            k, empty = memory[constants], memory[constants + 1]
            is_full = is_whole and quiet >= abs(when)
            n_together = 1
            if (when > 0 and is_full) or (when < 0 and not is_full):
                pass
            elif code < ADD4:
                elementwise(code, memory, a, b, c, d, out, k, empty, size)
            elif code <= RATIOS:
                windowed(code, memory, a, b, c, d, e, out, second, k, empty, size)
            elif code == EMA:
                n_together = table[p + 3]
                ema_bank(memory, table, q, n_together, constants, mask, is_whole, symbols, rows)
            elif code == WILDER:
                wilder(memory, a, b, state, out, k, symbols, rows)
            elif code == RANK:
                rank(memory, a, state, table[counters + ROWS], out, symbols, rows)
            else:
                mend(memory, a, b, when, k, out, second if state > 0 else -1, table[COUNTS], symbols, rows)
            j += n_together
        for j in range(0 if is_whole else table[N_SLOTS]):
            hide(memory, mask, table[OUT] + j * block + start, size)
        mark_valid(table, memory, ok, is_whole, at, start, size)
        table[counters + ROWS] += rows
        for j in range(table[N_SHIFTS] if first + rows == table[CHUNK] else 0):
            p = table[SHIFTS] + 3 * j
            to = table[p] - table[p + 1]
            copy(memory, to + table[p + 2], memory, to, table[p + 1])
        done += rows
