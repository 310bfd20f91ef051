"""Does the volatility baseline answer what its training rows say, and never look ahead?"""

from types import SimpleNamespace

import numpy as np
import pytest

from qtcore import Bars
from research.data import simulate
from research.training.labels import Label
from research.training.plan import TrainingPlan
from research.training.predictions import Predictions
from research.training.scoring.baseline import MEMORY, Baseline, out_of_sample, seen
from research.training.scoring.bootstrap import Bootstrap
from research.training.scoring.opinions import Opinion, blocks, tally
from research.training.walk_forward import prepare, train
from tests.naive import evidence as naive


@pytest.fixture(scope="module")
def bars() -> Bars:
    return simulate("random_walk", seed=4, n_bars=900, n_symbols=3)


@pytest.fixture(scope="module")
def predictions(bars) -> Predictions:
    return train(bars, ("lgbm",), "L1", preset="tiny", n_folds=3, use_store=False, processes=1)


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_those_of_a_plain_loop(seed):
    rng = np.random.default_rng(seed)
    volatility, move, labels = rng.random(400), rng.integers(-1, 2, 400) * rng.random(400), rng.integers(-1, 3, 400).astype(np.int8)
    volatility[::7] = np.nan
    made = Baseline.fit(volatility, move, labels)
    known = volatility[(labels >= 0) & ~np.isnan(volatility)]
    assert [np.mean(known < edge) for edge in made.edges] == pytest.approx([1 / 3, 2 / 3], abs=0.01)
    np.testing.assert_allclose(made.shares, naive.baseline_shares(volatility, move, labels, made.edges), rtol=1e-12)
    probs = made.probs(volatility, move)
    assert probs[0].tolist() == list(made.shares[9])  # of an unknown volatility
    third = int(volatility[1] >= made.edges[0]) + int(volatility[1] >= made.edges[1])
    assert probs[1].tolist() == list(made.shares[third * 3 + int(np.sign(move[1])) + 1])


def test_an_empty_bin_answers_what_all_cells_say():
    made = Baseline.fit(np.array([1.0, 2.0, 3.0]), np.ones(3), np.array([0, 1, 1], np.int8))
    assert made.shares[0] == pytest.approx((1 / 3, 2 / 3, 0.0))  # never a fall at the lowest volatility
    assert Baseline.from_dict({"edges": list(made.edges), "shares": [list(row) for row in made.shares]}) == made
    assert np.isfinite(Baseline.fit(np.full(4, np.nan), np.zeros(4), np.full(4, -1, np.int8)).shares).all()


def test_trailing_volatility_is_that_of_the_last_moves_and_sees_no_later_one(bars):
    close = bars.close.copy()
    close[300, 1] = np.nan
    volatility, move = seen(close)
    returns = np.diff(np.log(close[:, 0]))
    assert move[1:, 0] == pytest.approx(returns)
    assert volatility[500, 0] == pytest.approx(np.sqrt(np.mean(returns[500 - MEMORY : 500] ** 2)))
    assert np.isnan(volatility[:MEMORY]).all()
    assert np.isfinite(volatility[MEMORY]).all()
    assert move[300, 1] == 0.0  # a hole keeps its price
    later = close.copy()
    later[600:] *= 1.1
    assert np.array_equal(seen(later)[0][:600], volatility[:600], equal_nan=True)
    assert np.isnan(seen(close[:10])[0]).all()


def test_a_training_stores_the_baseline_of_each_fold_and_scores_it_as_it_does_models(bars, predictions):
    prepared = prepare(bars, TrainingPlan(**predictions.models.config["plan"]))
    answers = out_of_sample(bars, predictions)
    volatility, move = seen(bars.close)
    for fold, artefact in zip(prepared.folds, predictions.models.artefacts):
        fitted = Baseline.fit(volatility[fold.train], move[fold.train], prepared.labels[fold.number][fold.train])
        assert fitted == prepared.baselines[fold.number] == Baseline.from_dict(predictions.models.config["baselines"][fold.number])
        assert np.array_equal(answers.probs[fold.test], fitted.probs(volatility[fold.test], move[fold.test]))
        y, said = predictions.labels[fold.test], answers.action[fold.test]
        known = (y >= 0) & (predictions.action[1][fold.test] >= 0)
        assert artefact.meta["volatility_baseline"] == pytest.approx(np.mean((said == y)[known]))
        right = np.take_along_axis(answers.probs[fold.test], np.maximum(y, 0)[..., None].astype(int), axis=-1)[..., 0]
        assert artefact.meta["volatility_log_loss"] == pytest.approx(-np.mean(np.log(right[known])))
    assert (answers.action[predictions.fold < 0] == -1).all()


def test_predictions_without_models_are_compared_with_what_their_past_knew(bars, predictions):
    bare = SimpleNamespace(models=None, fold=predictions.fold, labels=predictions.labels, label=predictions.label)
    answers = out_of_sample(bars, bare)
    assert (answers.action >= 0).all(axis=1).tolist() == (predictions.fold >= 0).tolist()
    changed = predictions.labels.copy()
    changed[predictions.fold >= 1] = 0
    other = out_of_sample(bars, SimpleNamespace(models=None, fold=predictions.fold, labels=changed, label=predictions.label))
    assert np.array_equal(other.probs[predictions.fold == 0], answers.probs[predictions.fold == 0])
    imported = Predictions.random(bars)
    assert 0.5 < np.mean(out_of_sample(bars, imported).action >= 0) < 0.7  # the first 40 % have no past
    few = SimpleNamespace(models=None, fold=np.full(3, -1), labels=imported.labels[:3], label=Label("L1", 5, 0.0, 0.0))
    assert (out_of_sample(bars[:3], few).action == -1).all()


def test_it_stands_beside_every_opinion_on_the_same_cells():
    rng = np.random.default_rng(0)
    labels, action = rng.integers(-1, 3, (2, 200, 3)).astype(np.int8)
    said, base = Opinion(action, np.full(action.shape, 0.5)), Opinion(rng.integers(-1, 3, (200, 3)).astype(np.int8), np.full((200, 3), 0.6))
    counted = tally(said, labels, np.zeros(labels.shape, np.int8), 1, base)
    block = blocks(counted, Bootstrap(200, 5.0), slice(0, 200), np.ones((1, 1)), ("total",))["total"]
    both = (labels >= 0) & (action >= 0) & (base.action >= 0)
    hit = (base.action == labels)[both]
    assert block["volatility_accuracy"] == pytest.approx(hit.mean())
    assert block["volatility_log_loss"] == pytest.approx(-np.mean(np.log(np.where(hit, 0.6, 0.2))))
