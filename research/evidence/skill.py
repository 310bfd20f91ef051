"""Skill of what models say, before any money: classes over their shares, and ranks of symbols against what came.

Rank correlation of a bar: that of the leans of its symbols with their returns over the next rows, Spearman's; the figure is its mean over
bars, the information coefficient of Grinold (1989). What the whole market does is no part of it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.features.registry import LEAST
from qtcore.types import F8, Bars
from research.evidence.earnings import ranks_in_money
from research.training.predictions import Predictions
from research.training.scoring.baseline import out_of_sample
from research.training.scoring.differences import difference, paired
from research.training.scoring.intervals import limits, tilted
from research.training.scoring.opinions import Opinion, blocks
from research.training.targets import forward_return, rank_in_row

N_CLASSES = 3


def mean_probs(made: Predictions, models: tuple[str, ...] = ()) -> F8:
    """Return the mean probabilities of the models that spoke, [n, S, 3], NaN where none did. models: whose; empty for all."""
    assert made.probs is not None
    probs = made.probs[[made.names.index(name) for name in models or made.slots], ..., :N_CLASSES]
    spoke = ~np.isnan(probs).any(axis=-1, keepdims=True)
    total, count = np.where(spoke, probs, 0.0).sum(axis=0), spoke.sum(axis=0)
    out: F8 = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return out


def above_prior(probs: F8, made: Predictions) -> Opinion:
    """Say the class whose probability is largest over the share that it had in the labels known before the fold.

    probs [n, S, 3]: what is said on the rows of `made`. A model that always says the most frequent class knows nothing then.
    """
    shares = np.ones((len(made.fold), N_CLASSES))
    for fold in np.unique(made.fold[made.fold >= 0]):
        rows = made.fold == fold
        known_by_then = made.labels[: max(0, int(np.argmax(rows)) - made.label.horizon)]
        counts = np.bincount(known_by_then.ravel() + 1, minlength=N_CLASSES + 1)[1:]
        shares[rows] = np.maximum(counts, 1) / max(1, counts.sum())
    over: F8 = probs / shares[:, None, :]
    known: NDArray[np.bool_] = np.asarray(~np.isnan(probs).any(axis=-1))
    action = np.where(known, np.argmax(np.where(known[..., None], over, 0.0), axis=-1), -1).astype(np.int8)
    return Opinion(action, np.where(known, np.nanmax(np.where(known[..., None], probs, 0.0), axis=-1), np.nan), probs)


def rank_correlations(lean: F8, came: F8) -> F8:
    """Return Spearman's correlation of two planes [n, S] within each row, [n]; NaN where fewer than five symbols have both, or one is flat.

    >>> rank_correlations(np.array([[1.0, 2.0, 3.0, 4.0, 5.0]]), np.array([[2.0, 4.0, 6.0, 8.0, 9.0]])).round(6).tolist()
    [1.0]
    """
    both = ~(np.isnan(lean) | np.isnan(came))
    x, y = (np.nan_to_num(rank_in_row(np.where(both, plane, np.nan))) for plane in (lean, came))  # the mean rank of a row is 0
    size = np.sqrt((x * x).sum(axis=1) * (y * y).sum(axis=1))
    is_told = (both.sum(axis=1) >= LEAST) & (size > 0.0)
    return np.where(is_told, (x * y).sum(axis=1) / np.where(size > 0.0, size, 1.0), np.nan)


def information(lean: F8, came: F8) -> dict[str, Any] | None:
    """Return the mean of `rank_correlations`, its 95 % interval `ci95`, and the number of bars; None where no bar has one."""
    each = rank_correlations(lean, came)
    known = ~np.isnan(each)
    if not known.any():
        return None
    sums = np.stack([np.where(known, each, 0.0), known.astype(np.float64)], axis=1)
    value, read = float(each[known].mean()), tilted(sums, known.astype(np.float64))
    return {"value": value, "ci95": limits(value, read[..., 0] / read[..., 1]), "n_bars": int(known.sum())}


def skill_of(bars: Bars, made: Predictions, base: Opinion | None) -> dict[str, Any]:
    """Say what the models of a training know out of sample: classes above their shares, log loss beside volatility's, ranks of symbols.

    base: what was said without more features, None for that itself. Figures are NaN, and `gain` and `information` None, where nothing was
    said that has a label.
    """
    probs = mean_probs(made)
    said, volatility = above_prior(probs, made), out_of_sample(bars, made)
    (own, other), bootstrap, rows = paired(said, base or said, made.labels, made.label.horizon, volatility)
    block, gap = blocks(own, bootstrap, rows, np.ones((1, 1)), ("total",))["total"], difference(own, other, bootstrap, rows)
    names = ("balanced_accuracy", "balanced_ci95", "direction_accuracy", "direction_ci95", "log_loss", "log_loss_ci95")
    out = {name: block[name] for name in (*names, "volatility_log_loss", "base_rate_log_loss", "n", "n_effective", "enough")}
    lean = probs[..., 2] - probs[..., 0]
    ranks = information(lean, forward_return(bars.close, made.label.horizon))
    paper = None if ranks is None else ranks_in_money(bars, lean, made.label.horizon)
    gains = {name: gap["balanced_accuracy"][name] for name in ("difference", "ci95")}
    is_told = base is not None and bool(np.isfinite(gains["difference"]))
    out |= {"gain": gains if is_told else None, "information": ranks, "ranks": paper}
    return out | {"horizon": made.label.horizon, "label": made.label.id}
