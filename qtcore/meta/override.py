"""Meta override: whether a confident learned model may replace the ensemble (`spec` 6.3)."""

import numpy as np

from qtcore.choices import MetaMode
from qtcore.jit import kernel
from qtcore.meta.predictor import v5_rule
from qtcore.rules import Reason
from qtcore.slots import choose_rule, most_rule, slots, tally_rule
from qtcore.types import Code, Source, Value, Verdict


@kernel
def override_rule(sell, hold, buy, n, probs, problem, consensus_threshold, threshold):
    """Return reason, class and confidence of the checks in order; class -1 and NaN until the model has given a valid answer.

    sell, hold, buy, n: head counts; probs: three probabilities, NaN where the model gave none because of `problem`;
    consensus_threshold: share of the votes; threshold: the least confidence that overrides.
    """
    is_absent = probs[0] != probs[0]
    if is_absent and problem == Reason.MODEL_NOT_LOADED:
        return Reason.MODEL_NOT_LOADED.value, -1, np.nan
    most, winner = most_rule(sell, hold, buy)
    if n > 0 and most / n >= consensus_threshold:
        return Reason.STRONG_CONSENSUS_SELL.value + winner, -1, np.nan
    if is_absent:
        return problem, -1, np.nan
    action, confidence, is_sound = choose_rule(probs[0], probs[1], probs[2])
    if not is_sound:
        return Reason.INVALID_CONFIDENCE.value, -1, np.nan
    low, high = Reason.META_LOW_CONFIDENCE.value, Reason.META_OVERRIDE_SELL.value + action
    return (low if confidence < threshold else high), action, confidence


@kernel
def judge_learned(action, probs, problem, params, codes, values, start, stop):
    """Let the learned model of the modes `override` and `v5` replace the raw decision of the cells [start, stop), or keep it.

    action [5, N]; probs [3, N], or [3, 1] for all: SELL HOLD BUY, NaN where the model is not ready, for which `problem` [N], or [1], is
    the reason; codes [11, N] and values [5, N]: writes the meta columns and, where it replaces, the raw ones. In `override` an error that
    fails closed holds at 0.0: it counts as a deferral for that error, since no model overrode anything.
    """
    meta, last, end = params[0]["meta"], np.uintp(probs.shape[1] - 1), np.uintp(len(problem) - 1)
    is_v5, share = meta["mode"] == MetaMode.V5, meta["consensus_threshold"]
    for i in range(np.uintp(start), np.uintp(stop)):
        sell, hold, buy, n = tally_rule(slots(action, i))
        if n < 2:
            codes[Code.META_REASON, i] = Reason.TOO_FEW_VOTERS.value if n == 1 else Reason.NO_VALID_MODELS.value
            continue
        at, kept = min(i, last), codes[Code.ENSEMBLE_ACTION, i]
        answer, why = (probs[0, at], probs[1, at], probs[2, at]), problem[min(i, end)]
        if is_v5:
            reason, chosen, confidence = v5_rule(sell, hold, buy, n, kept, answer, why, meta["v5_threshold"], meta["consensus_guard"])
        else:
            reason, chosen, confidence = override_rule(sell, hold, buy, n, answer, why, share, meta["override_threshold"])
        is_closed = (
            (not is_v5)
            and (reason == Reason.INVALID_CONFIDENCE or Reason.MODEL_NOT_LOADED.value <= reason <= Reason.PREDICTION_ERROR.value)
            and meta["fail_open"] == 0
        )
        overrides = Reason.META_OVERRIDE_SELL.value <= reason <= Reason.META_OVERRIDE_BUY.value
        overrides = overrides or reason == Reason.META_V5_OVERRIDE
        codes[Code.VERDICT, i] = Verdict.OVERRIDE.value if overrides else Verdict.DEFER.value
        codes[Code.META_REASON, i] = reason
        codes[Code.META_ACTION, i] = chosen
        values[Value.META_CONFIDENCE, i] = confidence
        if is_closed or overrides:
            codes[Code.RAW_ACTION, i] = 1 if is_closed else chosen
            values[Value.RAW_CONFIDENCE, i] = 0.0 if is_closed else confidence
            codes[Code.SOURCE, i] = Source.META
