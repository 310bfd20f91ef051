"""Schedule of fitted models: artefacts on disk, each valid for a span of decision times (`spec` D-88). Base and meta models share it.

Backtest and live serve bar t from the artefact whose `[valid_from, valid_until)` holds `close_time[t]`. `folder` says how it lies on disk.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from qtcore.types import I8
from research.training.models.base import CLASSES, ModelAbsentError, check_names, names_hash
from research.training.models.folder import LOSSES, SHARES, check_whole, write_schedule

FOREVER = int(np.iinfo(np.int64).max)
FIGURES = ("status", "n_scored", *SHARES, *LOSSES)
Fitted = TypeVar("Fitted")  # what an artefact loads


@dataclass(frozen=True)
class StoredFit(ABC, Generic[Fitted]):
    """One fitted model on disk.

    valid_from, valid_until: decision times, ns UTC, the second exclusive. hash: equal ones answer equally. meta: `spec` 3.4. meta_hash: of
    the file with the metadata, empty where none was written yet.
    """

    fold: int
    valid_from: int
    valid_until: int
    path: Path
    hash: str
    meta: Mapping[str, Any]
    meta_hash: str = ""

    @property
    @abstractmethod
    def title(self) -> str:
        """What sentences call it."""

    @abstractmethod
    def load(self) -> Fitted:
        """Load the model. Raises ModelAbsentError where a file is missing, damaged, altered, or of other features."""

    def serves(self, close_time: I8) -> NDArray[np.bool_]:
        """Say of each decision time [k] whether it lies in the artefact's span."""
        return (close_time >= self.valid_from) & (close_time < self.valid_until)


Artefacts = TypeVar("Artefacts", bound=StoredFit[Any])


@dataclass(frozen=True)
class Schedule(Generic[Artefacts, Fitted]):
    """Artefacts in order of time, the features they take, and how they were made, enough to fit one again.

    notes: sentences about models that are absent. scratch: keeps the temporary folder of an unsaved schedule alive.
    """

    artefacts: tuple[Artefacts, ...]
    feature_names: tuple[str, ...]
    config: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    scratch: Any = field(default=None, repr=False, compare=False)
    _loaded: dict[Path, Fitted | None] = field(default_factory=dict, repr=False, compare=False)

    VERSION: ClassVar[int]
    WHAT: ClassVar[str]  # in the plural, for an error

    @property
    def serving(self) -> tuple[Artefacts, ...]:
        """Artefacts that serve from now on."""
        return tuple(a for a in self.artefacts if a.valid_until == FOREVER)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the metadata of the artefacts warn of, one sentence each."""
        return tuple(f"{a.title}, fold {a.fold + 1}: {text}" for a in self.artefacts for text in a.meta.get("warnings", ()))

    def table(self) -> list[dict[str, Any]]:
        """Figures of every artefact on its test fold, one row each, for reports."""
        return [{"model": a.title, "fold": a.fold, "hash": a.hash} | {name: a.meta.get(name) for name in FIGURES} for a in self.artefacts]

    def fitted(self, artefact: Artefacts) -> Fitted | None:
        """Load on first use; a model that cannot be loaded is absent, never a dummy vote (`spec` D-28)."""
        if artefact.path not in self._loaded:
            self._load(artefact)
        return self._loaded[artefact.path]

    def _load(self, artefact: Artefacts) -> str | None:
        """Load an artefact; return why it is absent, None where it is not."""
        self._loaded[artefact.path] = None
        try:
            fitted = artefact.load()
            check_names(artefact.path.name, artefact.meta["features"], self.feature_names)
        except ModelAbsentError as error:
            return str(error)
        self._loaded[artefact.path] = fitted
        return None

    def check(self) -> tuple[str, ...]:
        """Load every artefact now; return one sentence for each that is absent."""
        return tuple(why for why in map(self._load, self.artefacts) if why is not None)

    def checked(self) -> Self:
        """Return the schedule with a note on each artefact that is absent."""
        return replace(self, notes=(*self.notes, *self.check()))

    def save(self, folder: str | Path) -> Self:
        """Write all artefacts and then `schedule.json`; return what lives there. Raises UserError when that is impossible."""
        document = {
            "schema_version": self.VERSION,
            "feature_names": self.feature_names,
            "feature_hash": names_hash(self.feature_names),
            "config": self.config,
            "notes": self.notes,
        }
        return replace(self, artefacts=write_schedule(Path(folder), self.artefacts, document, self.WHAT), scratch=None, _loaded={})

    @classmethod
    def stored(cls, folder: Path, document: Mapping[str, Any], artefacts: Iterable[Artefacts]) -> Self:
        """Make a schedule of what `read_schedule` read. Raises UserError where it was altered."""
        check_whole(folder, document)
        return cls(tuple(artefacts), tuple(document["feature_names"]), document["config"], tuple(document["notes"]))


def span(close_time: I8, start: int, stop: int | None) -> tuple[int, int]:
    """Return `valid_from` and `valid_until` of an artefact that serves rows from `start` to the one before `stop`, None for all since."""
    return int(close_time[start]), FOREVER if stop is None else int(close_time[stop])


def known_by(stamp: str, digest: str, served: tuple[int, int], names: Sequence[str]) -> dict[str, Any]:
    """Return the fields by which the metadata of every model know it, its span and its features; stamp: of the training."""
    own = {"version": f"v{stamp}_v5", "timestamp": stamp, "hash": digest, "valid_from": served[0], "valid_until": served[1]}
    classes = {name: i for i, name in enumerate(CLASSES)}
    return own | {"features": list(names), "feature_hash": names_hash(names), "class_mapping": classes, "synthetic": False}
