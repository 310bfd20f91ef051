"""Volatility regime: the share of the last 720 deviations that are not above the present one (`spec` D-22).

A ring of 720 per symbol holds the deviations, so that a count is 90 vector compares; four bars share the loads. Many bars at once are
counted by 15-bit keys in the order of the values, 45 vector compares; values that share a key with an earlier one are set right one by
one (46 against 74 ns a cell, 2026-11).
"""

import numpy as np

from qtcore.jit import kernel

WINDOW = 720  # deviations that are ranked
ENOUGH = 168.0  # below so many known ones the share is 0.5
# What a count goes up by. Half as wide as a float, half the work; 1 would make LLVM widen the mask first (33, 37 and 51 ns, 2026-11).
STEP, NONE = np.int32(3), np.int32(0)
MANY = 128  # rows from which keys pay
LEVELS = 16_384  # of the keys; they cover the 8 octaves below the largest value, what lies deeper shares the lowest key
INFINITY, SIGNLESS = np.int32(0x7FF00000), np.int32(0x7FFFFFFF)  # upper halves of floats are ordered like the floats
NO_COUNT = np.int16(0)


@kernel
def rank(memory, x, ring, rows_seen, out, symbols, rows):
    """Rank each of `rows` values at `x` among the last 720 of its symbol; shares at `out`, 0.5 where x is NaN or few are known.

    ring: how many of the last 720 are known, one per symbol; then per symbol the last 720 values, that of row r in place r % 720.
    rows_seen: rows before the first one at `x`.
    """
    for s in range(symbols):
        at = ring + symbols + s * WINDOW
        values = memory[at : at + WINDOW]
        known, t = memory[ring + s], s - s
        if rows >= MANY and rank_many(memory, x + s, ring + s, values, rows_seen % WINDOW, out + s, symbols, rows):
            continue
        while t < rows:
            slot, cell = (rows_seen + t) % WINDOW, t * symbols + s
            if slot % 4 == 0 and t + 4 <= rows:
                known = rank_four(memory, x + cell, values, slot, known, out + cell, symbols)
                t += 4
            else:
                new, old = memory[x + cell], values[slot]
                values[slot] = new
                n = NONE
                for i in range(720):
                    n = np.int32(n + (STEP if values[i] <= new else NONE))
                known = known + one(new, new) - one(old, old)
                memory[out + cell] = share(n // STEP, known, new)
                t += 1
        memory[ring + s] = known


@kernel
def rank_four(memory, x, values, slot, known, out, symbols):
    """Rank four bars of one symbol together: count in a ring that holds them all, then take back what each may not see."""
    a, b, c, d = memory[x], memory[x + symbols], memory[x + 2 * symbols], memory[x + 3 * symbols]
    p, q, r, s = values[slot], values[slot + 1], values[slot + 2], values[slot + 3]
    values[slot], values[slot + 1], values[slot + 2], values[slot + 3] = a, b, c, d
    n_a, n_b, n_c, n_d = NONE, NONE, NONE, NONE
    for i in range(720):
        v = values[i]
        n_a = np.int32(n_a + (STEP if v <= a else NONE))
        n_b = np.int32(n_b + (STEP if v <= b else NONE))
        n_c = np.int32(n_c + (STEP if v <= c else NONE))
        n_d = np.int32(n_d + (STEP if v <= d else NONE))
    more_a = one(q, a) - one(b, a) + one(r, a) - one(c, a) + one(s, a) - one(d, a)
    more_b = one(r, b) - one(c, b) + one(s, b) - one(d, b)
    known = known + one(a, a) - one(p, p)
    memory[out] = share(n_a // STEP + more_a, known, a)
    known = known + one(b, b) - one(q, q)
    memory[out + symbols] = share(n_b // STEP + more_b, known, b)
    known = known + one(c, c) - one(r, r)
    memory[out + 2 * symbols] = share(n_c // STEP + one(s, c) - one(d, c), known, c)
    known = known + one(d, d) - one(s, s)
    memory[out + 3 * symbols] = share(n_d // STEP, known, d)
    return known


@kernel(allocates=True)
def rank_many(memory, x, ring, values, slot, out, symbols, rows):
    """Rank the rows of one symbol by keys; False, and nothing is written, where too many values share one."""
    n = WINDOW + rows
    line, keys = np.empty(n), np.full(n + 3, LEVELS, np.int16)
    for i in range(WINDOW):
        line[i] = values[slot + i - (WINDOW if slot + i >= WINDOW else 0)]
    for t in range(rows):
        line[WINDOW + t] = memory[x + t * symbols]
    key_rule(line, keys)
    behind, last, counts, n_shared = np.empty(n, np.int16), np.full(LEVELS + 1, -1, np.int16), np.empty(4, np.int64), n - n
    for i in range(np.uintp(n)):
        key = np.uintp(keys[i])
        behind[i] = last[key]  # the row before that has this key
        n_shared += 1 if behind[i] >= 0 else 0
        last[key] = np.int16(i if key < LEVELS else -1)
    if 4 * n_shared > n:
        return False
    known = memory[ring]
    for t in range(rows):
        if t % 4 == 0:
            count_four(keys[t + 1 : t + WINDOW + 4], counts)
        new, above, j = line[WINDOW + t], t - t, np.int64(behind[WINDOW + t])
        while j > t:
            above += 1 if line[j] > new else 0
            j = np.int64(behind[j])
        known = known + one(new, new) - one(line[t], line[t])
        memory[out + t * symbols] = share(counts[t % 4] - above, known, new)
    memory[ring] = known
    for t in range(max(0, rows - WINDOW), rows):
        values[(slot + t) % WINDOW] = line[WINDOW + t]
    return True


@kernel
def key_rule(line, keys):
    """Give each of the values, >= 0 or NaN, a key: no smaller value has a larger one, NaN has the largest, LEVELS."""
    halves, n = line.view(np.int32), np.uintp(len(line))
    low, high = INFINITY, NONE
    for i in range(n):
        half = np.int32(halves[2 * i + 1] & SIGNLESS)
        low = min(low, half)
        high = max(high, half if half <= INFINITY else NONE)
    low = max(low, np.int32(high - np.int32(8 << 20)))
    shift = NONE
    while (high - low) >> shift >= LEVELS:
        shift = np.int32(shift + 1)
    for i in range(n):
        half = np.int32(halves[2 * i + 1] & SIGNLESS)
        key = np.int32(np.int32(max(half, low) - low) >> shift)
        keys[i] = np.int16(key if half <= INFINITY else np.int32(LEVELS))


@kernel
def count_four(keys, counts):
    """Count for the last four of 723 keys how many of the 720 up to each are not above it."""
    a, b, c, d = np.int16(keys[719] + 1), np.int16(keys[720] + 1), np.int16(keys[721] + 1), np.int16(keys[722] + 1)
    n_a, n_b, n_c, n_d = NO_COUNT, NO_COUNT, NO_COUNT, NO_COUNT
    shared = keys[3:723]
    for i in range(720):
        v = shared[i]
        n_a = np.int16(n_a - (np.int16(v - a) >> 15))  # the sign bit: -1 where v is not above
        n_b = np.int16(n_b - (np.int16(v - b) >> 15))
        n_c = np.int16(n_c - (np.int16(v - c) >> 15))
        n_d = np.int16(n_d - (np.int16(v - d) >> 15))
    p, q, r = keys[0], keys[1], keys[2]
    counts[0] = n_a + (p < a) + (q < a) + (r < a) - (b <= a) - (c <= a) - (d <= a)
    counts[1] = n_b + (q < b) + (r < b) - (c <= b) - (d <= b)
    counts[2] = n_c + (r < c) - (d <= c)
    counts[3] = n_d


@kernel
def one(x, limit):
    """1 if x is not above the limit, else 0."""
    return 1 if x <= limit else 0


@kernel
def share(n, known, x):
    """N of the known values; 0.5 where that says nothing."""
    is_vague = known < ENOUGH or x != x
    return 0.5 if is_vague else n / known
