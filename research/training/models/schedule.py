"""Base model schedule: the trained models that vote, and what each says of a bar. `artefacts` says which serves when."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qtcore.params import Params
from qtcore.types import F8, I8, N_MODELS, Bars
from qtcore.voters import slots_of
from research.errors import ModelError, UserError, refusing
from research.files import Kind, read_bytes, read_json
from research.training.knowledge import FLAG, parse_until
from research.training.labels import LABEL_SHAPE, Label, classify, limits, look_ahead
from research.training.maps import MapSchedule
from research.training.models.artefacts import FOREVER, Schedule, StoredFit
from research.training.models.base import (
    F4,
    MODEL,
    SCALER,
    BaseModel,
    ModelAbsentError,
    asked,
    check_names,
    lookback_of,
    make_model,
    model_target,
    registered,
    scaler_path,
)
from research.training.models.calibration import calibrated
from research.training.models.folder import ENTRY, check_meta, read_schedule
from research.training.models.former import present
from research.training.models.layers import adopt, check_layers
from research.training.models.windows import complete, inputs_of

SERVED = 4_096  # cells predicted between two reports: seconds of the slowest network
THRESHOLDS = {side: {...: (float, None)} for side in ("sell", "buy")}
BASELINE = {"edges": [float], "shares": [[float]]}
SHAPE = {
    "config": {
        "label": LABEL_SHAPE,
        "thresholds": [THRESHOLDS],
        "baselines?": [BASELINE],
        "plan?": {"params?": dict, "seed?": int, "models?": [str]},
        "later?": [int],
        "boundaries?": [int],
    },
    "artefacts": [{**ENTRY, "slot": str}],
}
METADATA = Kind(
    "the metadata of a model as the training wrote it",
    "train again",
    {
        "slot": str, "target": str, "suffix": str, "hash": str, "features": [str], "params": {"preset": str}, "valid_from": int,
        "label": LABEL_SHAPE, "label_thresholds": THRESHOLDS, "feature_params?": dict,
    },
)  # fmt: skip
STAMP = re.compile(r"_v(\d{8}_\d{6})_v5_meta\.json$")
Progress = Callable[[int, int, str], Any]


@dataclass(frozen=True)
class Artefact(StoredFit[BaseModel]):
    """One fitted base model on disk. hash: of model and scaler file."""

    slot: str = field(kw_only=True)

    @property
    def title(self) -> str:
        """Its slot."""
        return self.slot

    @property
    def identity(self) -> str:
        """What a second fit is compared by: the hash of what the model says it is, else of its files as `fit_hash` reads them."""
        return str(self.meta.get("digest") or (fit_hash(self.path) if self.path.exists() else self.hash))

    def load(self) -> BaseModel:
        """Load the model.

        Raises ModelAbsentError where a file is missing, damaged, altered, or of other features; UserError where its class is in a file of
        layers that is not in use.
        """
        if not self.path.exists():
            raise ModelAbsentError(f"{self.slot} of fold {self.fold} must have the file {self.path.name}, was without; train again")
        if artefact_hash(self.path) != self.hash:
            was = "altered" if scaler_path(self.path).exists() else "altered, or its scaler is gone"
            raise ModelAbsentError(f"{self.path.name} must have the hash {self.hash[:12]} of its schedule, was {was}; train again")
        check_meta(self)
        self.check_code()
        _check_class(self.slot, self.meta["target"])
        model = make_model(self.meta["target"], self.meta["features"], self.meta["params"]["preset"])
        return model.load(self.path)

    def check_code(self) -> None:
        """Raise ModelError unless the file of layers that the model was made with, if there was one, is in use."""
        if (about := self.meta.get("layers")) is not None:
            check_layers(about, f"{self.slot} of fold {self.fold + 1}")
            adopt(self.slot, self.meta["target"])


def artefact_hash(path: Path) -> str:
    """Hash a model file together with its scaler (which names the features), if it has one: equal hashes answer equally."""
    digest = hashlib.sha256(read_bytes(path, MODEL))
    if scaler_path(path).exists():
        digest.update(read_bytes(scaler_path(path), MODEL))
    return digest.hexdigest()


def fit_hash(path: Path) -> str:
    """Hash a model file and its scaler with the calibration to nine digits: the optimiser's last ones are those of a processor's `exp`."""
    digest = hashlib.sha256(read_bytes(path, MODEL))
    if scaler_path(path).exists():
        told = read_json(scaler_path(path), SCALER)
        if (found := told.get("calibration")) is not None:
            told["calibration"] = [found["kind"], *(f"{x:.9g}" for x in (found["scale"], *found["factors"]))]
        digest.update(json.dumps(told).encode())
    return digest.hexdigest()


def _check_class(slot: str, target: str) -> None:
    """Raise ModelAbsentError unless the metadata name the class that is registered: a file never chooses which code runs."""
    try:
        wanted = model_target(slot)
    except UserError as error:
        raise ModelAbsentError(str(error)) from error
    if target != wanted:
        raise ModelAbsentError(f"{slot} must be of the registered class {wanted}, was {target}; register it first")


@dataclass(frozen=True)
class ModelSet(Schedule[Artefact, BaseModel]):
    """A trained set of base models. config: what `train` was told. n_stored: fits that came from the store when it was trained.

    further: the same voters trained for each of the later horizons of their label.
    """

    n_stored: int = field(default=0, compare=False)
    further: tuple["ModelSet", ...] = ()

    VERSION: ClassVar[int] = 2
    WHAT: ClassVar[str] = "models"

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Who votes in each of the five slots. Raises InputError where no names of voters stand in the schedule."""
        return slots_of(dict.fromkeys((*self.config.get("plan", {}).get("models", ()), *(a.slot for a in self.artefacts))))

    @property
    def slots(self) -> tuple[str, ...]:
        """Models that have at least one artefact, in slot order."""
        return tuple(name for name in self.names if any(a.slot == name for a in self.artefacts))

    @property
    def layers(self) -> Mapping[str, str] | None:
        """Name and hash of the file of layers that some model was made with, None where none needs one."""
        return next((a.meta["layers"] for a in self.artefacts if a.meta.get("layers")), None)

    @property
    def lookback(self) -> int:
        """Rows of one symbol that the longest-sighted model sees, the bar itself included."""
        return max((int(a.meta.get("lookback", 1)) for part in self.parts for a in part.artefacts), default=1)

    @property
    def parts(self) -> tuple["ModelSet", ...]:
        """The set of each horizon, this one first."""
        return (self, *self.further)

    @property
    def serving(self) -> tuple[Artefact, ...]:
        """Artefacts that serve from now on, of every horizon."""
        return tuple(a for part in self.parts for a in part.artefacts if a.valid_until == FOREVER)

    @property
    def later(self) -> tuple[int, ...]:
        """Rows that the later horizons look ahead."""
        return tuple(part.horizon for part in self.further)

    @property
    def n_horizons(self) -> int:
        """Number of horizons that the models speak of."""
        return len(self.parts)

    @property
    def horizon(self) -> int:
        """Rows that the label looks ahead: how long the chain holds a position unless told otherwise."""
        return int(self.config["label"]["horizon"])

    @cached_property
    def map_schedule(self) -> MapSchedule | None:
        """What the opinions are worth, None where that was not fitted. Raises ModelError where it is damaged."""
        return MapSchedule.from_dict(self.config["maps"]) if "maps" in self.config else None

    @property
    def maps(self) -> NDArray | None:
        """MAP [H * F], as `qtcore.Engine` asks for it."""
        return None if self.map_schedule is None else self.map_schedule.every

    @cached_property
    def knows_until(self) -> int | None:
        """Latest moment of the data that some model knew before it was fitted, ns UTC; None where none brings any."""
        until = self.config.get("plan", {}).get("knows_until")
        return None if until is None else parse_until(until)

    def params(self) -> Params:
        """Return the parameters that the training was given."""
        return Params.stored(self.config.get("plan", {}).get("params", {}))

    def check_params(self, params: Params) -> None:
        """Raise UserError when `params` compute features otherwise than the training did; the choice of the set does not matter."""
        mine, theirs = self.params().flat(), params.flat()
        for name in mine:
            if name.startswith("features.") and name not in ("features.feature_set", "features.sets") and mine[name] != theirs[name]:
                raise ModelError(f"{name} must be {mine[name]!r} as when the models were trained, was {theirs[name]!r}; train again")

    def check_label(self, name: str) -> None:
        """Raise UserError where a label that is set, by its id, is not the models'; `auto` is any."""
        if name not in ("auto", mine := str(self.config["label"]["id"])):
            raise ModelError(f"run.label must be that of the models, {mine}, was {name}; leave it out, or train with run.label={name}")

    def check_until(self, until: str | None) -> None:
        """Raise UserError where something is declared of models that only their training can heed."""
        if until is not None:
            rule = f"{FLAG} must come with --predictions, or with the training, was {until} with models that are trained"
            raise ModelError(f"{rule}; leave it out, or train again with it")

    def hashes(self, fold: int) -> dict[str, str]:
        """Return the identity of every model of a fold."""
        return {a.slot: a.identity for a in self.artefacts if a.fold == fold}

    def serve(self, matrix: F4, close_time: I8, names: Sequence[str] | None = None, progress: Progress | None = None) -> F8:
        """Predict every bar with the artefact valid at its close.

        matrix [h + n, S, F]: float32, columns `feature_names`; h earlier rows may stand in front for windows of sequence models. A row or
        window with a NaN gets no prediction, nor does a bar that a model knew before it was fitted. close_time [n]: decision times, ns UTC.
        progress(done, total, text) is called now and then.
        Returns [5, n, S, 3 H] float64, one horizon after the other, NaN absent; one bar gives the same bits as all of them.
        """
        if self.further:
            alone = replace(self, further=())
            return np.concatenate([part.serve(matrix, close_time, names, progress) for part in (alone, *self.further)], axis=3)
        if names is not None:
            check_names("matrix", names, self.feature_names)
        n_before = len(matrix) - len(close_time)
        out = np.full((N_MODELS, len(close_time), matrix.shape[1], 3), np.nan)
        usable = np.asarray(np.isfinite(matrix).all(axis=2))
        is_new = np.ones(len(close_time), bool) if self.knows_until is None else close_time > self.knows_until
        for i, artefact in enumerate(self.artefacts):
            rows = np.flatnonzero(artefact.serves(close_time) & is_new)
            if len(rows) == 0 or not usable[n_before + rows].any():
                continue
            model = self.fitted(artefact)
            if model is not None:
                lookback = lookback_of(model)
                t, s = np.nonzero(complete(usable, lookback)[n_before + rows])
                for start in range(0, len(t), SERVED):
                    if progress is not None:
                        share = f"{start / len(t):.0%}"
                        progress(i, len(self.artefacts), f"predicting: {artefact.slot}, fold {artefact.fold + 1}, {share}")
                    row, column = rows[t[start : start + SERVED]], s[start : start + SERVED]
                    out[self.names.index(artefact.slot), row, column] = _said(artefact, model, matrix, n_before + row, column)
        return out

    def predict_rows(self, matrix: F4, rows: Sequence[I8]) -> list[F8]:
        """Predict the rows `rows[k]` of a matrix, as in `serve`, with the artefacts of fold k: [5, rows, S, 3] each, NaN absent."""
        out = [np.full((N_MODELS, len(part), matrix.shape[1], 3), np.nan) for part in rows]
        usable = np.asarray(np.isfinite(matrix).all(axis=2))
        for artefact in self.artefacts:
            part = rows[artefact.fold]
            model = self.fitted(artefact) if usable[part].any() else None
            if model is not None:
                t, s = np.nonzero(complete(usable, lookback_of(model))[part])
                out[artefact.fold][self.names.index(artefact.slot), t, s] = _said(artefact, model, matrix, part[t], s)
        return out

    @classmethod
    def load(cls, folder: str | Path, *, is_checked: bool = True) -> "ModelSet":
        """Read a schedule's folder, or a folder of single artefacts: then the latest time stamp in the names serves all bars.

        Raises UserError where there is nothing to read or another version wrote it. A damaged artefact is absent and named in `notes`;
        is_checked=False opens none and leaves that to `check`.
        """
        source = Path(folder)
        models = cls._load_schedule(source) if (source / "schedule.json").exists() else cls._load_latest(source)
        with refusing(ModelError):
            _ = models.names  # before anything is served
        return models.checked() if is_checked else models

    @classmethod
    def _load_schedule(cls, source: Path) -> "ModelSet":
        document, entries = read_schedule(source, cls.VERSION, "a schedule", SHAPE)
        models = cls.stored(source, document, (_artefact(*entry) for entry in entries))
        later = models.config.get("later", ())
        further = tuple(cls._load_schedule(source / horizon_folder(bars)) for bars in later)
        if tuple(part.horizon for part in further) != tuple(later) or any(
            (part.names, part.feature_names) != (models.names, models.feature_names) or part.further for part in further
        ):
            raise ModelError(f"{source} must hold the same voters for each horizon, was otherwise; train again")
        return replace(models, further=further)

    def table(self) -> list[dict[str, Any]]:
        """Figures of every artefact on its test fold, one row each; those of a later horizon are named by it."""
        later = [row | {"model": f"{row['model']}@{part.horizon}"} for part in self.further for row in part.table()]
        return [*super().table(), *later]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the metadata of the artefacts warn of, one sentence each."""
        return (*super().warnings, *(f"{part.horizon} bars, {text}" for part in self.further for text in part.warnings))

    def save(self, folder: str | Path) -> "ModelSet":
        """Write all artefacts, those of later horizons first, and then `schedule.json`; return what lives there."""
        further = tuple(part.save(Path(folder) / horizon_folder(part.horizon)) for part in self.further)
        return replace(super().save(folder), further=further)

    def check(self) -> tuple[str, ...]:
        """Load every artefact now; return one sentence for each that is absent."""
        return (*super().check(), *(why for part in self.further for why in part.check()))

    @classmethod
    def _load_latest(cls, source: Path) -> "ModelSet":
        found: dict[str, tuple[str, Path]] = {}
        for path in sorted(source.rglob("*_meta.json")):
            if match := STAMP.search(path.name):
                stem = path.name[: match.start()]
                found[stem] = max(found.get(stem, ("", path)), (match[1], path))
        artefacts = []
        for _, path in found.values():
            meta = read_json(path, METADATA)
            file = path.with_name(path.name.removesuffix("_meta.json") + meta["suffix"])
            meta["target"] = present(meta["target"])
            artefacts.append(Artefact(0, meta["valid_from"], FOREVER, file, meta["hash"], meta, slot=meta["slot"]))
        if not artefacts:
            raise ModelError(f"models must be a folder with schedule.json or artefacts as `qt train` writes them, was {str(source)!r}")
        names = tuple(artefacts[0].meta["features"])
        for artefact in artefacts[1:]:
            check_names(artefact.path.name, artefact.meta["features"], names)
        first = artefacts[0].meta
        config = {"label": first["label"], "thresholds": [first["label_thresholds"]], "plan": {"params": first.get("feature_params", {})}}
        return cls(tuple(artefacts), names, config)


def horizon_folder(bars: int) -> str:
    """Name the folder of the models of a later horizon, below that of the first."""
    return f"horizon_{bars}"


def _said(artefact: Artefact, model: BaseModel, matrix: F4, row: I8, column: I8) -> F8:
    """Return what an artefact says of some cells, [N, 3]."""
    return calibrated(model, asked(model, artefact.title, inputs_of(matrix, row * matrix.shape[1] + column, lookback_of(model))))


def _artefact(entry: Mapping[str, Any], path: Path, meta: Mapping[str, Any]) -> Artefact:
    target = model_target(entry["slot"]) if entry["slot"] in registered() else ""
    known = {"target": target, "features": [], "params": {"preset": "default"}}  # what a check of the files asks for
    told = known | dict(meta)
    return Artefact(**entry, path=path, meta=told | {"target": present(told["target"])})


def fold_of(models: ModelSet, close_time: I8) -> NDArray[np.int16]:
    """Fold whose artefacts serve each decision time, int16 [n], -1 none."""
    out = np.full(len(close_time), -1, np.int16)
    for artefact in models.artefacts:
        out[artefact.serves(close_time)] = artefact.fold
    return out


def labels_of(models: ModelSet, bars: Bars) -> tuple[NDArray[np.int8], Label]:
    """Label bars as the schedule was trained: each row by the thresholds of the fold that serves it, the first fold's before that.

    Returns (int8 [n, S], label). A symbol that a percentile label was not fitted on has no labels.
    """
    label = Label.from_dict(models.config["label"])
    fold = np.maximum(fold_of(models, bars.close_time), 0)
    out = np.full(bars.close.shape, -1, np.int8)
    ahead, _ = look_ahead(bars, label)
    for k, thresholds in enumerate(models.config["thresholds"]):
        out[fold == k] = classify(ahead[fold == k], label, *limits(label, thresholds, bars.symbols))
    return out, label
