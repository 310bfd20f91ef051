"""Is a fitted model any good on its test fold? The figures and warnings of its metadata (`spec` 3.4, 12.5, D-74, D-75).

A model is `accepted` when its balanced accuracy lies more than two bootstrap standard errors above 1/3 and its log loss below that of
a model that always answers the training part's class shares; else `rejected`. Backtests use it either way, flagged. The rest are
warnings.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8
from research.models.base import CLASSES

N_BOOTSTRAP = 200
TINY = 1e-15  # probabilities are clipped here before the logarithm
MAX_CLASS_SHARE = 0.90
REGIME_FLOORS = {
    "volatility_low": 0.53,
    "volatility_medium": 0.57,
    "volatility_high": 0.52,
    "trend_uptrend": 0.55,
    "trend_downtrend": 0.55,
    "trend_sideways": 0.56,
}


def score(probs: F8, labels: NDArray[np.int8], train_counts: I8, weights: F8, regime: F8, horizon: int, seed: int) -> dict[str, Any]:
    """Score one test fold. probs [n, S, 3], labels int8 [n, S]; cells without either are left out. regime [2, n, S].

    train_counts [3]: classes of the training part. weights [3]: class weights of the fit; they move probabilities away from the base
    rates, so `log_loss_unweighted` undoes them. The bootstrap draws blocks of rows, all symbols together.
    """
    known = (labels >= 0) & ~np.isnan(probs[..., 0])
    if not known.any():
        return {"n_scored": 0, "status": "rejected", "warnings": ["no test cell has both a label and a prediction"]}
    truth, said = labels[known].astype(np.int64), np.argmax(probs[known], axis=-1)
    table = np.zeros((len(labels), 9))
    np.add.at(table, (np.nonzero(known)[0], truth * 3 + said), 1.0)
    balanced, error = balanced_accuracy(table.sum(axis=0)), _standard_error(table, horizon, seed)
    base = np.maximum(train_counts / train_counts.sum(), TINY)
    undone = probs[known] / weights
    losses = {
        "log_loss": _log_loss(probs[known], truth),
        "log_loss_unweighted": _log_loss(undone / undone.sum(axis=1, keepdims=True), truth),
        "base_rate_log_loss": _log_loss(np.broadcast_to(base, (len(truth), 3)), truth),
    }
    shares = np.bincount(said, minlength=3) / len(said)
    accepted = balanced > 1.0 / 3.0 + 2.0 * error and losses["log_loss"] < losses["base_rate_log_loss"]
    warnings = [] if accepted else [_why(balanced, error, losses)]
    if shares.max() > MAX_CLASS_SHARE:
        warnings.append(f"{shares.max():.0%} of predictions are {CLASSES[int(shares.argmax())]}")
    by_regime = _regime_accuracy(regime[:, known], truth == said)
    warnings += [
        f"accuracy {v['accuracy']:.3f} in {k} is below {REGIME_FLOORS[k]}" for k, v in by_regime.items() if v["accuracy"] < REGIME_FLOORS[k]
    ]
    return {
        "n_scored": len(truth),
        "accuracy": float(np.mean(truth == said)),
        "majority_baseline": float(np.bincount(truth, minlength=3).max() / len(truth)),
        "balanced_accuracy": balanced,
        "balanced_accuracy_error": error,
        **losses,
        "predicted_shares": dict(zip(CLASSES, shares.tolist())),
        "regime_accuracy": by_regime,
        "status": "accepted" if accepted else "rejected",
        "warnings": warnings,
    }


def _log_loss(probs: F8, truth: I8) -> float:
    return float(-np.mean(np.log(np.maximum(probs[np.arange(len(truth)), truth], TINY))))


def _why(balanced: float, error: float, losses: dict[str, float]) -> str:
    """Say what a rejected model failed."""
    reasons = [] if balanced > 1.0 / 3.0 + 2.0 * error else [f"balanced accuracy {balanced:.3f} +- {error:.3f} is within chance"]
    if losses["log_loss"] >= losses["base_rate_log_loss"]:
        text = "log loss {log_loss:.3f} is above the base rates' {base_rate_log_loss:.3f}, {log_loss_unweighted:.3f} without class weights"
        reasons.append(text.format(**losses))
    return f"rejected: {' and '.join(reasons)}"


def balanced_accuracy(table: F8) -> float:
    """Mean recall of the classes that occur, from a flat table [9] of counts, truth * 3 + said."""
    square = np.reshape(table, (3, 3))
    occurs = square.sum(axis=1) > 0
    return float(np.mean(np.diag(square)[occurs] / square.sum(axis=1)[occurs]))


def _standard_error(table: F8, horizon: int, seed: int) -> float:
    """Circular block bootstrap of rows; blocks of the label's length or the cube root of n, whichever is longer."""
    n = len(table)
    length = min(n, max(horizon, round(n ** (1 / 3))))
    padded = np.concatenate([np.zeros((1, 9)), np.cumsum(np.concatenate([table, table[: length - 1]]), axis=0)])
    blocks = padded[length:] - padded[:-length]
    starts = np.random.default_rng(seed).integers(0, n, (N_BOOTSTRAP, -(-n // length)))
    return float(np.std([balanced_accuracy(blocks[row].sum(axis=0)) for row in starts], ddof=1))


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
