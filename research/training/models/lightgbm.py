"""LightGBM base model: leaf-wise trees, one thread, as the original system ran them (`spec` 3.2, D-27)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from qtcore.types import F8
from research.training.models.base import F4, Preset
from research.training.models.structure import check_lightgbm
from research.training.models.trees import TreeModel

_COMMON = {
    "learning_rate": 0.05,
    "num_leaves": 31,
    "max_depth": -1,
}
_AS_RUN = Preset({**_COMMON, "bagging_fraction": 0.9, "bagging_freq": 5, "feature_fraction": 0.9}, 1500, 100, "max_share")
# Refits give the same bits only with one thread and a fixed histogram layout.
_FIXED = {"num_threads": 1, "deterministic": True, "force_row_wise": True, "verbosity": -1}


@dataclass
class LightGBM(TreeModel):
    """Boosted trees by lightgbm; saved as its text format."""

    booster: Any = field(default=None, repr=False)
    slot: ClassVar[str] = "lgbm"
    stem: ClassVar[str] = "lightgbm"
    suffix: ClassVar[str] = ".txt"
    presets: ClassVar = {
        "default": _AS_RUN,
        "published": Preset({**_COMMON, "bagging_fraction": 0.8, "bagging_freq": 1, "feature_fraction": 0.8}, 500, 0, "balanced"),
        "original": _AS_RUN,
        "fast": _AS_RUN,  # the other models are the slow ones
        "tiny": Preset({**_AS_RUN.params, "learning_rate": 0.1, "num_leaves": 15}, 30, 10, "max_share"),
    }

    of_classes: ClassVar = {"objective": "multiclass", "num_class": 3, "metric": "multi_logloss"}
    of_score: ClassVar = {"objective": "regression", "metric": "l2"}

    def _boost(self, told: Mapping[str, Any], rows: F4, target: Any, weights: F8, valid: tuple[F4, Any, F8], seed: int) -> None:
        import lightgbm

        preset = self.presets[self.preset]
        train = lightgbm.Dataset(rows, label=target, weight=weights, params=dict(_FIXED))
        watch = lightgbm.Dataset(valid[0], label=valid[1], weight=valid[2], reference=train, params=dict(_FIXED))
        curves: dict[str, Any] = {}
        each: list[Any] = [lightgbm.record_evaluation(curves)]
        if preset.patience:
            each.append(lightgbm.early_stopping(preset.patience, verbose=False))
        sets, names = [train, watch], ["train", "valid"]  # the training rows themselves never stop it
        booster = lightgbm.train(
            {**told, **preset.params, **_FIXED, "seed": seed}, train, preset.rounds, callbacks=each, valid_sets=sets, valid_names=names
        )
        self.rounds = booster.best_iteration if preset.patience else preset.rounds
        self._read(booster.model_to_string(num_iteration=self.rounds).encode())
        self._remember(*(curves[part][told["metric"]] for part in ("train", "valid")))

    def _gains(self) -> F8:
        return np.asarray(self.booster.feature_importance("gain"), np.float64)

    def _raw(self, rows: F4) -> F8:
        return np.asarray(self.booster.predict(rows, num_threads=1), np.float64)

    def _write(self) -> bytes:
        text: str = self.booster.model_to_string(num_iteration=self.rounds)
        return text.encode()

    def _read(self, data: bytes) -> None:
        import lightgbm

        check_lightgbm(data, len(self.feature_names), self.n_outputs)
        self.booster = lightgbm.Booster(model_str=data.decode())
        self.rounds = self.booster.num_trees() // self.n_outputs
