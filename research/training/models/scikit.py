"""Scikit-learn base model: a classifier of scikit-learn as a model of the ensemble, stored without pickle.

    class Forest(SklearnModel):
        stem = "forest"
        estimator = RandomForestClassifier(100, min_samples_leaf=20, class_weight="balanced")

Any classifier with `predict_proba`, a pipeline of several steps too. It is fitted on the training rows in one thread, with the seed of its
fold wherever it takes a `random_state`; the validation rows stop nothing and are not used.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from qtcore.own_code import said, shown
from qtcore.types import F8
from research.errors import ModelError
from research.files import check_archive, read_bytes
from research.training.models.base import MODEL, ModelAbsentError, unsound
from research.training.models.structure import check_predictor, check_tree

TREE, PREDICTOR = "sklearn.tree._tree.Tree", "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
CHECKS = {TREE: check_tree, PREDICTOR: check_predictor}  # of what could lead a library astray
THREADS = ("n_jobs", "n_threads")  # what a fit is told of its machine, no part of it
MAX_MODEL = 1 << 32  # bytes, unpacked
TRIED = 16  # rows that are asked one by one after a fit


class SklearnModel:
    """A classifier of scikit-learn.

    estimator: unfitted; each fit is of a copy. trusted: types that its file may hold beside scikit-learn's and NumPy's plain ones, a
    tuple of full names such as `("sklearn.tree._tree.Tree",)`; nothing else is ever loaded. Decision trees are checked as they are
    read; whoever trusts another type vouches for the files that hold it. row_by_row: for classifiers whose answer to a row depends on
    the rows that are asked with it (products of matrices: regressions, networks, `StandardScaler` before them): slower, and the same
    bits live.
    """

    stem: ClassVar[str] = "sklearn"
    suffix: ClassVar[str] = ".skops"
    estimator: ClassVar[Any] = None
    trusted: ClassVar[tuple[str, ...]] = tuple(CHECKS)
    row_by_row: ClassVar[bool] = False

    def __init__(self, feature_names: tuple[str, ...]) -> None:
        """Keep the names of the columns. Raises ModelError where the class names no classifier."""
        from sklearn.base import is_classifier

        name, told = type(self).__name__, self.estimator
        if isinstance(told, type) or not (hasattr(told, "get_params") and is_classifier(told)):
            was = f"the class {told.__name__}" if isinstance(told, type) else f"of the kind {type(told).__name__}"
            rule = f"estimator of {name} must be a classifier of scikit-learn, unfitted"
            raise ModelError(f"{rule}, was {was}; write estimator = RandomForestClassifier(), or another one, in the class")
        if isinstance(self.trusted, str) or not all(isinstance(one, str) for one in self.trusted):
            raise ModelError(f"trusted of {name} must be a tuple of names, was {shown(self.trusted)}; write (..., )")
        self.feature_names = tuple(feature_names)
        self.fitted: Any = None

    def params(self) -> dict[str, Any]:
        """Return what scikit-learn is told, by name; other objects by their kind."""
        return {name: value if _is_plain(value) else type(value).__name__ for name, value in self.estimator.get_params().items()}

    def fit(
        self,
        rows: Any,
        labels: NDArray[np.int8],
        valid_rows: Any,
        valid_labels: NDArray[np.int8],
        seed: int,
        weights: F8 | None = None,
    ) -> None:
        """Fit a copy of the estimator; weights go to what takes `sample_weight`, of a pipeline its last step.

        Raises ModelAbsentError where a class is missing or scikit-learn refuses the rows, ModelError where it gives no probabilities, its
        answers need `row_by_row`, or it is no longer the same once it was asked.
        """
        from sklearn.base import clone

        if len(np.unique(labels)) < 3:
            raise ModelAbsentError("training rows must hold SELL, HOLD and BUY, was without one; load a longer period")
        fresh = clone(self.estimator)
        chosen = {name: seed for name in fresh.get_params() if name.rpartition("__")[2] == "random_state"}
        threads = {name: 1 for name, n in fresh.get_params().items() if name.rpartition("__")[2] == "n_jobs" and n is not None}
        fresh.set_params(**chosen, **threads)
        try:
            self.fitted = fresh.fit(rows, labels, **_weighing(fresh, weights))
        except (ValueError, ArithmeticError) as error:
            raise ModelAbsentError(f"{self.stem} must be fitted by scikit-learn, raised {said(error)}") from error
        if not hasattr(self.fitted, "predict_proba"):
            rule = f"estimator of {type(self).__name__} must have predict_proba once it is fitted"
            raise ModelError(f"{rule}, {type(self.fitted).__name__} has none; take one that gives probabilities")
        some, before = rows[:TRIED], self.digest()
        if not self.row_by_row and self._answer(some).tobytes() != self._each(some).tobytes():
            rule = f"{type(self).__name__} must answer a row alike alone and among others"
            raise ModelError(f"{rule}, did not; set row_by_row = True in the class")
        self._answer(some)
        if self.digest() != before:
            rule = f"{type(self).__name__} must be the same before and after it is asked"
            raise ModelError(f"{rule}, {type(self.fitted).__name__} was not; take other settings, for neighbours algorithm='brute'")
        try:
            _check(self.fitted, self.estimator, len(self.feature_names))
        except ValueError as error:
            raise ModelError(f"{type(self).__name__} must be fitted to sound trees over columns of numbers, was not: {error}") from error

    def predict_proba(self, matrix: Any) -> F8:
        """Return probabilities, see `BaseModel`."""
        return self._each(matrix) if self.row_by_row else self._answer(matrix)

    def save(self, path: Path) -> None:
        """Write names and classifier as data. Raises ModelError where it holds types that are not `trusted`."""
        from skops import io

        try:
            data = io.dumps({"features": list(self.feature_names), "fitted": self.fitted})
        except Exception as error:  # of whatever part of a classifier
            rule = f"{type(self).__name__} must be of parts that skops can store, raised {said(error)}"
            raise ModelError(f"{rule}; leave out of the estimator what holds functions or scorers") from error
        if foreign := self._foreign(data):
            rule = f"trusted of {type(self).__name__} must name every type that its file holds beside scikit-learn's plain ones"
            raise ModelError(f"{rule}, was without {', '.join(foreign)}; add types of data, leave out functions")
        path.write_bytes(data)

    def load(self, path: Path) -> Self:
        """Read what `save` wrote and nothing else. Raises ModelAbsentError on a file of another kind, or of other features."""
        from skops import io

        try:
            data = read_bytes(path, MODEL, MAX_MODEL)
            check_archive(data, MODEL, path, MAX_MODEL)
            if foreign := self._foreign(data):
                raise ValueError(f"it holds {', '.join(foreign)}")
            stored = io.loads(data, trusted=list(self.trusted))
            names, fitted = tuple(stored["features"]), stored["fitted"]
            if names == self.feature_names:
                _check(fitted, self.estimator, len(names))
                self._answer(np.zeros((1, len(names)), np.float32), fitted)
        except Exception as error:  # of whatever library: the model is absent
            raise ModelAbsentError(f"{path.name} must be a skops archive of {self.stem}, was none ({said(error)}); train again") from error
        if names != self.feature_names:
            raise ModelAbsentError(f"{self.stem} must have the features {', '.join(self.feature_names)}, was trained on others")
        self.fitted = fitted
        return self

    def digest(self) -> bytes:
        """Return what was fitted: an archive holds times and addresses, and gaps between numbers, which are no part of it."""
        return b"\n".join(part for part, _ in parts(self.fitted))

    def _answer(self, matrix: Any, fitted: Any = None) -> F8:
        probs = np.asarray((self.fitted if fitted is None else fitted).predict_proba(matrix), np.float64)
        if (row := unsound(probs)) is not None:
            raise ValueError(f"an answer must be probabilities, was {probs[row].tolist()}")
        return probs

    def _each(self, matrix: Any) -> F8:
        if not len(matrix):
            return np.empty((0, 3))
        return np.concatenate([self._answer(matrix[i : i + 1]) for i in range(len(matrix))])

    def _foreign(self, data: bytes) -> list[str]:
        from skops import io

        return sorted(set(io.get_untrusted_types(data=data)) - set(self.trusted))


def parts(value: Any, known: dict[int, Any] | None = None) -> Iterator[tuple[bytes, Any]]:
    """Walk through what pickle would write of `value`; yield bytes that are equal for equal content, and each object they are of."""
    known = {} if known is None else known  # by address; kept alive, so that no two ever have the same
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        yield repr(value.item() if isinstance(value, np.generic) else value).encode(), value
    elif isinstance(value, np.ndarray) and value.dtype.names:
        for name in value.dtype.names:  # without the gaps between its fields
            yield from parts(np.asarray(value[name]), known)
    elif isinstance(value, (np.ndarray, np.generic)) and not value.dtype.hasobject:
        yield f"{value.dtype.str} {value.shape}".encode() + value.tobytes(), value
    elif isinstance(value, type) or hasattr(value, "__qualname__"):
        yield f"{value.__module__}.{value.__qualname__}".encode(), value
    elif id(value) in known:
        yield b"again", value
    else:
        known[id(value)] = value
        yield type(value).__qualname__.encode(), value
        if isinstance(value, (np.random.RandomState, np.random.Generator)):
            inner = []  # no answer depends on what a fit left of its draws
        elif isinstance(value, dict):
            inner = [part for key in sorted(value, key=repr) if key not in THREADS for part in (key, value[key])]
        elif isinstance(value, (set, frozenset)):
            inner = sorted(value, key=repr)
        elif isinstance(value, (list, tuple)):
            inner = list(value)
        elif isinstance(value, np.ndarray):
            inner = value.ravel().tolist()
        else:
            inner = list(value.__reduce_ex__(4)[1:])
        for part in inner:
            yield from parts(part, known)


def _weighing(estimator: Any, weights: F8 | None, prefix: str = "") -> dict[str, F8]:
    """Keywords by which an estimator's `fit` takes the weights of rows; none where it takes none."""
    from sklearn.utils.validation import has_fit_parameter

    if hasattr(estimator, "steps"):
        name, last = estimator.steps[-1]
        return _weighing(last, weights, f"{prefix}{name}__")
    return {f"{prefix}sample_weight": weights} if weights is not None and has_fit_parameter(estimator, "sample_weight") else {}


def _is_plain(value: Any) -> bool:
    try:
        return json.loads(json.dumps(value)) == value
    except (TypeError, ValueError):
        return False


def _check(fitted: Any, estimator: Any, n_features: int) -> None:
    """Raise ValueError unless what was read is a fitted `estimator` for three classes over `n_features` columns with sound trees."""
    if type(fitted) is not type(estimator) or list(fitted.classes_) != [0, 1, 2] or fitted.n_features_in_ != n_features:
        raise ValueError(f"it is no {type(estimator).__name__} of three classes over {n_features} columns")
    for _, part in parts(fitted):
        if check := CHECKS.get(f"{type(part).__module__}.{type(part).__qualname__}"):
            check(part, n_features)
