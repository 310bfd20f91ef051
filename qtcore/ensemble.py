"""Weighted ensemble vote of the models; the confidence is the mean of the winner's voters (`spec` 4).

Winner and agreement depend on the pattern of the votes alone, so `chain.patterns` asks these rules once for each of the 1,024 patterns of
five models and cells look the answer up. A vote adds left to right in slot order; adding nothing for the others is exact.
"""

import numpy as np

from qtcore.choices import TieBreak
from qtcore.jit import kernel
from qtcore.slots import slots, weigh_rule
from qtcore.types import Code, Consensus, Value


@kernel
def second_rule(a, b, c):
    """Return the largest and the second largest of three numbers."""
    high, low = max(a, b), min(a, b)
    return max(high, c), max(low, min(high, c))


@kernel
def winner_rule(actions, weights, tie_break):
    """Return the action with the largest vote and whether it is a tie (4.2, 4.3).

    tie_break `ORDER`: first of BUY, SELL, HOLD that attains the top. `HOLD`: two votes within 1e-12 of the top are a tie, HOLD.
    """
    sell, hold, buy = np.int8(0), np.int8(1), np.int8(2)
    votes = weigh_rule(actions, weights, sell), weigh_rule(actions, weights, hold), weigh_rule(actions, weights, buy)
    top, second = second_rule(votes[0], votes[1], votes[2])
    if tie_break == TieBreak.HOLD and top - second <= 1e-12:
        return 1, True
    return 2 if votes[2] == top else (0 if votes[0] == top else 1), False


@kernel
def consensus_rule(n_winners, n_voters, is_tie):
    """Name the agreement of `n_winners` among `n_voters` (4.2): at least all, three quarters, a half of them, or fewer."""
    if n_voters == 0:
        return Consensus.NO_VALID_MODELS.value
    if is_tie:
        return Consensus.TIE.value
    if n_winners >= n_voters:
        return Consensus.UNANIMOUS.value
    if n_winners >= 0.75 * n_voters:
        return Consensus.STRONG.value
    return Consensus.SPLIT.value if n_winners >= 0.5 * n_voters else Consensus.WEAK.value


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


@kernel
def weighted_score_rule(action, confidence, cell, weights, tie_break, fills):
    """Return action and score of the confidence-weighted ensemble (4.5) of one cell; HOLD at 0.0 without a weighted vote (D-35).

    action, confidence [5, N]; weights [5]; fills: an absent base model stands for HOLD 0.5 (7.1), the fifth slot is optional.
    Shares of the whole weight: `sum(w * c of the action) / sum(w present)`. Ties: first of SELL, HOLD, BUY, or HOLD with its own score.
    """
    sell, hold, buy, whole = 0.0, 0.0, 0.0, 0.0
    for m in range(len(action)):
        a, c = action[m, cell], confidence[m, cell]
        if a < 0 and fills and m < 4:
            a, c = np.int8(1), 0.5
        if a >= 0:
            sell += weights[m] * c if a == 0 else 0.0
            hold += weights[m] * c if a == 1 else 0.0
            buy += weights[m] * c if a == 2 else 0.0
            whole += weights[m]
    if whole <= 0.0:
        return 1, 0.0
    sell, hold, buy = sell / whole, hold / whole, buy / whole
    top, second = second_rule(sell, hold, buy)
    if tie_break == TieBreak.HOLD and top - second <= 1e-12:
        return 1, hold
    return 0 if sell == top else (1 if hold == top else 2), top


@kernel(inline=True)
def slice_rule(volatility, trend):
    """Return the number of the regime slice (1.9), volatility slowest; an unknown value lies in the middle."""
    row = 0 if volatility < 0.4 else (2 if volatility >= 0.6 else 1)
    column = 0 if trend < -0.2 else (2 if trend > 0.2 else 1)
    return 3 * row + column


@kernel
def regime_weights(weights, factors, slice_number):
    """Return the five weights of one regime slice (4.6): `w * factor`, scaled back to the sum of `w`; unchanged where all would be 0.

    weights [5]; factors [45], slice slowest. The slots are summed left to right.
    """
    k = 5 * slice_number
    w0, w1, w2 = weights[0] * factors[k], weights[1] * factors[k + 1], weights[2] * factors[k + 2]
    w3, w4 = weights[3] * factors[k + 3], weights[4] * factors[k + 4]
    before = weights[0] + weights[1] + weights[2] + weights[3] + weights[4]
    after = w0 + w1 + w2 + w3 + w4
    if after <= 0.0:
        return weights[0], weights[1], weights[2], weights[3], weights[4]
    scale = before / after
    return w0 * scale, w1 * scale, w2 * scale, w3 * scale, w4 * scale


@kernel
def average(action, confidence, params, codes, values, start, stop):
    """Write the ensemble's confidence of the cells [start, stop).

    action [5, N], confidence [5, N] NaN where absent; codes [11, N]: reads ENSEMBLE_ACTION, CONSENSUS and CONSENSUS_COUNT; values [5, N]:
    writes ENSEMBLE_CONFIDENCE.
    """
    table = params[0]["ensemble"]["multipliers"]
    multipliers = (table[0], table[1], table[2], table[3])
    for i in range(np.uintp(start), np.uintp(stop)):
        total = weigh_rule(slots(action, i), slots(confidence, i), codes[Code.ENSEMBLE_ACTION, i])
        label, n_winners = codes[Code.CONSENSUS, i], codes[Code.CONSENSUS_COUNT, i]
        values[Value.ENSEMBLE_CONFIDENCE, i] = confidence_rule(total, n_winners, label, multipliers)
