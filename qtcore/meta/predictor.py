"""MetaPredictor v5: the rule by which it may replace the ensemble (`spec` 5)."""

import numpy as np

from qtcore.jit import kernel
from qtcore.rules import Reason
from qtcore.slots import choose_rule, most_rule


@kernel
def v5_rule(sell, hold, buy, n, ensemble_action, probs, problem, threshold, guards):
    """Return reason, class and confidence: strictly above `threshold` it replaces, even by the same action.

    With `guards` it may not change the action when three quarters of the votes agree (D-40). Without an answer the reason is `problem`.
    """
    if probs[0] != probs[0]:
        return problem, -1, np.nan
    action, confidence, is_sound = choose_rule(probs[0], probs[1], probs[2])
    if not is_sound:
        return Reason.PREDICTION_ERROR.value, -1, np.nan
    if not confidence > threshold:
        return Reason.META_LOW_CONFIDENCE.value, action, confidence
    most = most_rule(sell, hold, buy)[0]
    is_guarded = guards != 0 and 4 * most >= 3 * n and action != ensemble_action
    return (Reason.CONSENSUS_GUARD.value if is_guarded else Reason.META_V5_OVERRIDE.value), action, confidence
