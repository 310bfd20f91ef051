"""May MetaPredictor v5 replace the ensemble? (`spec` 5)"""

import numpy as np

from qtcore.jit import kernel
from qtcore.slots import choose_rule, most_rule, slots, tally_rule
from qtcore.types import Code, Reason, Value


@kernel
def v5_rule(sell, hold, buy, n, ensemble_action, probs, problem, threshold, guards):
    """Return reason, class and confidence: strictly above `threshold` it replaces, even by the same action.

    With `guards` it may not change the action when three quarters of the votes agree (D-40). Without an answer the reason is `problem`.
    """
    if probs[0] != probs[0]:
        return problem, -1, np.nan
    action, confidence, is_sound = choose_rule(probs[0], probs[1], probs[2])
    if not is_sound:
        return 10, -1, np.nan
    if not confidence > threshold:
        return 33, action, confidence
    most = most_rule(sell, hold, buy)[0]
    is_guarded = guards != 0 and 4 * most >= 3 * n and action != ensemble_action
    return (15 if is_guarded else 35), action, confidence


@kernel
def judge_v5(action, probs, problem, params, codes, values, start, stop):
    """Replace or keep the cells [start, stop); arguments as in `judge_override`."""
    meta, last = params[0]["meta"], np.uintp(probs.shape[1] - 1)
    for i in range(np.uintp(start), np.uintp(stop)):
        sell, hold, buy, n = tally_rule(slots(action, i))
        if n < 2:
            codes[Code.META_REASON, i] = 14 if n == 1 else 13
            continue
        kept = codes[Code.ENSEMBLE_ACTION, i]
        at = min(i, last)
        answer = probs[0, at], probs[1, at], probs[2, at]
        reason, chosen, confidence = v5_rule(sell, hold, buy, n, kept, answer, problem, meta["v5_threshold"], meta["consensus_guard"])
        codes[Code.VERDICT, i] = 2 if reason == Reason.META_V5_OVERRIDE else 1
        codes[Code.META_REASON, i] = reason
        codes[Code.META_ACTION, i] = chosen
        values[Value.META_CONFIDENCE, i] = confidence
        if reason == Reason.META_V5_OVERRIDE:
            codes[Code.RAW_ACTION, i] = chosen
            values[Value.RAW_CONFIDENCE, i] = confidence
            codes[Code.SOURCE, i] = 1
