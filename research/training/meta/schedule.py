"""Meta model schedule: which artefact answers for which bar, each valid for a span of decision times (`spec` D-88).

`Engine(meta_model=schedule)` serves bar t with the model whose `[valid_from, valid_until)` holds its close; before the first no model is
loaded and the rules alone act. `research.training.models.folder` says how it lies on disk (`spec` 3.4, 12.6, D-31).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.meta.vectors import vector_of
from qtcore.params import Params
from qtcore.types import F8, I8
from research.errors import ModelError, UserError
from research.files import read_bytes, read_text, save_text
from research.training.meta.estimators import FITS, MetaFit, check_varies, fit_digest
from research.training.models.base import MODEL, SCALER, ModelAbsentError, Scaler, names_hash, scaler_path
from research.training.models.folder import check_meta, check_whole, read_schedule, write_schedule

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class MetaArtefact:
    """One fitted meta model on disk. valid_from, valid_until: decision times, ns UTC, the second exclusive. hash: `fit_digest`.

    meta_hash: of the file with the metadata, empty where none was written yet.
    """

    fold: int
    valid_from: int
    valid_until: int
    path: Path
    hash: str
    meta: Mapping[str, Any]
    meta_hash: str = ""

    def load(self) -> MetaFit:
        """Load the model. Raises ModelAbsentError where model, scaler or metadata are missing, altered, constant, or of other features."""
        try:
            data, text = read_bytes(self.path, MODEL), read_text(scaler_path(self.path), SCALER)
            names, kind = tuple(self.meta["features"]), FITS[self.meta["kind"]]
        except (UserError, KeyError) as error:
            raise ModelAbsentError(
                f"meta model of fold {self.fold + 1} must have a model, a scaler and metadata, was without ({error})"
            ) from error
        check_meta(self)
        fit: MetaFit = kind.parse(data, names, Scaler.from_json(text, names, data))
        if fit_digest(fit) != self.hash:
            raise ModelAbsentError(f"{self.path.name} must have the hash {self.hash[:12]} of its schedule, was altered; train again")
        check_varies(fit)
        return fit


def write_fit(fit: MetaFit, path: Path) -> None:
    """Write a model and its scaler, which carries the hash of the file."""
    data = fit.dump()
    path.write_bytes(data)
    save_text(scaler_path(path), fit.scaler.to_json(fit.feature_names, data))


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
    def mode(self) -> str:
        """`meta.mode` that its models were trained for."""
        return str(self.config["plan"].get("mode"))

    def check_mode(self, params: Params) -> None:
        """Raise UserError where `params` would serve it in another mode: there its answers are used for what they were not fitted to."""
        if (served := params.meta.mode.name.lower()) != self.mode:
            remedy = f"serve it with --set meta.mode={self.mode}, or train one for {served}"
            raise ModelError(f"the meta layer must be trained for meta.mode={served}, was trained for {self.mode}; {remedy}")

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
        document = {
            "schema_version": SCHEMA_VERSION,
            "feature_names": self.feature_names,
            "feature_hash": names_hash(self.feature_names),
            "config": self.config,
            "notes": self.notes,
        }
        return MetaSchedule(
            write_schedule(Path(folder), self.artefacts, document, "meta models"), self.feature_names, self.config, self.notes
        )

    @classmethod
    def load(cls, folder: str | Path) -> "MetaSchedule":
        """Read a schedule's folder; a model that is damaged, or without its scaler (D-43), is absent and named in `notes`.

        Raises UserError where there is no schedule, another version wrote it, or its names are not those of their hash (D-41).
        """
        source = Path(folder)
        document, entries = read_schedule(source, SCHEMA_VERSION, "a schedule of meta models", {"config": {"plan": {"kind": str}}})
        names = tuple(document["feature_names"])
        if document["feature_hash"] != names_hash(names) or not vector_of(names):
            raise ModelError(f"{source / 'schedule.json'} must name the features of a known vector in their order, was others; train again")
        check_whole(source, document)
        artefacts = tuple(MetaArtefact(**entry, path=path, meta=meta) for entry, path, meta in entries)
        made = cls(artefacts, names, document["config"], tuple(document["notes"]))
        foreign = [
            f"{a.path.name} must have the features of its schedule, was others"
            for a in artefacts
            if tuple(a.meta.get("features", names)) != names
        ]
        if foreign:
            raise ModelError(f"{foreign[0]}; train again")
        return replace(made, notes=(*made.notes, *made.check()))
