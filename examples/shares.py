"""Class shares base model: how often each class came after the first feature was above zero, and after it was not."""

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from research.training.models import ModelAbsentError


class Shares:
    """Two rows of class shares, stored as JSON."""

    stem, suffix = "shares", ".json"

    def __init__(self, feature_names: tuple[str, ...]) -> None:
        """Keep the names of the columns."""
        self.feature_names = tuple(feature_names)
        self.shares: NDArray[np.float64] = np.full((2, 3), 1.0 / 3.0)

    def params(self) -> dict[str, Any]:
        """Return what the fit is told: that each class was seen once before the first row."""
        return {"seen_before": 1}

    def fit(self, rows: Any, labels: NDArray[np.int8], valid_rows: Any, valid_labels: NDArray[np.int8], seed: int) -> None:
        """Count the classes on both sides."""
        if len(labels) == 0:
            raise ModelAbsentError("training rows must exist, was none; load a longer period")
        above = rows[:, 0] > 0
        counts = np.array([np.bincount(labels[above == side], minlength=3) + 1.0 for side in (False, True)])
        self.shares = counts / counts.sum(axis=1, keepdims=True)

    def predict_proba(self, matrix: Any) -> NDArray[np.float64]:
        """Look the share up."""
        if matrix.shape[1] != len(self.feature_names):
            raise ValueError(f"rows must have {len(self.feature_names)} columns, was {matrix.shape[1]}")
        return self.shares[(matrix[:, 0] > 0).astype(int)]

    def save(self, path: Path) -> None:
        """Write names and shares."""
        path.write_text(json.dumps({"features": self.feature_names, "shares": self.shares.tolist()}), encoding="utf-8")

    def load(self, path: Path) -> Self:
        """Read what `save` wrote and nothing else."""
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            names, shares = tuple(stored["features"]), np.array(stored["shares"], np.float64).reshape(2, 3)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelAbsentError(f"{path.name} must be JSON of names and shares, was none: {error}") from error
        if names != self.feature_names:
            raise ModelAbsentError(f"shares must have the features {', '.join(self.feature_names)}, was trained on others")
        self.shares = shares
        return self


models = {"shares": Shares}  # for --layers
