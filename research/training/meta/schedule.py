"""Meta model schedule: the learned meta models and what each answers (`spec` 3.4, 12.6, D-31).

`Engine(meta_model=schedule)` takes it; before the first artefact's span no model is loaded and the rules alone act.
`research.training.models.artefacts` says which serves when.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qtcore.meta.vectors import VECTORS, columns_of, vector_of
from qtcore.params import Params
from qtcore.types import DEFAULT_HORIZON, F8, I8, MODELS, N_MODELS
from research.errors import ModelError, UserError
from research.files import read_bytes, read_text, save_text
from research.training.meta.fitted import FITS, MetaFit, check_varies, fit_digest
from research.training.models.artefacts import Schedule, StoredFit
from research.training.models.base import MODEL, SCALER, ModelAbsentError, Scaler, names_hash, scaler_path
from research.training.models.folder import check_meta, read_schedule

SHAPE = {"config": {"plan": {"kind": str, "vector?": str, "horizon?": int}, "voters?": [str]}}


@dataclass(frozen=True)
class MetaArtefact(StoredFit[MetaFit]):
    """One fitted meta model on disk. hash: `fit_digest`."""

    slot: ClassVar[str] = "meta"
    title: ClassVar[str] = "meta model"

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
class MetaSchedule(Schedule[MetaArtefact, MetaFit]):
    """Trained meta models; what `Engine(meta_model=...)` takes. feature_names: one of qtcore's `VECTORS`."""

    VERSION: ClassVar[int] = 1
    WHAT: ClassVar[str] = "meta models"

    @property
    def voters(self) -> tuple[str, ...]:
        """Names of the five slots that its models were trained on; the known voters where an earlier version trained them."""
        return tuple(self.config.get("voters", MODELS))

    @cached_property
    def vector(self) -> str:
        """Name of the rows that its models take, "" where no rows have its feature names."""
        planned = str(self.config["plan"].get("vector"))
        is_planned = planned in VECTORS and len(self.voters) == N_MODELS and self.feature_names == columns_of(planned, self.voters)
        return planned if is_planned else vector_of(self.feature_names)

    @property
    def horizon(self) -> int:
        """Bars that the label of its training looks ahead, over which hit rates are counted."""
        return int(self.config["plan"].get("horizon", DEFAULT_HORIZON))

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

    def remarks(self, slots: Sequence[str]) -> tuple[str, ...]:
        """Say what a run with these base models must know: absent models, ones not accepted, base models that it was not trained on."""
        out = list(self.notes)
        for status in ("unskilled", "rejected"):
            if folds := [str(a.fold + 1) for a in self.artefacts if a.meta.get("status") == status]:
                out.append(f"the meta model of fold {', '.join(folds)} is {status}: on its test fold it does not beat its baselines")
        known = tuple(self.config.get("base_models", slots))
        if known != tuple(slots):
            out.append(f"the meta models were trained on {', '.join(known)} and served with {', '.join(slots) or 'no model'}")
        return tuple(out)

    def table(self) -> list[dict[str, Any]]:
        """Figures of every model, which is named by kind and vector, see `Schedule`."""
        return [row | {"model": f"meta {self.kind} {self.vector}"} for row in super().table()]

    def ready(self, close_time: I8) -> NDArray[np.bool_]:
        """Say for each decision time [k] whether a model that could be loaded serves it."""
        out = np.zeros(len(close_time), np.bool_)
        for artefact in self.artefacts:
            inside = artefact.serves(close_time)
            if inside.any() and self.fitted(artefact) is not None:
                out |= inside
        return out

    def answer(self, rows: F8, close_time: I8) -> F8:
        """Return probabilities [k, 3] of rows [k, F], each by the model valid at its decision time; NaN without one."""
        out = np.full((len(rows), 3), np.nan)
        for artefact in self.artefacts:
            inside = artefact.serves(close_time)
            if inside.any() and (model := self.fitted(artefact)) is not None:
                out[inside] = model.answer(np.ascontiguousarray(rows[inside]))
        return out

    @classmethod
    def load(cls, folder: str | Path) -> "MetaSchedule":
        """Read a schedule's folder; a model that is damaged, or without its scaler (D-43), is absent and named in `notes`.

        Raises UserError where there is no schedule, another version wrote it, or its names are not those of their hash (D-41).
        """
        source = Path(folder)
        document, entries = read_schedule(source, cls.VERSION, "a schedule of meta models", SHAPE)
        names = tuple(document["feature_names"])
        if document["feature_hash"] != names_hash(names) or not cls((), names, document["config"]).vector:
            raise ModelError(f"{source / 'schedule.json'} must name the features of a known vector in their order, was others; train again")
        made = cls.stored(source, document, (MetaArtefact(**entry, path=path, meta=meta) for entry, path, meta in entries))
        for artefact in made.artefacts:
            if tuple(artefact.meta.get("features", names)) != names:
                raise ModelError(f"{artefact.path.name} must have the features of its schedule, was others; train again")
        return made.checked()
