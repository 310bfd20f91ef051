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
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

import research
from research.errors import ModelError
from research.training.models import ModelAbsentError, SklearnModel
from research.training.models.scikit import TREE, parts

NAMES = ("a", "b", "c")


def rows_of_one(x):
    return x


class Extra(SklearnModel):
    estimator = ExtraTreesClassifier(8, n_jobs=-1)


class Boosted(SklearnModel):
    estimator = GradientBoostingClassifier(n_estimators=4, subsample=0.5)


class Histograms(SklearnModel):
    estimator = HistGradientBoostingClassifier(max_iter=4)


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
    estimator, trusted = HistGradientBoostingClassifier(max_iter=2), ()


class Neighbours(SklearnModel):
    estimator = KNeighborsClassifier(algorithm="kd_tree")
    trusted = ("sklearn.metrics._dist_metrics.EuclideanDistance64", "sklearn.neighbors._kd_tree.KDTree")


class Nearest(SklearnModel):
    estimator, row_by_row = KNeighborsClassifier(algorithm="brute"), True


class Categories(SklearnModel):
    estimator = HistGradientBoostingClassifier(max_iter=2, categorical_features=[1])


class Unmade(SklearnModel):
    estimator = GaussianNB


class Named(SklearnModel):
    estimator, trusted = GaussianNB(), TREE


class Scored(SklearnModel):
    estimator = HistGradientBoostingClassifier(max_iter=3, early_stopping=True, scoring="accuracy")


class Transformed(SklearnModel):
    estimator = make_pipeline(FunctionTransformer(np.abs), FunctionTransformer(rows_of_one), GaussianNB())


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
    x[:, 1] = np.round(x[:, 1]) + 5.0  # sound as a category too
    model.fit(x, y, x[:0], y[:0], seed)
    return model


@pytest.mark.filterwarnings("ignore:.*did not converge|.*Maximum iterations")
@pytest.mark.parametrize("made_by", [Extra, Boosted, Histograms, Bagged, Bayes, Regression, Quadratic, Network, Nearest])
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
        (NoClasses, "estimator of NoClasses must be a classifier of scikit-learn, unfitted, was of the kind Ridge; write estimator = .*"),
        (SklearnModel, "estimator of SklearnModel must be a classifier of scikit-learn, unfitted, was of the kind NoneType; write .*"),
        (Unmade, "estimator of Unmade must be a classifier of scikit-learn, unfitted, was the class GaussianNB; write estimator = .*"),
        (Named, "trusted of Named must be a tuple of names, was 'sklearn.*Tree'; write .*"),
        (Neighbours, "Neighbours must be the same before and after it is asked, .* was not; .* algorithm='brute'"),
        (Categories, "Categories must be fitted to sound trees .* was not: its trees split by categories, where columns are numbers"),
    ],
)
def test_a_classifier_that_cannot_serve_is_told_in_a_sentence(made_by, said):
    with pytest.raises(ModelError, match=f"^{said}$"):
        fitted(made_by)


def test_a_type_that_is_not_trusted_is_neither_written_nor_loaded(tmp_path):
    named = "was without sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor; add types of data, leave out functions"
    with pytest.raises(ModelError, match=named):
        fitted(Unnamed).save(tmp_path / "x.skops")
    assert not list(tmp_path.iterdir())
    fitted(Histograms).save(tmp_path / "x.skops")
    with pytest.raises(ModelAbsentError, match=r"it holds sklearn\.ensemble._hist_gradient_boosting"):
        Unnamed(NAMES).load(tmp_path / "x.skops")


@pytest.mark.parametrize(("made_by", "named"), [(Scored, "must be of parts that skops can"), (Transformed, "rows_of_one; add types")])
def test_what_cannot_be_stored_is_told(made_by, named, tmp_path):
    with pytest.raises(ModelError, match=named):
        fitted(made_by).save(tmp_path / "x.skops")


def test_threads_are_no_part_of_a_fit():
    with threadpool_limits(1):
        one = fitted(Histograms).digest()
    with threadpool_limits(2):
        assert fitted(Histograms).digest() == one


def rewritten(path, change):
    """Write the archive again with `change` applied to its schema and arrays by name."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in change(held).items():
            archive.writestr(name, data)


def changed(name, value):
    """Change a field of the first node of every tree."""

    def change(held):
        found = 0
        for file, data in held.items():
            if file.endswith(".npy") and name in ((array := np.load(io.BytesIO(data), allow_pickle=False)).dtype.names or ()):
                array = array.copy()
                array[name][0], found = value, found + 1
                out = io.BytesIO()
                np.save(out, array)
                held[file] = out.getvalue()
        assert found
        return held

    return change


def negative(held):
    """Turn the shares of every leaf around."""
    for file, data in held.items():
        if file.endswith(".npy") and (array := np.load(io.BytesIO(data), allow_pickle=False)).ndim == 3:
            out = io.BytesIO()
            np.save(out, -array)
            held[file] = out.getvalue()
    return held


CHANGES = {
    "a tree that leads outside": (Extra, changed("left_child", 1 << 40)),
    "a tree that leads to itself": (Extra, changed("right_child", 0)),
    "a column that is not there": (Extra, changed("feature", 7)),
    "negative shares": (Extra, negative),
    "code in it": (Extra, lambda held: held | {"schema.json": held["schema.json"].replace(b'"ExtraTreesClassifier"', b'"system"')}),
    "nothing in it": (Extra, lambda held: {}),
    "a histogram tree that leads outside": (Histograms, changed("left", 400_000_000)),
    "a histogram tree that leads to itself": (Histograms, changed("right", 0)),
    "a histogram tree of a column that is not there": (Histograms, changed("feature_idx", 1 << 40)),
    "a histogram tree of categories": (Histograms, changed("is_categorical", 1)),
    "a histogram tree without numbers": (Histograms, changed("value", np.nan)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_archive_is_an_absent_model(change, tmp_path):
    made_by, turn = CHANGES[change]
    fitted(made_by).save(tmp_path / "x.skops")
    rewritten(tmp_path / "x.skops", turn)
    with pytest.raises(ModelAbsentError, match=r"x\.skops must be a skops archive of sklearn, was none"):
        made_by(NAMES).load(tmp_path / "x.skops")


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
