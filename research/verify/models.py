"""Base model check: whether a model of one's own keeps the promises that ours keep. Each broken rule is named.

    check_model(MyModel)                        the class, as `research.training.models.register` takes it by name
    check_model(MyModel, feature_names=names)   with as many columns as it needs

The model is fitted on rows that hold something to learn (windows, where it has a `lookback`), saved, moved, loaded, and asked row by row,
in blocks and in another order; then it is fitted without a class, under other names, and handed a file that is none of its own. A clean
report is no proof of profit.
"""

import importlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.own_code import said
from qtcore.types import F8, I8
from research.errors import ProofError
from research.training.models.base import (
    CLASSES,
    F4,
    BaseModel,
    ModelAbsentError,
    build,
    lookback_of,
    model_class,
    own_digest,
    scaler_path,
    takes_weights,
    unsound,
)
from research.training.models.schedule import artefact_hash
from research.training.models.windows import inputs_of
from research.verify.causality import cut_points, first_difference
from research.verify.layers import LayerReport
from research.verify.rules import Rule, attempt

NAMES = ("rsi", "macd_rel", "bb_position", "volatility", "return_1")
N_FIT, N_VALID, N_TEST, N_SYMBOLS = 240, 60, 40, 3  # rows; cells are symbols times as many
MEMBERS = ("stem", "suffix", "fit", "predict_proba", "save", "load", "params")
MOST_ROWS = 10_000  # that a trial's windows may be long


@dataclass(frozen=True)
class _Trial:
    """A class, and the matrix [n, S, F] with classes [n * S] that it is tried on."""

    made_by: Callable[..., BaseModel]
    names: tuple[str, ...]
    preset: str
    seed: int
    folder: Path
    matrix: F4
    classes: NDArray[np.int8]
    lookback: int

    def new(self, names: Sequence[str] | None = None) -> BaseModel:
        """Build an unfitted model."""
        return build(self.made_by, self.names if names is None else names, self.preset)

    def cells(self, part: str) -> I8:
        """Flat numbers of the cells that are fitted on, stop the training, or are predicted."""
        first = self.lookback - 1
        edges = {"fit": (first, first + N_FIT), "valid": (first + N_FIT, first + N_FIT + N_VALID)}
        a, b = edges.get(part, (first + N_FIT + N_VALID, len(self.matrix)))
        return np.arange(a * N_SYMBOLS, b * N_SYMBOLS)

    def rows(self, cells: I8) -> Any:
        """Rows, or windows, of cells."""
        return inputs_of(self.matrix, cells, self.lookback)

    def fitted(self, without: Sequence[int] = (), turned: bool = False) -> BaseModel:
        """Fit a new model. without: classes that no cell has; turned: BUY and SELL change places."""
        fit, valid = (cells[~np.isin(self.classes[cells], without)] for cells in (self.cells("fit"), self.cells("valid")))
        classes = 2 - self.classes if turned else self.classes
        model = self.new()
        counts = None if turned or not len(fit) else 0.5 + np.arange(len(fit)) / len(fit)  # both that a training hands over
        told = {"weights": counts} if takes_weights(model) else {}
        model.fit(self.rows(fit), classes[fit].copy(), self.rows(valid), classes[valid].copy(), self.seed, **told)
        return model

    def answer(self, model: BaseModel, which: I8 | None = None) -> F8:
        """Probabilities of the test cells, or of some of them."""
        cells = self.cells("test")
        return np.asarray(model.predict_proba(self.rows(cells if which is None else cells[which])))

    def saved(self, model: BaseModel, name: str) -> Path:
        """Save under a name in a folder of its own."""
        path = self.folder / name / f"{model.stem}_v1{model.suffix}"
        path.parent.mkdir()
        model.save(path)
        return path


def check_model(
    made_by: Callable[..., Any] | str, feature_names: Sequence[str] = NAMES, preset: str = "default", seed: int = 0
) -> LayerReport:
    """Try a researcher's own base model and name the rules it breaks.

    made_by: the class, or `module:Class`, as `load_layers(file).models` names it. feature_names: what it is told its columns are called.
    preset: told to a class that takes one. Raises UserError where there are fewer than two names.

    >>> from research.training.models.lightgbm import LightGBM
    >>> check_model(LightGBM, preset="tiny").failed
    ()
    """
    made_by = model_class(made_by) if isinstance(made_by, str) else made_by
    names = tuple(feature_names)
    if len(set(names)) < max(2, len(names)):
        raise ProofError(f"feature_names must be two or more different names, was {list(names)}")
    with tempfile.TemporaryDirectory(prefix="qt_check_model_") as folder:
        return LayerReport("base_model", tuple(_rules(made_by, names, preset, seed, Path(folder))))


def _rules(made_by: Callable[..., Any], names: tuple[str, ...], preset: str, seed: int, folder: Path) -> Iterator[Rule]:
    protocol = attempt("protocol", lambda: _protocol(made_by, names, preset))
    yield protocol
    yield attempt("importable", lambda: _importable(made_by))
    if protocol.broken:
        return
    lookback = lookback_of(build(made_by, names, preset))
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((lookback - 1 + N_FIT + N_VALID + N_TEST, N_SYMBOLS, len(names))).astype(np.float32)
    lean = matrix[..., 0] + 0.5 * rng.standard_normal(matrix.shape[:2])
    trial = _Trial(made_by, names, preset, seed, folder, matrix, (1 + (lean > 0.5) - (lean < -0.5)).astype(np.int8).ravel(), lookback)
    try:
        before = matrix.copy()
        model = trial.fitted()
        whole = trial.answer(model)
    except (Exception, SystemExit) as error:  # the model is a stranger's code: whatever it raises is the finding
        yield Rule("runs", f"raised {said(error)}")
        return
    yield Rule("runs")
    wrong = _shape(whole, len(trial.cells("test")))
    yield Rule("range", wrong)
    if wrong:
        return
    yield attempt(
        "learns", lambda: "answers every row alike, though the rows told the classes" if np.ptp(whole, axis=0).max() == 0.0 else ""
    )
    yield attempt("mutated_input", lambda: _mutated(trial, model, before))
    yield attempt("repeatable", lambda: _differs("asked twice", whole, trial.answer(model)))
    yield attempt("one_row", lambda: _in_parts(trial, model, whole))
    yield attempt("params", lambda: json.dumps(model.params()) and "")
    yield attempt("saved", lambda: _saved(trial, model, whole))
    yield attempt("other_features", lambda: _other_features(trial, model))
    yield attempt("other_file", lambda: _other_file(trial, model))
    yield attempt("absent_classes", lambda: _absent_classes(trial))
    yield attempt("determinism", lambda: _fitted_again(trial, whole))
    yield attempt("identity", lambda: _identity(trial, model))


def _protocol(made_by: Callable[..., Any], names: tuple[str, ...], preset: str) -> str:
    model = build(made_by, names, preset)
    if lacking := [name for name in MEMBERS if not hasattr(model, name)]:
        return f"must have {', '.join(MEMBERS)}, was without {', '.join(lacking)}"
    if tuple(getattr(model, "feature_names", ())) != names:
        return f"must keep the names it was built with as feature_names, was {getattr(model, 'feature_names', None)!r}"
    named = f"{model.stem}{model.suffix}"
    if not re.fullmatch(r"\w[\w-]*\.\w+", named) or not str(model.suffix).startswith("."):
        return f"stem and suffix must be parts of a file's name such as 'forest' and '.skops', was {model.stem!r} and {model.suffix!r}"
    rows = getattr(model, "lookback", 1)
    if not isinstance(rows, int) or not 1 <= rows <= MOST_ROWS:
        return f"lookback must be a whole number of rows from 1 to {MOST_ROWS:,}, was {rows!r}"
    return ""


def _importable(made_by: Callable[..., Any]) -> str:
    module, name = made_by.__module__, made_by.__qualname__
    if module == "__main__" or "." in name or getattr(importlib.import_module(module), name, None) is not made_by:
        return f"must be at the top of a module that other processes can import, was {module}:{name}; put it into a file of its own"
    return ""


def _shape(probs: F8, n: int) -> str:
    if probs.shape != (n, 3) or probs.dtype != np.float64:
        return f"probabilities must be float64 [{n}, 3] in the order {' '.join(CLASSES)}, was {probs.dtype} {list(probs.shape)}"
    row = unsound(probs)
    return "" if row is None else f"probabilities must be 0 or more and sum to 1, was {probs[row].tolist()} in row {row}"


def _differs(what: str, expected: F8, found: F8) -> str:
    gap = first_difference("the answer", expected, found)
    return "" if gap is None else f"{what}: differs first in row {gap.bar}, {gap.left!r} against {gap.right!r}"


def _mutated(trial: _Trial, model: BaseModel, before: F4) -> str:
    rows = trial.rows(trial.cells("test"))
    given = rows[:].copy()
    model.predict_proba(rows)
    is_same = rows[:].tobytes() == given.tobytes() and trial.matrix.tobytes() == before.tobytes()
    return "" if is_same else "the rows to predict were changed; work on a copy"


def _in_parts(trial: _Trial, model: BaseModel, whole: F8) -> str:
    n = len(whole)
    single = np.concatenate([trial.answer(model, np.array([i])) for i in range(n)])
    edges = [0, *cut_points(n, 7, trial.seed), n]
    blocks = np.concatenate([trial.answer(model, np.arange(a, b)) for a, b in pairwise(edges) if b > a])
    order = np.random.default_rng(trial.seed).permutation(n)
    return (
        _differs("asked a row at a time", whole, single)
        or _differs("asked in blocks", whole, blocks)
        or _differs("asked in another order", whole[order], trial.answer(model, order))
    )


def _saved(trial: _Trial, model: BaseModel, whole: F8) -> str:
    path = trial.saved(model, "saved")
    wrote = {file.name for file in path.parent.iterdir()}
    if not path.is_file():
        return f"must write the file {path.name}, was {'a folder' if path.exists() else 'without'}"
    if others := sorted(wrote - {path.name, scaler_path(path).name}):
        return f"must write {path.name} and at most {scaler_path(path).name} beside it, was with {others[0]}"
    moved = trial.folder / "moved"
    shutil.move(path.parent, moved)  # a schedule copies the files to where they are served from
    again = trial.new().load(moved / path.name)
    if again is None:
        return "load must return the model, was None"
    return _differs("asked after save and load", whole, trial.answer(again)) or _differs(
        "asked after it was saved", whole, trial.answer(model)
    )


def _other_features(trial: _Trial, model: BaseModel) -> str:
    path = trial.saved(model, "features")
    for names in (trial.names[::-1], trial.names[:-1]):
        if wrong := _refusal("load", partial(_load, trial, names, path), f"other features ({', '.join(names)})"):
            return wrong
    narrow = inputs_of(trial.matrix[..., :-1].copy(), trial.cells("test"), trial.lookback)
    try:
        model.predict_proba(narrow)
    except (Exception, SystemExit):
        return ""
    return f"rows of {len(trial.names) - 1} columns must be refused, were predicted"


def _other_file(trial: _Trial, model: BaseModel) -> str:
    path = trial.saved(model, "other")
    path.write_bytes(b"no model")
    return _refusal("load", partial(_load, trial, trial.names, path), "a file of another kind")


def _load(trial: _Trial, names: Sequence[str], path: Path) -> BaseModel:
    return trial.new(names).load(path)


def _refusal(what: str, call: Callable[[], Any], given: str) -> str:
    try:
        call()
    except ModelAbsentError:
        return ""
    except (Exception, SystemExit) as error:
        return f"{what} must raise ModelAbsentError on {given}, raised {said(error)}"
    return f"{what} must raise ModelAbsentError on {given}, took it"


def _absent_classes(trial: _Trial) -> str:
    """Fit without some classes, as a fold may be: the model says that it is absent then, or still answers for three."""
    for without in ((0,), (2,), (0, 2), (0, 1, 2)):
        lacking = ", ".join(CLASSES[c] for c in without)
        try:
            probs = trial.answer(trial.fitted(without))
        except ModelAbsentError:
            continue
        except (Exception, SystemExit) as error:
            return f"without {lacking} it must raise ModelAbsentError or answer, raised {said(error)}"
        if wrong := _shape(probs, len(trial.cells("test"))):
            return f"without {lacking}: {wrong}"
    return ""


def _fitted_again(trial: _Trial, whole: F8) -> str:
    """Fit with numpy's global generator elsewhere: a fold that is fitted again must give the same bits."""
    state = np.random.get_state()  # noqa: NPY002
    try:
        np.random.seed(trial.seed + 1)  # noqa: NPY002
        return _differs("fitted twice with one seed", whole, trial.answer(trial.fitted()))
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _identity(trial: _Trial, model: BaseModel) -> str:
    first, again, other = (
        _identity_of(trial, made, name) for made, name in ((model, "first"), (trial.fitted(), "again"), (trial.fitted(turned=True), "else"))
    )
    if first != again:
        rule = "two fits of the same rows and seed must have one identity, had two"
        return f"{rule}: the files differ; write them without time stamps or add digest()"
    if first == other:
        return "fits of different rows must have different identities, had the same; digest() must tell what was fitted"
    return ""


def _identity_of(trial: _Trial, model: BaseModel, name: str) -> str:
    path = trial.saved(model, name)
    return own_digest(trial.new().load(path)).get("digest") or artefact_hash(path)
