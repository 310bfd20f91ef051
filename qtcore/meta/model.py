"""Learned meta model: its artefact, and what it says about a block. Arrays and names: data, no code (`spec` D-76)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from qtcore.jit import kernel
from qtcore.meta.linear import logistic_platt, logistic_softmax
from qtcore.meta.mlp import mlp
from qtcore.meta.vectors import SLOTS, VECTORS, one_hot_row, probable_row, slot_order, v5_row, vector_of, wants_hits
from qtcore.rules import Reason
from qtcore.types import ADVANCED, DEFAULT_HORIZON, F8, I8, MODELS, InputError, Votes

SHAPES = {
    "logistic_platt": {"mean": "F", "scale": "F", "coef": "3F", "intercept": "3", "slope": "3", "offset": "3"},
    "logistic_softmax": {"mean": "F", "scale": "F", "coef": "3F", "intercept": "3"},
    "mlp": {"mean": "F", "scale": "F", "w1": "FH", "b1": "H", "w2": "HG", "b2": "G", "w3": "G3", "b3": "3"},
}
CELLS = 4096  # rows of features held at a time


class MetaSource(Protocol):
    """What the engine asks of a learned meta layer: one `MetaModel`, or a schedule with a model for each span of decision times."""

    @property
    def feature_names(self) -> tuple[str, ...]:
        """What its inputs are called, in order."""
        ...

    @property
    def vector(self) -> str:
        """Name of the rows it wants, a key of `VECTORS`; "" if no rows have its feature names."""
        ...

    def ready(self, close_time: I8) -> NDArray[np.bool_]:
        """Say for each decision time [k], ns UTC, whether a model answers for it."""
        ...

    def answer(self, rows: F8, close_time: I8) -> F8:
        """Return probabilities [k, 3] of rows [k, F], NaN where no model is ready or a feature is NaN; one row has the batch's bits."""
        ...


@dataclass(frozen=True)
class MetaModel:
    """A trained meta model; a `MetaSource` that answers at any time.

    kind: `logistic_platt`, `logistic_softmax` or `mlp`. feature_names: what its inputs are called, in order; one of `VECTORS`, or the
    model is never asked. arrays: float64, by the names and shapes of `SHAPES` (F features, H and G hidden units). hash: of the artefact,
    as its store gave it. horizon: see `hit_bars`.
    Raises InputError when something does not fit.
    """

    kind: str
    feature_names: tuple[str, ...]
    arrays: Mapping[str, F8]
    hash: str = ""
    horizon: int = DEFAULT_HORIZON

    def __post_init__(self) -> None:
        if self.kind not in SHAPES:
            raise InputError(f"meta model must be of kind {', '.join(SHAPES)}, was {self.kind!r}")
        object.__setattr__(self, "feature_names", tuple(self.feature_names))
        sizes = {"F": len(self.feature_names), "3": 3}
        arrays = {}
        for name, shape in SHAPES[self.kind].items():
            if name not in self.arrays:
                raise InputError(f"meta model of kind {self.kind} must have the array {name}, was {', '.join(self.arrays) or 'none'}")
            array = np.require(self.arrays[name], np.float64, ["C", "W"])
            fits = array.ndim == len(shape) and all(sizes.setdefault(axis, size) == size for axis, size in zip(shape, array.shape))
            if not fits or not np.all(np.isfinite(array)):
                raise InputError(
                    f"meta model's {name} must be finite and of shape [{', '.join(shape)}] with {sizes}, was {list(array.shape)}"
                )
            arrays[name] = array
        if self.horizon < 1:
            raise InputError(f"meta model's horizon must be 1 bar or more, was {self.horizon}")
        if np.any(arrays["scale"] == 0.0):
            raise InputError("meta model's scale must not hold a zero, was 0.0; a constant feature has scale 1")
        object.__setattr__(self, "arrays", arrays)

    @property
    def vector(self) -> str:
        """Name of the rows it wants, a key of `VECTORS`; "" if no rows have its feature names."""
        return vector_of(self.feature_names)

    def ready(self, close_time: I8) -> NDArray[np.bool_]:
        """Say yes to every decision time [k]."""
        return np.ones(len(close_time), np.bool_)

    def answer(self, rows: F8, close_time: I8) -> F8:
        """Return probabilities [k, 3] of rows [k, F], NaN where a feature is NaN; the times [k] do not matter."""
        out = np.full((len(rows), 3), np.nan)
        _infer(self, rows, out)
        return out


def check_names(model: MetaModel, expected: str) -> MetaModel:
    """Return `model` if its ordered names are those of the vector `expected`, as a loader must ask (D-41). Raises InputError if not."""
    if model.feature_names != VECTORS[expected]:
        own = model.vector or f"{len(model.feature_names)} others"
        raise InputError(f"meta model must have the features of {expected} in their order, was {own}; train it again")
    return model


def check_voters(model: MetaSource, names: tuple[str, ...]) -> None:
    """Raise InputError unless the voters in the slots that the model reads are those that it was trained on.

    names: of the five slots. A source says its own as `voters`; one that does not was trained on the known ones.
    """
    own: tuple[str, ...] = getattr(model, "voters", MODELS)
    for m in SLOTS.get(model.vector, ()):
        if own[m] != names[m]:
            text = f"the meta model must be served with the voters that it was trained on, was trained with {own[m]} in slot {m + 1}"
            raise InputError(f"{text} and asked about {names[m]}; train it again, or leave it out")


def hit_bars(model: MetaSource | None) -> int:
    """Return after how many bars a voter was right or wrong in the hit rates that a model reads, 0 where it reads none.

    A source says its own as `horizon`, that of the label it learned from; one that does not has `DEFAULT_HORIZON`.
    """
    return getattr(model, "horizon", DEFAULT_HORIZON) if model is not None and wants_hits(model.vector) else 0


def meta_problem(model: MetaSource | None) -> Reason:
    """Return why `meta_probs` is NaN in a cell with voters: no model, a model of unknown features, or unknown features of the cell."""
    if model is None:
        return Reason.MODEL_NOT_LOADED
    return Reason.FEATURE_EXTRACTION_ERROR if model.vector else Reason.FEATURE_DIM_MISMATCH


def meta_problems(model: MetaSource, close_time: I8) -> NDArray[np.int64]:
    """Return `meta_problem` for each decision time [n]: MODEL_NOT_LOADED where no model is ready yet."""
    return np.where(model.ready(close_time), int(meta_problem(model)), int(Reason.MODEL_NOT_LOADED))


def meta_probs(
    model: MetaSource | None,
    votes: Votes,
    planes: Any,
    prev_mean_confidence: F8,
    close_time: I8 | None = None,
    hits: F8 | None = None,
) -> F8:
    """Ask the meta model about every cell with at least two voters.

    votes: `[5, n, S]`; planes: the block's features by name, `planes["volatility"] -> [n, S]`; prev_mean_confidence `[S]`: mean
    confidence of each symbol's last bar with a voter, NaN at the start; updated in place. close_time `[n]`: decision times, which a
    schedule needs. hits `[5, n, S]`: what `Hits.advance` says of the block, which a model with `hit_bars` needs.
    Returns `[3, n, S]` SELL HOLD BUY; NaN where the model is not ready (`meta_problem` says why) or a feature is unknown.
    Raises InputError when the 32 or 36 features are wanted and the votes carry no probabilities, hit rates are wanted and not given, and
    where other voters have the slots (`check_voters`).
    """
    n, n_symbols = votes.action.shape[1:]
    if model is not None:
        check_voters(model, votes.names)
    out = np.full((n * n_symbols, 3), np.nan)
    vector = "" if model is None else model.vector
    if model is not None and vector:
        times = np.repeat(np.zeros(n, np.int64) if close_time is None else close_time, n_symbols)
        for start, rows in feature_rows(vector, votes, planes, prev_mean_confidence, hits):
            cells = slice(start, start + len(rows))
            out[cells] = model.answer(rows, times[cells])
    return np.ascontiguousarray(out.reshape(n, n_symbols, 3).transpose(2, 0, 1))


def feature_rows(vector: str, votes: Votes, planes: Any, prev_mean_confidence: F8, hits: F8 | None = None) -> Any:
    """Yield `(first cell, rows [k, F])` of a vector, bar by bar and symbol by symbol; NaN rows where fewer than two models vote.

    Arguments and errors as in `meta_probs`; training reads the same rows.
    """
    n, n_symbols = votes.action.shape[1:]
    is_probable = vector.startswith(("meta32", "meta36"))
    if is_probable and votes.probs is None:
        raise InputError(f"votes must carry probabilities for the features of {vector}, was actions only; use meta26 or give probabilities")
    if wants_hits(vector) and hits is None:
        raise InputError(f"hits must hold the voters' backing for the features of {vector}, was none; take a block with Hits.advance")
    order, width, bars = slot_order(vector), len(VECTORS[vector]), max(1, CELLS // max(1, n_symbols))
    scratch = np.empty((2, 5))
    for first in range(0, n, bars):
        block = slice(first, min(first + bars, n))
        rows = np.full(((block.stop - first) * n_symbols, width), np.nan)
        cut = votes[block]
        action, confidence = cut.action.reshape(5, -1), cut.confidence.reshape(5, -1)
        if vector == "v5":
            v5_rows(action, confidence, order, rows)
        elif is_probable:
            advanced = np.stack([planes[name][block] for name in ADVANCED]).reshape(len(ADVANCED), -1)
            probs = np.require(cut.probs, np.float64, ["C", "W"]).reshape(5, -1, 3)
            probable_rows(probs, order, advanced, prev_mean_confidence, scratch, rows)
        else:
            regime = np.stack([planes["volatility"][block], planes["trend_strength"][block]]).reshape(2, -1)
            one_hot_rows(action, confidence, order, regime, scratch, rows)
            if hits is not None and wants_hits(vector):
                rows[:, -len(order) :] = hits[order, block].reshape(len(order), -1).T
        yield first * n_symbols, rows


def _infer(model: MetaModel, rows: F8, out: F8) -> None:
    """Write the probabilities of each row without NaN into `out` [k, 3]."""
    a = model.arrays
    if model.kind == "logistic_platt":
        logistic_platt_rows(rows, a["mean"], a["scale"], a["coef"], a["intercept"], a["slope"], a["offset"], out)
    elif model.kind == "logistic_softmax":
        logistic_softmax_rows(rows, a["mean"], a["scale"], a["coef"], a["intercept"], out)
    else:
        scratch = np.empty(len(a["mean"])), np.empty(len(a["b1"])), np.empty(len(a["b2"]))
        mlp_rows(rows, a["mean"], a["scale"], a["w1"], a["b1"], a["w2"], a["b2"], a["w3"], a["b3"], *scratch, out)


@kernel
def voters(action, cell):
    """Count the models that voted in column `cell` of `action` [5, N]."""
    n = 0
    for m in range(len(action)):
        n += action[m, cell] >= 0
    return n


@kernel
def v5_rows(action, confidence, order, rows):
    """Fill `rows` [N, 8]; see `v5_row`."""
    for i in range(len(rows)):
        if voters(action, i) >= 2:
            v5_row(action, confidence, i, order, rows[i])


@kernel
def one_hot_rows(action, confidence, order, regime, scratch, rows):
    """Fill `rows` [N, 26 or 30] from votes and regime [2, N]; see `one_hot_row`."""
    for i in range(len(rows)):
        if voters(action, i) >= 2:
            one_hot_row(action, confidence, i, order, regime[0, i], regime[1, i], scratch[0], rows[i])


@kernel
def probable_rows(probs, order, advanced, before, scratch, rows):
    """Fill `rows` [N, 32 or 36], cells of bars of len(before) symbols; see `probable_row`. `before` [S] is updated in place."""
    for i in range(len(rows)):
        s = i % len(before)
        mean = probable_row(probs, i, order, advanced, before[s], scratch[0], scratch[1], rows[i])
        if mean == mean:
            before[s] = mean
        n = 0
        for m in range(len(probs)):
            n += probs[m, i, 0] == probs[m, i, 0]
        if n < 2:
            rows[i, 0] = np.nan


@kernel
def logistic_platt_rows(rows, mean, scale, coef, intercept, slope, offset, out):
    """Fill `out` [N, 3]; see `logistic_platt`. A row with a NaN stays as it is."""
    for i in range(len(rows)):
        if is_known(rows[i]):
            logistic_platt(rows[i], mean, scale, coef, intercept, slope, offset, out[i])


@kernel
def logistic_softmax_rows(rows, mean, scale, coef, intercept, out):
    """Fill `out` [N, 3]; see `logistic_softmax`. A row with a NaN stays as it is."""
    for i in range(len(rows)):
        if is_known(rows[i]):
            logistic_softmax(rows[i], mean, scale, coef, intercept, out[i])


@kernel
def mlp_rows(rows, mean, scale, w1, b1, w2, b2, w3, b3, x, h1, h2, out):
    """Fill `out` [N, 3]; see `mlp`. A row with a NaN stays as it is."""
    for i in range(len(rows)):
        if is_known(rows[i]):
            mlp(rows[i], mean, scale, w1, b1, w2, b2, w3, b3, x, h1, h2, out[i])


@kernel
def is_known(row):
    """Say whether no entry is NaN."""
    known = True
    for j in range(len(row)):
        known &= row[j] == row[j]
    return known
