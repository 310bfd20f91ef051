"""Meta-labelling: whether a bet of the ensemble is made, made smaller, or left out (Lopez de Prado 2018, chapter 3).

The learned model says how likely the bet pays after its costs. Nothing is added: a bet that the map does not trade stays untraded.
"""

import numpy as np

from qtcore.jit import kernel
from qtcore.rules import Reason
from qtcore.types import Code, Value, Verdict


@kernel(inline=True)
def shrink_rule(pays, skip, full):
    """Return the share of a bet that the meta layer leaves, in [0, 1]; the whole where it has no answer. pays: its probability."""
    share = (pays - skip) / (full - skip)
    share = share if share > 0.0 else 0.0
    share = share if share < 1.0 else 1.0
    return share if pays == pays else 1.0


@kernel(inline=True)
def bet_rule(pays, share, problem):
    """Name the answer to a bet; without one the `problem`."""
    said = Reason.BET_TAKEN.value if share >= 1.0 else (Reason.BET_SHRUNK.value if share > 0.0 else Reason.BET_SKIPPED.value)
    return said if pays == pays else problem


@kernel(inline=True)
def bet_columns_rule(is_bet, action, said, silent, skip, full, is_seated):
    """Return the meta columns of a cell: reason, action, probability and verdict; of one that leans to no side as if nobody was asked."""
    share = shrink_rule(said, skip, full)
    reason = bet_rule(said, share, silent)
    answer = -1 if said != said else (1 if share <= 0.0 else action)
    verdict = Verdict.OVERRIDE.value if is_seated & (share < 1.0) else Verdict.DEFER.value
    return reason if is_bet else 0, answer if is_bet else -1, said if is_bet else np.nan, verdict if is_bet else 0


@kernel
def judge_bets(lean, pays, problem, map_, codes, values, start, stop):
    """Write the meta columns of the cells [start, stop); those that lean to no side were not asked about.

    lean [N]; pays [N] or [1]: probability that the bet pays, NaN where the model is not ready, for which `problem` [N], or [1], is the
    reason. map_: whose thresholds count, and whether the answer does; else it is advice, and VERDICT keeps the ensemble.
    """
    skip, full, is_seated = map_["skip"], map_["full"], map_["is_seated"] != 0
    last, end = np.uintp(len(pays) - 1), np.uintp(len(problem) - 1)
    is_same, of_all, why = (last == 0) & (end == 0), pays[0], problem[0]
    for i in range(np.uintp(start), np.uintp(stop if is_same else start)):  # no load depends on a choice: SIMD
        reason, action, said, verdict = bet_columns_rule(lean[i] != 0.0, codes[Code.ENSEMBLE_ACTION, i], of_all, why, skip, full, is_seated)
        codes[Code.META_REASON, i], codes[Code.META_ACTION, i] = reason, action
        codes[Code.VERDICT, i], values[Value.META_CONFIDENCE, i] = verdict, said
    for i in range(np.uintp(stop if is_same else start), np.uintp(stop)):
        reason, action, said, verdict = bet_columns_rule(
            lean[i] != 0.0, codes[Code.ENSEMBLE_ACTION, i], pays[min(i, last)], problem[min(i, end)], skip, full, is_seated
        )
        codes[Code.META_REASON, i], codes[Code.META_ACTION, i] = reason, action
        codes[Code.VERDICT, i], values[Value.META_CONFIDENCE, i] = verdict, said
