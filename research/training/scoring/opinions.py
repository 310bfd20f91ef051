"""Accuracy of a model or a layer, and whether it is more than luck: blocks in total, per regime slice and per symbol.

Every figure of a block is a quotient of sums, and the sums are kept per bar and group (`ScoreSums`), so slices add up and the bootstrap
resamples bars. `spec` D-91 (who is scored on what), D-92 (direction), D-93 (intervals).

Direction (SELL against BUY where the price moved) and activity (HOLD against a move) are different skills: volatility clusters, so activity
can be told even on a random walk. Both stand in every block.

Log loss and Brier score (0 to 2, summed over the three classes) of an action-only layer put its confidence on its action and share the rest
equally between the other two. Their base rate answers the label shares of the same scored cells everywhere: the best constant in hindsight,
so a little stricter than the shares of the training part, and known for imported predictions too. ECE: 15 equal bins of the confidence in
[0, 1], gaps between confidence and accuracy weighted by cells (Guo et al. 2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import Action
from research.training.regimes import GROUPS, N_CELLS, SLICES
from research.training.scoring.bootstrap import Bootstrap, interval

ECE_BINS = 15
ENOUGH = 30  # independent events below which a figure reads "not enough data"
SELL, HOLD, BUY, HITS, DIRECTED, DIRECTION_HITS, ACTIVITY_HITS = 0, 1, 2, 3, 6, 7, 8  # sums per bar and group; hits per label from HITS on
N_SUMS = 9


@dataclass(frozen=True)
class Opinion:
    """What one model or layer said.

    action [n, S]: int8, -1 where it is not scored; confidence [n, S] in [0, 1].
    probs [n, S, 3]: SELL HOLD BUY, or None for an action-only layer.
    """

    action: NDArray[np.int8]
    confidence: NDArray[np.float64]
    probs: NDArray[np.float64] | None = None

    def rows(self, rows: slice) -> "Opinion":
        """Cut a block of bars out; arrays are views."""
        probs = None if self.probs is None else self.probs[rows]
        return Opinion(self.action[rows], self.confidence[rows], probs)

    def symbols(self, columns: slice) -> "Opinion":
        """Cut some symbols out; arrays are views."""
        probs = None if self.probs is None else self.probs[:, columns]
        return Opinion(self.action[:, columns], self.confidence[:, columns], probs)

    def where(self, mask: NDArray[np.bool_]) -> "Opinion":
        """Score fewer cells: those of `mask` [n, S]."""
        return Opinion(np.where(mask, self.action, np.int8(-1)), self.confidence, self.probs)


@dataclass(frozen=True)
class ScoreSums:
    """Sums from which every figure of an opinion follows, over C groups of cells.

    rows [n, C, 9] int32: cells and hits by label, directed cells and their hits, activity hits. losses [n, C, 2]: log loss in nats, Brier.
    confusion [C, 3, 3]: label by action. bins [C, 15, 3]: per confidence bin cells, hits and summed confidence.
    """

    rows: NDArray[np.int32]
    losses: NDArray[np.float64]
    confusion: NDArray[np.float64]
    bins: NDArray[np.float64]

    @property
    def residual(self) -> NDArray:
        """Hits per bar above what the average accuracy expects, [n]: the series whose dependence sets the block length."""
        sums = self.rows.sum(axis=1)
        cells, hits = sums[:, :HITS].sum(axis=1), sums[:, HITS:DIRECTED].sum(axis=1)
        return np.asarray(hits - cells * (hits.sum() / max(cells.sum(), 1.0)))


def tally(opinion: Opinion, labels: NDArray[np.int8], group: NDArray[np.int8], n_groups: int = N_CELLS) -> ScoreSums:
    """Count an opinion against labels [n, S] (-1 unknown) by group [n, S], its regime; cells without action or label are left out."""
    n, n_symbols = labels.shape
    at = np.flatnonzero((opinion.action.reshape(-1) >= 0) & (labels.reshape(-1) >= 0))
    action, label = (plane.reshape(-1)[at].astype(np.int64) for plane in (opinion.action, labels))
    of = group.reshape(-1)[at].astype(np.int64)
    hit, direction = action == label, _direction(opinion, at, action)
    directed = (label != Action.HOLD) & (direction != 0)
    classes = [label == c for c in (SELL, HOLD, BUY)]
    masks = (*classes, *(c & hit for c in classes), directed, directed & (direction == label - 1), (label == HOLD) == (action == HOLD))
    place, size = at // n_symbols * n_groups + of, n * n_groups
    rows = np.empty((n, n_groups, N_SUMS), np.int32)
    for k, mask in enumerate(masks):
        rows[:, :, k] = np.bincount(place[mask], minlength=size).reshape(n, n_groups)
    losses = np.stack([np.bincount(place, w, minlength=size).reshape(n, n_groups) for w in _losses(opinion, at, label, hit)], axis=-1)
    confusion = np.bincount(of * 9 + label * 3 + action, minlength=n_groups * 9).reshape(n_groups, 3, 3)
    confidence = known_confidence(opinion, at)
    slot = of * ECE_BINS + bin_of(confidence)
    bins = [np.bincount(slot, w, minlength=n_groups * ECE_BINS) for w in (np.ones(len(at)), hit, confidence)]
    return ScoreSums(
        rows, np.asarray(losses, np.float64), confusion.astype(float), np.stack(bins, axis=-1).reshape(n_groups, ECE_BINS, 3).astype(float)
    )


def _direction(opinion: Opinion, at: NDArray, action: NDArray) -> NDArray:
    """Sign of the opinion, 0 where it has none (`spec` D-92)."""
    if opinion.probs is None:
        return action - 1
    probs = opinion.probs.reshape(-1, 3)
    return np.sign(probs[at, Action.BUY] - probs[at, Action.SELL]).astype(np.int64)


def _losses(opinion: Opinion, at: NDArray, label: NDArray, hit: NDArray) -> tuple[NDArray, NDArray]:
    """Log loss and Brier score of each counted cell."""
    if opinion.probs is None:
        confidence = known_confidence(opinion, at)
        rest = (1.0 - confidence) / 2.0
        right = np.where(hit, confidence, rest)
        missed = np.square(confidence) + np.square(1.0 - rest) + np.square(rest)
        brier = np.where(hit, np.square(1.0 - confidence) + 2.0 * np.square(rest), missed)
    else:
        probs = opinion.probs.reshape(-1, 3)[at]
        right = probs[np.arange(len(at)), label]
        brier = np.square(probs).sum(axis=1) - 2.0 * right + 1.0
    return -np.log(np.clip(right, np.finfo(float).eps, 1.0)), brier


def known_confidence(opinion: Opinion, at: NDArray) -> NDArray[np.float64]:
    """Confidence of the cells `at`, in [0, 1]; an unknown one is 0."""
    return np.asarray(np.clip(np.nan_to_num(opinion.confidence.reshape(-1)[at]), 0.0, 1.0))


def bin_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each confidence in [0, 1]; 1 lies in the last."""
    return np.minimum((confidence * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def blocks(
    counted: ScoreSums, bootstrap: Bootstrap, rows: slice, groups: NDArray[np.float64] = GROUPS, names: Sequence[str] = SLICES
) -> dict[str, dict[str, Any]]:
    """Turn sums into one accuracy block per slice, `{"total": {...}, "volatility_low": {...}, ...}`; NaN where nothing was counted.

    rows: the bars that `bootstrap` draws from; all counted cells lie in them. groups [K, C]: which groups each of the K slices adds up.
    """
    seen = groups @ counted.rows.sum(axis=0, dtype=np.float64)
    lost = groups @ counted.losses.sum(axis=0)
    drawn = _drawn(counted.rows, bootstrap, rows, groups)
    drawn_loss = _drawn(counted.losses, bootstrap, rows, groups)
    confusion, bins = (np.tensordot(groups, table, axes=1) for table in (counted.confusion, counted.bins))
    busy = np.count_nonzero(counted.rows[:, :, :HITS].sum(axis=2) @ groups.T, axis=0) / bootstrap.block
    directed = np.count_nonzero(counted.rows[:, :, DIRECTED] @ groups.T, axis=0) / bootstrap.block
    n, drawn_n = seen[:, :HITS].sum(axis=1), drawn[:, :, :HITS].sum(axis=2)
    accuracy = share(n, seen[:, HITS:DIRECTED].sum(axis=1), drawn_n, drawn[:, :, HITS:DIRECTED].sum(axis=2), busy)
    direction = share(seen[:, DIRECTED], seen[:, DIRECTION_HITS], drawn[:, :, DIRECTED], drawn[:, :, DIRECTION_HITS], directed)
    activity = share(n, seen[:, ACTIVITY_HITS], drawn_n, drawn[:, :, ACTIVITY_HITS], busy)
    with np.errstate(invalid="ignore", divide="ignore"):
        losses, drawn_loss = lost / n[:, None], drawn_loss / drawn_n[:, :, None]
    base = base_rates(seen[:, :HITS])
    gain = interval(base_rates(drawn[:, :, :HITS])[0] - drawn_loss[:, :, 0])
    balanced, loss_limits = interval(recall(drawn)), interval(drawn_loss.reshape(len(drawn), -1)).reshape(2, -1, 2)
    single = recall(seen)
    out = {}
    for i, name in enumerate(names):
        out[name] = {
            "accuracy": accuracy[i].value,
            "balanced_accuracy": float(single[i]),
            "balanced_ci95": balanced[:, i].tolist(),
            "direction_accuracy": direction[i].value,
            "activity_accuracy": activity[i].value,
            "activity_majority": float(max(seen[i, HOLD], n[i] - seen[i, HOLD]) / n[i]) if n[i] else np.nan,
            "activity_n_effective": activity[i].n_effective,
            "activity_ci95": activity[i].ci95,
            "activity_enough": activity[i].n_effective >= ENOUGH,
            "log_loss": float(losses[i, 0]),
            "log_loss_ci95": loss_limits[:, i, 0].tolist(),
            "base_rate_log_loss": float(base[0][i]),
            "log_loss_gain_ci95": gain[:, i].tolist(),
            "brier": float(losses[i, 1]),
            "brier_ci95": loss_limits[:, i, 1].tolist(),
            "base_rate_brier": float(base[1][i]),
            "ece": float(np.abs(bins[i, :, 1] - bins[i, :, 2]).sum() / n[i]) if n[i] else np.nan,
            "majority_accuracy": float(seen[i, :HITS].max() / n[i]) if n[i] else np.nan,
            "n": int(n[i]),
            "n_effective": accuracy[i].n_effective,
            "ci95": accuracy[i].ci95,
            "enough": accuracy[i].n_effective >= ENOUGH,
            "direction_n": int(seen[i, DIRECTED]),
            "direction_n_effective": direction[i].n_effective,
            "direction_ci95": direction[i].ci95,
            "direction_enough": direction[i].n_effective >= ENOUGH,
            "confusion": confusion[i].astype(int).tolist(),
        }
    return out


def _drawn(sums: NDArray, bootstrap: Bootstrap, rows: slice, groups: NDArray[np.float64]) -> NDArray[np.float64]:
    """Resample sums [n, C, k] and add groups up: [B, K, k]."""
    drawn = bootstrap.sums(sums[rows].reshape(bootstrap.n_rows, -1)).reshape(-1, groups.shape[1], sums.shape[2])
    return np.asarray(groups @ drawn)


def recall(sums: NDArray) -> NDArray[np.float64]:
    """Balanced accuracy, the mean recall of the labels that occur, from sums [..., 9]; NaN where none does."""
    cells, hits = sums[..., :HITS], sums[..., HITS:DIRECTED]
    occurs = np.count_nonzero(cells, axis=-1)
    each = hits / np.where(cells > 0, cells, 1.0)
    return np.where(occurs > 0, each.sum(axis=-1) / np.maximum(occurs, 1), np.nan)


def base_rates(cells: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log loss and Brier score of always answering the label shares, from cells by label [..., 3]; NaN where there are none."""
    n = cells.sum(axis=-1, keepdims=True)
    p = np.where(n > 0, cells / np.maximum(n, 1.0), np.nan)
    return -(p * np.log(np.where(p > 0.0, p, 1.0))).sum(axis=-1), 1.0 - np.square(p).sum(axis=-1)


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
