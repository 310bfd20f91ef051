"""Linear base model: multinomial logistic regression on the z-scores and the ranks of the features.

Each feature is seen twice: as its z-score, clipped, which keeps distances, and as a rank, which outliers cannot bend: its place among the
training rows, as the normal deviate of that place. The place is read from a few quantiles and between them on straight lines, so a row
alone gets the bits that it has in a batch.

    loss = mean of w_i * (-log p_i) / mean w  +  ridge / 2 * |coefficients|^2     the intercepts are free

The ridge goes from strong to weak, each fit from where the one before ended, until the validation slice gains nothing more: what rounds
are to trees. Mean class probabilities are a third each, so a third of the columns' second moments is nearly the curvature of the loss; in
its coordinates L-BFGS needs a few steps.

Measured 2026-12 on one shared core, seconds of processor time: 440,000 rows of 55 features and all nine ridges 9, 77,000 of 18 features
0.8; an answer to 20,000 rows of 55 features 0.05, to a bar of 19 symbols 0.0001.
"""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, I8
from research.files import Kind, parse_json
from research.training.models.base import F4, PRESETS, Preset, RowModel

KNOTS = 32  # quantiles of a feature, a power of 2
CLIP = 5.0  # deviations beyond which a z-score says no more
PART = 4_096  # rows that are multiplied at a time
STEPS, FLAT = 500, 1e-7  # of L-BFGS: the most, and the slope at which it stops
SHAPE = {"rounds": int, "ridge": float, "knots": [[float]], "places": [[float]], "coefficients": [[float]], "intercepts": [float]}
FILE = Kind("coefficients of a linear model as the training wrote them", "train again", SHAPE)
_RIDGES = [10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001]
_USUAL = Preset({"ridges": _RIDGES}, len(_RIDGES), 2, "balanced")


@dataclass
class Linear(RowModel):
    """Multinomial logistic regression, stored as JSON.

    ridge: the one kept. knots, places [F, KNOTS]: ascending scaled values, and the normal deviates of their places among the training rows.
    coefficients [2 F, 3]: of the z-scores, then of the ranks. intercepts [3].
    """

    ridge: float = 0.0
    knots: F8 = field(default_factory=lambda: np.empty((0, KNOTS)), repr=False)
    places: F8 = field(default_factory=lambda: np.empty((0, KNOTS)), repr=False)
    coefficients: F8 = field(default_factory=lambda: np.empty((0, 3)), repr=False)
    intercepts: F8 = field(default_factory=lambda: np.empty(3), repr=False)
    slot: ClassVar[str] = "linear"
    stem: ClassVar[str] = "linear"
    suffix: ClassVar[str] = ".json"
    presets: ClassVar = dict.fromkeys(PRESETS, _USUAL)  # the others are the slow ones

    def params(self) -> dict[str, Any]:
        """Return the preset's values and the ridge in use."""
        return super().params() | {"ridge": self.ridge}

    def design(self, rows: F4) -> F4:
        """Return the columns [N, 2 F] float32 that coefficients multiply, of scaled rows [N, F]."""
        n_features = rows.shape[1]
        out = np.empty((len(rows), 2 * n_features), np.float32)
        gaps = np.diff(self.knots, append=self.knots[:, -1:])
        slopes = np.divide(np.diff(self.places, append=self.places[:, -1:]), gaps, out=np.zeros_like(gaps), where=gaps > 0.0)
        first = np.arange(n_features) * KNOTS
        knots, places, slopes = (table.ravel() for table in (self.knots, self.places, slopes))
        for part in _parts(len(rows)):
            x = rows[part].astype(np.float64)
            at, step = np.broadcast_to(first, x.shape), KNOTS // 2
            while step:  # the last knot that is not above x, by halves
                at, step = at + step * (knots[at + step] <= x), step // 2
            out[part, :n_features] = np.clip(x, -CLIP, CLIP)
            out[part, n_features:] = places[at] + slopes[at] * np.maximum(x - knots[at], 0.0)
        return out

    def _fit(self, rows: F4, labels: Any, weights: F8, valid: tuple[F4, Any, F8], seed: int) -> None:
        from scipy.linalg import cholesky, solve_triangular
        from scipy.optimize import minimize
        from threadpoolctl import threadpool_limits

        preset = self.presets[self.preset]
        self.knots, self.places = _quantiles(rows)
        with threadpool_limits(1):  # the number of threads moves last bits
            fit, watch = (_Loss(self.design(x), y, w) for x, y, w in ((rows, labels, weights), (valid[0], valid[1], valid[2])))
            moments, theta = fit.moments() / 3.0, np.zeros((3, 2 * rows.shape[1] + 1))
            curves: tuple[list[float], list[float]] = [], []
            for done, ridge in enumerate(preset.params["ridges"], 1):
                penalty = np.append(np.full(theta.shape[1] - 1, ridge), 0.0)
                root = cholesky(moments + np.diag(penalty), lower=True)

                def slope(u: F8, penalty: F8 = penalty, root: F8 = root) -> tuple[float, F8]:
                    at = solve_triangular(root, u.reshape(3, -1).T, lower=True, trans="T").T
                    loss, grad = fit.slope(at)
                    held = penalty * at
                    return loss + 0.5 * float((held * at).sum()), solve_triangular(root, (grad + held).T, lower=True).T.ravel()

                options = {"maxiter": STEPS, "gtol": FLAT, "ftol": 1e-15}
                found = minimize(slope, (theta @ root).ravel(), jac=True, method="L-BFGS-B", options=options)
                theta = solve_triangular(root, found.x.reshape(3, -1).T, lower=True, trans="T").T
                curves[0].append(float(found.fun - 0.5 * (penalty * theta**2).sum()))
                curves[1].append(watch.slope(theta)[0])
                if curves[1][-1] <= min(curves[1]):
                    self.rounds, self.ridge, self.coefficients, self.intercepts = done, ridge, theta[:, :-1].T, theta[:, -1]
                elif done - self.rounds >= preset.patience:
                    break
        self._remember(*curves)

    def _predict(self, rows: F4) -> F8:
        out = np.empty((len(rows), 3))
        for part in _parts(len(rows), PART // 4):
            products = self.design(rows[part])[:, :, None] * self.coefficients
            out[part] = products.cumsum(axis=1)[:, -1] + self.intercepts  # one column after the other, however many rows there are
        out -= out.max(axis=1, keepdims=True, initial=-np.inf)
        powers = np.array([math.exp(z) for z in out.ravel().tolist()]).reshape(out.shape)  # cell by cell, as in `calibration`
        return np.asarray(powers / ((powers[:, 0:1] + powers[:, 1:2]) + powers[:, 2:3]))

    def _gains(self) -> F8:
        return np.asarray(np.abs(self.coefficients).reshape(2, -1, 3).sum(axis=(0, 2)))

    def _write(self) -> bytes:
        tables = {name: getattr(self, name).tolist() for name in ("knots", "places", "coefficients", "intercepts")}
        return json.dumps({"rounds": self.rounds, "ridge": self.ridge, **tables}).encode()

    def _read(self, data: bytes) -> None:
        stored, n = parse_json(data, FILE, "the file"), len(self.feature_names)
        for name, shape in {"knots": (n, KNOTS), "places": (n, KNOTS), "coefficients": (2 * n, 3), "intercepts": (3,)}.items():
            table = np.array(stored[name], np.float64)
            if table.shape != shape:
                raise ValueError(f"{name} are {list(table.shape)}, not {list(shape)}")
            setattr(self, name, table)
        for name in ("knots", "places"):
            if (np.diff(getattr(self, name)) < 0.0).any():
                raise ValueError(f"{name} do not ascend")
        self.rounds, self.ridge = stored["rounds"], stored["ridge"]


class _Loss:
    """Weighted mean log loss of columns [N, D] and classes [N]; the last column of `theta` [3, D + 1] is the intercepts."""

    def __init__(self, columns: F4, labels: NDArray[np.int8], weights: F8) -> None:
        self.columns, self.labels, self.weights = columns, labels.astype(np.int64), weights / weights.sum()
        self.block = np.ones((PART, columns.shape[1] + 1))  # memory that is asked for anew each time costs more than the products

    def moments(self) -> F8:
        """Second moments of the columns and of 1, [D + 1, D + 1]."""
        return np.asarray(sum((self.weights[part] * x.T) @ x for part, x in self._blocks()))

    def slope(self, theta: F8) -> tuple[float, F8]:
        """Loss at `theta`, and its slope there [3, D + 1]."""
        loss, grad = 0.0, np.zeros_like(theta)
        for part, x in self._blocks():
            z, labels, weights = theta @ x.T, self.labels[part], self.weights[part]
            z -= z.max(axis=0)
            powers, rows = np.exp(z), np.arange(len(x))
            total = powers.sum(axis=0)
            loss += float(weights @ (np.log(total) - z[labels, rows]))
            powers /= total
            powers[labels, rows] -= 1.0
            grad += (weights * powers) @ x
        return loss, grad

    def _blocks(self) -> Iterator[tuple[slice, F8]]:
        for part in _parts(len(self.columns)):
            x = self.block[: len(self.columns[part])]
            x[:, :-1] = self.columns[part]
            yield part, x


def _quantiles(rows: F4) -> tuple[F8, F8]:
    """Return knots and places [F, KNOTS] of scaled rows [N, F]; equal values have one place, the mean of theirs."""
    levels = (np.arange(KNOTS) + 0.5) / KNOTS
    order: I8 = (levels * len(rows)).astype(np.int64)
    deviates = np.array([NormalDist().inv_cdf(float(level)) for level in levels])
    knots, places = np.empty((rows.shape[1], KNOTS)), np.empty((rows.shape[1], KNOTS))
    for f, column in enumerate(rows.T):
        values, which, counts = np.unique(np.sort(column)[order], return_inverse=True, return_counts=True)
        knots[f], places[f] = values[-1], (np.bincount(which, deviates) / counts)[-1]
        knots[f, : len(values)], places[f, : len(values)] = values, np.bincount(which, deviates) / counts
    return knots, places


def _parts(n: int, size: int = PART) -> Iterator[slice]:
    return (slice(start, start + size) for start in range(0, n, size))
