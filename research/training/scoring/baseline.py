"""Volatility baseline: what a third of trailing volatility and the sign of the last move tell of the label, and nothing else.

Volatility clusters, so how often the price moves beyond a threshold is known on a random walk; a model is worth its place only beyond that.
The baseline answers the class shares that the training rows had in the cell's third of volatility and sign of its last move, as
probabilities; their largest is its rule. It is fitted fold by fold on the rows that train, and scored out of sample, as models are.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from qtcore.types import F8, I8, Bars
from research.data.grid import filled
from research.errors import ModelError
from research.training.labels import label_end
from research.training.scoring.opinions import Opinion
from research.training.splits import walk_forward

MEMORY = 24  # bars whose moves make trailing volatility
N_BINS = 9  # thirds of volatility times signs of the last move


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline. edges: of the thirds of volatility; shares [10, 3]: of SELL HOLD BUY in each bin, last where it is unknown."""

    edges: tuple[float, float]
    shares: tuple[tuple[float, ...], ...]

    @classmethod
    def fit(cls, volatility: F8, move: F8, labels: NDArray[np.int8]) -> Self:
        """Count the labels of training cells; arrays of one shape, labels -1 where unknown.

        Every bin has one cell more, shared as all cells are: what never occurred in it is not impossible, and an empty bin answers that.
        """
        known = labels >= 0
        first, second = np.nanquantile(volatility[known], (1 / 3, 2 / 3)) if np.isfinite(volatility[known]).any() else (0.0, 0.0)
        counts = np.zeros((N_BINS + 1, 3))
        np.add.at(counts, (_bins(volatility, move, (first, second))[known], labels[known]), 1.0)
        counts[N_BINS] = counts.sum(axis=0)
        counts += counts[N_BINS] / max(counts[N_BINS].sum(), 1.0)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
        return cls((float(first), float(second)), tuple(map(tuple, shares.tolist())))

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Self:
        """Make one of what `__dict__` was in JSON."""
        return cls(tuple(stored["edges"]), tuple(map(tuple, stored["shares"])))

    def probs(self, volatility: F8, move: F8) -> F8:
        """Answer cells of any shape: their probabilities [..., 3]."""
        return np.asarray(self.shares)[_bins(volatility, move, self.edges)]


def _bins(volatility: F8, move: F8, edges: tuple[float, float]) -> NDArray[np.int64]:
    third = (volatility >= edges[0]).astype(np.int64) + (volatility >= edges[1])
    return np.where(np.isfinite(volatility), third * 3 + np.sign(np.nan_to_num(move)).astype(np.int64) + 1, N_BINS)


def seen(close: F8) -> tuple[F8, F8]:
    """Return trailing volatility (root mean square of the last 24 log returns, NaN before) and the last log return, [n, S] each."""
    move = np.diff(np.log(filled(close, np.nan)), axis=0, prepend=np.nan)
    volatility = np.full(close.shape, np.nan)
    if len(close) >= MEMORY:
        volatility[MEMORY - 1 :] = np.sqrt(sliding_window_view(move * move, MEMORY, axis=0).mean(axis=-1))
    return volatility, move


def out_of_sample(bars: Bars, predictions: Any) -> Opinion:
    """Say what the baseline of each fold answers on its test rows; elsewhere it is not scored.

    A training stores its baselines with its models. Where none is stored (imported predictions) each fold's is fitted on the labels that
    ended before it, over the folds of the predictions, or over those of a walk-forward cut.
    """
    volatility, move = seen(bars.close)
    probs = np.full((*bars.close.shape, 3), np.nan)
    config = {} if predictions.models is None else predictions.models.config
    if stored := config.get("baselines"):
        for k, told in enumerate(stored):
            rows = predictions.fold == k
            probs[rows] = Baseline.from_dict(told).probs(volatility[rows], move[rows])
    else:
        end = label_end(bars.n, predictions.label)
        for start, stop in _spans(predictions.fold, end):
            train = end < start
            fitted = Baseline.fit(volatility[train], move[train], predictions.labels[train])
            probs[start:stop] = fitted.probs(volatility[start:stop], move[start:stop])
    known = ~np.isnan(probs[..., 0])
    action = np.where(known, np.argmax(np.where(known[..., None], probs, 0.0), axis=-1), -1).astype(np.int8)
    return Opinion(action, probs.max(axis=-1), probs)


def _spans(fold: NDArray[np.int16], end: I8) -> list[tuple[int, int]]:
    """Return first row and row behind of every test period."""
    if known := [np.flatnonzero(fold == k) for k in np.unique(fold[fold >= 0])]:
        return [(int(rows[0]), int(rows[-1]) + 1) for rows in known]
    try:
        return [(cut.boundary, int(cut.test[-1]) + 1) for cut in walk_forward(end)]
    except ModelError:  # too few rows to cut
        return []
