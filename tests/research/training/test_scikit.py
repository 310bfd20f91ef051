"""Does a classifier of scikit-learn keep the rules of base models, and is a foreign file refused before it is loaded?"""

import io
import json
import zipfile

import numpy as np
import pytest
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis
from sklearn.ensemble import BaggingClassifier, ExtraTreesClassifier, GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

import research
from research.errors import ModelError
from research.training.models import ModelAbsentError, SklearnModel
from research.training.models.scikit import TREE, parts

NAMES = ("a", "b", "c")


class Extra(SklearnModel):
    estimator = ExtraTreesClassifier(8, n_jobs=-1)


class Boosted(SklearnModel):
    estimator = GradientBoostingClassifier(n_estimators=4, subsample=0.5)


class Histograms(SklearnModel):
    estimator = HistGradientBoostingClassifier(max_iter=4)
    trusted = ("sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",)


class Bagged(SklearnModel):
    estimator = BaggingClassifier(n_estimators=3, max_features=0.5)


class Bayes(SklearnModel):
    estimator = GaussianNB()


class Regression(SklearnModel):
    estimator, row_by_row = make_pipeline(StandardScaler(), LogisticRegression(C=0.1)), True


class Quadratic(SklearnModel):
    estimator, row_by_row = QuadraticDiscriminantAnalysis(), True


class Network(SklearnModel):
    estimator, row_by_row = MLPClassifier((4,), max_iter=400), True
    trusted = ("sklearn.neural_network._stochastic_optimizers.AdamOptimizer",)


class InBatches(SklearnModel):
    estimator = MLPClassifier((64, 64), max_iter=5, solver="sgd")


class Unnamed(SklearnModel):
    estimator = HistGradientBoostingClassifier(max_iter=2)


class NoChances(SklearnModel):
    estimator = SVC()


class NoClasses(SklearnModel):
    estimator = Ridge()


def rows(n=300, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, len(NAMES))).astype(np.float32)
    return x, (1 + (x[:, 0] > 0.4) - (x[:, 0] < -0.4)).astype(np.int8)


def fitted(made_by, seed=0):
    model, (x, y) = made_by(NAMES), rows()
    model.fit(x, y, x[:0], y[:0], seed)
    return model


@pytest.mark.filterwarnings("ignore:.*did not converge|.*Maximum iterations")
@pytest.mark.parametrize("made_by", [Extra, Boosted, Histograms, Bagged, Bayes, Regression, Quadratic, Network])
def test_a_classifier_keeps_the_rules(made_by):
    report = research.check_model(made_by)
    assert report, str(report)


def test_every_random_step_takes_the_seed_of_its_fold():
    assert fitted(Extra, 1).digest() == fitted(Extra, 1).digest() != fitted(Extra, 2).digest()


def test_parameters_are_values_of_json():
    said = json.loads(json.dumps(Regression(NAMES).params()))
    assert said["logisticregression__C"] == 0.1
    assert said["standardscaler"] == "StandardScaler"


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize(
    ("made_by", "said"),
    [
        (InBatches, "InBatches must answer a row alike alone and among others, did not; set row_by_row = True in the class"),
        (NoChances, "estimator of NoChances must have predict_proba once it is fitted, SVC has none; take one that gives probabilities"),
        (NoClasses, "estimator of NoClasses must be a classifier of scikit-learn, unfitted, was Ridge..; name one in the class"),
        (SklearnModel, "estimator of SklearnModel must be a classifier of scikit-learn, unfitted, was None; name one in the class"),
    ],
)
def test_a_classifier_that_cannot_serve_is_told_in_a_sentence(made_by, said):
    with pytest.raises(ModelError, match=f"^{said}$"):
        fitted(made_by)


def test_a_type_that_is_not_trusted_is_neither_written_nor_loaded(tmp_path):
    named = "was without sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor; add it where that is a type of data"
    with pytest.raises(ModelError, match=named):
        fitted(Unnamed).save(tmp_path / "x.skops")
    assert not list(tmp_path.iterdir())
    fitted(Histograms).save(tmp_path / "x.skops")
    with pytest.raises(ModelAbsentError, match=r"it holds sklearn\.ensemble._hist_gradient_boosting"):
        Unnamed(NAMES).load(tmp_path / "x.skops")


def rewritten(path, change):
    """Write the archive again with `change` applied to its schema and arrays by name."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in change(held).items():
            archive.writestr(name, data)


def led_away(held):
    """Let every tree lead to a node far outside of it."""
    changed = 0
    for name, data in held.items():
        if name.endswith(".npy") and (array := np.load(io.BytesIO(data), allow_pickle=False)).dtype.names:
            array = array.copy()
            array["left_child"][0], changed = 1 << 40, changed + 1
            out = io.BytesIO()
            np.save(out, array)
            held[name] = out.getvalue()
    assert changed
    return held


CHANGES = {
    "a tree that leads outside": led_away,
    "code in it": lambda held: held | {"schema.json": held["schema.json"].replace(b'"ExtraTreesClassifier"', b'"system"')},
    "nothing in it": lambda held: {},
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_archive_is_an_absent_model(change, tmp_path):
    fitted(Extra).save(tmp_path / "x.skops")
    rewritten(tmp_path / "x.skops", CHANGES[change])
    with pytest.raises(ModelAbsentError, match=r"x\.skops must be a skops archive of sklearn, was none"):
        Extra(NAMES).load(tmp_path / "x.skops")


@pytest.mark.parametrize("data", [b"", b"no archive", b"PK\x05\x06" + bytes(18)])
def test_another_file_is_an_absent_model(data, tmp_path):
    (tmp_path / "x.skops").write_bytes(data)
    with pytest.raises(ModelAbsentError, match="must be a skops archive"):
        Extra(NAMES).load(tmp_path / "x.skops")
    with pytest.raises(ModelAbsentError, match="must be a skops archive"):
        Extra(NAMES).load(tmp_path / "none.skops")


def test_another_classifier_and_other_columns_are_an_absent_model(tmp_path):
    fitted(Bayes).save(tmp_path / "x.skops")
    with pytest.raises(ModelAbsentError, match="it is no ExtraTreesClassifier of three classes over 3 columns"):
        Extra(NAMES).load(tmp_path / "x.skops")
    with pytest.raises(ModelAbsentError, match="must have the features a, c, b, was trained on others"):
        Bayes(("a", "c", "b")).load(tmp_path / "x.skops")


def test_parts_are_equal_for_equal_content_alone():
    gaps = np.zeros(2, np.dtype({"names": ["a"], "formats": ["u1"], "offsets": [0], "itemsize": 8}))
    noise = gaps.copy()
    noise.view(np.uint8).reshape(2, 8)[:, 1:] = 7

    def told(value):
        return [part for part, _ in parts(value)]

    assert told(gaps) == told(noise)
    assert told({"a": 1, "b": [2.0]}) == told({"b": [2.0], "a": 1})
    assert told(np.arange(6).reshape(2, 3)) == told(np.asfortranarray(np.arange(6).reshape(2, 3))) != told(np.arange(6).reshape(3, 2))
    assert told([np.float64(0.1)]) == told([0.1]) != told([0.2])
    loop: list = []
    loop.append(loop)
    assert told(loop) == [b"list", b"again"]
    assert TREE in {f"{type(part).__module__}.{type(part).__qualname__}" for _, part in parts(fitted(Extra).fitted)}
