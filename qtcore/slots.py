"""How is a cell's vote read? Rules over the five model slots, shared by every opinion layer.

Unrolled, selects instead of branches. Head counts are int8 after every step: the narrowest type of a loop sets how many cells a SIMD
vector holds, and numba widens int8 sums to int64 (2026-11: counting took 2.4 ns a cell, and 0.2 with the casts).
"""

import numpy as np

from qtcore.jit import kernel


@kernel(inline=True)
def slots(table, cell):
    """Return the five values of column `cell` of `table` [5, N]."""
    return table[0, cell], table[1, cell], table[2, cell], table[3, cell], table[4, cell]


@kernel(inline=True)
def weigh_rule(actions, amounts, action):
    """Sum the `amounts` of the slots whose entry in `actions` is `action`, left to right; -1 in `actions` is absent."""
    total = amounts[0] if actions[0] == action else 0.0
    total = total + amounts[1] if actions[1] == action else total
    total = total + amounts[2] if actions[2] == action else total
    total = total + amounts[3] if actions[3] == action else total
    return total + amounts[4] if actions[4] == action else total


@kernel(inline=True)
def count_rule(actions, action):
    """Count the slots that voted `action`."""
    two = np.int8(np.int8(actions[0] == action) + np.int8(actions[1] == action))
    four = np.int8(np.int8(actions[2] == action) + np.int8(actions[3] == action))
    return np.int8(np.int8(two + four) + np.int8(actions[4] == action))


@kernel(inline=True)
def tally_rule(actions):
    """Count the voters for SELL, HOLD and BUY."""
    return count_rule(actions, 0), count_rule(actions, 1), count_rule(actions, 2)


@kernel(inline=True)
def most_rule(sell, hold, buy):
    """Return the size of the largest group and its action, the first of SELL, HOLD, BUY if several are as large."""
    most = np.int8(sell if sell > hold else hold)
    most = np.int8(buy if buy > most else most)
    return most, np.int8(0 if sell == most else (1 if hold == most else 2))


@kernel(inline=True)
def is_alone_rule(sell, hold, buy, most):
    """Say whether only one group has the size `most`."""
    return np.int8(np.int8(np.int8(sell == most) + np.int8(hold == most)) + np.int8(buy == most)) == 1


@kernel(inline=True)
def argmax_rule(p_sell, p_hold, p_buy):
    """Return the first action with the largest probability, and that probability."""
    best = p_hold if p_hold > p_sell else p_sell
    action = 1 if p_hold > p_sell else 0
    return (2 if p_buy > best else action), (p_buy if p_buy > best else best)


@kernel(inline=True)
def pick_rule(table, n):
    """Return the entry of a five-tuple for `n` voters, 1 to 5."""
    low = table[0] if n <= 1 else table[1]
    high = table[3] if n == 4 else table[4]
    return np.int8(low if n <= 2 else (table[2] if n == 3 else high))


@kernel
def least_group(n, threshold):
    """Return the least size of a group of `n` voters with `size / n >= threshold`; 127 if none reaches it."""
    for size in range(n + 1):
        if size / n >= threshold:
            return np.int8(size)
    return np.int8(127)


@kernel
def least_groups(threshold):
    """Return `least_group` for 1 to 5 voters: a threshold on shares as head counts, in the exact division of the specification."""
    return (
        least_group(1, threshold),
        least_group(2, threshold),
        least_group(3, threshold),
        least_group(4, threshold),
        least_group(5, threshold),
    )


@kernel(inline=True)
def fill_rule(actions):
    """Count the absent of the four base models as HOLD (`spec` 7.1, `hold_half`); the fifth slot is optional."""
    a, b, c, d = actions[0], actions[1], actions[2], actions[3]
    return np.int8(1 if a < 0 else a), np.int8(1 if b < 0 else b), np.int8(1 if c < 0 else c), np.int8(1 if d < 0 else d), actions[4]


@kernel(inline=True)
def is_probability_rule(p_sell, p_hold, p_buy):
    """Say whether all three lie in [0, 1]; NaN does not."""
    return (p_sell >= 0.0) & (p_hold >= 0.0) & (p_buy >= 0.0) & (p_sell <= 1.0) & (p_hold <= 1.0) & (p_buy <= 1.0)
