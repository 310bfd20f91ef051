"""Are calibrated probabilities better, the same bits alone and in company, and repeatable? And what does a model look at?"""

import json

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from research.errors import UserError
from research.training.models.base import make_model, model_target, scaler_path
from research.training.models.calibration import KINDS, Calibration, calibrated, fit_calibration
from research.training.models.importance import permutation
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from research.training.walk_forward import retrain_fold, train
from tests.conftest import assert_same_bits, awkward_bars

BARS = awkward_bars(600, seed=0, n_symbols=4)
NAMES = ("alpha", "beta", "gamma")
FITTED = ("temperature", "vector")


def world(n: int = 6_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Honest probabilities [n, 3], labels drawn from them, and what a model says that was trained with weights and is too sure."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0.0, 0.7, (n, 3)) + np.log([0.15, 0.7, 0.15])
    honest = softmax(z, axis=1)
    labels = np.array([rng.choice(3, p=p) for p in honest]).astype(np.int8)
    weights = np.array([2.2, 0.5, 2.2])
    return honest, labels, softmax(1.8 * np.log(honest * weights), axis=1)


def test_calibration_of_each_kind_mends_what_it_says():
    honest, labels, said = world()
    weights = np.array([2.2, 0.5, 2.2])
    made = {kind: fit_calibration(kind, said, labels, weights) for kind in KINDS[1:]}
    loss = {kind: log_loss(labels, c.apply(said)) for kind, c in made.items()}
    best, none = log_loss(labels, honest), log_loss(labels, said)
    assert loss["vector"] < loss["temperature"] < none
    assert loss["vector"] < best + 0.002
    assert abs(made["vector"].scale - 1.0 / 1.8) < 0.05
    assert (np.argmax(made["temperature"].apply(said), axis=1) == np.argmax(said, axis=1)).all()
    assert made["temperature"].scale < 1.0
    weighted = softmax(np.log(honest * weights), axis=1)
    np.testing.assert_allclose(made["prior"].apply(weighted), honest, rtol=1e-12)


@pytest.mark.parametrize("kind", FITTED)
def test_the_fit_is_the_minimum_and_repeats(kind):
    _, labels, said = world(2_000, seed=3)
    made = fit_calibration(kind, said, labels, np.ones(3))
    assert fit_calibration(kind, said, labels, np.ones(3)) == made
    least = log_loss(labels, made.apply(said))
    for scale in (0.97, 1.03):
        assert log_loss(labels, Calibration(kind, made.scale * scale, made.factors).apply(said)) > least
    if kind == "vector":
        f = made.factors
        for other in ((f[0] * 1.05, 1.0, f[2]), (f[0], 1.0, f[2] / 1.05)):
            assert log_loss(labels, Calibration(kind, made.scale, other).apply(said)) > least
    else:
        assert made.factors == (1.0, 1.0, 1.0)


def test_one_row_has_the_bits_of_all_and_extremes_stay_finite():
    made = Calibration("vector", 0.61, (1.7, 1.0, 0.4))
    said = np.vstack([world(300)[2], [[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1 / 3, 1 / 3, 1 / 3]]])
    whole = made.apply(said)
    assert_same_bits(np.vstack([made.apply(said[i : i + 1]) for i in range(len(said))]), whole)
    assert np.isfinite(whole).all()
    np.testing.assert_allclose(whole.sum(axis=1), 1.0, atol=1e-15)
    np.testing.assert_allclose(whole[:300], softmax(0.61 * np.log(said[:300]) + np.log([1.7, 1.0, 0.4]), axis=1), rtol=1e-13)


def test_a_calibration_is_stored_and_read_back_or_refused():
    made = Calibration("vector", 0.1 + 0.2, (1 / 3, 1.0, 1e-3))
    assert Calibration.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    for wrong in ({"scale": -1.0}, {"factors": [1.0, 1.0]}, {"kind": "magic"}, {"factors": [1.0, 0.0, 1.0]}, {"scale": float("nan")}):
        with pytest.raises(ValueError, match="calibration must be"):
            Calibration.from_dict(made.to_dict() | wrong)
    with pytest.raises(UserError, match="calibration must be one of none, prior, temperature, vector, was 'magic'"):
        train(BARS, models=("lgbm",), calibration="magic", profile="published")


def quick(**options) -> Predictions:
    return train(BARS, profile="published", **({"models": ("xgb", "lgbm"), "n_folds": 2, "processes": 1, "preset": "tiny"} | options))


@pytest.mark.parametrize("kind", FITTED)
def test_training_calibrates_on_the_validation_slice_and_serving_repeats_it(kind, tmp_path):
    plain, made = quick(), quick(calibration=kind, out=tmp_path / "m")
    for a, b in zip(plain.models.artefacts, made.models.artefacts):
        assert b.meta["calibration"]["kind"] == kind
        assert json.loads(scaler_path(b.path).read_text())["calibration"] == b.meta["calibration"]
        assert a.path.read_bytes() == b.path.read_bytes()  # the model itself is the same
        assert a.hash != b.hash
    assert plain.models.artefacts[0].meta["calibration"] is None
    assert not np.array_equal(plain.probs[0], made.probs[0], equal_nan=True)
    if kind == "temperature":
        assert (plain.action == made.action).all()
    again = Predictions.from_models(ModelSet.load(tmp_path / "m"), BARS)
    assert_same_bits(again.probs, made.probs)
    assert retrain_fold(BARS, made.models, 1) == made.models.hashes(1)
    altered = scaler_path(made.models.artefacts[0].path)
    altered.write_text(altered.read_text().replace('"scale"', '"scales"'))
    assert "was altered" in ModelSet.load(tmp_path / "m").notes[0]


def test_a_model_without_a_calibration_serves_what_it_says():
    probs = world(10)[2]
    assert calibrated(object(), probs) is probs


# ------------------------------------------------------------------ importance and learning curves


def fitted(slot: str):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1_500, 3)).astype(np.float32)
    y = np.digitize(x[:, 1] + rng.normal(0.0, 0.5, 1_500), [-0.6, 0.6]).astype(np.int8)
    model = make_model(model_target(slot), NAMES, "tiny")
    model.fit(x[:900].copy(), y[:900], x[900:1_200].copy(), y[900:1_200], 42)
    return model, x[1_200:], y[1_200:]


@pytest.mark.parametrize("slot", ["xgb", "lgbm"])
def test_what_matters_is_found_by_gain_and_by_permutation(slot):
    model, x, y = fitted(slot)
    gains = model.gains()
    assert tuple(gains) == NAMES
    assert abs(sum(gains.values()) - 1.0) < 1e-5
    assert gains["beta"] > 0.8
    known = np.where(np.arange(300) % 7 == 0, -1, y).astype(np.int8)
    ask = (model.predict_proba, x, known, np.arange(300), 5, NAMES, 4, 42)
    drops = permutation(*ask)
    assert drops["beta"] > 0.2 > max(abs(drops["alpha"]), abs(drops["gamma"]))
    assert permutation(*ask) == drops
    assert permutation(*ask[:-1], 43) != drops
    assert permutation(model.predict_proba, x, np.full(300, -1, np.int8), np.arange(300), 5, NAMES, 4, 42) == {}


def test_values_move_in_blocks_within_their_symbol():
    cells = np.arange(4_000)  # 1,000 rows of 4 symbols
    x = np.stack([cells % 4, cells // 4], axis=1).astype(np.float32)
    seen = []

    def watch(matrix):
        seen.append(matrix.copy())
        return np.tile([0.2, 0.5, 0.3], (len(matrix), 1))

    permutation(watch, x, np.ones(4_000, np.int8), cells, 4, ("symbol", "row"), 10, 0)
    assert (seen[1] == x).all()  # a symbol keeps its own values
    moved = seen[2][:, 1].reshape(1_000, 4)
    assert (np.diff(moved.reshape(100, 10, 4), axis=1) == 1.0).all()
    assert (moved != x[:, 1].reshape(1_000, 4)).mean() > 0.9


def test_the_cost_of_asking_is_bounded():
    asked = []
    cells = np.arange(60_000)

    def watch(matrix):
        asked.append(len(matrix))
        return np.tile([0.2, 0.5, 0.3], (len(matrix), 1))

    permutation(watch, np.zeros((60_000, 1), np.float32), np.ones(60_000, np.int8), cells, 20, ("one",), 5, 0)
    assert max(asked) <= 4_000
    assert min(asked) > 3_000


def test_metadata_hold_curves_and_importance_whatever_the_number_of_processes():
    one, two = quick(), quick(processes=2, use_store=False)
    for a, b in zip(one.models.artefacts, two.models.artefacts):
        for name in ("history", "importance"):
            assert a.meta[name] == b.meta[name]
        curves = a.meta["history"]
        assert curves["best"] == a.meta["params"]["rounds"] - 1 == int(np.argmin(curves["valid"]))
        assert len(curves["train"]) == len(curves["valid"])
        assert curves["train"][-1] < curves["train"][0]
        assert set(a.meta["importance"]["gain"]) == set(a.meta["importance"]["permutation"]) == set(one.models.feature_names)
        json.dumps(a.meta, allow_nan=False)
