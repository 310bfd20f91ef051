"""Scores of the learned meta model on every cell, whether a rule asked it or not."""

import numpy as np
from numpy.typing import NDArray

from qtcore import Params, Result
from qtcore.choices import MetaMode
from qtcore.types import F8


def meta_scores(result: Result, params: Params) -> dict[str, tuple[NDArray[np.int8], F8, F8]]:
    """Return what the learned meta model says of every cell that it could answer: `{"meta_policy": (action, confidence, probs)}`.

    The key is `meta_` and the mode. action int8 [n, S]: the first most likely class, -1 where the model is not ready or fewer than two
    voted. confidence [n, S]: its probability, NaN there. probs [n, S, 3]: SELL HOLD BUY. Every cell is out of sample for the model. With
    four voters the published policy never asks it: these figures then stand apart from what the chain did. Empty without a learned model,
    and in mode `bet`, where it says whether a bet pays and not where the market goes.
    """
    asked = getattr(result, "meta_probs", None)
    if asked is None or params.meta.mode == MetaMode.BET or np.isnan(asked[0]).all():
        return {}
    probs = np.ascontiguousarray(np.moveaxis(asked, 0, -1))
    known = ~np.isnan(probs[..., 0])
    action = np.where(known, np.argmax(np.where(known[..., None], probs, 0.0), axis=-1), -1).astype(np.int8)
    confidence = np.where(known, probs.max(axis=-1), np.nan)
    return {f"meta_{params.meta.mode.name.lower()}": (action, confidence, probs)}
