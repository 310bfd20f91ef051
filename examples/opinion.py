"""Unanimity opinion layer: trade where every model that votes says the same, hold otherwise."""

import numpy as np
from numpy.typing import NDArray

import qtcore as qt


def unanimous(votes: qt.Votes, planes: qt.Planes, params: qt.Params) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Return actions [n, S] (0 SELL, 1 HOLD, 2 BUY) and the confidence of the least sure voter, 0 to 1, [n, S]."""
    voted = votes.action >= 0  # [models, n, S]; -1 is absent
    highest = votes.action.max(axis=0)
    lowest = np.where(voted, votes.action, np.int8(qt.Action.BUY)).min(axis=0)
    agree = voted.any(axis=0) & (highest == lowest)
    confidence = np.where(voted, votes.confidence, 1.0).min(axis=0)
    return np.where(agree, highest, qt.Action.HOLD).astype(np.int8), np.where(agree, confidence, 0.0)


judge = unanimous  # for --layers
