"""Acceptance of a fitted model: the figures and warnings of its metadata on its test fold (`spec` 3.4, 12.5, D-74, D-75).

A model is `accepted` when its log loss, class weights undone, is below the volatility baseline's, or its direction right in more than half
of the moves: two chances, so each at half the level, the lower end of its 95 % interval. Else it is `unskilled`: it may speak, and nothing
is to be expected of it. The same probabilities in more than 99 % of its answers are a constant output (D-42), which is `rejected` whatever
it scores; one class in nearly all of them is none, for an honest model of a rare move says HOLD and leans.
Balanced accuracy is shown and decides nothing: trees that were trained on noise reach more than a third, as volatility is no secret.
Backtests use a model either way, flagged. The rest are warnings.

Where a label can only be one known action or HOLD (L6: the trade that was made won, or did not), the direction is given and the class
shares are those of winning: there only the log loss counts, and chance of the balanced accuracy is 1/2.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8
from research.training.models.base import CLASSES
from research.training.scoring.intervals import error, limits, share_limits, tilted

TINY = 1e-15  # probabilities are clipped here before the logarithm
MAX_CLASS_SHARE = 0.90  # of the answers: more is a warning
CONSTANT_SHARE = 0.99  # of answers with the same probabilities: more is a constant output
REGIME_FLOORS = {
    "volatility_low": 0.53,
    "volatility_medium": 0.57,
    "volatility_high": 0.52,
    "trend_uptrend": 0.55,
    "trend_downtrend": 0.55,
    "trend_sideways": 0.56,
}


def score(
    probs: F8,
    labels: NDArray[np.int8],
    train_counts: I8,
    weights: F8,
    regime: F8,
    baseline: F8 | None = None,
    traded: NDArray[np.int8] | None = None,
) -> dict[str, Any]:
    """Score one test fold. probs [n, S, 3], labels int8 [n, S]; cells without either are left out. regime [2, n, S].

    train_counts [3]: classes of the training part. weights [3]: class weights of the fit; they move probabilities away from the base
    rates, so `log_loss_unweighted` undoes them. baseline [n, S, 3]: answers of the volatility baseline, None where the base rates stand in.
    traded int8 [n, S]: the action that a label is where it is not HOLD, None where every label may be anything.
    """
    known = (labels >= 0) & ~np.isnan(probs[..., 0])
    if not known.any():
        return {"n_scored": 0, "status": "rejected", "warnings": ["no test cell has both a label and a prediction"]}
    truth, said = labels[known].astype(np.int64), np.argmax(probs[known], axis=-1)
    shown, told = (truth, said) if traded is None else (_won(classes, traded[known]) for classes in (truth, said))
    base = np.maximum(_base_rates(train_counts, len(truth), None if traded is None else traded[known]), TINY)
    beside = base if baseline is None else baseline[known]
    undone = probs[known] / weights
    undone /= undone.sum(axis=1, keepdims=True)
    gain = _losses(beside, truth) - _losses(undone, truth)
    side = np.sign(probs[known][:, 2] - probs[known][:, 0])
    directed = (truth != 1) & (side != 0.0)
    row, n = np.nonzero(known)[0], len(labels)
    table = np.bincount(row * 9 + shown * 3 + told, minlength=n * 9).reshape(n, 9)
    per_row = [np.bincount(row, w, n) for w in (gain, directed, directed & (side == truth - 1))]
    cells, moves = table.sum(axis=1), per_row[1]
    by_cells, by_moves = tilted(np.column_stack([table, per_row[0]]), cells), tilted(np.stack(per_row[1:], axis=-1), moves)
    figures = {
        "log_loss_gain": float(gain.mean()),
        "log_loss_gain_ci95": limits(float(gain.mean()), by_cells[..., 9] / by_cells[..., :9].sum(axis=-1)),
    }
    if traded is None and moves.any():
        right = float(per_row[2].sum() / moves.sum())
        figures |= {"direction_accuracy": right, "direction_ci95": share_limits(right, by_moves[..., 1] / by_moves[..., 0])}
    losses = {
        "log_loss": float(_losses(probs[known], truth).mean()),
        "log_loss_unweighted": float(_losses(undone, truth).mean()),
        "base_rate_log_loss": float(_losses(base, truth).mean()),
        "volatility_log_loss": float(_losses(beside, truth).mean()),
    }
    shares = np.bincount(said, minlength=3) / len(said)
    same = np.unique(np.round(probs[known], 6), axis=0, return_counts=True)[1].max() / len(said)
    most = f"{shares.max():.1%} of its answers are {CLASSES[int(shares.argmax())]}"
    status, warnings = _judged(figures, losses)
    if same > CONSTANT_SHARE:
        status = "rejected"
        warnings = [
            f"rejected: {same:.1%} of its answers have the same probabilities, which is a constant output above {CONSTANT_SHARE:.0%}"
        ]
    if shares.max() > MAX_CLASS_SHARE:
        warnings.append(f"{most}, usual are at most {MAX_CLASS_SHARE:.0%}")
    by_regime = _regime_accuracy(regime[:, known], truth == said)
    warnings += [
        f"accuracy {v['accuracy']:.3f} in {k} is below {REGIME_FLOORS[k]}" for k, v in by_regime.items() if v["accuracy"] < REGIME_FLOORS[k]
    ]
    return {
        "n_scored": len(truth),
        "accuracy": float(np.mean(truth == said)),
        "majority_baseline": float(np.bincount(truth, minlength=3).max() / len(truth)),
        "volatility_baseline": float(np.mean(beside.argmax(axis=1) == truth)),
        "balanced_accuracy": balanced_accuracy(table.sum(axis=0)),
        "balanced_accuracy_error": float(error(np.apply_along_axis(balanced_accuracy, 2, by_cells[..., :9]))),
        "chance": 1.0 / 3.0 if traded is None else 0.5,
        **losses,
        **figures,
        "predicted_shares": dict(zip(CLASSES, shares.tolist())),
        "regime_accuracy": by_regime,
        "status": status,
        "warnings": warnings,
    }


def _judged(figures: dict[str, Any], losses: dict[str, float]) -> tuple[str, list[str]]:
    """Apply D-74: the status of a model that says more than one thing, and why it is not accepted."""
    direction = figures.get("direction_ci95", [-np.inf])
    if figures["log_loss_gain_ci95"][0] > 0.0 or direction[0] > 0.5:
        return "accepted", []
    low, high = figures["log_loss_gain_ci95"]
    text = (
        "unskilled: log loss {log_loss_unweighted:.3f} without class weights is not below the baseline's {volatility_log_loss:.3f} "
        f"beyond chance (95 % interval of the gain {low:+.3f} to {high:+.3f})"
    ).format(**losses)
    if len(direction) > 1:
        text += f", direction {figures['direction_accuracy']:.1%} is within chance ({direction[0]:.1%} to {direction[1]:.1%})"
    return "unskilled", [text]


def _losses(probs: F8, truth: I8) -> F8:
    """Log loss of each cell."""
    out: F8 = -np.log(np.maximum(probs[np.arange(len(truth)), truth], TINY))
    return out


def _won(classes: I8, traded: NDArray[np.int8]) -> I8:
    """Say of each class whether it is the traded action, 2, or not, 1."""
    return np.where(classes == traded, 2, 1).astype(np.int64)


def _base_rates(train_counts: I8, n: int, traded: NDArray[np.int8] | None) -> F8:
    """Return the probabilities that the class shares of the training part give each of n cells, [n, 3]."""
    shares = train_counts / train_counts.sum()
    if traded is None:
        return np.broadcast_to(shares, (n, 3))
    out = np.zeros((n, 3))
    out[:, 1] = shares[1]
    out[np.arange(n), traded] = 1.0 - shares[1]
    return out


def balanced_accuracy(table: F8) -> float:
    """Mean recall of the classes that occur, from a flat table [9] of counts, truth * 3 + said."""
    square = np.reshape(table, (3, 3))
    occurs = square.sum(axis=1) > 0
    return float(np.mean(np.diag(square)[occurs] / square.sum(axis=1)[occurs]))


def _regime_accuracy(regime: F8, right: NDArray[np.bool_]) -> dict[str, dict[str, Any]]:
    volatility, trend = regime
    slices = {
        "volatility_low": volatility < 0.4,
        "volatility_medium": (volatility >= 0.4) & (volatility < 0.6),
        "volatility_high": volatility >= 0.6,
        "trend_uptrend": trend > 0.2,
        "trend_downtrend": trend < -0.2,
        "trend_sideways": (trend >= -0.2) & (trend <= 0.2),
    }
    return {name: {"accuracy": float(right[cells].mean()), "n": int(cells.sum())} for name, cells in slices.items() if cells.any()}
