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


@kernel
def judge_bets(lean, pays, problem, map_, codes, values, start, stop):
    """Write the meta columns of the cells [start, stop) that lean to a side; the others were not asked about.

    lean [N]; pays [N] or [1]: probability that the bet pays, NaN where the model is not ready, for which `problem` [N], or [1], is the
    reason. map_: whose thresholds count, and whether the answer does; else it is advice, and VERDICT keeps the ensemble.
    """
    skip, full, is_seated = map_["skip"], map_["full"], map_["is_seated"] != 0
    last, end = np.uintp(len(pays) - 1), np.uintp(len(problem) - 1)
    for i in range(np.uintp(start), np.uintp(stop)):
        if lean[i] == 0.0:
            continue
        said = pays[min(i, last)]
        share = shrink_rule(said, skip, full)
        codes[Code.META_REASON, i] = bet_rule(said, share, problem[min(i, end)])
        codes[Code.META_ACTION, i] = -1 if said != said else (1 if share <= 0.0 else codes[Code.ENSEMBLE_ACTION, i])
        values[Value.META_CONFIDENCE, i] = said
        codes[Code.VERDICT, i] = Verdict.OVERRIDE.value if is_seated & (share < 1.0) else Verdict.DEFER.value
