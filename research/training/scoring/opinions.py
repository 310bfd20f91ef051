"""Accuracy of a model or a layer, and whether it is more than luck: blocks in total, per regime slice and per symbol.

Every figure of a block is a quotient of sums, and the sums are kept per bar and group (`ScoreSums`), so slices add up, and intervals and
effective numbers come of the same bars. `spec` D-91 (who is scored on what), D-92 (direction), D-93 (intervals).

Direction (SELL against BUY where the price moved) and activity (HOLD against a move) are different skills: volatility clusters, so activity
can be told even on a random walk. Both stand in every block.

Log loss and Brier score (0 to 2, summed over the three classes) of an action-only layer put its confidence on its action and share the rest
equally between the other two. Their base rate answers the label shares of the same scored cells everywhere: the best constant in hindsight,
so a little stricter than the shares of the training part, and known for imported predictions too. The volatility baseline
(`research.training.scoring.baseline`) stands beside it on those of the cells that it answers. ECE: 15 equal bins of the confidence in
[0, 1], gaps between confidence and accuracy weighted by cells (Guo et al. 2017).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import Action
from research.training.regimes import GROUPS, N_CELLS, SLICES
from research.training.scoring.bootstrap import Bootstrap
from research.training.scoring.intervals import limits, share_limits, tilted

ECE_BINS = 15
ENOUGH = 30  # independent events below which a figure reads "not enough data"
SELL, HOLD, BUY, HITS, DIRECTED, DIRECTION_HITS, ACTIVITY_HITS = 0, 1, 2, 3, 6, 7, 8  # sums per bar and group; hits per label from HITS on
N_SUMS = 9


@dataclass(frozen=True)
class Opinion:
    """What one model or layer said.

    action [n, S]: int8, -1 where it is not scored; confidence [n, S] in [0, 1].
    probs [n, S, 3]: SELL HOLD BUY, or None for an action-only layer. is_of_class: whether the confidence is the probability of the action;
    one of something else, as that a trade pays, has no log loss, Brier score and ECE.
    """

    action: NDArray[np.int8]
    confidence: NDArray[np.float64]
    probs: NDArray[np.float64] | None = None
    is_of_class: bool = True

    def rows(self, rows: slice) -> "Opinion":
        """Cut a block of bars out; arrays are views."""
        probs = None if self.probs is None else self.probs[rows]
        return Opinion(self.action[rows], self.confidence[rows], probs, self.is_of_class)

    def symbols(self, columns: slice) -> "Opinion":
        """Cut some symbols out; arrays are views."""
        probs = None if self.probs is None else self.probs[:, columns]
        return Opinion(self.action[:, columns], self.confidence[:, columns], probs, self.is_of_class)

    def where(self, mask: NDArray[np.bool_]) -> "Opinion":
        """Score fewer cells: those of `mask` [n, S]."""
        return Opinion(np.where(mask, self.action, np.int8(-1)), self.confidence, self.probs, self.is_of_class)


@dataclass(frozen=True)
class ScoreSums:
    """Sums from which every figure of an opinion follows, over C groups of cells.

    rows [n, C, 9] int32: cells and hits by label, directed cells and their hits, activity hits. losses [n, C, 2]: log loss in nats, Brier.
    confusion [C, 3, 3]: label by action. bins [C, 15, 3]: per confidence bin cells, hits and summed confidence. baseline [C, 3]: of the
    volatility baseline on the same cells, those that it answers, its hits, its log loss.
    """

    rows: NDArray[np.int32]
    losses: NDArray[np.float64]
    confusion: NDArray[np.float64]
    bins: NDArray[np.float64]
    baseline: NDArray[np.float64]

    @property
    def residual(self) -> NDArray:
        """Hits per bar above what the average accuracy expects, [n]: the series whose dependence sets the block length."""
        sums = self.rows.sum(axis=1)
        cells, hits = sums[:, :HITS].sum(axis=1), sums[:, HITS:DIRECTED].sum(axis=1)
        return np.asarray(hits - cells * (hits.sum() / max(cells.sum(), 1.0)))


def tally(
    opinion: Opinion, labels: NDArray[np.int8], group: NDArray[np.int8], n_groups: int = N_CELLS, baseline: Opinion | None = None
) -> ScoreSums:
    """Count an opinion against labels [n, S] (-1 unknown) by group [n, S], its regime; cells without action or label are left out.

    baseline: what stands beside it, counted on the same cells.
    """
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
    summed = np.stack(bins, axis=-1).reshape(n_groups, ECE_BINS, 3).astype(float)
    beside = np.zeros((n_groups, 3)) if baseline is None else _beside(baseline, at, label, of, n_groups)
    return ScoreSums(rows, np.asarray(losses, np.float64), confusion.astype(float), summed, beside)


def _beside(baseline: Opinion, at: NDArray, label: NDArray, of: NDArray, n_groups: int) -> NDArray[np.float64]:
    """Count cells that the baseline answers, its hits and its log loss among the cells `at`, by group: [C, 3]."""
    answered = baseline.action.reshape(-1)[at] >= 0
    at, label, of = at[answered], label[answered], of[answered]
    hit = baseline.action.reshape(-1)[at] == label
    counts = [np.bincount(of, w, minlength=n_groups) for w in (None, hit, _losses(baseline, at, label, hit)[0])]
    return np.stack(counts, axis=-1).astype(float)


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
    """Confidence of the cells `at`, in [0, 1]; an unknown one is 0, and one that is not of the action's class NaN."""
    if not opinion.is_of_class:
        return np.full(len(at), np.nan)
    return np.asarray(np.clip(np.nan_to_num(opinion.confidence.reshape(-1)[at]), 0.0, 1.0))


def bin_of(confidence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Bin of each confidence in [0, 1]; 1 lies in the last, NaN in the first."""
    return np.minimum((np.nan_to_num(confidence) * ECE_BINS).astype(np.int64), ECE_BINS - 1)


def blocks(
    counted: ScoreSums, bootstrap: Bootstrap, rows: slice, groups: NDArray[np.float64] = GROUPS, names: Sequence[str] = SLICES
) -> dict[str, dict[str, Any]]:
    """Turn sums into one accuracy block per slice, `{"total": {...}, "volatility_low": {...}, ...}`; NaN where nothing was counted.

    rows: the bars that `bootstrap` draws from; all counted cells lie in them. groups [K, C]: which groups each of the K slices adds up.
    """
    seen, lost = groups @ counted.rows.sum(axis=0, dtype=np.float64), groups @ counted.losses.sum(axis=0)
    confusion, bins = (np.tensordot(groups, table, axes=1) for table in (counted.confusion, counted.bins))
    by_cells, by_moves = (np.stack(tilts, axis=2) for tilts in zip(*(_tilted(counted, group > 0.0) for group in groups)))
    n, value, tilted_value, tilted_moves = seen[:, :HITS].sum(axis=1), shares(seen), shares(by_cells), shares(by_moves)
    events = np.stack([n, seen[:, DIRECTED], n], axis=-1)
    worth = effective(events, value, shares(_drawn(counted.rows, bootstrap, rows, groups)), _busy(counted.rows, groups) / bootstrap.block)
    answered, *beside = (groups @ counted.baseline).T
    with np.errstate(invalid="ignore", divide="ignore"):
        volatility = np.stack(beside) / answered
        losses, tilted_losses = lost / n[:, None], by_cells[..., N_SUMS:] / by_cells[..., :HITS].sum(axis=-1, keepdims=True)
    base, balanced = base_rates(seen[:, :HITS]), recall(seen)
    tilted_gain, tilted_recall = base_rates(by_cells[..., :HITS])[0] - tilted_losses[..., 0], recall(by_cells)
    out = {}
    for i, name in enumerate(names):
        out[name] = {
            "accuracy": float(value[i, 0]),
            "balanced_accuracy": float(balanced[i]),
            "balanced_ci95": share_limits(balanced[i], tilted_recall[..., i]),
            "direction_accuracy": float(value[i, 1]),
            "activity_accuracy": float(value[i, 2]),
            "activity_majority": float(max(seen[i, HOLD], n[i] - seen[i, HOLD]) / n[i]) if n[i] else np.nan,
            "activity_n_effective": float(worth[i, 2]),
            "activity_ci95": share_limits(value[i, 2], tilted_value[..., i, 2]),
            "activity_enough": bool(worth[i, 2] >= ENOUGH),
            "log_loss": float(losses[i, 0]),
            "log_loss_ci95": limits(losses[i, 0], tilted_losses[..., i, 0]),
            "base_rate_log_loss": float(base[0][i]),
            "volatility_log_loss": float(volatility[1, i]),
            "log_loss_gain_ci95": limits(base[0][i] - losses[i, 0], tilted_gain[..., i]),
            "brier": float(losses[i, 1]),
            "brier_ci95": limits(losses[i, 1], tilted_losses[..., i, 1]),
            "base_rate_brier": float(base[1][i]),
            "ece": float(np.abs(bins[i, :, 1] - bins[i, :, 2]).sum() / n[i]) if n[i] else np.nan,
            "majority_accuracy": float(seen[i, :HITS].max() / n[i]) if n[i] else np.nan,
            "volatility_accuracy": float(volatility[0, i]),
            "n": int(n[i]),
            "n_effective": float(worth[i, 0]),
            "ci95": share_limits(value[i, 0], tilted_value[..., i, 0]),
            "enough": bool(worth[i, 0] >= ENOUGH),
            "direction_n": int(seen[i, DIRECTED]),
            "direction_n_effective": float(worth[i, 1]),
            "direction_ci95": share_limits(value[i, 1], tilted_moves[..., i, 1]),
            "direction_enough": bool(worth[i, 1] >= ENOUGH),
            "confusion": confusion[i].astype(int).tolist(),
        }
    return out


def _tilted(counted: ScoreSums, group: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tilt the sums of some groups and their two losses by waves that keep time in cells, and in directed ones: [2, 6, 11] each."""
    sums = np.concatenate([counted.rows[:, group].sum(axis=1), counted.losses[:, group].sum(axis=1)], axis=1)
    return tilted(sums, sums[:, :HITS].sum(axis=1)), tilted(sums, sums[:, DIRECTED])


def _drawn(sums: NDArray, bootstrap: Bootstrap, rows: slice, groups: NDArray[np.float64]) -> NDArray[np.float64]:
    """Resample sums [n, C, k] and add groups up: [B, K, k]."""
    drawn = bootstrap.sums(sums[rows].reshape(bootstrap.n_rows, -1)).reshape(-1, groups.shape[1], sums.shape[2])
    return np.asarray(groups @ drawn)


def _busy(rows: NDArray, groups: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count the bars of each slice that hold a cell, a directed one, and a cell again, [K, 3]."""
    cells, directed = (np.count_nonzero(plane @ groups.T, axis=0) for plane in (rows[:, :, :HITS].sum(axis=2), rows[:, :, DIRECTED]))
    return np.stack([cells, directed, cells], axis=-1)


def shares(sums: NDArray) -> NDArray[np.float64]:
    """Accuracy, direction and activity from sums [..., 9]: [..., 3]; NaN where nothing was counted."""
    n, hits = sums[..., :HITS].sum(axis=-1), sums[..., HITS:DIRECTED].sum(axis=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([hits / n, sums[..., DIRECTION_HITS] / sums[..., DIRECTED], sums[..., ACTIVITY_HITS] / n], axis=-1)


def effective(n: NDArray, rate: NDArray, samples: NDArray, n_blocks: NDArray) -> NDArray[np.float64]:
    """Say how many independent events each rate of n events [...] is worth: `n * var_iid / var_bootstrap`, never above n.

    samples [B, ...]: the rates of the resamples, NaN where one drew no event. n_blocks [...]: blocks that hold an event, which stand in
    where every event had the same outcome and that is 0 / 0.
    """
    known = np.isfinite(samples)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, samples, 0.0).sum(axis=0) / count
    variance = np.where(known, np.square(samples - mean), 0.0).sum(axis=0) / count
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.minimum(n, np.where(variance > 0.0, rate * (1.0 - rate) / variance, n_blocks))


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
