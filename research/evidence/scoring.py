"""How often was a model or a layer right, and is that more than luck? Accuracy blocks, in total and per regime slice.

Every figure of a block is a quotient of sums, and the sums are kept per bar and regime (`Tally`), so slices add up and the bootstrap
resamples bars. `spec` D-91 (who is scored on what), D-92 (direction), D-93 (intervals).

Direction (SELL against BUY where the price moved) and activity (HOLD against a move) are different skills: volatility clusters, so activity
can be told even on a random walk. Both stand in every block.

Log loss of an action-only layer puts its confidence on its action and shares the rest equally between the other two. ECE: 15 equal bins of
the confidence in [0, 1], gaps weighted by cells.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import Action
from research.evidence.bootstrap import Bootstrap, interval
from research.evidence.regimes import GROUPS, N_CELLS, SLICES, slice_sums

ECE_BINS = 15
ENOUGH = 30  # independent events below which a figure reads "not enough data"
N_SUMS = 4  # per bar and regime: cells, hits, cells with a direction, direction hits


@dataclass(frozen=True)
class Opinion:
    """What one model or layer said.

    action [n, S]: int8, -1 where it is not scored; confidence [n, S] in [0, 1].
    probs [n, S, 3]: SELL HOLD BUY, or None for an action-only layer.
    """

    action: NDArray[np.int8]
    confidence: NDArray[np.float64]
    probs: NDArray[np.float64] | None = None


@dataclass(frozen=True)
class Tally:
    """Sums from which every figure of an opinion follows.

    rows [n, 9, 4]: per bar and regime, see `N_SUMS`. confusion [9, 3, 3]: label by action. log_loss [9]: summed nats.
    bins [9, 15, 3]: per confidence bin cells, hits and summed confidence.
    """

    rows: NDArray
    confusion: NDArray
    log_loss: NDArray
    bins: NDArray

    @property
    def residual(self) -> NDArray:
        """Hits per bar above what the average accuracy expects, [n]: the series whose dependence sets the block length."""
        cells, hits = self.rows[:, :, 0].sum(axis=1), self.rows[:, :, 1].sum(axis=1)
        return hits - cells * (hits.sum() / max(cells.sum(), 1.0))


def tally(opinion: Opinion, labels: NDArray[np.int8], regime: NDArray[np.int8]) -> Tally:
    """Count an opinion against labels [n, S] (-1 unknown) by regime [n, S]; cells without action or label are left out."""
    n, n_symbols = labels.shape
    at = np.flatnonzero((opinion.action.reshape(-1) >= 0) & (labels.reshape(-1) >= 0))
    action, label = (plane.reshape(-1)[at].astype(np.int64) for plane in (opinion.action, labels))
    cell = regime.reshape(-1)[at].astype(np.int64)
    hit = action == label
    direction = _direction(opinion, at, action)
    directed = (label != Action.HOLD) & (direction != 0)
    weights = (None, hit, directed, directed & (direction == label - 1))
    place = at // n_symbols * N_CELLS + cell
    rows = np.stack([np.bincount(place, w, minlength=n * N_CELLS).reshape(n, N_CELLS) for w in weights], axis=-1)
    confidence = np.clip(np.nan_to_num(opinion.confidence.reshape(-1)[at]), 0.0, 1.0)
    bin_ = cell * ECE_BINS + np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)
    bins = [np.bincount(bin_, w, minlength=N_CELLS * ECE_BINS).reshape(N_CELLS, ECE_BINS) for w in (None, hit, confidence)]
    loss = -np.log(np.clip(_probability_of(opinion, at, label, hit, confidence), np.finfo(float).eps, 1.0))
    confusion = np.bincount(cell * 9 + label * 3 + action, minlength=N_CELLS * 9).reshape(N_CELLS, 3, 3)
    return Tally(rows, confusion.astype(float), np.bincount(cell, loss, minlength=N_CELLS), np.stack(bins, axis=-1))


def _direction(opinion: Opinion, at: NDArray, action: NDArray) -> NDArray:
    """Sign of the opinion, 0 where it has none (`spec` D-92)."""
    if opinion.probs is None:
        return action - 1
    probs = opinion.probs.reshape(-1, 3)
    return np.sign(probs[at, Action.BUY] - probs[at, Action.SELL]).astype(np.int64)


def _probability_of(opinion: Opinion, at: NDArray, label: NDArray, hit: NDArray, confidence: NDArray) -> NDArray:
    if opinion.probs is None:
        return np.where(hit, confidence, (1.0 - confidence) / 2.0)
    return opinion.probs.reshape(-1, 3)[at, label]


def blocks(counted: Tally, bootstrap: Bootstrap, rows: slice) -> dict[str, dict[str, Any]]:
    """Turn sums into one accuracy block per slice, `{"total": {...}, "volatility_low": {...}, ...}`; NaN where nothing was counted.

    rows: the bars that `bootstrap` draws from; all counted cells lie in them.
    """
    observed = slice_sums(counted.rows.sum(axis=0))
    drawn = bootstrap.sums(counted.rows[rows].reshape(bootstrap.n_rows, -1)).reshape(-1, N_CELLS, N_SUMS)
    drawn = np.stack([slice_sums(drawn[:, :, k].T).T for k in range(N_SUMS)], axis=-1)
    confusion, loss, bins = slice_sums(counted.confusion), slice_sums(counted.log_loss), slice_sums(counted.bins)
    busy = [np.count_nonzero(counted.rows[:, :, k] @ GROUPS.T, axis=0) / bootstrap.block for k in (0, 2)]
    accuracy = share(observed[:, 0], observed[:, 1], drawn[:, :, 0], drawn[:, :, 1], busy[0])
    direction = share(observed[:, 2], observed[:, 3], drawn[:, :, 2], drawn[:, :, 3], busy[1])
    out = {}
    for i, name in enumerate(SLICES):
        n = observed[i, 0]
        out[name] = {
            "accuracy": accuracy[i].value,
            "balanced_accuracy": _balanced(confusion[i]),
            "direction_accuracy": direction[i].value,
            **_activity(confusion[i]),
            "log_loss": loss[i] / n if n else np.nan,
            "ece": float(np.abs(bins[i, :, 1] - bins[i, :, 2]).sum() / n) if n else np.nan,
            "majority_accuracy": confusion[i].sum(axis=1).max() / n if n else np.nan,
            "n": int(n),
            "n_effective": accuracy[i].n_effective,
            "ci95": accuracy[i].ci95,
            "enough": accuracy[i].n_effective >= ENOUGH,
            "direction_n": int(observed[i, 2]),
            "direction_n_effective": direction[i].n_effective,
            "direction_ci95": direction[i].ci95,
            "direction_enough": direction[i].n_effective >= ENOUGH,
            "confusion": confusion[i].astype(int).tolist(),
        }
    return out


@dataclass(frozen=True)
class Share:
    """A rate with its 95 % interval and the number of independent events it is worth."""

    value: float
    ci95: list[float]
    n_effective: float


def share(n: NDArray, hits: NDArray, drawn_n: NDArray, drawn_hits: NDArray, n_blocks: NDArray) -> list[Share]:
    """Rates hits / n of K slices from sums [K] and resampled sums [B, K].

    The effective number is `n * var_iid / var_bootstrap`, never above n. Where every event had the same outcome that is 0 / 0, and the
    number of blocks that hold an event stands in: `n_blocks` [K].
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        rate = np.where(n > 0, hits / n, np.nan)
        samples = np.where(drawn_n > 0, drawn_hits / drawn_n, np.nan)
    known = np.isfinite(samples).sum(axis=0)
    variance = np.array([np.nanvar(samples[:, k]) if known[k] > 1 else 0.0 for k in range(len(n))])
    limits = interval(samples)
    out = []
    for k in range(len(n)):
        independent = rate[k] * (1.0 - rate[k]) / variance[k] if variance[k] > 0.0 else n_blocks[k]
        out.append(Share(float(rate[k]), limits[:, k].tolist(), min(float(n[k]), float(independent))))
    return out


def _activity(confusion: NDArray) -> dict[str, float]:
    """How often HOLD was told from a move, and how often always saying the more frequent of the two would have."""
    n, hold = confusion.sum(), confusion[1].sum()
    moves = np.delete(np.delete(confusion, 1, axis=0), 1, axis=1).sum()
    if n == 0:
        return {"activity_accuracy": float("nan"), "activity_majority": float("nan")}
    return {"activity_accuracy": float((confusion[1, 1] + moves) / n), "activity_majority": float(max(hold, n - hold) / n)}


def _balanced(confusion: NDArray[np.float64]) -> float:
    """Mean recall of the classes that occur."""
    occurs = confusion.sum(axis=1)
    return float(np.mean(np.diag(confusion)[occurs > 0] / occurs[occurs > 0])) if occurs.any() else float("nan")
