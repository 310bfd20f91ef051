"""Is a base model of one's own that keeps the rules passed, and each broken rule named?"""

import numpy as np
import pytest

import research
from research.training.models.base import ModelAbsentError
from research.training.models.xgboost import XGBoost
from tests.support.own_models import NotesTheTime, SaysWhatItIs, Sides


class WithoutLoad(Sides):
    load = property()  # type: ignore[assignment]


class ForgetsNames(Sides):
    def __init__(self, feature_names):
        super().__init__(())


class SeesNoRow(Sides):
    lookback = 0


class SeesText(Sides):
    lookback = "three"


class NumberedStem(Sides):
    stem, suffix = 3, "json"  # type: ignore[assignment]


class SavesAFolder(Sides):
    def save(self, path):
        path.mkdir()


class Raises(Sides):
    def fit(self, *args):
        raise RuntimeError("out of luck")


class TwoColumns(Sides):
    def predict_proba(self, matrix):
        return super().predict_proba(matrix)[:, :2]


class Unbounded(Sides):
    def predict_proba(self, matrix):
        return 2.0 * super().predict_proba(matrix)


class Dull(Sides):
    def predict_proba(self, matrix):
        return np.tile(self.shares[0], (len(super().predict_proba(matrix)), 1))


class ScalesTheAsked(Sides):
    def predict_proba(self, matrix):
        said = super().predict_proba(matrix)
        matrix *= 0.5
        return said


class CentresTheBatch(Sides):
    def predict_proba(self, matrix):
        return super().predict_proba(matrix - matrix.mean(axis=0))


class Forgets(Sides):
    def load(self, path):
        super().load(path)
        self.shares = self.shares[::-1]
        return self


class ReturnsNothing(Sides):
    def load(self, path):
        super().load(path)


class TwoMoreFiles(Sides):
    def save(self, path):
        super().save(path)
        path.with_name("more.json").write_text("{}")


class LoadsAnything(Sides):
    def load(self, path):
        try:
            return super().load(path)
        except ModelAbsentError:
            self.shares = np.full((2, 3), 1.0 / 3.0)
            return self


class AnyColumns(Sides):
    def predict_proba(self, matrix):
        return self.shares[(matrix[:, 0] > 0).astype(int)]


class KnownClassesOnly(Sides):
    def fit(self, rows, labels, *rest):
        super().fit(rows, labels, *rest)
        self.shares = self.shares[:, np.bincount(labels, minlength=3) > 0]


class RollsTheDice(Sides):
    def fit(self, *args):
        super().fit(*args)
        self.shares = np.roll(self.shares, np.random.randint(1, 1000), axis=1) * 0.5 + np.random.dirichlet(np.ones(3), 2) * 0.5  # noqa: NPY002


class SaysTheSame(NotesTheTime):
    def digest(self):
        return b"sides"


class OddParams(Sides):
    def params(self):
        return {"shares": self.shares}


BAD = {
    WithoutLoad: {"protocol"},
    ForgetsNames: {"protocol"},
    SeesNoRow: {"protocol"},
    SeesText: {"protocol"},
    NumberedStem: {"protocol"},
    SavesAFolder: {"saved", "other_features", "other_file", "identity"},
    Raises: {"runs"},
    TwoColumns: {"range"},
    Unbounded: {"range"},
    Dull: {"learns"},
    ScalesTheAsked: {"mutated_input"},
    CentresTheBatch: {"one_row"},
    Forgets: {"saved"},
    ReturnsNothing: {"saved"},
    TwoMoreFiles: {"saved"},
    LoadsAnything: {"other_features", "other_file"},
    AnyColumns: {"other_features"},
    KnownClassesOnly: {"absent_classes"},
    RollsTheDice: {"determinism", "identity"},
    NotesTheTime: {"identity"},
    SaysTheSame: {"identity"},
    OddParams: {"params"},
}


@pytest.mark.parametrize("model", [Sides, SaysWhatItIs], ids=lambda model: model.__name__)
def test_a_model_with_what_the_protocol_asks_for_passes(model):
    report = research.check_model(model)
    assert report, str(report)
    assert report.kind == "base_model"


def test_our_models_pass():
    assert research.check_model(XGBoost, preset="tiny")


@pytest.mark.parametrize("model", BAD, ids=lambda model: model.__name__)
def test_a_bad_model_is_told_the_rule(model):
    report = research.check_model(model)
    assert BAD[model] <= set(report.failed), str(report)
    assert set(report.failed) <= BAD[model] | {"identity", "saved"}, str(report)


def test_a_class_that_workers_cannot_import_is_told():
    class Here(Sides):
        pass

    assert research.check_model(Here).failed == ("importable",)


def test_names_are_told_as_they_are_asked_for():
    seen = []

    class Wide(Sides):
        def __init__(self, feature_names):
            super().__init__(feature_names)
            seen.append(self.feature_names)

    research.check_model(Wide, feature_names=("a", "b"))
    assert set(seen) == {("a", "b"), ("b", "a"), ("a",)}
