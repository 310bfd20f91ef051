"""Do the meta layers judge as written, and do their kernels infer what the libraries infer?"""

import warnings
from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore import slots
from qtcore.meta import (
    VECTORS,
    MetaModel,
    check_names,
    feature_rows,
    linear,
    meta_problem,
    meta_probs,
    mlp,
    model,
    override,
    policy,
    predictor,
)
from qtcore.meta.vectors import extremes, one_hot_row, probable_row, slot_order, spread, v5_row
from qtcore.rules import Reason
from qtcore.types import ADVANCED, Action, InputError, Votes
from tests.conftest import assert_same_bits
from tests.naive import opinion
from tests.support import PUBLISHED
from tests.support.cells import cell_votes, random_probs, random_regime, random_votes

THRESHOLDS = [0.0, 0.25, 1 / 3, 0.4, 0.5, 0.6, 2 / 3, 0.75, 0.8, 1.0]
COUNTS = [c for c in product(range(6), repeat=3) if sum(c) <= 5]


@pytest.mark.parametrize("consensus", THRESHOLDS)
@pytest.mark.parametrize("dissent", THRESHOLDS)
def test_the_policy_equals_its_twin_on_every_count(consensus, dissent):
    p = {"meta.consensus_threshold": consensus, "meta.disagreement_threshold": dissent}
    for counts in COUNTS:
        for is_low in (False, True):
            assert policy.policy_rule(*counts, is_low, consensus, dissent) == opinion.policy_rule(*counts, is_low, p), counts


def test_eighty_one_patterns_of_four_votes():
    """27 defer, 6 are split, 48 disagree; nothing else can happen (7.4)."""
    reasons = []
    for pattern in product((0, 1, 2), repeat=4):
        counts = slots.tally_rule(tuple(np.array([*pattern, -1], np.int8)))
        reasons += [policy.policy_rule(*counts[:3], is_low, 0.75, 0.50) for is_low in (False, True)]
    kinds = [sum(r <= 3 for r in reasons), reasons.count(Reason.SPLIT_VOTE), reasons.count(Reason.HIGH_DISAGREEMENT), len(reasons)]
    assert [k // 2 for k in kinds] == [27, 6, 48, 81]


def test_rules_on_slots_equal_their_twins():
    for sell, hold, buy in COUNTS:
        assert slots.most_rule(sell, hold, buy) == opinion.most_rule(sell, hold, buy)
        for kept in (0, 1, 2):
            assert slots.is_outvoted_rule(sell, hold, buy, kept) == opinion.is_outvoted_rule(sell, hold, buy, kept)
    for pattern in product((-1, 0, 1, 2), repeat=5):
        assert slots.tally_rule(tuple(np.array(pattern, np.int8))) == opinion.tally_rule(opinion.as_votes(pattern, [0.5] * 5))
    grid = np.arange(10.0).reshape(5, 2)
    assert list(slots.slots(grid, 1)) == opinion.slots(grid.tolist(), 1)
    assert slots.weigh_rule((0, 2, -1, 2, 1), tuple(grid[:, 0]), 2) == opinion.weigh_rule(
        [(0, 0), (2, 0), None, (2, 0), (1, 0)], grid[:, 0], 2
    )


PROBS = random_probs(np.random.default_rng(5), 400, 1).reshape(3, -1).T.tolist()
PROBLEMS = [Reason.MODEL_NOT_LOADED, Reason.FEATURE_DIM_MISMATCH, Reason.SCALING_ERROR]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_override_and_v5_equal_their_twins(problem):
    p = PUBLISHED.flat()
    for k, probs in enumerate(PROBS):
        sell, hold, buy = COUNTS[k % len(COUNTS)]
        n = sell + hold + buy
        if n == 0:
            continue
        got = override.override_rule(sell, hold, buy, n, tuple(probs), int(problem), 0.75, 0.65)
        assert_same(got, opinion.override_rule(sell, hold, buy, n, probs, problem, p))
        for guards in (0, 1):
            got = predictor.v5_rule(sell, hold, buy, n, k % 3, tuple(probs), int(problem), 0.6, guards)
            assert_same(got, opinion.v5_rule(sell, hold, buy, n, k % 3, probs, problem, {**p, "meta.consensus_guard": guards}))


def assert_same(got, want):
    assert all(a == b or (a != a and b != b) for a, b in zip(got, want, strict=True)), (got, want)


def test_entropy_and_choice():
    for probs in PROBS:
        if all(0.0 <= x <= 1.0 for x in probs):
            assert policy.entropy_rule(*probs) == opinion.entropy_rule(probs)
            assert slots.choose_rule(*probs) == opinion.choose_rule(probs)
        else:
            assert not slots.choose_rule(*probs)[2]
    assert policy.entropy_rule(1 / 3, 1 / 3, 1 / 3) == pytest.approx(1.0, abs=1e-9)
    assert -1e-9 < policy.entropy_rule(0.0, 0.0, 1.0) < 0.0  # a certain one comes out just below zero (D-47)
    assert slots.choose_rule(0.4, 0.4, 0.2)[:2] == (0, 0.4)  # the first maximum


# ---------------------------------------------------------------- what a model sees


def planes(rng, n, n_symbols):
    regime = random_regime(rng, n, n_symbols)
    known = {name: rng.normal(size=(n, n_symbols)) for name in ADVANCED}
    return {"volatility": regime[0], "trend_strength": regime[1], **known}


def rows_of(vector, votes, features, before):
    return np.concatenate([rows for _, rows in feature_rows(vector, votes, features, before)])


@pytest.mark.parametrize("vector", ["meta26", "meta30", "v5"])
def test_rows_of_votes_equal_their_twins(vector):
    rng = np.random.default_rng(0)
    votes = random_votes(rng, 150, 4)
    features = planes(rng, 150, 4)
    got = rows_of(vector, votes, features, np.full(4, np.nan))
    cells = [cell_votes(votes.action.reshape(5, -1), votes.confidence.reshape(5, -1), i) for i in range(600)]
    regimes = zip(features["volatility"].ravel().tolist(), features["trend_strength"].ravel().tolist())
    want = opinion.v5_rows(cells) if vector == "v5" else opinion.one_hot_rows(cells, slot_order(vector), regimes)
    for row, expected in zip(got, want, strict=True):
        assert np.isnan(row).any() if expected is None else row.tolist() == expected


@pytest.mark.parametrize("vector", ["meta32", "meta36", "meta32_original", "meta36_original"])
def test_rows_of_probabilities_equal_their_twins(vector):
    rng = np.random.default_rng(1)
    votes, features = random_votes(rng, 150, 3, with_probs=True), planes(rng, 150, 3)
    before = np.full(3, np.nan)
    got = rows_of(vector, votes, features, before).reshape(150, 3, -1)
    advanced = np.stack([features[name] for name in ADVANCED])
    for s in range(3):
        cells = [[None if votes.action[m, t, s] < 0 else votes.probs[m, t, s].tolist() for m in range(5)] for t in range(150)]
        want, last = opinion.probable_rows(cells, slot_order(vector), advanced[:, :, s].T.tolist(), np.nan)
        assert before[s] == last
        for row, expected in zip(got[:, s], want, strict=True):
            assert np.isnan(row).any() if expected is None else row.tolist() == expected


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 60), max_size=4), vector=st.sampled_from(["meta26", "meta32", "v5"]))
def test_cutting_the_bars_changes_no_bit_of_probabilities_or_state(cuts, vector):
    rng = np.random.default_rng(2)
    votes, features = random_votes(rng, 60, 3, with_probs=True), planes(rng, 60, 3)
    learned = random_linear(rng, vector)
    whole_state, state = np.full(3, np.nan), np.full(3, np.nan)
    whole = meta_probs(learned, votes, features, whole_state)
    edges = [0, *sorted(cuts), 60]
    parts = [meta_probs(learned, votes[a:b], {k: v[a:b] for k, v in features.items()}, state) for a, b in pairwise(edges)]
    assert_same_bits(whole, np.concatenate(parts, axis=1))
    assert_same_bits(whole_state, state)


def test_the_future_does_not_change_the_past_rows():
    rng = np.random.default_rng(3)
    votes, features, learned = random_votes(rng, 80, 2, with_probs=True), planes(rng, 80, 2), random_linear(rng, "meta32")
    other = Votes(votes.action.copy(), votes.confidence.copy(), votes.probs.copy())
    other.probs[:, 50:] = 1 / 3
    changed = {k: np.concatenate([v[:50], v[50:] + 1.0]) for k, v in features.items()}
    a, b = meta_probs(learned, votes, features, np.full(2, np.nan)), meta_probs(learned, other, changed, np.full(2, np.nan))
    assert_same_bits(a[:, :50], b[:, :50])
    assert np.any(a[:, 50:] != b[:, 50:])


def test_a_model_is_asked_only_where_two_vote_and_everything_is_known():
    rng = np.random.default_rng(4)
    votes, features, learned = random_votes(rng, 200, 3, with_probs=True), planes(rng, 200, 3), random_linear(rng, "meta32")
    features["btc_correlation"][7] = np.nan
    probs = meta_probs(learned, votes, features, np.full(3, np.nan))
    asked = (np.sum(votes.action >= 0, axis=0) >= 2) & (np.arange(200) != 7)[:, None]
    assert_same_bits(~np.isnan(probs).any(axis=0), asked)
    assert np.allclose(probs[:, asked].sum(axis=0), 1.0)
    assert np.isnan(meta_probs(None, votes, features, np.full(3, np.nan))).all()


def test_small_helpers_equal_their_twins():
    values = np.array([0.4, 0.9, 0.1, 0.7, 0.7])
    for n in range(6):
        assert spread(values, n) == opinion.spread(values[:n].tolist())
        assert extremes(values, n) == opinion.extremes(values[:n].tolist())
    for row in (np.array([1.0, 2.0]), np.array([1.0, np.nan])):
        assert model.is_known(row) == opinion.is_known(row.tolist())
    action = np.array([[-1], [0], [2], [-1], [1]], np.int8)
    assert model.voters(action, 0) == opinion.voters([None, (0, 0), (2, 0), None, (1, 0)])


def test_names_of_the_vectors():
    assert {name: len(names) for name, names in VECTORS.items()} == {
        "v5": 8,
        "meta26": 26,
        "meta30": 30,
        "meta32": 32,
        "meta36": 36,
        "meta32_original": 32,
        "meta36_original": 36,
        "bet30": 30,
        "bet35": 35,
    }
    assert VECTORS["v5"][:4] == ("xgb_confidence", "lgbm_confidence", "patchtst_confidence", "nhits_confidence")
    assert VECTORS["meta26"][16:] == (
        "mean_confidence",
        "max_confidence",
        "min_confidence",
        "confidence_std",
        "vote_buy_pct",
        "vote_sell_pct",
        "vote_hold_pct",
        "disagreement",
        "volatility",
        "trend_strength",
    )
    assert all(len(set(names)) == len(names) for names in VECTORS.values())


# ---------------------------------------------------------------- inference


def random_linear(rng, vector, kind="logistic_platt"):
    n = len(VECTORS[vector])
    arrays = {"mean": rng.normal(size=n), "scale": rng.random(n) + 0.1, "coef": rng.normal(size=(3, n)), "intercept": rng.normal(size=3)}
    return MetaModel(kind, VECTORS[vector], {**arrays, "slope": -rng.random(3), "offset": rng.normal(size=3)})


def random_mlp(rng, sizes=(8, 32, 32)):
    f, h, g = sizes
    names = ("mean", "scale", "w1", "b1", "w2", "b2", "w3", "b3")
    shapes = ((f,), (f,), (f, h), (h,), (h, g), (g,), (g, 3), (3,))
    arrays = {name: rng.normal(size=shape) for name, shape in zip(names, shapes, strict=True)}
    arrays["scale"] = np.abs(arrays["scale"]) + 0.1
    return MetaModel("mlp", VECTORS["v5"] if f == 8 else tuple(f"x{i}" for i in range(f)), arrays)


def infer(learned, rows):
    out = np.full((len(rows), 3), np.nan)
    model._infer(learned, rows, out)
    return out


@pytest.mark.parametrize("sizes", [(8, 32, 32), (5, 7, 3), (1, 1, 1)])
def test_the_network_equals_its_twin(sizes):
    rng = np.random.default_rng(0)
    learned, rows = random_mlp(rng, sizes), rng.normal(size=(40, sizes[0]))
    rows[3, 0] = np.nan
    for got, want in zip(infer(learned, rows), opinion.mlp_rows(rows.tolist(), learned.arrays), strict=True):
        assert np.isnan(got).all() if want is None else got.tolist() == want


def test_the_regression_equals_its_twin():
    rng = np.random.default_rng(1)
    learned, rows = random_linear(rng, "meta26"), 3.0 * rng.normal(size=(60, 26))
    rows[5, 2] = np.nan
    for got, want in zip(infer(learned, rows), opinion.logistic_platt_rows(rows.tolist(), learned.arrays), strict=True):
        assert np.isnan(got).all() if want is None else got.tolist() == want


def test_the_plain_regression_equals_its_twin():
    rng = np.random.default_rng(1)
    learned, rows = random_linear(rng, "meta26", "logistic_softmax"), 3.0 * rng.normal(size=(60, 26))
    rows[5, 2] = np.nan
    for got, want in zip(infer(learned, rows), opinion.logistic_softmax_rows(rows.tolist(), learned.arrays), strict=True):
        assert np.isnan(got).all() if want is None else got.tolist() == want
    assert_same_bits(learned.answer(rows, np.zeros(60, np.int64)), infer(learned, rows))


@settings(deadline=None)
@given(x=st.floats(-1e6, 1e6))
def test_the_sigmoid_never_overflows(x):
    assert linear.sigmoid(x) == opinion.sigmoid(x)
    assert linear.sigmoid(x) + linear.sigmoid(-x) == pytest.approx(1.0)


def test_dense_adds_in_the_order_of_the_inputs():
    rng = np.random.default_rng(2)
    x, w, b, out = rng.normal(size=9), rng.normal(size=(9, 5)), rng.normal(size=5), np.empty(5)
    mlp.dense(x, w, b, out)
    assert out.tolist() == opinion.dense(x.tolist(), w.tolist(), b.tolist())
    exact = [float(Fraction(b[u]) + sum(Fraction(x[j]) * Fraction(w[j, u]) for j in range(9))) for u in range(5)]
    assert out == pytest.approx(exact, rel=1e-12)
    mlp.rectify(out)
    assert out.tolist() == opinion.rectify(exact) or (out >= 0.0).all()
    scores = np.array([1e3, -1e3, 5.0])
    mlp.softmax(scores)
    assert scores.tolist() == opinion.softmax([1e3, -1e3, 5.0])


def test_scikit_learn_agrees_on_the_calibrated_regression():
    """Other order of sums in a library: 1e-12 relative."""
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(600, 26)) * rng.random(26) * 5 + 1, rng.integers(0, 3, 600)
    x[:, 0] += y
    fitted = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced")).fit(x[:480], y[:480])
    calibrated = CalibratedClassifierCV(FrozenEstimator(fitted), method="sigmoid").fit(x[480:], y[480:])
    scaler, regression = fitted[0], fitted[1]
    sigmoids = calibrated.calibrated_classifiers_[0].calibrators
    arrays = {"mean": scaler.mean_, "scale": scaler.scale_, "coef": regression.coef_, "intercept": regression.intercept_}
    arrays |= {"slope": np.array([s.a_ for s in sigmoids]), "offset": np.array([s.b_ for s in sigmoids])}
    learned = MetaModel("logistic_platt", VECTORS["meta26"], arrays)
    np.testing.assert_allclose(infer(learned, x), calibrated.predict_proba(x), rtol=1e-12, atol=1e-15)


def test_scikit_learn_agrees_on_the_network():
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(300, 8)) * 3 + 1, rng.integers(0, 3, 300)
    scaler = StandardScaler().fit(x)
    net = MLPClassifier((32, 32), max_iter=5, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # five steps do not converge, and need not
        net.fit(scaler.transform(x), y)
    arrays = {"mean": scaler.mean_, "scale": scaler.scale_}
    for k in range(3):
        arrays |= {f"w{k + 1}": net.coefs_[k], f"b{k + 1}": net.intercepts_[k]}
    learned = MetaModel("mlp", VECTORS["v5"], arrays)
    np.testing.assert_allclose(infer(learned, x), net.predict_proba(scaler.transform(x)), rtol=1e-12, atol=1e-15)


def test_one_row_has_the_bits_of_the_batch():
    rng = np.random.default_rng(5)
    for learned in (random_linear(rng, "meta26"), random_linear(rng, "meta26", "logistic_softmax"), random_mlp(rng)):
        rows = rng.normal(size=(50, len(learned.feature_names)))
        alone = np.concatenate([infer(learned, rows[i : i + 1]) for i in range(50)])
        assert_same_bits(infer(learned, rows), alone)


# ---------------------------------------------------------------- the artefact


def test_a_model_with_other_names_is_refused():
    rng = np.random.default_rng(6)
    right = random_linear(rng, "meta26")
    wrong = MetaModel("logistic_platt", right.feature_names[::-1], right.arrays)
    assert (right.vector, wrong.vector) == ("meta26", "")
    assert meta_problem(wrong) == Reason.FEATURE_DIM_MISMATCH
    assert meta_problem(None) == Reason.MODEL_NOT_LOADED
    assert meta_problem(right) == Reason.FEATURE_EXTRACTION_ERROR
    assert check_names(right, "meta26") is right
    with pytest.raises(InputError, match="must have the features of meta26"):
        check_names(wrong, "meta26")
    votes = random_votes(rng, 5, 2)
    assert np.isnan(meta_probs(wrong, votes, planes(rng, 5, 2), np.full(2, np.nan))).all()


def test_probabilities_are_demanded_by_name():
    rng = np.random.default_rng(7)
    with pytest.raises(InputError, match="votes must carry probabilities for the features of meta32"):
        meta_probs(random_linear(rng, "meta32"), random_votes(rng, 5, 2), planes(rng, 5, 2), np.full(2, np.nan))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mean": np.zeros(3)}, "mean must be finite and of shape"),
        ({"coef": np.full((3, 26), np.nan)}, "coef must be finite"),
        ({"scale": np.zeros(26)}, "scale must not hold a zero"),
    ],
)
def test_a_malformed_model_is_refused(change, match):
    good = random_linear(np.random.default_rng(8), "meta26")
    with pytest.raises(InputError, match=match):
        MetaModel("logistic_platt", good.feature_names, {**good.arrays, **change})
    with pytest.raises(InputError, match="must have the array"):
        MetaModel("logistic_platt", good.feature_names, {})
    with pytest.raises(InputError, match="kind"):
        MetaModel("forest", good.feature_names, good.arrays)


def test_single_rows_of_the_scenario_files():
    """The kernels of one row, as `qt scenarios` calls them: one voter, or none, is allowed here."""
    action, confidence = np.full((5, 1), -1, np.int8), np.full((5, 1), np.nan)
    row, order = np.empty(26), slot_order("meta26")
    one_hot_row(action, confidence, 0, order, np.nan, np.nan, np.empty(5), row)
    assert row.tolist() == opinion.one_hot_row([None] * 5, order, np.nan, np.nan)
    action[3], confidence[3] = Action.SELL, 0.66
    one_hot_row(action, confidence, 0, order, 0.3, -0.4, np.empty(5), row)
    assert row.tolist() == opinion.one_hot_row([None, None, None, (0, 0.66), None], order, 0.3, -0.4)
    eight = np.empty(8)
    v5_row(action, confidence, 0, slot_order("v5"), eight)
    assert eight.tolist() == [0.5, 0.5, 0.66, 0.5, 1.0, 1.0, 0.0, 1.0]
    probs, wide = np.full((5, 1, 3), np.nan), np.empty(32)
    assert np.isnan(probable_row(probs, 0, order, np.zeros((9, 1)), np.nan, np.empty(5), np.empty(5), wide))
    assert wide.tolist() == opinion.probable_row([None] * 5, order, [0.0] * 9, np.nan)[0]
