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
def tally_rule(actions):
    """Count the voters for SELL, HOLD and BUY, and all of them."""
    sell, hold, buy = np.int8(0), np.int8(0), np.int8(0)
    for action in actions:
        sell = np.int8(sell + np.int8(action == 0))
        hold = np.int8(hold + np.int8(action == 1))
        buy = np.int8(buy + np.int8(action == 2))
    return sell, hold, buy, np.int8(np.int8(sell + hold) + buy)


@kernel(inline=True)
def most_rule(sell, hold, buy):
    """Return the size of the largest group and its action, the first of SELL, HOLD, BUY if several are as large."""
    most = np.int8(sell if sell > hold else hold)
    most = np.int8(buy if buy > most else most)
    return most, np.int8(0 if sell == most else (1 if hold == most else 2))


@kernel(inline=True)
def is_outvoted_rule(sell, hold, buy, ensemble_action):
    """Say whether one group is larger than the others and yet lost the weighted vote (D-70)."""
    most, winner = most_rule(sell, hold, buy)
    is_alone = ((sell == most) ^ (hold == most) ^ (buy == most)) & (not ((sell == hold) & (hold == buy)))
    return is_alone & (winner != ensemble_action)


@kernel(inline=True)
def pick_rule(table, n):
    """Return the entry of a five-tuple for `n` voters, 1 to 5."""
    low = table[0] if n <= 1 else table[1]
    high = table[3] if n == 4 else table[4]
    return np.int8(low if n <= 2 else (table[2] if n == 3 else high))


@kernel(inline=True)
def fill_rule(actions):
    """Count the absent of the four base models as HOLD (`spec` 7.1, `hold_half`); the fifth slot is optional."""
    a, b, c, d = actions[0], actions[1], actions[2], actions[3]
    return np.int8(1 if a < 0 else a), np.int8(1 if b < 0 else b), np.int8(1 if c < 0 else c), np.int8(1 if d < 0 else d), actions[4]


@kernel(inline=True)
def choose_rule(p_sell, p_hold, p_buy):
    """Return the first action with the largest probability, that probability, and whether all three lie in [0, 1] (NaN does not)."""
    best = p_hold if p_hold > p_sell else p_sell
    action = 1 if p_hold > p_sell else 0
    is_sound = (p_sell >= 0.0) & (p_hold >= 0.0) & (p_buy >= 0.0) & (p_sell <= 1.0) & (p_hold <= 1.0) & (p_buy <= 1.0)
    return (2 if p_buy > best else action), (p_buy if p_buy > best else best), is_sound


@kernel
def least_groups(threshold):
    """Return for 1 to 5 voters the least size of a group with `size / n >= threshold`, 127 if none reaches it.

    So a threshold on shares becomes head counts, in the exact division of the specification.
    """
    one, two, three, four, five = np.int8(127), np.int8(127), np.int8(127), np.int8(127), np.int8(127)
    for k in range(6):
        size = np.int8(5 - k)
        one = size if (size <= 1) & (size / 1.0 >= threshold) else one
        two = size if (size <= 2) & (size / 2.0 >= threshold) else two
        three = size if (size <= 3) & (size / 3.0 >= threshold) else three
        four = size if (size <= 4) & (size / 4.0 >= threshold) else four
        five = size if size / 5.0 >= threshold else five
    return one, two, three, four, five


@kernel
def most_groups(threshold):
    """Return for 1 to 5 voters the largest size of a group that leaves `1 - size / n >= threshold`, -1 if none does."""
    one, two, three, four, five = np.int8(-1), np.int8(-1), np.int8(-1), np.int8(-1), np.int8(-1)
    for k in range(6):
        size = np.int8(k)
        one = size if (size <= 1) & (1.0 - size / 1.0 >= threshold) else one
        two = size if (size <= 2) & (1.0 - size / 2.0 >= threshold) else two
        three = size if (size <= 3) & (1.0 - size / 3.0 >= threshold) else three
        four = size if (size <= 4) & (1.0 - size / 4.0 >= threshold) else four
        five = size if 1.0 - size / 5.0 >= threshold else five
    return one, two, three, four, five
