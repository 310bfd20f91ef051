"""Do windows travel from training to predictions, schedule and engine, bar by bar, to the bit?"""

from itertools import pairwise

import numpy as np
import pytest

import qtcore as qt
from qtcore.types import DECISION_COLUMNS, MODELS
from research.training.models import schedule
from research.training.models.inputs import model_inputs
from research.training.models.schedule import ModelSet
from research.training.models.windows import complete
from research.training.predictions import Predictions
from research.training.walk_forward import retrain_fold, train
from tests.conftest import assert_same_bits, awkward_bars
from tests.research.training.test_train import with_new_future
from tests.support import PUBLISHED

BARS = awkward_bars(520, seed=0, n_symbols=3)
SLOTS = ("lgbm", "nhits", "patchtst")  # one that sees a row, two that see 24
L, FIRST, SECOND = 24, 208, 364  # rows of a window; first rows of the two folds
QUICK = {"models": SLOTS, "n_folds": 2, "preset": "tiny"}


@pytest.fixture(scope="module")
def made() -> Predictions:
    return train(BARS, processes=1, use_store=False, profile="published", **QUICK)


def test_exactly_the_complete_windows_are_predicted(made):
    assert made.notes == ()
    assert made.slots == SLOTS
    assert made.models.lookback == L
    usable = model_inputs(BARS, PUBLISHED).usable
    for slot, lookback in zip(SLOTS, (1, L, L)):
        want = complete(usable, lookback)
        want[:FIRST] = False
        assert ((made.action[MODELS.index(slot)] >= 0) == want).all(), slot
    counts = [int((made.action[MODELS.index(slot)] >= 0).sum()) for slot in SLOTS]
    assert 0 < counts[1] == counts[2] < counts[0]


def test_complete_windows_are_those_without_a_hole():
    usable = np.random.default_rng(0).random((200, 3)) > 0.05
    want = [[t >= 9 and bool(usable[t - 9 : t + 1, s].all()) for s in range(3)] for t in range(200)]
    assert complete(usable, 10).tolist() == want


def test_processes_change_no_bit(made):
    again = train(BARS, processes=2, use_store=False, profile="published", **QUICK | {"models": ("nhits",)})
    assert_same_bits(again.probs[2], made.probs[2])
    assert [a.hash for a in again.models.artefacts] == [a.hash for a in made.models.artefacts if a.slot == "nhits"]


def test_another_future_gives_the_same_networks(made):
    for fold, boundary in enumerate((FIRST, SECOND)):
        again = retrain_fold(with_new_future(BARS, boundary, seed=fold), made.models, fold)
        assert again == made.models.hashes(fold)
    wrong = retrain_fold(with_new_future(BARS, FIRST - 60, seed=5), made.models, 0)
    assert not set(wrong.items()) & set(made.models.hashes(0).items())


def test_the_stored_schedule_serves_the_predictions_bar_by_bar(made, tmp_path, monkeypatch):
    made.models.save(tmp_path)
    served = ModelSet.load(tmp_path)
    assert served.notes == ()
    inputs, told = model_inputs(BARS, PUBLISHED), []
    assert_same_bits(Predictions.from_models(served, BARS, progress=lambda *report: told.append(report)).probs, made.probs)
    assert told[:2] == [(0, 6, "predicting: lgbm, fold 1, 0%"), (1, 6, "predicting: nhits, fold 1, 0%")]
    monkeypatch.setattr(schedule, "SERVED", 7)  # the cells of several bars, cut anywhere
    assert_same_bits(served.serve(inputs.matrix, BARS.close_time, inputs.names), made.probs)
    for t in (FIRST, FIRST + 1, SECOND - 1, SECOND, SECOND + 5, 519):  # windows cross the folds
        one = served.serve(inputs.matrix[t - L + 1 : t + 1], BARS.close_time[t : t + 1])
        assert_same_bits(one[:, 0], np.ascontiguousarray(made.probs[:, t]))


def test_the_engine_asks_the_networks_bar_by_bar(made):
    whole = qt.Engine(made.models.params(), made.models).run(BARS)
    assert_same_bits(whole.votes.probs, made.probs)
    engine, parts = qt.Engine(made.models.params(), made.models), []
    edges = [0, 150, FIRST - 3, *range(FIRST, FIRST + 60), SECOND - 5, *range(SECOND, SECOND + 20), 520]
    for i, (a, b) in enumerate(pairwise(edges)):
        if i == 40:  # a restart within the windows
            state, engine = engine.state, qt.Engine(made.models.params(), made.models)
            engine.restore(state, BARS.symbols, BARS.interval)
        parts.append(engine.run(BARS[a:b]))
    for name in ("probs", "action", "confidence"):
        assert_same_bits(np.concatenate([getattr(part.votes, name) for part in parts], axis=1), getattr(whole.votes, name), name)
    for name in DECISION_COLUMNS:
        assert_same_bits(np.concatenate([getattr(part.decisions, name) for part in parts]), getattr(whole.decisions, name), name)
    assert_same_bits(np.concatenate([part.equity for part in parts]), whole.equity)


def test_metadata_tell_what_a_network_learned(made):
    for artefact in made.models.artefacts:
        if artefact.slot in SLOTS[1:]:
            assert artefact.meta["lookback"] == L
            assert "torch" in artefact.meta["libraries"]
            assert artefact.path.name.startswith(f"{artefact.slot}_v")
            assert artefact.path.suffix == ".safetensors"
