"""Base models of one's own, as small as the protocol allows."""

import json

import numpy as np

from research.training.models.base import ModelAbsentError


class Sides:
    """Class shares by the sign of the first feature: no preset, no scaler, names in its one file."""

    stem, suffix = "sides", ".json"

    def __init__(self, feature_names):
        self.feature_names, self.shares = tuple(feature_names), np.empty((0, 3))

    def fit(self, rows, labels, valid_rows, valid_labels, seed):
        if len(labels) == 0:
            raise ModelAbsentError("training rows must exist, was none")
        side = (rows[:, 0] > 0).astype(int)
        counts = np.array([np.bincount(labels[side == k], minlength=3) + 1.0 for k in (0, 1)])
        self.shares = counts / counts.sum(axis=1, keepdims=True)

    def predict_proba(self, matrix):
        if matrix.shape[1] != len(self.feature_names):
            raise ValueError(f"rows must have {len(self.feature_names)} columns, was {matrix.shape[1]}")
        return self.shares[(matrix[:, 0] > 0).astype(int)]

    def save(self, path):
        path.write_text(json.dumps({"features": self.feature_names, "shares": self.shares.tolist()}))

    def load(self, path):
        try:
            stored = json.loads(path.read_text())
        except ValueError as error:
            raise ModelAbsentError("the file must be JSON, was none") from error
        if tuple(stored["features"]) != self.feature_names:
            raise ModelAbsentError("the features must be those of the training, were others")
        self.shares = np.array(stored["shares"])
        return self

    def params(self):
        return {}


class OneHorizon(Sides):
    """Learns the first horizon alone."""

    has_one_horizon = True


class NotesTheTime(Sides):
    count = 0

    def save(self, path):
        super().save(path)
        NotesTheTime.count += 1
        path.write_text(path.read_text().replace("{", f'{{"saved": {NotesTheTime.count}, ', 1))


class SaysWhatItIs(NotesTheTime):
    def digest(self):
        return self.shares.tobytes()
