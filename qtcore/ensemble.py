"""What do the models say together? A vote by weight; the confidence is the mean of the winner's voters (`spec` 4).

Three passes over flat cells, each simple enough to become SIMD (2026-11, AVX-512, ns a cell): `elect` adds weights in float64 lanes
(1.2), `tally` counts heads in int8 lanes (0.2), `average` divides (0.7). One loop over all three took 3.3.

An absent model is action -1 and takes part in nothing. A vote adds left to right in slot order; adding nothing for the others is exact.
"""

import numpy as np

from qtcore.jit import kernel
from qtcore.params import TieBreak
from qtcore.slots import slots, tally_rule, weigh_rule
from qtcore.types import Code, Consensus, Value


@kernel(inline=True)
def second_rule(a, b, c):
    """Return the largest and the second largest of three numbers."""
    high = a if a > b else b
    low = b if a > b else a
    top = c if c > high else high
    rest = high if c > high else c
    return top, (low if low > rest else rest)


@kernel(inline=True)
def winner_rule(actions, weights, tie_break):
    """Return the action with the largest vote and whether it is a tie (4.2, 4.3).

    tie_break `ORDER`: first of BUY, SELL, HOLD that attains the top. `HOLD`: two votes within 1e-12 of the top are a tie, HOLD.
    """
    sell = weigh_rule(actions, weights, np.int8(0))
    hold = weigh_rule(actions, weights, np.int8(1))
    buy = weigh_rule(actions, weights, np.int8(2))
    top, second = second_rule(sell, hold, buy)
    is_tie = (tie_break == TieBreak.HOLD) & (top - second <= 1e-12)
    first = np.int8(2 if buy == top else (0 if sell == top else 1))
    return np.int8(1 if is_tie else first), is_tie


@kernel(inline=True)
def consensus_rule(n_winners, n_voters, is_tie):
    """Name the agreement of `n_winners` among `n_voters` (4.2): at least all, three quarters, a half of them, or fewer."""
    quarters, threes = np.int8(4 * n_winners), np.int8(3 * n_voters)
    label = np.int8(2 if np.int8(2 * n_winners) >= n_voters else 1)
    label = np.int8(3 if quarters >= threes else label)
    label = np.int8(4 if n_winners >= n_voters else label)
    label = np.int8(5 if is_tie else label)
    return np.int8(0 if n_voters == 0 else label)


@kernel(inline=True)
def confidence_rule(total, n_winners, label, multipliers):
    """Return `min(0.95, mean * multiplier of the label)`; 0.50 for a tie and without voters (4.2, 4.3, 4.4)."""
    base = total / (n_winners if n_winners > 0 else 1)
    base = base if n_winners > 0 else 0.5
    factor = multipliers[0] if label == Consensus.WEAK else multipliers[1]
    factor = multipliers[2] if label == Consensus.STRONG else factor
    factor = multipliers[3] if label == Consensus.UNANIMOUS else factor
    capped = base * factor
    capped = capped if capped < 0.95 else 0.95
    return 0.5 if (label == Consensus.TIE) | (label == Consensus.NO_VALID_MODELS) else capped


@kernel(inline=True)
def weighted_score_rule(actions, confidences, weights, tie_break):
    """Return action and score of the confidence-weighted ensemble (4.5); HOLD at 0.0 without a weighted vote (D-35).

    Shares of the whole weight: `sum(w * c of the action) / sum(w present)`. Ties: first of SELL, HOLD, BUY, or HOLD with its own score.
    """
    products = (
        weights[0] * confidences[0],
        weights[1] * confidences[1],
        weights[2] * confidences[2],
        weights[3] * confidences[3],
        weights[4] * confidences[4],
    )
    present = weights[0] if actions[0] >= 0 else 0.0
    present = present + weights[1] if actions[1] >= 0 else present
    present = present + weights[2] if actions[2] >= 0 else present
    present = present + weights[3] if actions[3] >= 0 else present
    present = present + weights[4] if actions[4] >= 0 else present
    whole = present if present > 0.0 else 1.0
    sell = weigh_rule(actions, products, np.int8(0)) / whole
    hold = weigh_rule(actions, products, np.int8(1)) / whole
    buy = weigh_rule(actions, products, np.int8(2)) / whole
    top, second = second_rule(sell, hold, buy)
    is_tie = (present <= 0.0) | ((tie_break == TieBreak.HOLD) & (top - second <= 1e-12))
    first = 0 if sell == top else (1 if hold == top else 2)
    return (1 if is_tie else first), (hold if is_tie else top)


@kernel
def regime_weights(weights, factors, volatility, trend):
    """Return the five weights of a regime (4.6): `w * factor`, scaled back to the sum of `w`; unchanged where all would be 0.

    weights [5]; factors [45], volatility slice slowest, then trend slice (1.9), where an unknown value lies in the middle. The slots are
    summed left to right.
    """
    row = 0 if volatility < 0.4 else (2 if volatility >= 0.6 else 1)
    column = 0 if trend < -0.2 else (2 if trend > 0.2 else 1)
    k = 5 * (3 * row + column)
    w0, w1, w2 = weights[0] * factors[k], weights[1] * factors[k + 1], weights[2] * factors[k + 2]
    w3, w4 = weights[3] * factors[k + 3], weights[4] * factors[k + 4]
    before = weights[0] + weights[1] + weights[2] + weights[3] + weights[4]
    after = w0 + w1 + w2 + w3 + w4
    if after <= 0.0:
        return weights[0], weights[1], weights[2], weights[3], weights[4]
    scale = before / after
    return w0 * scale, w1 * scale, w2 * scale, w3 * scale, w4 * scale


@kernel
def elect(action, regime, params, codes, start, stop):
    """Write winner and tie flag of the cells [start, stop).

    action [5, N] int8, -1 absent; regime [2, N] volatility and trend, read only where weights follow the regime; codes [11, N]: the
    rows ENSEMBLE_ACTION and, as a flag for `tally`, CONSENSUS.
    """
    tie_break, weights, factors = (
        params[0]["ensemble"]["tie_break"],
        params[0]["ensemble"]["weights"],
        params[0]["ensemble"]["regime_factors"],
    )
    is_fixed = True
    for j in range(len(factors)):
        is_fixed = is_fixed and factors[j] == 1.0
    if is_fixed:
        fixed = (weights[0], weights[1], weights[2], weights[3], weights[4])
        for i in range(np.uintp(start), np.uintp(stop)):
            winner, is_tie = winner_rule(slots(action, i), fixed, tie_break)
            codes[Code.ENSEMBLE_ACTION, i] = winner
            codes[Code.CONSENSUS, i] = is_tie
    else:
        for i in range(np.uintp(start), np.uintp(stop)):
            adapted = regime_weights(weights, factors, regime[0, i], regime[1, i])
            winner, is_tie = winner_rule(slots(action, i), adapted, tie_break)
            codes[Code.ENSEMBLE_ACTION, i] = winner
            codes[Code.CONSENSUS, i] = is_tie


@kernel
def tally(action, codes, start, stop):
    """Count voters and the winner's voters of the cells [start, stop) and name their agreement; a cell without voters is HOLD.

    action [5, N] int8; codes [11, N]: reads ENSEMBLE_ACTION and the tie flag in CONSENSUS, writes both, CONSENSUS_COUNT and N_VOTERS.
    """
    for i in range(np.uintp(start), np.uintp(stop)):
        winner = codes[Code.ENSEMBLE_ACTION, i]
        sell, hold, buy, n_voters = tally_rule(slots(action, i))
        n_winners = np.int8(sell if winner == 0 else (hold if winner == 1 else buy))
        codes[Code.CONSENSUS, i] = consensus_rule(n_winners, n_voters, codes[Code.CONSENSUS, i] != 0)
        codes[Code.CONSENSUS_COUNT, i] = n_winners
        codes[Code.N_VOTERS, i] = n_voters
        codes[Code.ENSEMBLE_ACTION, i] = np.int8(1 if n_voters == 0 else winner)


@kernel
def average(action, confidence, params, codes, values, start, stop):
    """Write the ensemble's confidence of the cells [start, stop).

    action [5, N], confidence [5, N] NaN where absent; codes: reads what `elect` and `tally` wrote; values [5, N]: ENSEMBLE_CONFIDENCE.
    """
    table = params[0]["ensemble"]["multipliers"]
    multipliers = (table[0], table[1], table[2], table[3])
    for i in range(np.uintp(start), np.uintp(stop)):
        total = weigh_rule(slots(action, i), slots(confidence, i), codes[Code.ENSEMBLE_ACTION, i])
        label, n_winners = codes[Code.CONSENSUS, i], codes[Code.CONSENSUS_COUNT, i]
        values[Value.ENSEMBLE_CONFIDENCE, i] = confidence_rule(total, n_winners, label, multipliers)
