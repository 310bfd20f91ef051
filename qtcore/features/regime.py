"""Is the market wild or calm? The share of the last 720 deviations that are not above the present one (`spec` D-22).

A ring of 720 per symbol holds the deviations, so that a count is 90 vector compares; four bars share the loads (38 against 47 ns a cell,
2026-11).
"""

import numpy as np

from qtcore.jit import kernel

WINDOW = 720  # deviations that are ranked
ENOUGH = 168.0  # below so many known ones the share is 0.5
# What a count goes up by. Half as wide as a float, half the work; 1 would make LLVM widen the mask first (33, 37 and 51 ns, 2026-11).
STEP, NONE = np.int32(3), np.int32(0)


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


@kernel
def one(x, limit):
    """1 if x is not above the limit, else 0."""
    return 1 if x <= limit else 0


@kernel
def share(n, known, x):
    """N of the known values; 0.5 where that says nothing."""
    is_vague = known < ENOUGH or x != x
    return 0.5 if is_vague else n / known
