"""MetaPredictor v5: its answer to one set of votes. The interface that other programs call (`spec` 5)."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qtcore.meta import VECTORS, MetaModel, MetaSource
from qtcore.meta.vectors import slot_order, v5_row
from qtcore.types import MODELS, N_MODELS
from qtcore.voters import ALIASES
from research.errors import ModelError
from research.training.meta.schedule import MetaSchedule
from research.training.models.base import CLASSES

V1_THRESHOLD = 0.99  # under the V2 manager (META_OVERRIDE_THRESHOLD)


class MetaPredictor:
    """A learned model on the v5 vector, asked about one symbol at a time; without one it answers HOLD at 0.0, which never overrides.

    source: a `MetaModel`, a `MetaSchedule` or its folder, or None. threshold: confidence above which it may replace the ensemble, strictly;
    0.60 in configuration v5, `V1_THRESHOLD` under the V2 manager. Raises UserError where the source takes other features.

    >>> MetaPredictor(None).predict({"xgb": {"action": "BUY", "confidence": 0.8}}, "BTCUSDT")["action"]
    'HOLD'
    """

    def __init__(self, source: MetaSource | str | Path | None, threshold: float = 0.60) -> None:
        self.source = MetaSchedule.load(source) if isinstance(source, str | Path) else source
        self.threshold = threshold
        if self.source is not None and self.source.vector != "v5":
            raise ModelError(
                f"MetaPredictor must get a model on the v5 features, was {self.source.vector or 'others'}; train with meta.mode=v5"
            )

    def predict(self, ensemble_vector: Mapping[str, Mapping[str, Any]], symbol: str, time: int | None = None) -> dict[str, Any]:
        """Return action, confidence, confidence_std, source, version and symbol.

        ensemble_vector: `{xgb, lgbm, patch, nhits -> {action, confidence}}`; `patchtst` is `patch`; a model that is missing counts as HOLD
        at 0.5. time: decision time, ns UTC; the latest model by default. Whatever is wrong with the votes, the answer is HOLD at 0.0.
        """
        row = self._row(ensemble_vector)
        probs = np.full(3, np.nan) if self.source is None or row is None else self.source.answer(row[None], self._time(time))[0]
        out = {"source": "meta_v5", "version": self._version(time), "symbol": symbol}
        if not np.isfinite(probs).all():
            return {"action": "HOLD", "confidence": 0.0, "confidence_std": 0.0, **out}
        best = int(np.argmax(probs))
        return {"action": CLASSES[best], "confidence": float(probs[best]), "confidence_std": float(np.std(probs)), **out}

    def overrides(self, answer: Mapping[str, Any]) -> bool:
        """Say whether an answer is sure enough to replace the ensemble; the same action counts as well."""
        return bool(answer["confidence"] > self.threshold)

    def _time(self, time: int | None) -> np.ndarray:
        latest = self.source.artefacts[-1].valid_from if isinstance(self.source, MetaSchedule) and self.source.artefacts else 0
        return np.array([latest if time is None else time], np.int64)

    def _version(self, time: int | None) -> str:
        if isinstance(self.source, MetaModel):
            return self.source.hash[:12]
        at = int(self._time(time)[0])
        known = self.source.artefacts if isinstance(self.source, MetaSchedule) else ()
        return next((str(a.meta.get("version", "")) for a in known if a.valid_from <= at < a.valid_until), "")

    def _row(self, ensemble_vector: Mapping[str, Mapping[str, Any]]) -> np.ndarray | None:
        """Build the v5 row; None where an action, a confidence or a model's name is invalid."""
        names: tuple[str, ...] = getattr(self.source, "voters", MODELS)
        action, confidence = np.full((N_MODELS, 1), -1, np.int8), np.full((N_MODELS, 1), np.nan)
        try:
            for name, vote in ensemble_vector.items():
                m, sure = names.index(ALIASES.get(name, name)), float(vote["confidence"])
                if not 0.0 <= sure <= 1.0:
                    return None
                action[m], confidence[m] = CLASSES.index(str(vote["action"])), sure
        except (ValueError, KeyError, TypeError):
            return None
        row = np.empty(len(VECTORS["v5"]))
        v5_row(action, confidence, 0, slot_order("v5"), row)
        return row
