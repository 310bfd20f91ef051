"""Boosted trees: what XGBoost and LightGBM share. Trees of the classes of a label, or of its number, a score."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from qtcore.types import F8
from research.training.models.base import F4, ModelAbsentError, RowModel, Scaler
from research.training.models.residuals import Residuals

N_CLASSES = 3


@dataclass
class TreeModel(RowModel):
    """Boosted trees. Those of a score have `residuals`, by which they answer probabilities."""

    of_classes: ClassVar[Mapping[str, Any]]  # objective and metric, as the library spells them
    of_score: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def _boost(self, told: Mapping[str, Any], rows: F4, target: Any, weights: F8, valid: tuple[F4, Any, F8], seed: int) -> None:
        """Fit on scaled rows and keep the rounds up to the best one. told: objective and metric."""

    @abstractmethod
    def _raw(self, rows: F4) -> F8:
        """Answer scaled rows: probabilities [N, 3], or scores [N]."""

    @property
    def n_outputs(self) -> int:
        """Trees of a round."""
        return N_CLASSES if self.residuals is None else 1

    def params(self) -> dict[str, Any]:
        """Return the parameters in use, and where probabilities come from where these are not the trees' own."""
        if self.residuals is None:
            return {**super().params(), **self.of_classes}
        made = f"residuals of the score on {self.residuals.n} cells of the validation slice"
        return {**super().params(), **self.of_score, "probabilities": made, "class_weights": "none"}

    def fit_score(
        self, rows: F4, values: F8, valid_rows: F4, valid_values: F8, limits: tuple[float, float], seed: int, weights: F8 | None = None
    ) -> None:
        """Fit to the target itself, values [N]; below and above the `limits` it is SELL and BUY. Otherwise as `fit`."""
        self._check(rows)
        if not len(values) or not len(valid_values):
            raise ModelAbsentError("training and validation rows must exist, was 0 of one of them; load a longer period")
        self.scaler = Scaler.fit(rows)
        each = np.ones(len(values)) if weights is None else weights
        valid = (self.scaler.transform(valid_rows, valid_rows), valid_values, np.ones(len(valid_values)))
        self.residuals = Residuals.fit(np.zeros(1), *limits)  # says of what the trees are
        self._boost(self.of_score, self.scaler.transform(rows, rows), values, each, valid, seed)
        self.residuals = Residuals.fit(valid_values - self._raw(valid[0]), *limits)

    def _fit(self, rows: F4, labels: Any, weights: F8, valid: tuple[F4, Any, F8], seed: int) -> None:
        self._boost(self.of_classes, rows, labels, weights, valid, seed)

    def _predict(self, rows: F4) -> F8:
        answers = self._raw(rows)
        return answers if self.residuals is None else self.residuals.probs(answers)
