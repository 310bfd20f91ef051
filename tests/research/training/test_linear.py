"""Is the linear model scikit-learn's logistic regression on z-scores and ranks, its ridge of the validation slice, its file data?"""

import json
from statistics import NormalDist

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

import research
from qtcore.types import InputError
from qtcore.voters import slots_of
from research.data import simulate
from research.training.models.base import PRESETS, ModelAbsentError, Preset, Scaler, class_weights, scaler_path
from research.training.models.linear import CLIP, KNOTS, Linear
from research.training.plan import usual_models
from research.verify import check_model
from tests.conftest import assert_same_bits

NAMES = ("even", "skewed", "flag", "still")


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Four columns, of which a skewed one says something by its rank; one is a flag, one never moves."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    lean = x[:, 0] * 0.4 + x[:, 1] * 0.8 + rng.normal(0.0, 1.0, n)
    x[:, 1], x[:, 2], x[:, 3] = np.exp(2.0 * x[:, 1]), x[:, 2] > 0.5, 7.0
    return x, np.digitize(lean, (-0.7, 0.7)).astype(np.int8)


def fitted(ridges=None, n: int = 3_000, **more) -> Linear:
    model = Linear(NAMES)
    if ridges is not None:
        model.presets = {"default": Preset({"ridges": ridges}, len(ridges), 2, "balanced")}
    model.fit(*rows(n), *rows(800, 1), 42, **more)
    return model


def columns_by_hand(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Z-score clipped, and the place among `train` between KNOTS of its quantiles, as a normal deviate; equal quantiles have one place."""
    out = []
    for f in range(x.shape[1]):
        centre, spread = train[:, f].astype(float).mean(), train[:, f].astype(float).std() or 1.0
        scaled = ((x[:, f] - centre) / spread).astype(np.float32).astype(float)
        out.append(np.clip(scaled, -CLIP, CLIP))
    for f in range(x.shape[1]):
        centre, spread = train[:, f].astype(float).mean(), train[:, f].astype(float).std() or 1.0
        scaled, known = (((part[:, f] - centre) / spread).astype(np.float32).astype(float) for part in (x, train))
        at: dict[float, list[float]] = {}
        for k in range(KNOTS):
            level = (k + 0.5) / KNOTS
            at.setdefault(float(np.sort(known)[int(level * len(known))]), []).append(NormalDist().inv_cdf(level))
        out.append(np.interp(scaled, list(at), [np.mean(places) for places in at.values()]))
    return np.stack(out, axis=1)


@pytest.mark.parametrize("ridge", [3.0, 0.1, 0.001])
def test_coefficients_are_those_of_scikit_learn_on_the_same_columns_and_ridge(ridge):
    x, y = rows(3_000)
    model = fitted([ridge])
    columns = columns_by_hand(x, x)
    np.testing.assert_allclose(model.design(model.scaler.transform(x)), columns, rtol=1e-6, atol=1e-6)
    weights = class_weights(np.bincount(y), "balanced")[y]
    oracle = LogisticRegression(C=1.0 / (ridge * weights.sum()), solver="newton-cg", tol=1e-12, max_iter=10_000)
    oracle.fit(model.design(model.scaler.transform(x)).astype(float), y, sample_weight=weights)
    np.testing.assert_allclose(model.coefficients, oracle.coef_.T, atol=1e-5)
    np.testing.assert_allclose(model.intercepts, oracle.intercept_, atol=1e-5)
    ahead = rows(500, 9)[0]
    said = oracle.predict_proba(model.design(model.scaler.transform(ahead)).astype(float))
    np.testing.assert_allclose(model.predict_proba(ahead), said, atol=1e-5)


def test_ridge_is_the_one_with_the_least_loss_on_the_validation_slice():
    model, y, (ahead, later) = fitted(), rows(3_000)[1], rows(800, 1)
    weights = class_weights(np.bincount(y), "balanced")
    losses = {}
    for ridge in model.presets["default"].params["ridges"]:
        said = fitted([ridge]).predict_proba(ahead)[np.arange(len(later)), later]
        losses[ridge] = float(np.average(-np.log(said), weights=weights[later]))
    assert model.ridge == min(losses, key=losses.__getitem__) == model.params()["ridge"]
    assert 0 < model.history["best"] == model.rounds - 1
    np.testing.assert_allclose(model.history["valid"], list(losses.values())[: len(model.history["valid"])], atol=2e-6)
    noise = Linear(NAMES)
    noise.fit(*rows(3_000), rows(800, 1)[0], np.random.default_rng(3).integers(0, 3, 800).astype(np.int8), 42)
    assert (noise.rounds, len(noise.history["valid"])) == (1, 3)  # it stops after two that are no better


def test_rank_says_what_the_z_score_of_a_skewed_feature_cannot():
    model = fitted()
    shares = model.gains()
    assert sum(shares.values()) == pytest.approx(1.0, abs=1e-5)
    assert shares["skewed"] > shares["even"] > shares["flag"] > shares["still"] == 0.0
    of_z, of_rank = np.abs(model.coefficients).sum(axis=1).reshape(2, -1)
    assert of_rank[1] > 3.0 * of_z[1]


def test_places_are_read_from_training_rows_alone_and_never_fall():
    model = fitted()
    assert (model.knots.shape, (np.diff(model.knots) >= 0.0).all()) == ((4, KNOTS), True)
    line = np.repeat(np.linspace(-30.0, 30.0, 5_001, dtype=np.float32)[:, None], 4, axis=1)
    columns = model.design(line)
    assert (np.diff(columns, axis=0) >= 0.0).all()
    assert np.abs(columns[:, :4]).max() == CLIP
    assert np.abs(columns[:, 4:]).max() == np.float32(NormalDist().inv_cdf((KNOTS - 0.5) / KNOTS))
    assert_same_bits(model.design(line[2_000:2_001]), columns[2_000:2_001])


def test_a_fit_has_the_same_bits_whatever_the_threads_and_the_seed(tmp_path):
    files = []
    for threads, seed in ((1, 42), (2, 7)):
        with threadpool_limits(threads):
            model = Linear(NAMES)
            model.fit(*rows(3_000), *rows(800, 1), seed)
        files.append(model._write())
    assert files[0] == files[1]


@pytest.mark.parametrize("preset", PRESETS)
def test_it_keeps_the_rules_of_a_base_model(preset):
    assert check_model(Linear, preset=preset).failed == ()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d | {"ridge": None}, "ridge"),
        (lambda d: d | {"knots": d["knots"][:3]}, r"knots are \[3, 32\], not \[4, 32\]"),
        (lambda d: d | {"coefficients": d["coefficients"][:-1]}, r"coefficients are \[7, 3\], not \[8, 3\]"),
        (lambda d: d | {"intercepts": [0.0]}, r"intercepts are \[1\], not \[3\]"),
        (lambda d: d | {"places": [row[::-1] for row in d["places"]]}, "places do not ascend"),
        (lambda d: d | {"knots": [row[:-1] for row in d["knots"][:1]] + d["knots"][1:]}, r"linear must be a \.json file"),
        (lambda d: {k: v for k, v in d.items() if k != "places"}, "without places"),
    ],
)
def test_a_file_that_is_no_such_model_is_absent(change, says, tmp_path):
    data = json.dumps(change(json.loads(fitted([0.1])._write()))).encode()
    refused(data, says, tmp_path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "true", '"1"'])
def test_a_file_with_a_number_that_is_none_is_absent(number, tmp_path):
    text = fitted([0.1])._write().decode()
    refused(text.replace('"ridge": 0.1', f'"ridge": {number}').encode(), r"linear must be a \.json file", tmp_path)


def refused(data: bytes, says: str, folder) -> None:
    path = folder / "m.json"
    path.write_bytes(data)
    scaler_path(path).write_text(Scaler(np.zeros(4), np.ones(4)).to_json(NAMES, data))
    with pytest.raises(ModelAbsentError, match=says):
        Linear(NAMES).load(path)


def test_default_trains_it_in_a_free_slot_with_an_equal_share():
    bars = simulate("random_walk", n_bars=900, n_symbols=3)
    made = research.train(bars, preset="tiny", n_folds=2, processes=1)
    assert made.slots == ("xgb", "lgbm", "linear")
    assert made.names == slots_of(["xgb", "lgbm", "linear"]) == ("xgb", "lgbm", "nhits", "patchtst", "linear")
    run = research.backtest(bars, made)
    assert run.summary["assumptions"]["weights"] == {"xgb": 0.25, "lgbm": 0.25, "linear": 0.25}
    assert (run.summary["assumptions"]["models_expected"], run.stats()["models voting"]) == (5, "3 of 5")
    assert run.verify()["passed"]
    assert set(made.models.artefacts[-1].meta["importance"]["gain"]) == set(made.models.feature_names)
    older = research.train(bars, preset="tiny", n_folds=2, processes=1, profile="published")
    assert older.slots == ("xgb", "lgbm")


def test_who_votes_where_none_is_named():
    four = ["xgb", "lgbm", "nhits", "patchtst"]
    assert usual_models("default", [*four, "linear"]) == ((*four, "linear"), ())
    assert usual_models("published", [*four, "linear"]) == usual_models("original", four) == (tuple(four), ())
    chosen, told = usual_models("default", [*four, "linear", "forest"])
    assert chosen == (*four, "forest")
    says = "linear is left out: xgb, lgbm, nhits, patchtst and forest take the 5 places of voters"
    assert told == (f"{says}; name in run.models who votes to have it in the place of another",)
    with pytest.raises(InputError, match=r"profile .* must be one of default, published, original, was 'x'"):
        usual_models("x", four)
