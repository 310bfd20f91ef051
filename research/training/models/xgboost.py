"""XGBoost base model: histogram trees, one thread, as the original system ran them (`spec` 3.2, D-27)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from qtcore.types import F8
from research.training.models.base import F4, Preset
from research.training.models.structure import check_xgboost
from research.training.models.trees import TreeModel

_COMMON = {
    "tree_method": "hist",
    "max_depth": 6,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
}
_AS_RUN = Preset({**_COMMON, "learning_rate": 0.025, "gamma": 1.2, "reg_lambda": 2.0, "reg_alpha": 0.4}, 800, 40, "balanced")


@dataclass
class XGBoost(TreeModel):
    """Boosted trees by xgboost; saved as UBJSON."""

    booster: Any = field(default=None, repr=False)
    slot: ClassVar[str] = "xgb"
    stem: ClassVar[str] = "xgb"
    suffix: ClassVar[str] = ".ubj"
    presets: ClassVar = {
        "default": _AS_RUN,
        "published": Preset({**_COMMON, "learning_rate": 0.05}, 500, 0, "none"),
        "original": _AS_RUN,
        "fast": _AS_RUN,  # the other models are the slow ones
        "tiny": Preset({**_AS_RUN.params, "learning_rate": 0.1, "max_depth": 4}, 30, 10, "balanced"),
    }

    of_classes: ClassVar = {"objective": "multi:softprob", "num_class": 3, "eval_metric": "mlogloss"}
    of_score: ClassVar = {"objective": "reg:squarederror", "eval_metric": "rmse"}

    def _boost(self, told: Mapping[str, Any], rows: F4, target: Any, weights: F8, valid: tuple[F4, Any, F8], seed: int) -> None:
        import xgboost

        preset = self.presets[self.preset]
        train = xgboost.QuantileDMatrix(rows, label=target, weight=weights, nthread=1)
        watch = xgboost.QuantileDMatrix(valid[0], label=valid[1], weight=valid[2], ref=train, nthread=1)
        curves: dict[str, Any] = {}
        booster = xgboost.train(
            {**told, **preset.params, "seed": seed, "nthread": 1},
            train,
            num_boost_round=preset.rounds,
            evals=[(train, "train"), (watch, "valid")],  # the last one stops
            evals_result=curves,
            early_stopping_rounds=preset.patience or None,
            verbose_eval=False,
        )
        self.rounds = booster.best_iteration + 1 if preset.patience else preset.rounds
        self.booster = booster[: self.rounds]
        self._remember(*(curves[part][told["eval_metric"]] for part in ("train", "valid")))

    def _gains(self) -> F8:
        found = self.booster.get_score(importance_type="total_gain")
        return np.array([found.get(f"f{i}", 0.0) for i in range(len(self.feature_names))])

    def _raw(self, rows: F4) -> F8:
        return np.asarray(self.booster.inplace_predict(rows, validate_features=False), np.float64)

    def _write(self) -> bytes:
        return bytes(self.booster.save_raw("ubj"))

    def _read(self, data: bytes) -> None:
        import xgboost

        self.booster = xgboost.Booster({"nthread": 1})
        check_xgboost(data, len(self.feature_names), self.n_outputs)
        self.booster.load_model(bytearray(data))
        self.rounds = self.booster.num_boosted_rounds()
