"""Is the ensemble clear enough, or must the arbiter be asked? The policy never proposes a trade (`spec` 7).

The rules need head counts only and run in int8 lanes (2026-11: 0.3 ns a cell). The learned model is asked where every rule has passed,
which with four voters is never (7.4), so its entropy is worked out cell by cell.
"""

import math

import numpy as np

from qtcore.jit import kernel
from qtcore.params import MissingFill
from qtcore.slots import (
    choose_rule,
    fill_rule,
    is_outvoted_rule,
    least_groups,
    most_groups,
    most_rule,
    pick_rule,
    slots,
    tally_rule,
)
from qtcore.types import Code, Reason, Value


@kernel(inline=True)
def policy_rule(sell, hold, buy, n, is_low, agreeing, divided):
    """Return the reason of the first trigger that fires (7.3): 1-3 and 5 defer, 20-22 escalate, 5 is what the learned model may change.

    sell, hold, buy, n: head counts; is_low: the base confidence is below its threshold; agreeing, divided: `least_groups` and
    `most_groups` of the two thresholds.
    """
    most, winner = most_rule(sell, hold, buy)
    reason = np.int8(22 if is_low else 5)
    reason = np.int8(21 if most <= pick_rule(divided, n) else reason)
    reason = np.int8(20 if (buy == 2) & (sell == 2) else reason)
    reason = np.int8(np.int8(1 + winner) if most >= pick_rule(agreeing, n) else reason)
    return np.int8(11 if n == 0 else reason)


@kernel(inline=True)
def entropy_rule(p_sell, p_hold, p_buy):
    """Return the entropy of three probabilities over ln 3 (7.3); a certain one may come out below zero by 1e-10."""
    total = p_sell * math.log(p_sell + 1e-10)
    total = total + p_hold * math.log(p_hold + 1e-10)
    total = total + p_buy * math.log(p_buy + 1e-10)
    return -total / math.log(3.0)


@kernel
def judge_policy(action, params, codes, start, stop):
    """Keep or escalate the cells [start, stop) by the rules; return whether any is escalated, outvoted (D-70) or clear, as three flags.

    action [5, N]; codes [11, N]: reads ENSEMBLE_ACTION, N_VOTERS and in VERDICT whether the base confidence is low; writes VERDICT and
    META_REASON. With `hold_half` the absent are counted, and a consensus made of them outvotes nobody.
    """
    meta = params[0]["meta"]
    fills = meta["missing_fill"] == MissingFill.HOLD_HALF
    agreeing = least_groups(meta["consensus_threshold"])
    divided = most_groups(meta["disagreement_threshold"])
    escalated, outvoted, clear = np.int8(0), np.int8(0), np.int8(0)
    for i in range(np.uintp(start), np.uintp(stop)):
        actions = slots(action, i)
        sell, hold, buy, n = tally_rule(fill_rule(actions) if fills else actions)
        n_voters = codes[Code.N_VOTERS, i]
        reason = policy_rule(sell, hold, buy, n, codes[Code.VERDICT, i] != 0, agreeing, divided)
        reason = np.int8(14 if n_voters == 1 else (13 if n_voters == 0 else reason))
        verdict = np.int8(3 if reason >= 20 else (0 if n_voters < 2 else 1))
        codes[Code.META_REASON, i] = reason
        codes[Code.VERDICT, i] = verdict
        escalated = np.int8(escalated | np.int8(reason >= 20))
        clear = np.int8(clear | np.int8(reason == 5))
        is_outvoted = (not fills) & (reason <= 3) & is_outvoted_rule(sell, hold, buy, codes[Code.ENSEMBLE_ACTION, i])
        outvoted = np.int8(outvoted | np.int8(is_outvoted))
    return escalated != 0, outvoted != 0, clear != 0


@kernel
def ask(probs, problem, params, codes, values, start, stop):
    """Ask the learned model about the clear cells of [start, stop): an undecided market escalates. Return whether one did.

    probs [3, N], or [3, 1] for all: SELL HOLD BUY, NaN where the model is not ready, for which `problem` is the reason. Writes
    META_REASON, VERDICT, META_ACTION and, as META_CONFIDENCE, the entropy.
    """
    escalated, last = False, np.uintp(probs.shape[1] - 1)
    for i in range(np.uintp(start), np.uintp(stop)):
        if codes[Code.META_REASON, i] != Reason.CLEAR_ENSEMBLE_NO_MODEL:
            continue
        at = min(i, last)
        p_sell, p_hold, p_buy = probs[0, at], probs[1, at], probs[2, at]
        chosen, _, is_sound = choose_rule(p_sell, p_hold, p_buy)
        if p_sell != p_sell:
            codes[Code.META_REASON, i] = 5 if problem == Reason.MODEL_NOT_LOADED else problem
        elif not is_sound:
            codes[Code.META_REASON, i] = Reason.PREDICTION_ERROR
        else:
            entropy = entropy_rule(p_sell, p_hold, p_buy)
            undecided = entropy > params[0]["meta"]["entropy_threshold"]
            escalated |= undecided
            codes[Code.META_REASON, i] = 23 if undecided else 4
            codes[Code.VERDICT, i] = 3 if undecided else 1
            codes[Code.META_ACTION, i] = chosen
            values[Value.META_CONFIDENCE, i] = entropy
    return escalated
