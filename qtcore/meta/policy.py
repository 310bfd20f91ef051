"""Escalation policy: keep a clear ensemble or ask the arbiter. The policy never proposes a trade (`spec` 7).

The rules need head counts only, so `chain.patterns` asks them once for each pattern of votes. The learned model is asked where every
rule has passed, which with four voters is never (7.4); its entropy is worked out cell by cell.
"""

import math

import numpy as np

from qtcore.choices import MetaVariant
from qtcore.jit import kernel
from qtcore.rules import Reason
from qtcore.slots import choose_rule, most_rule
from qtcore.types import Code, Value, Verdict


@kernel
def policy_rule(sell, hold, buy, is_low, consensus_threshold, disagreement_threshold):
    """Return the reason of the first trigger that fires (7.3); only CLEAR_ENSEMBLE_NO_MODEL may be changed by the learned model.

    sell, hold, buy: head counts; is_low: the base confidence is below its threshold; the thresholds are shares of the votes.
    """
    n = sell + hold + buy
    if n == 0:
        return Reason.NO_PREDICTIONS.value
    most, winner = most_rule(sell, hold, buy)
    if most / n >= consensus_threshold:
        return Reason.STRONG_CONSENSUS_SELL.value + winner
    if buy == 2 and sell == 2:
        return Reason.SPLIT_VOTE.value
    if 1.0 - most / n >= disagreement_threshold:
        return Reason.HIGH_DISAGREEMENT.value
    return Reason.LOW_ENSEMBLE_CONFIDENCE.value if is_low else Reason.CLEAR_ENSEMBLE_NO_MODEL.value


@kernel
def entropy_rule(p_sell, p_hold, p_buy):
    """Return the entropy of three probabilities over ln 3 (7.3); a certain one may come out below zero by 1e-10."""
    total = p_sell * math.log(p_sell + 1e-10)
    total = total + p_hold * math.log(p_hold + 1e-10)
    total = total + p_buy * math.log(p_buy + 1e-10)
    return -total / math.log(3.0)


@kernel
def judge_policy(found, codes, start, stop):
    """Keep or escalate the cells [start, stop) by the rules; return whether any is escalated, outvoted (D-70) or clear.

    found [>= stop - start]: entries of the pattern table; codes [11, N]: reads in VERDICT whether the base confidence is low, writes
    VERDICT and META_REASON.
    """
    first, escalated, outvoted, clear = np.uintp(start), np.int32(0), np.int32(0), np.int32(0)
    for i in range(np.uintp(stop - start)):
        entry = found[i]
        judged = np.int32(entry >> 18 if codes[Code.VERDICT, first + i] != 0 else entry >> 11)
        codes[Code.META_REASON, first + i] = judged & 31
        codes[Code.VERDICT, first + i] = judged >> 5 & 3
        escalated = np.int32(escalated | np.int32((judged & 31) >= Reason.SPLIT_VOTE.value))
        clear = np.int32(clear | np.int32((judged & 31) == Reason.CLEAR_ENSEMBLE_NO_MODEL.value))
        outvoted = np.int32(outvoted | np.int32(entry >> 25))
    return escalated != 0, outvoted & 1 != 0, clear != 0


@kernel
def ask(probs, problem, params, codes, values, start, stop):
    """Ask the learned model about the clear cells of [start, stop): an undecided market escalates. Return whether one did.

    The variant `learned` asks about escalated cells too: the model's answer replaces the rule's; without one the rule stands.
    probs [3, N], or [3, 1] for all: SELL HOLD BUY, NaN where the model is not ready, for which `problem` [N], or [1], is the reason.
    Writes META_REASON, VERDICT, META_ACTION and, as META_CONFIDENCE, the entropy.
    """
    escalated, last, end = False, np.uintp(probs.shape[1] - 1), np.uintp(len(problem) - 1)
    first = Reason.SPLIT_VOTE.value if params[0]["meta"]["variant"] == MetaVariant.LEARNED else 127
    for i in range(np.uintp(start), np.uintp(stop)):
        is_clear = codes[Code.META_REASON, i] == Reason.CLEAR_ENSEMBLE_NO_MODEL
        if not is_clear and codes[Code.META_REASON, i] < first:
            continue
        at = min(i, last)
        p_sell, p_hold, p_buy = probs[0, at], probs[1, at], probs[2, at]
        chosen, _, is_sound = choose_rule(p_sell, p_hold, p_buy)
        if not is_clear and not is_sound:
            continue
        if p_sell != p_sell:
            reason = problem[min(i, end)]
            codes[Code.META_REASON, i] = Reason.CLEAR_ENSEMBLE_NO_MODEL.value if reason == Reason.MODEL_NOT_LOADED else reason
        elif not is_sound:
            codes[Code.META_REASON, i] = Reason.PREDICTION_ERROR
        else:
            entropy = entropy_rule(p_sell, p_hold, p_buy)
            undecided = entropy > params[0]["meta"]["entropy_threshold"]
            escalated |= undecided
            codes[Code.META_REASON, i] = Reason.UNDECIDED_MARKET.value if undecided else Reason.CLEAR_ENSEMBLE.value
            codes[Code.VERDICT, i] = Verdict.ESCALATE.value if undecided else Verdict.DEFER.value
            codes[Code.META_ACTION, i] = chosen
            values[Value.META_CONFIDENCE, i] = entropy
    return escalated
