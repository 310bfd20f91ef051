"""Are trees of a number fitted, stored and served as those of classes are, and are their probabilities those of the residuals?"""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import research
from research.errors import UserError
from research.training.labels import Label, get_label, look_ahead
from research.training.models.base import ModelAbsentError, make_model, model_target, scaler_path
from research.training.models.residuals import KNOTS, Residuals
from research.training.walk_forward import retrain_fold
from tests.support import PUBLISHED

TREES = ("xgb", "lgbm")
NAMES = ("a", "b", "c")


def fitted(name: str, n: int = 4_000, seed: int = 0):
    """A model of a number that is half known: 0.5 a + noise, where volatility is 1."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, 3)).astype(np.float32)
    values = 0.5 * rows[:, 0].astype(np.float64) + rng.standard_normal(n)
    model = make_model(model_target(name), NAMES, "tiny")
    half = n // 2
    model.fit_score(rows[:half].copy(), values[:half], rows[half:].copy(), values[half:], (-0.43, 0.43), 1)
    return model, rows, values


@given(st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=40), st.lists(st.floats(-6.0, 6.0), min_size=1, max_size=20))
@settings(max_examples=150, deadline=None)
def test_probabilities_are_shares_of_residuals_beyond_the_limits(off, scores):
    made = Residuals.fit(np.array(off), -0.5, 0.7)
    probs = made.probs(np.array(scores))
    assert (probs >= 0.0).all()
    assert probs.sum(axis=1) == pytest.approx(1.0)
    for score, row in zip(scores, probs):
        for limit, share in ((-0.5, row[0]), (0.7, 1.0 - row[2])):
            below, upto = (np.mean([compare(score + r, limit) for r in made.knots]) for compare in (np.less, np.less_equal))
            assert below - 1.5 / KNOTS <= share <= upto + 1.5 / KNOTS
        assert made.probs(np.array([score])).tobytes() == row.tobytes()
    order = np.argsort(scores, kind="stable")
    assert (np.diff((probs[:, 2] - probs[:, 0])[order]) >= -1e-12).all()
    again = Residuals.from_dict(json.loads(json.dumps(made.to_dict())))
    assert again.probs(np.array(scores)).tobytes() == probs.tobytes()


@pytest.mark.parametrize("name", TREES)
def test_a_tree_of_a_number_knows_it_and_says_honest_probabilities(name):
    model, _, _ = fitted(name)
    later = np.random.default_rng(9)
    fresh = later.standard_normal((4_000, 3)).astype(np.float32)
    came = 0.5 * fresh[:, 0].astype(np.float64) + later.standard_normal(4_000)
    probs = model.predict_proba(fresh)
    assert np.corrcoef(probs[:, 2] - probs[:, 0], came)[0, 1] > 0.35
    for side, hit in ((0, came < -0.43), (2, came > 0.43)):
        for third in np.array_split(np.argsort(probs[:, side]), 3):
            assert probs[third, side].mean() == pytest.approx(hit[third].mean(), abs=0.05)
    assert max(model.gains(), key=model.gains().get) == "a"
    told = model.params()
    assert told["probabilities"] == "residuals of the score on 2000 cells of the validation slice"
    assert told["class_weights"] == "none"


@pytest.mark.parametrize("name", TREES)
def test_what_is_stored_answers_with_the_same_bits_row_by_row_and_damage_is_refused(name, tmp_path):
    model, rows, _ = fitted(name)
    path = tmp_path / f"model{model.suffix}"
    model.save(path)
    loaded = make_model(model_target(name), NAMES, "tiny").load(path)
    probs = model.predict_proba(rows[:50].copy())
    assert loaded.predict_proba(rows[:50].copy()).tobytes() == probs.tobytes()
    assert np.concatenate([loaded.predict_proba(rows[i : i + 1].copy()) for i in range(50)]).tobytes() == probs.tobytes()
    told = json.loads(scaler_path(path).read_text())
    for wrong in ({**told["residuals"], "knots": told["residuals"]["knots"][::-1]}, {**told["residuals"], "low": 1.0}, None):
        damaged = {k: v for k, v in told.items() if k != "residuals"} | ({} if wrong is None else {"residuals": wrong})
        scaler_path(path).write_text(json.dumps(damaged))
        with pytest.raises(ModelAbsentError):  # without residuals its trees are no trees of classes
            make_model(model_target(name), NAMES, "tiny").load(path)


def test_a_training_on_forward_returns_is_proven_and_its_fits_know_the_numbers(tmp_path):
    bars = research.load_bars("simulated:macd?n_bars=1600&n_symbols=3&pull=0.3")
    made = research.train(bars, (*TREES, "linear"), "FR", PUBLISHED, preset="tiny", n_folds=2, out=tmp_path / "models")
    metas = {a.slot: a.meta for a in made.models.artefacts if a.fold == 1}
    assert all(metas[name]["params"]["probabilities"].startswith("residuals of the score on") for name in TREES)
    assert "probabilities" not in metas["linear"]["params"]  # it has no such head and learns the classes
    lean = made.probs[made.names.index("lgbm")]
    ahead = look_ahead(bars, get_label("FR"))[0]
    known = ~np.isnan(lean).any(axis=-1) & ~np.isnan(ahead)
    assert np.corrcoef((lean[..., 2] - lean[..., 0])[known], ahead[known])[0, 1] > 0.1
    again = research.train(bars, (*TREES, "linear"), "FR", PUBLISHED, preset="tiny", n_folds=2)
    assert again.models.n_stored == 6
    assert again.probs.tobytes() == made.probs.tobytes()
    classes = research.train(bars, TREES, replace(get_label("FR"), is_score=False), PUBLISHED, preset="tiny", n_folds=2)
    assert classes.models.n_stored == 0
    first = int(np.argmax(made.fold == 1))
    factor = np.where(np.arange(bars.n)[:, None] >= first, np.exp(0.01 * np.arange(bars.n))[:, None], 1.0)
    other = replace(bars, **{name: getattr(bars, name) * factor for name in ("open", "high", "low", "close")})
    assert retrain_fold(other, made.models, 1) == made.models.hashes(1)
    run = research.backtest(bars, research.Predictions.from_models(tmp_path / "models", bars), PUBLISHED)
    assert not [check for check in run.verify()["checks"] if not check["passed"]]


@pytest.mark.parametrize("more", [{"is_percentile": True}, {"unit": "barrier", "sell": -1.0, "buy": 1.0}, {"sell": 0.5, "buy": 0.5}])
def test_labels_of_a_number_need_fixed_thresholds(more):
    with pytest.raises(UserError, match="a label of a score must have thresholds sell < buy"):
        Label(**{"id": "mine", "horizon": 4, "sell": -0.4, "buy": 0.4, "unit": "volatility", "is_score": True} | more)
