"""Acceptance of a fitted model: the figures and warnings of its metadata on its test fold (`spec` 3.4, 12.5, D-74, D-75).

A model is `accepted` when its balanced accuracy lies more than two bootstrap standard errors above chance, its log loss below that of
a model that always answers the training part's class shares, and no class is more than 99 % of its answers (a constant output, D-42); else
`rejected`. Backtests use it either way, flagged. The rest are warnings.

Chance is 1/3. Where a label can only be one known action or HOLD (L6: the trade that was made won, or did not), a model that repeats that
action has 2/3: there won and lost are told apart, chance is 1/2, and the class shares are those of winning.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8
from research.training.models.base import CLASSES

N_BOOTSTRAP = 200
TINY = 1e-15  # probabilities are clipped here before the logarithm
MAX_CLASS_SHARE = 0.90  # of the answers: more is a warning
CONSTANT_SHARE = 0.99  # more is a constant output
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
    horizon: int,
    seed: int,
    traded: NDArray[np.int8] | None = None,
) -> dict[str, Any]:
    """Score one test fold. probs [n, S, 3], labels int8 [n, S]; cells without either are left out. regime [2, n, S].

    train_counts [3]: classes of the training part. weights [3]: class weights of the fit; they move probabilities away from the base
    rates, so `log_loss_unweighted` undoes them. The bootstrap draws blocks of rows, all symbols together. traded int8 [n, S]: the action
    that a label is where it is not HOLD, None where every label may be anything.
    """
    known = (labels >= 0) & ~np.isnan(probs[..., 0])
    if not known.any():
        return {"n_scored": 0, "status": "rejected", "warnings": ["no test cell has both a label and a prediction"]}
    truth, said = labels[known].astype(np.int64), np.argmax(probs[known], axis=-1)
    shown, told = (truth, said) if traded is None else (_won(classes, traded[known]) for classes in (truth, said))
    table = np.zeros((len(labels), 9))
    np.add.at(table, (np.nonzero(known)[0], shown * 3 + told), 1.0)
    balanced, error = balanced_accuracy(table.sum(axis=0)), _standard_error(table, horizon, seed)
    chance = 1.0 / 3.0 if traded is None else 0.5
    base = np.maximum(_base_rates(train_counts, len(truth), None if traded is None else traded[known]), TINY)
    undone = probs[known] / weights
    losses = {
        "log_loss": _log_loss(probs[known], truth),
        "log_loss_unweighted": _log_loss(undone / undone.sum(axis=1, keepdims=True), truth),
        "base_rate_log_loss": _log_loss(base, truth),
    }
    shares = np.bincount(said, minlength=3) / len(said)
    failed = _failures(balanced, chance, error, losses)
    most, usual = f"{shares.max():.1%} of its answers are {CLASSES[int(shares.argmax())]}", []
    if shares.max() > CONSTANT_SHARE:
        failed.append(f"{most}, which is a constant output above {CONSTANT_SHARE:.0%}")
    elif shares.max() > MAX_CLASS_SHARE:
        usual.append(f"{most}, usual are at most {MAX_CLASS_SHARE:.0%}")
    warnings = [f"rejected: {' and '.join(failed)}"] * bool(failed) + usual
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
        "chance": chance,
        **losses,
        "predicted_shares": dict(zip(CLASSES, shares.tolist())),
        "regime_accuracy": by_regime,
        "status": "rejected" if failed else "accepted",
        "warnings": warnings,
    }


def _log_loss(probs: F8, truth: I8) -> float:
    return float(-np.mean(np.log(np.maximum(probs[np.arange(len(truth)), truth], TINY))))


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


def _failures(balanced: float, chance: float, error: float, losses: dict[str, float]) -> list[str]:
    """Say what a model failed of D-74."""
    reasons = [] if balanced > chance + 2.0 * error else [f"balanced accuracy {balanced:.3f} +- {error:.3f} is within chance"]
    if losses["log_loss"] >= losses["base_rate_log_loss"]:
        text = "log loss {log_loss:.3f} ({log_loss_unweighted:.3f} without class weights) is above the base rates' {base_rate_log_loss:.3f}"
        reasons.append(text.format(**losses))
    return reasons


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
