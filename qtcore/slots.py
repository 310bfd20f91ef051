"""Model slots of a cell: rules that read its five votes, shared by every opinion layer; -1 is an absent model."""

from qtcore.jit import kernel


@kernel(inline=True)
def slots(table, cell):
    """Return the five values of column `cell` of `table` [5, N]."""
    return table[0, cell], table[1, cell], table[2, cell], table[3, cell], table[4, cell]


@kernel(inline=True)
def weigh_rule(actions, amounts, action):
    """Sum the `amounts` of the slots that voted `action`, left to right; unrolled, selects instead of branches."""
    total = amounts[0] if actions[0] == action else 0.0
    total = total + amounts[1] if actions[1] == action else total
    total = total + amounts[2] if actions[2] == action else total
    total = total + amounts[3] if actions[3] == action else total
    return total + amounts[4] if actions[4] == action else total


@kernel
def tally_rule(actions):
    """Count the voters for SELL, HOLD and BUY, and all of them."""
    sell, hold, buy = 0, 0, 0
    for action in actions:
        sell += action == 0
        hold += action == 1
        buy += action == 2
    return sell, hold, buy, sell + hold + buy


@kernel
def most_rule(sell, hold, buy):
    """Return the size of the largest group and its action, the first of SELL, HOLD, BUY if several are as large."""
    most = max(sell, max(hold, buy))
    return most, 0 if sell == most else (1 if hold == most else 2)


@kernel
def is_outvoted_rule(sell, hold, buy, ensemble_action):
    """Say whether one group is larger than the others and yet lost the weighted vote (D-70)."""
    most, winner = most_rule(sell, hold, buy)
    n_largest = 0
    n_largest += sell == most
    n_largest += hold == most
    n_largest += buy == most
    return n_largest == 1 and winner != ensemble_action


@kernel
def choose_rule(p_sell, p_hold, p_buy):
    """Return the first action with the largest probability, that probability, and whether all three lie in [0, 1] (NaN does not)."""
    best = p_hold if p_hold > p_sell else p_sell
    action = 1 if p_hold > p_sell else 0
    is_sound = p_sell >= 0.0 and p_hold >= 0.0 and p_buy >= 0.0 and p_sell <= 1.0 and p_hold <= 1.0 and p_buy <= 1.0
    return (2 if p_buy > best else action), (p_buy if p_buy > best else best), is_sound
