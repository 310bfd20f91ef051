"""Which meta model answers for which bar? A schedule of artefacts, each valid for a span of decision times (`spec` D-88).

`Engine(meta_model=schedule)` serves bar t with the model whose `[valid_from, valid_until)` holds its close; before the first no model is
loaded and the rules alone act. On disk: `schedule.json`, written last, and `fold_01/meta_v20260112_120000_v5.npz` with `..._scaler.json`
and `..._meta.json` beside it (`spec` 3.4, 12.6, D-31).
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.meta.vectors import vector_of
from qtcore.types import F8, I8
from research.errors import UserError
from research.meta.estimators import FITS, MetaFit, check_varies, fit_digest
from research.models.base import ModelAbsentError, Scaler, names_hash, scaler_path
from research.models.schedule import meta_path

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class MetaArtefact:
    """One fitted meta model on disk. valid_from, valid_until: decision times, ns UTC, the second exclusive. hash: `fit_digest`."""

    fold: int
    valid_from: int
    valid_until: int
    path: Path
    hash: str
    meta: Mapping[str, Any]

    def load(self) -> MetaFit:
        """Load the model. Raises ModelAbsentError where model, scaler or metadata are missing, altered, constant, or of other features."""
        try:
            data, text = self.path.read_bytes(), scaler_path(self.path).read_text(encoding="utf-8")
            names, kind = tuple(self.meta["features"]), FITS[self.meta["kind"]]
        except (OSError, KeyError) as error:
            raise ModelAbsentError(
                f"meta model of fold {self.fold + 1} must have a model, a scaler and metadata, was without ({error})"
            ) from error
        fit: MetaFit = kind.parse(data, names, Scaler.from_json(text, names, data))
        if fit_digest(fit) != self.hash:
            raise ModelAbsentError(f"{self.path.name} must have the hash {self.hash[:12]} of its schedule, was altered; train again")
        check_varies(fit)
        return fit


def write_fit(fit: MetaFit, path: Path) -> None:
    """Write a model and its scaler, which carries the hash of the file."""
    data = fit.dump()
    path.write_bytes(data)
    scaler_path(path).write_text(fit.scaler.to_json(fit.feature_names, data), encoding="utf-8")


@dataclass(frozen=True)
class MetaSchedule:
    """Trained meta models in order of time; what `Engine(meta_model=...)` takes.

    feature_names: one of qtcore's `VECTORS`. config: how they were made, enough to fit one again. notes: sentences about absent ones.
    scratch: keeps the temporary folder of an unsaved schedule alive.
    """

    artefacts: tuple[MetaArtefact, ...]
    feature_names: tuple[str, ...]
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    scratch: Any = field(default=None, repr=False, compare=False)
    _loaded: dict[Path, MetaFit | None] = field(default_factory=dict, repr=False, compare=False)

    @property
    def vector(self) -> str:
        """Name of the rows that its models take."""
        return vector_of(self.feature_names)

    @property
    def kind(self) -> str:
        """Kind of its models, a key of `estimators.KINDS`."""
        return str(self.config["plan"]["kind"])

    @property
    def hash(self) -> str:
        """Hash of all models and spans: what a trial or a manifest remembers; "" without a model."""
        return names_hash([f"{a.hash} {a.valid_from} {a.valid_until}" for a in self.artefacts]) if self.artefacts else ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the metadata of the models warn of, one sentence each."""
        return tuple(f"meta model, fold {a.fold + 1}: {text}" for a in self.artefacts for text in a.meta.get("warnings", ()))

    def remarks(self, slots: Sequence[str]) -> tuple[str, ...]:
        """Say what a run with these base models must know: absent models, rejected ones, base models that it was not trained on."""
        out = list(self.notes)
        if rejected := [str(a.fold + 1) for a in self.artefacts if a.meta.get("status") == "rejected"]:
            out.append(f"the meta model of fold {', '.join(rejected)} is rejected: on its test fold it does not beat its baselines")
        known = tuple(self.config.get("base_models", slots))
        if known != tuple(slots):
            out.append(f"the meta models were trained on {', '.join(known)} and served with {', '.join(slots) or 'no model'}")
        return tuple(out)

    def table(self) -> list[dict[str, Any]]:
        """Figures of every model on its test fold, one row each, for reports."""
        wanted = ("status", "n_scored", "accuracy", "majority_baseline", "balanced_accuracy", "log_loss", "base_rate_log_loss")
        name = f"meta {self.kind} {self.vector}"
        return [{"model": name, "fold": a.fold, "hash": a.hash} | {key: a.meta.get(key) for key in wanted} for a in self.artefacts]

    def ready(self, close_time: I8) -> NDArray[np.bool_]:
        """Say for each decision time [k] whether a model that could be loaded serves it."""
        out = np.zeros(len(close_time), np.bool_)
        for artefact in self.artefacts:
            inside = (close_time >= artefact.valid_from) & (close_time < artefact.valid_until)
            if inside.any() and self._model(artefact) is not None:
                out |= inside
        return out

    def answer(self, rows: F8, close_time: I8) -> F8:
        """Return probabilities [k, 3] of rows [k, F], each by the model valid at its decision time; NaN without one."""
        out = np.full((len(rows), 3), np.nan)
        for artefact in self.artefacts:
            inside = (close_time >= artefact.valid_from) & (close_time < artefact.valid_until)
            if inside.any() and (model := self._model(artefact)) is not None:
                out[inside] = model.answer(np.ascontiguousarray(rows[inside]))
        return out

    def _model(self, artefact: MetaArtefact) -> MetaFit | None:
        """Load on first use; a model that cannot be loaded is not ready."""
        if artefact.path not in self._loaded:
            try:
                self._loaded[artefact.path] = artefact.load()
            except ModelAbsentError:
                self._loaded[artefact.path] = None
        return self._loaded[artefact.path]

    def check(self) -> tuple[str, ...]:
        """Load every model now; return one sentence for each that is absent."""
        sentences = []
        for artefact in self.artefacts:
            try:
                self._loaded[artefact.path] = artefact.load()
            except ModelAbsentError as error:
                self._loaded[artefact.path] = None
                sentences.append(str(error))
        return tuple(sentences)

    def save(self, folder: str | Path) -> "MetaSchedule":
        """Write all models and then `schedule.json`; return the schedule that lives there. Raises UserError when that is impossible."""
        target = Path(folder)
        try:
            return self._save(target)
        except OSError as error:
            raise UserError(f"meta models must be writable to {str(target)!r}, was not: {error.strerror or error}") from error

    def _save(self, target: Path) -> "MetaSchedule":
        moved = []
        for artefact in self.artefacts:
            path = target / f"fold_{artefact.fold:02d}" / artefact.path.name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path != artefact.path:
                for name in (lambda p: p, scaler_path):
                    name(path).write_bytes(name(artefact.path).read_bytes())
            meta_path(path).write_text(json.dumps(artefact.meta, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
            moved.append(replace(artefact, path=path))
        entries = [
            {
                "fold": a.fold,
                "valid_from": a.valid_from,
                "valid_until": a.valid_until,
                "hash": a.hash,
                "file": a.path.relative_to(target).as_posix(),
            }
            for a in moved
        ]
        document = {"schema_version": SCHEMA_VERSION, "feature_names": self.feature_names, "feature_hash": names_hash(self.feature_names)}
        document |= {"config": dict(self.config), "notes": self.notes, "artefacts": entries}
        target.mkdir(parents=True, exist_ok=True)
        draft = target / "schedule.json.tmp"
        draft.write_text(json.dumps(document, indent=1, sort_keys=True, allow_nan=False), encoding="utf-8")
        os.replace(draft, target / "schedule.json")
        return MetaSchedule(tuple(moved), self.feature_names, self.config, self.notes)

    @classmethod
    def load(cls, folder: str | Path) -> "MetaSchedule":
        """Read a schedule's folder; a model that is damaged, or without its scaler (D-43), is absent and named in `notes`.

        Raises UserError where there is no schedule, another version wrote it, or its names are not those of their hash (D-41).
        """
        source = Path(folder)
        path = source / "schedule.json"
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            version, names = document["schema_version"], tuple(document["feature_names"])
            if version != SCHEMA_VERSION:
                raise UserError(f"{path} must be of schema version {SCHEMA_VERSION}, was {version}; train again")
            if document["feature_hash"] != names_hash(names) or not vector_of(names):
                raise UserError(f"{path} must name the features of a known vector in their order, was others; train again")
            artefacts = tuple(_read_entry(source, entry) for entry in document["artefacts"])
            made = cls(artefacts, names, document["config"], tuple(document["notes"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"{path} must be a schedule of meta models as `qt train` writes it, was not ({error}); train again") from error
        foreign = [
            f"{a.path.name} must have the features of its schedule, was others"
            for a in artefacts
            if tuple(a.meta.get("features", names)) != names
        ]
        if foreign:
            raise UserError(f"{foreign[0]}; train again")
        return replace(made, notes=(*made.notes, *made.check()))


def _read_entry(source: Path, entry: Mapping[str, Any]) -> MetaArtefact:
    path = source / entry["file"]
    meta = json.loads(meta_path(path).read_text(encoding="utf-8")) if meta_path(path).exists() else {}
    return MetaArtefact(entry["fold"], entry["valid_from"], entry["valid_until"], path, entry["hash"], meta)
