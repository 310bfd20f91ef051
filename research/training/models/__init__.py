"""Base models: how they are fitted, stored and served.

- `base`: the protocol, the scaler, what boosted trees share, and `register`, which hands a researcher's own class to training.
- `xgboost`, `lightgbm`: the two tree models; their libraries are imported when one is fitted or loaded.
- `linear`: logistic regression on z-scores and ranks.
- `scikit`: any classifier of scikit-learn, for models of one's own.
- `inputs`: bars become the matrix that the models see.
- `worker`: one fit in a process of its own; several at a time, nothing pickled.
- `artefacts`, `folder`: which artefact serves which bar, in memory and on disk; meta models lie and are served alike.
- `schedule`: what the base models of a schedule say of a bar.
- `scores`: the figures and warnings of an artefact's metadata.
"""

from research.training.models.base import BaseModel, ModelAbsentError, register
from research.training.models.schedule import Artefact, ModelSet
from research.training.models.scikit import SklearnModel

__all__ = ["Artefact", "BaseModel", "ModelAbsentError", "ModelSet", "SklearnModel", "register"]
