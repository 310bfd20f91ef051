"""Base model interface: the protocol, the scaler, and what our models share.

A model turns feature rows into probabilities of SELL, HOLD, BUY. It knows its ordered feature names and refuses others; it is fitted with a
validation slice that stops the training; ours are saved in their library's own format beside a JSON scaler, never pickled (`spec` D-76).
Libraries are imported inside the methods that need them.

To add one: write a class with the methods of `BaseModel`, try it with `research.check_model`, and
`register("mine", "my_package.my_module:MyModel")`: any name of its own, at most five vote in a run.
"""

import hashlib
import importlib
import inspect
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8, MODELS
from qtcore.voters import check_name
from research.errors import EXTRAS, ConfigError, ModelError, UserError, need, refusing
from research.files import Kind, parse_json, read_bytes, read_text, reason, save_text
from research.training.models.calibration import Calibration
from research.training.models.residuals import Residuals

F4 = NDArray[np.float32]
UNIQUENESS, EQUAL = COUNTED = ("uniqueness", "equal")  # what training cells count
PRESETS = ("default", "published", "original", "fast", "tiny")  # what each of our models knows by these names
MODEL = Kind("a model file as the training wrote it", "train again")
CALIBRATION = {"kind": str, "scale": float, "factors": [float]}
SCALER = Kind(
    "the means and deviations of a model as the training wrote them",
    "train again",
    {
        "features": [str],
        "model_sha256": str,
        "mean": [float],
        "scale": [float],
        "calibration?": (CALIBRATION, None),
        "residuals?": {"knots": [float], "low": float, "high": float, "n": int},
    },
)
CLASSES = ("SELL", "HOLD", "BUY")
SUM = 1e-6  # by which three probabilities may miss 1
CHUNK = 65_536  # rows scaled and predicted at a time, so that no second copy of the whole matrix exists


class ModelAbsentError(ValueError):
    """The model cannot be fitted or loaded; the chain goes on without it (`spec` D-23, D-28)."""


class BaseModel(Protocol):
    """What training and serving ask of a model; nothing else is needed.

    stem: the name in file names. suffix: of the model file. feature_names: the columns of every matrix, in order. The constructor takes the
    names, and the preset where one of its arguments is called `preset`.

    A model may also have any of these. `lookback`: the rows of a symbol that it sees, where that is more than one; it is given `Windows`
    [N, lookback, F] then instead of arrays [N, F]. `digest() -> bytes`: what was fitted, where two files of the same fit differ (a time
    stamp in them); a fold that is fitted again is compared by it. `calibration`: None, and saved and loaded where it is not; training fits
    and applies it. `knows_until`, of the class: the latest data that it knows before it is fitted, as one that brings fitted weights does;
    bars up to there are no evidence (`research.training.knowledge`). `history`: learning curves. `on_progress`: called as
    `on_progress(done, total, text)` while it fits. `weights`, of `fit`: a parameter of this name gets the weight of every training row
    [N], float64 with a mean of 1, or None where all count alike (`run.weights`); class weights are the model's own, beside them.
    `fit_score`: fits to the number that a label is made of, where it asks for that (`Label.is_score`). `has_one_horizon`, of the class:
    of a label with several horizons it learns the first, and takes part in the others with that.
    """

    stem: ClassVar[str]
    suffix: ClassVar[str]
    feature_names: tuple[str, ...]

    def fit(self, rows: Any, labels: NDArray[np.int8], valid_rows: Any, valid_labels: NDArray[np.int8], seed: int) -> None:
        """Fit on finite rows [N, F] float32 with classes [N]; may change `rows` in place. Raises ModelAbsentError where it cannot."""

    def predict_proba(self, matrix: Any) -> F8:
        """Return probabilities [N, 3] in the order SELL HOLD BUY; one row gives the same bits as a batch."""

    def save(self, path: Path) -> None:
        """Write the model to `path`; a second file may lie at `scaler_path(path)`, as the scaler of ours does, and no other."""

    def load(self, path: Path) -> Self:
        """Read what `save` wrote and return self. Raises ModelAbsentError on a file of another kind, or of other features."""

    def params(self) -> dict[str, Any]:
        """Return the parameters in use, as values that JSON holds."""


ONE_HORIZON = "has_one_horizon"

_REGISTRY = {
    "xgb": "research.training.models.xgboost:XGBoost",
    "lgbm": "research.training.models.lightgbm:LightGBM",
    "nhits": "research.training.models.nhits:NHiTS",
    "patchtst": "research.training.models.patchtst:PatchTST",
    "linear": "research.training.models.linear:Linear",
}
OURS = tuple(_REGISTRY)


def register(name: str, target: str) -> None:
    """Name the class of a voter as `module:Class`; the module is imported when a model is trained or loaded.

    Raises UserError on a name that no voter may have (`qtcore.voters.check_name`), and on a target of another form.
    """
    with refusing(ModelError):
        check_name(name)
    module, colon, made_by = target.partition(":")
    if not (module and colon and made_by):
        raise ModelError(f"model class must be given as 'module:Class', was {target!r}")
    _REGISTRY[name] = target


def unregister(slot: str, before: str | None = None) -> None:
    """Take back what `register` named; before: what the slot meant until then, None for nothing."""
    if before is None:
        _REGISTRY.pop(slot, None)
    else:
        _REGISTRY[slot] = before


def registered() -> tuple[str, ...]:
    """Voters for which a class is registered: the known ones in the order of their slots, then the others."""
    return tuple(dict.fromkeys(name for name in (*MODELS, *_REGISTRY) if name in _REGISTRY))


def model_target(name: str) -> str:
    """Return `module:Class` of a voter. Raises UserError when no class is registered for it."""
    if name not in _REGISTRY:
        remedy = f'name the file of another with --layers, or its class with research.training.models.register("{name}", "module:Class")'
        raise ModelError(f"models must be among {', '.join(_REGISTRY)}, was {name!r}; {remedy}")
    return _REGISTRY[name]


def make_model(target: str, feature_names: Sequence[str], preset: str = "default") -> BaseModel:
    """Import `module:Class` and build an unfitted model. Raises UserError as `model_class` does."""
    return build(model_class(target), feature_names, preset)


def build(made_by: Callable[..., BaseModel], feature_names: Sequence[str], preset: str = "default") -> BaseModel:
    """Build an unfitted model of a class; one without presets is not told any."""
    takes_preset = "preset" in inspect.signature(made_by).parameters
    return made_by(tuple(feature_names), **({"preset": preset} if takes_preset else {}))


def model_class(target: str) -> Callable[..., BaseModel]:
    """Import `module:Class`. Raises UserError where it is not there, or needs an extra that is not installed."""
    module, _, name = target.partition(":")
    rule = "a model's class must be given as 'module:Class' and be there"
    try:
        found: Callable[..., BaseModel] = getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if (lacking := (error.name or "").partition(".")[0]) in EXTRAS:
            need(lacking, f"the model {name}")
        raise ModelError(f"{rule}, was {target!r} ({error}); correct it, or put its folder on the path of Python") from error
    except AttributeError as error:
        raise ModelError(f"{rule}, was {target!r} ({reason(error)}); correct it") from error
    return found


def lookback_of(model: BaseModel) -> int:
    """Rows of one symbol that a prediction sees, its own included; 1 unless the model says otherwise."""
    return int(getattr(model, "lookback", 1))


def takes_weights(model: BaseModel) -> bool:
    """Say whether a model weighs its training rows: its `fit` has a parameter `weights`."""
    return "weights" in inspect.signature(model.fit).parameters


def own_digest(model: BaseModel) -> dict[str, str]:
    """Return `digest`, the hash of what a fitted model says it is, where it says so; else nothing."""
    said: Callable[[], bytes] | None = getattr(model, "digest", None)
    return {} if said is None else {"digest": hashlib.sha256(said()).hexdigest()}


def names_hash(names: Sequence[str]) -> str:
    """Hash ordered feature names, 16 hex digits: two models agree on their input when these agree.

    >>> names_hash(["rsi", "macd_rel"]) == names_hash(["macd_rel", "rsi"])
    False
    """
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Scaler:
    """Mean and standard deviation per column, fitted on training rows only; a constant column is divided by 1."""

    mean: F8
    scale: F8

    @classmethod
    def fit(cls, rows: F4) -> "Scaler":
        """Fit on finite rows [N, F]; population standard deviation, two passes in float64."""
        mean: F8 = np.asarray(np.mean(rows, axis=0, dtype=np.float64))
        total = np.zeros(rows.shape[1])
        for start in range(0, len(rows), CHUNK):
            total += np.sum(np.square(rows[start : start + CHUNK] - mean), axis=0)
        deviation = np.sqrt(total / max(len(rows), 1))
        return cls(mean, np.where(deviation > 0.0, deviation, 1.0))

    def transform(self, rows: F4, out: F4 | None = None) -> F4:
        """Return `(rows - mean) / scale` as float32; `out=rows` works in place. Cell by cell, so the cut of the input changes nothing."""
        target = np.empty(rows.shape, np.float32) if out is None else out
        for start in range(0, len(rows), CHUNK):
            part = slice(start, start + CHUNK)
            target[part] = (rows[part] - self.mean) / self.scale
        return target

    def to_json(
        self, names: Sequence[str], model: bytes, calibration: Calibration | None = None, residuals: Residuals | None = None
    ) -> str:
        """Write all with the hash of the model they belong to; float text reads back to the same bits."""
        more: dict[str, Any] = {"mean": self.mean.tolist(), "scale": self.scale.tolist()}
        if calibration is not None:
            more["calibration"] = calibration.to_dict()
        if residuals is not None:
            more["residuals"] = residuals.to_dict()
        return json.dumps({"features": list(names), "model_sha256": hashlib.sha256(model).hexdigest(), **more}, indent=1)

    @classmethod
    def from_json(cls, text: str, names: Sequence[str], model: bytes) -> "Scaler":
        """Read `to_json`. Raises ModelAbsentError where it is damaged or belongs to another model or other features.

        The hash keeps a damaged model from its library: xgboost 3.2 ends the whole process on a truncated file.
        """
        try:
            stored = parse_json(text, SCALER, "scaler")
        except UserError as error:
            raise ModelAbsentError(str(error)) from error
        mean, scale = np.array(stored["mean"], np.float64), np.array(stored["scale"], np.float64)
        if stored["model_sha256"] != hashlib.sha256(model).hexdigest():
            raise ModelAbsentError("model file must be the one its scaler was written with, was altered or cut short; train again")
        check_names("scaler", stored["features"], names)
        if mean.shape != (len(names),) or scale.shape != (len(names),) or not (np.isfinite(mean).all() and (scale > 0.0).all()):
            raise ModelAbsentError(f"scaler must hold {len(names)} finite means and positive scales, was otherwise; train again")
        return cls(mean, scale)


def check_names(what: str, have: Sequence[str], want: Sequence[str]) -> None:
    """Raise ModelAbsentError unless both name lists are equal, order included."""
    if tuple(have) == tuple(want):
        return
    missing, extra = [n for n in want if n not in have], [n for n in have if n not in want]
    detail = f"missing {', '.join(missing) or 'none'}, unknown {', '.join(extra) or 'none'}" if missing or extra else "in another order"
    raise ModelAbsentError(f"{what} must have the features {', '.join(want)}, was {detail}; assemble the matrix by name")


@dataclass(frozen=True)
class Preset:
    """Parameters of a model: of trees as their library spells them, of networks sizes and optimiser.

    rounds: largest number of boosting rounds or epochs.
    patience: rounds without improvement on the validation slice before it stops, 0 never.
    weights: `balanced` N / (3 n_c), `max_share` max(n) / n_c, or `none`; the validation slice is weighed with the training part's figures.
    """

    params: Mapping[str, Any]
    rounds: int
    patience: int
    weights: str


WEIGHTS: Mapping[str, Callable[[F8], F8]] = {  # of each class [3] from training counts [3]
    "none": np.ones_like,
    "balanced": lambda n: n.sum() / (3.0 * n),
    "max_share": lambda n: n.max() / n,
}


def class_weights(counts: Any, rule: str) -> F8:
    """Weight of each class [3] from training counts [3], all above 0."""
    return WEIGHTS[rule](np.asarray(counts, np.float64))


def weights_rule(params: Mapping[str, Any]) -> str:
    """Return the rule of class weights that a model says it was fitted with, `none` where its parameters name none of ours."""
    rule = params.get("class_weights")
    return rule if isinstance(rule, str) and rule in WEIGHTS else "none"


def asked(model: BaseModel, title: str, rows: Any) -> F8:
    """Ask a model about rows [N]. Raises ModelError where its code raises, or answers with anything but probabilities [N, 3]."""
    try:
        probs: F8 = np.asarray(model.predict_proba(rows))
    except (Exception, SystemExit) as error:  # a model may be a user's own
        told = f"{type(error).__name__}: {reason(error)}"
        raise ModelError(f"{title} must answer with probabilities, raised {told}; try it with research.check_model") from error
    if probs.shape != (len(rows), 3):
        raise ModelError(f"{title} must answer [{len(rows)}, 3], was {list(probs.shape)}; try it with research.check_model")
    if probs.dtype.kind != "f":
        raise ModelError(f"{title} must answer with floats, was {probs.dtype}; try it with research.check_model")
    if (row := unsound(probs)) is not None:
        rule = f"{title} must answer with probabilities, 0 or more with a sum of 1"
        raise ModelError(f"{rule}, was {probs[row].tolist()} in row {row}; try it with research.check_model")
    return probs


def unsound(probs: F8) -> int | None:
    """Return the first row of [N, 3] that holds no probabilities, None where all do."""
    is_sound = (probs >= 0.0).all(axis=1) & (np.abs(probs.sum(axis=1) - 1.0) < SUM)
    return None if is_sound.all() else int(np.argmin(is_sound))


@dataclass
class StoredModel(ABC):
    """What our models share: presets, scaler, refusal of missing classes, files."""

    feature_names: tuple[str, ...]
    preset: str = "default"
    rounds: int = 0  # used after early stopping
    scaler: Scaler | None = field(default=None, repr=False)
    calibration: Calibration | None = field(default=None, repr=False)  # fitted and applied by whoever trains and serves
    residuals: Residuals | None = field(default=None, repr=False)  # of a model that was fitted to a score
    slot: ClassVar[str]
    stem: ClassVar[str]
    suffix: ClassVar[str]
    presets: ClassVar[Mapping[str, Preset]]

    def __post_init__(self) -> None:
        if self.preset not in self.presets:
            raise ConfigError(f"preset (--preset) must be one of {', '.join(self.presets)}, was {self.preset!r}")

    @abstractmethod
    def _write(self) -> bytes:
        """Return the model in the library's own format."""

    @abstractmethod
    def _read(self, data: bytes) -> None:
        """Load what `_write` returned."""

    def params(self) -> dict[str, Any]:
        """Return preset, parameters, largest and used number of rounds, patience and weighting."""
        preset = self.presets[self.preset]
        own = {"max_rounds": preset.rounds, "rounds": self.rounds, "patience": preset.patience, "class_weights": preset.weights}
        return {"preset": self.preset, **preset.params, **own}

    def save(self, path: Path) -> None:
        """Write `path` (the library's format) and `<stem>_scaler.json` beside it."""
        assert self.scaler is not None
        data = self._write()
        path.write_bytes(data)
        save_text(scaler_path(path), self.scaler.to_json(self.feature_names, data, self.calibration, self.residuals))

    def load(self, path: Path) -> Self:
        """Read what `save` wrote. Raises ModelAbsentError where files are missing, damaged, or of other features."""
        try:
            data, text = read_bytes(path, MODEL), read_text(scaler_path(path), SCALER)
        except UserError as error:
            raise ModelAbsentError(str(error)) from error
        self.scaler = Scaler.from_json(text, self.feature_names, data)
        try:
            stored = parse_json(text, SCALER, scaler_path(path))
            calibration, residuals = stored.get("calibration"), stored.get("residuals")
            self.calibration = None if calibration is None else Calibration.from_dict(calibration)
            self.residuals = None if residuals is None else Residuals.from_dict(residuals)
            self._read(data)
        except ModelAbsentError:
            raise
        except Exception as error:  # each library has errors of its own; whatever it is, the model is absent
            first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise ModelAbsentError(f"{self.slot} must be a {self.suffix} file of its library, was not: {first}") from error
        return self

    def _fitted(self) -> Scaler:
        """Return the scaler of a fitted or loaded model."""
        if self.scaler is None:
            raise ValueError(f"{self.slot} must be fitted or loaded before it predicts, was neither")
        return self.scaler

    def _counts(self, labels: NDArray[np.int8], valid_rows: Any) -> NDArray[np.int64]:
        """Training cells of each class [3]. Raises ModelAbsentError where one is missing, or nothing could stop the training."""
        counts = np.bincount(labels, minlength=3)
        if counts.sum() == 0:
            raise ModelAbsentError(
                "training rows must exist, was none with whole features and a label: too many holes, see `qt data check`"
            )
        if counts.min() == 0:
            lacking = ", ".join(name for name, count in zip(CLASSES, counts) if count == 0)
            raise ModelAbsentError(
                f"training rows must hold every class, {len(labels):,} were without {lacking}; see `qt data check`, or choose another label"
            )
        if len(valid_rows) == 0:
            raise ModelAbsentError("validation rows must exist, was 0; load a longer period")
        return counts


@dataclass
class RowModel(StoredModel):
    """What models of single rows share: rows scaled in place, class weights, prediction in chunks.

    history: weighted log loss per round on the fitted ("train") and the validation rows ("valid"), and the round kept ("best"), from 0.
    """

    history: dict[str, Any] = field(default_factory=dict, repr=False)

    @abstractmethod
    def _fit(self, rows: F4, labels: Any, weights: F8, valid: tuple[F4, Any, F8], seed: int) -> None:
        """Fit on scaled rows and keep the rounds up to the best one."""

    @abstractmethod
    def _predict(self, rows: F4) -> F8:
        """Probabilities of scaled rows, [N, 3]."""

    @abstractmethod
    def _gains(self) -> F8:
        """Sum of the gains of each feature's splits, or of the sizes of its coefficients, [F]."""

    def gains(self) -> dict[str, float]:
        """Return each feature's share of the gain of all splits, or of all coefficients; zeros where there is none."""
        total = self._gains()
        return dict(zip(self.feature_names, (total / max(total.sum(), 1e-300)).round(6).tolist()))

    def _remember(self, train: Sequence[float], valid: Sequence[float]) -> None:
        """Keep the learning curves; six digits show all there is to see."""
        self.history = {"train": [round(x, 6) for x in train], "valid": [round(x, 6) for x in valid], "best": self.rounds - 1}

    def fit(
        self,
        rows: F4,
        labels: NDArray[np.int8],
        valid_rows: F4,
        valid_labels: NDArray[np.int8],
        seed: int,
        weights: F8 | None = None,
    ) -> None:
        """Fit scaler and model; `rows` and `valid_rows` [N, F] are scaled in place. Raises ModelAbsentError when a class is missing."""
        self._check(rows)
        counts = self._counts(labels, valid_rows)
        self.scaler = Scaler.fit(rows)
        of_class = class_weights(counts, self.presets[self.preset].weights)
        valid = (self.scaler.transform(valid_rows, valid_rows), valid_labels, of_class[valid_labels])
        each = of_class[labels] if weights is None else of_class[labels] * weights
        self._fit(self.scaler.transform(rows, rows), labels, each, valid, seed)

    def predict_proba(self, matrix: F4) -> F8:
        """Return probabilities [N, 3] float64 of finite rows [N, F]."""
        self._check(matrix)
        scaler = self._fitted()
        out = np.empty((len(matrix), 3))
        for start in range(0, len(matrix), CHUNK):
            part = slice(start, start + CHUNK)
            out[part] = self._predict(scaler.transform(matrix[part]))
        return out

    def _check(self, matrix: F4) -> None:
        if matrix.dtype != np.float32 or matrix.ndim != 2 or matrix.shape[1] != len(self.feature_names):
            raise ValueError(
                f"{self.slot} must get a float32 matrix [N, {len(self.feature_names)}] of {', '.join(self.feature_names)}, "
                f"was {matrix.dtype} {list(matrix.shape)}; assemble it by name with qtcore.features.matrix"
            )


def scaler_path(model_path: Path) -> Path:
    """Path of the scaler that belongs to a model file."""
    return model_path.with_name(f"{model_path.stem}_scaler.json")
