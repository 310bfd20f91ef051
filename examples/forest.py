"""Random forest base model: scikit-learn's forest as a model of the ensemble."""

from sklearn.ensemble import RandomForestClassifier

from research.training.models import SklearnModel


class Forest(SklearnModel):
    """A random forest of 100 trees with balanced classes."""

    stem = "forest"
    estimator = RandomForestClassifier(100, min_samples_leaf=20, class_weight="balanced")


models = {"forest": Forest}  # for --layers
