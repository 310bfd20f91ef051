"""Does a training cell count what its label has to itself, in `default` alone, for every model that asks and for no other?"""

import dataclasses

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

from examples.shares import Shares
from research.data import simulate
from research.training.models import SklearnModel, base, register
from research.training.models.base import class_weights, make_model, model_target, takes_weights
from research.training.models.fits import content_of
from research.training.models.scikit import _weighing
from research.training.models.worker import fit_weights
from research.training.plan import TrainingPlan
from research.training.splits import walk_forward
from research.training.walk_forward import retrain_fold, train
from research.verify import check_model
from tests.conftest import assert_same_bits, awkward_bars
from tests.naive import labels as naive

SEEN: list[np.ndarray | None] = []
NAMES = ("alpha", "beta", "gamma")


class Weighed(Shares):
    """A model of one's own that asks for weights and keeps what it gets."""

    def fit(self, rows, labels, valid_rows, valid_labels, seed, weights=None) -> None:
        SEEN.append(weights)
        super().fit(rows, labels, valid_rows, valid_labels, seed)


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3)).astype(np.float32)
    return x, np.digitize(x[:, 0] + rng.normal(0.0, 0.7, n), (-0.6, 0.6)).astype(np.int8)


@pytest.mark.parametrize("is_of_cells", [False, True])
def test_weights_are_the_uniqueness_among_the_fitted_labels_with_a_mean_of_1(is_of_cells):
    rng = np.random.default_rng(4)
    labels = rng.integers(-1, 3, (60, 3)).astype(np.int8)
    ends = np.arange(60)[:, None] + (rng.integers(1, 9, (60, 3)) if is_of_cells else np.full((60, 3), 4))
    fit = np.flatnonzero((labels >= 0).ravel() & (rng.random(180) < 0.8) & (np.arange(180) < 120))
    told = np.full(180, -1)
    told[fit] = labels.ravel()[fit]
    want = np.array(naive.uniqueness(told.reshape(60, 3).tolist(), ends.tolist())).ravel()[fit]
    got = fit_weights("uniqueness", labels, fit, ends if is_of_cells else ends[:, 0])
    np.testing.assert_allclose(got, want / want.mean(), rtol=1e-12)
    assert got.mean() == pytest.approx(1.0)
    later = np.where(np.arange(60)[:, None] >= 40, 2, labels).astype(np.int8)  # no label that is not fitted changes them
    assert_same_bits(fit_weights("uniqueness", later, fit, ends if is_of_cells else ends[:, 0]), got)
    assert fit_weights("equal", labels, fit, ends) is None


def test_inner_cells_of_a_fixed_horizon_count_alike_and_those_at_an_edge_or_a_hole_count_more():
    labels = np.ones((40, 1), np.int8)
    labels[20:23] = -1
    got = fit_weights("uniqueness", labels, np.flatnonzero(labels.ravel() >= 0), np.arange(40) + 4)
    assert np.ptp(got[4:12]) < 1e-12
    assert got[0] > got[5] < got[36]
    assert got[19] > got[10] < got[20]


def test_plan_weighs_in_default_alone_and_a_stored_one_without_the_field_does_not():
    assert TrainingPlan.profile("default").weights == "uniqueness"
    assert {TrainingPlan.profile(name).weights for name in ("published", "original")} == {"equal"}
    known = {field.name: getattr(TrainingPlan(), field.name) for field in dataclasses.fields(TrainingPlan) if field.name != "weights"}
    assert TrainingPlan.stored(known).weights == "equal"
    with pytest.raises(base.ConfigError, match=r"run\.weights must be one of uniqueness, equal, was 'none'"):
        TrainingPlan(weights="none")


@pytest.fixture
def own():
    register("weighed", f"{__name__}:Weighed")
    register("shares", "examples.shares:Shares")
    SEEN.clear()
    yield
    for name in ("weighed", "shares"):
        base.unregister(name)


def test_a_model_of_ones_own_gets_weights_where_its_fit_asks_for_them(own):
    bars = awkward_bars(900, seed=3, n_symbols=4)
    plan = {"models": ("weighed", "shares"), "label": "L3", "n_folds": 2, "processes": 1, "use_store": False}
    made = train(bars, **plan)
    counts = [a.meta["split"]["cells"]["fit"] for a in made.models.artefacts if a.slot == "weighed"]
    assert sorted(len(seen) for seen in SEEN) == sorted(counts)
    assert all(abs(seen.mean() - 1.0) < 1e-9 and seen.min() < 1.0 < seen.max() and seen.dtype == np.float64 for seen in SEEN)
    assert {a.slot: a.meta["fit_weights"] for a in made.models.artefacts} == {"weighed": "uniqueness", "shares": "equal"}
    assert retrain_fold(bars, made.models, 0) == made.models.hashes(0)
    SEEN.clear()
    alike = train(bars, **plan, profile="published")
    assert SEEN == [None, None]
    assert {a.meta["fit_weights"] for a in alike.models.artefacts} == {"equal"}
    assert [takes_weights(make_model(model_target(name), NAMES)) for name in ("weighed", "shares")] == [True, False]
    assert check_model(Weighed).failed == check_model(Shares).failed == ()


@pytest.mark.parametrize("slot", ["xgb", "lgbm", "linear"])
def test_ours_weigh_their_rows(slot):
    said, target = [], model_target(slot)
    x, y = rows(900)
    times = np.where(x[:, 1] > 0.0, 1.9, 0.1)
    y = np.where((x[:, 1] > 0.0) & (y == 0), 2, y).astype(np.int8)
    for weights in (None, np.ones(900), times / times.mean()):
        model = make_model(target, NAMES, "tiny")
        model.fit(x.copy(), y, *rows(300, 1), 42, weights=weights)
        said.append(model.predict_proba(rows(400, 7)[0]))
    assert_same_bits(said[1], said[0])
    assert said[2][:, 2].mean() > said[0][:, 2].mean() + 0.05  # what is bought where it counts more


def test_linear_weights_are_those_of_scikit_learn():
    (x, y), counts = rows(1_500), np.random.default_rng(5).uniform(0.2, 2.0, 1_500)
    model = make_model(model_target("linear"), NAMES)
    model.fit(x.copy(), y, *rows(400, 1), 42, weights=counts)
    columns, weights = model.design(model.scaler.transform(x)).astype(float), class_weights(np.bincount(y), "balanced")[y] * counts
    oracle = LogisticRegression(C=1.0 / (model.ridge * weights.sum()), solver="newton-cg", tol=1e-12, max_iter=10_000)
    oracle.fit(columns, y, sample_weight=weights)
    np.testing.assert_allclose(model.coefficients, oracle.coef_.T, atol=1e-5)


def test_scikit_learn_is_told_of_weights_where_it_takes_them():
    one = np.ones(5)
    assert _weighing(RandomForestClassifier(), None) == {}
    assert [*_weighing(RandomForestClassifier(), one)] == ["sample_weight"]
    assert _weighing(KNeighborsClassifier(), one) == _weighing(make_pipeline(MinMaxScaler(), KNeighborsClassifier()), one) == {}
    assert [*_weighing(make_pipeline(MinMaxScaler(), GaussianNB()), one)] == ["gaussiannb__sample_weight"]

    class Bayes(SklearnModel):
        estimator = make_pipeline(MinMaxScaler(), GaussianNB())
        row_by_row = True

    (x, y), counts = rows(600), np.random.default_rng(1).uniform(0.1, 2.0, 600)
    weighed, plain = Bayes(NAMES), Bayes(NAMES)
    weighed.fit(x, y, x[:0], y[:0], 42, weights=counts)
    plain.fit(x, y, x[:0], y[:0], 42)
    direct = make_pipeline(MinMaxScaler(), GaussianNB()).fit(x, y, gaussiannb__sample_weight=counts)
    np.testing.assert_allclose(weighed.predict_proba(x[:50]), direct.predict_proba(x[:50]), rtol=1e-12)
    assert np.abs(weighed.predict_proba(x[:50]) - plain.predict_proba(x[:50])).max() > 1e-3


@pytest.mark.parametrize("slot", ["nhits", "patchtst"])
def test_networks_weigh_their_windows(slot):
    pytest.importorskip("torch")
    from tests.research.training.test_neural import market

    said = []
    for weights in (None, np.ones, lambda n: np.where(market(60)[1] == 2, 3.0, 0.3)):
        (windows, classes), watched = market(60), market(40, 1)
        model = make_model(model_target(slot), windows_names(windows), "tiny")
        model.fit(windows, classes, *watched, 42, weights=None if weights is None else weights(len(classes)))
        said.append(model.predict_proba(market(40, 2)[0]))
    np.testing.assert_allclose(said[1], said[0], atol=2e-3)
    assert said[2][:, 2].mean() > said[0][:, 2].mean()


def windows_names(windows) -> tuple[str, ...]:
    return tuple(f"f{i}" for i in range(windows.shape[2]))


def test_ends_of_the_fitted_labels_are_part_of_a_stored_fit():
    bars = simulate("random_walk", n_bars=400)
    fold = walk_forward(np.arange(400) + 5, n_folds=2)[0]
    matrix, labels = np.zeros((400, 5, 2), np.float32), np.ones((400, 5), np.int8)
    ends, ahead = np.repeat(np.arange(400)[:, None] + 5, 5, axis=1), np.empty((0, 0))
    assert bars.n == len(ends)

    def name(changed: int) -> str:
        other = ends.copy()
        other[changed, 2] -= 1
        return content_of(matrix, labels, other, ahead, fold, 1)

    first = content_of(matrix, labels, ends, ahead, fold, 1)
    assert name(int(fold.fit[3])) != first
    assert name(int(fold.test[0])) == first
