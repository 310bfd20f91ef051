"""Random forest base model: scikit-learn's forest as a model of the ensemble, stored without pickle."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from research.training.models import ModelAbsentError

TREES = "sklearn.tree._tree.Tree"  # the one type of a stored forest that is neither NumPy's nor a plain one of scikit-learn


class Forest:
    """A random forest of 100 trees with balanced classes."""

    stem, suffix = "forest", ".skops"

    def __init__(self, feature_names: tuple[str, ...]) -> None:
        """Keep the names of the columns."""
        self.feature_names = tuple(feature_names)
        self.trees: Any = None

    def params(self) -> dict[str, Any]:
        """Return what scikit-learn is told."""
        return {"n_estimators": 100, "min_samples_leaf": 20, "class_weight": "balanced"}

    def fit(self, rows: Any, labels: NDArray[np.int8], valid_rows: Any, valid_labels: NDArray[np.int8], seed: int) -> None:
        """Fit on all training rows; nothing stops a forest early, so the validation rows are not needed."""
        from sklearn.ensemble import RandomForestClassifier

        if len(np.unique(labels)) < 3:
            raise ModelAbsentError("training rows must hold SELL, HOLD and BUY, was without one; load a longer period")
        self.trees = RandomForestClassifier(**self.params(), random_state=seed, n_jobs=1).fit(rows, labels)

    def predict_proba(self, matrix: Any) -> NDArray[np.float64]:
        """Average the trees, in their order."""
        return np.asarray(self.trees.predict_proba(matrix), np.float64)

    def save(self, path: Path) -> None:
        """Write names and trees as data."""
        from skops import io

        io.dump({"features": list(self.feature_names), "trees": self.trees}, path)

    def load(self, path: Path) -> Self:
        """Read what `save` wrote and nothing else."""
        from skops import io

        try:
            stored = io.load(path, trusted=[TREES])
            names, trees = tuple(stored["features"]), stored["trees"]
        except Exception as error:  # of whatever library: the model is absent
            raise ModelAbsentError(f"forest must be a skops archive of trees, was none: {error}") from error
        if names != self.feature_names:
            raise ModelAbsentError(f"forest must have the features {', '.join(self.feature_names)}, was trained on others")
        self.trees = trees
        return self

    def digest(self) -> bytes:
        """Return what was fitted: a skops archive holds the time at which it was written, the trees do not."""
        trees = [member.tree_ for member in self.trees.estimators_]
        return b"".join(part.tobytes() for tree in trees for part in (tree.feature, tree.threshold, tree.value))


models = {"forest": Forest}  # for --layers
