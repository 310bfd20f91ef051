"""Probability calibration: at most four numbers, fitted on the validation slice, correct a model's probabilities (`spec` D-86).

    q_c = f_c * exp(a * log p_c) / sum over classes

| kind        | a      | f_c               | what it mends                                                                       |
| ----------- | ------ | ----------------- | ----------------------------------------------------------------------------------- |
| none        | 1      | 1                 | nothing                                                                             |
| prior       | 1      | 1 / class weight  | class weights, which train a model for classes of equal size; nothing is fitted     |
| temperature | fitted | 1                 | confidence of a network or of many trees; the action stays, its confidence moves    |
| vector      | fitted | fitted, HOLD is 1 | both: weights and confidence                                                        |

`prior` and `vector` move the probabilities to the classes' real shares, so where HOLD is frequent a model of little skill says HOLD.
`math.log` and `math.exp` are taken cell by cell: one row has the bits of a history, whatever a vector unit does with the rest.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8
from research.errors import ModelError

KINDS = ("none", "prior", "temperature", "vector")
TINY = 1e-15  # probabilities are at least this before the logarithm
RANGE = (0.05, 20.0)  # of the exponent: never negative, which would turn the opinion round


@dataclass(frozen=True)
class Calibration:
    """A fitted map of probabilities. scale: a; factors: f_c of SELL, HOLD, BUY."""

    kind: str
    scale: float
    factors: tuple[float, float, float]

    def apply(self, probs: F8) -> F8:
        """Return calibrated probabilities [N, 3] of probabilities [N, 3]; no NaN."""
        powers = probs if self.scale == 1.0 else _power(probs, self.scale)
        out = powers * np.array(self.factors)
        return np.asarray(out / ((out[:, 0:1] + out[:, 1:2]) + out[:, 2:3]))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON holds them."""
        return {"kind": self.kind, "scale": self.scale, "factors": list(self.factors)}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "Calibration":
        """Read `to_dict`. Raises ValueError on anything that is no calibration."""
        scale, factors = float(stored["scale"]), tuple(float(f) for f in stored["factors"])
        if stored["kind"] not in KINDS or len(factors) != 3 or not all(0.0 < x < math.inf for x in (scale, *factors)):
            raise ValueError(f"calibration must be a kind, a scale and three factors above 0, was {dict(stored)}")
        return cls(stored["kind"], scale, (factors[0], factors[1], factors[2]))


def calibrated(model: Any, probs: F8) -> F8:
    """Return what a model serves: its probabilities [N, 3] through its calibration, if it has one."""
    calibration = getattr(model, "calibration", None)
    return probs if calibration is None else calibration.apply(probs)


def check_kind(kind: str) -> None:
    """Raise UserError unless `kind` is one of KINDS."""
    if kind not in KINDS:
        raise ModelError(f"calibration must be one of {', '.join(KINDS)}, was {kind!r}")


def fit_calibration(kind: str, probs: F8, labels: NDArray[np.int8], weights: F8) -> Calibration:
    """Fit a kind other than `none` by the log loss of labels [N] under probs [N, 3]; weights [3]: class weights of the model's fit."""
    check_kind(kind)
    if kind == "prior":
        return Calibration(kind, 1.0, (float(1.0 / weights[0]), float(1.0 / weights[1]), float(1.0 / weights[2])))
    from scipy.optimize import minimize

    logs, truth = np.log(np.maximum(probs, TINY)), labels.astype(np.int64)
    rows, is_vector = np.arange(len(truth)), kind == "vector"

    def loss(x: F8) -> tuple[float, F8]:
        """Mean log loss and its slope in the exponent and the offsets of SELL and BUY."""
        z = x[0] * logs
        z[:, 0] += x[1]
        z[:, 2] += x[2]
        z -= z.max(axis=1, keepdims=True)
        q = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
        off = q.copy()
        off[rows, truth] -= 1.0
        slope = np.array([np.mean((off * logs).sum(axis=1)), off[:, 0].mean() * is_vector, off[:, 2].mean() * is_vector])
        return float(-np.mean(np.log(np.maximum(q[rows, truth], TINY)))), slope

    found = minimize(loss, np.array([1.0, 0.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[RANGE, (-5.0, 5.0), (-5.0, 5.0)]).x
    return Calibration(kind, float(found[0]), (math.exp(found[1]), 1.0, math.exp(found[2])))


def _power(probs: F8, scale: float) -> F8:
    values = np.maximum(probs, TINY).ravel().tolist()
    return np.array([math.exp(scale * math.log(p)) for p in values]).reshape(probs.shape)
