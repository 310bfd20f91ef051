"""Is training blind to the future, repeatable to the bit, and honest about what it could not do?"""

import dataclasses
import json
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qtcore.types import MODELS, Bars
from research.data import simulate
from research.data.facts import fingerprint
from research.errors import UserError
from research.training.labels import LABELS, Label, make_labels
from research.training.models.artefacts import FOREVER
from research.training.models.base import names_hash, register
from research.training.models.folder import LOSSES, SHARES
from research.training.models.inputs import model_inputs
from research.training.models.schedule import ModelSet
from research.training.plan import TrainingPlan
from research.training.predictions import Predictions
from research.training.walk_forward import prepare, retrain_fold, train
from tests.conftest import assert_same_bits, awkward_bars
from tests.support import PUBLISHED

BARS = awkward_bars(600, seed=0, n_symbols=4)
PARAMS = PUBLISHED


def quick(bars: Bars = BARS, **options) -> Predictions:
    return train(bars, profile="published", **({"models": ("lgbm",), "n_folds": 2, "processes": 1} | options))


@pytest.fixture(scope="module")
def both() -> Predictions:
    """Both models on three folds, in this process."""
    return train(BARS, n_folds=3, processes=1, profile="published")


def with_new_future(bars: Bars, row: int, seed: int) -> Bars:
    """Rewrite every bar from `row` on: another walk, other volumes, other holes."""
    rng = np.random.default_rng(seed)
    shape = (bars.n - row, len(bars.symbols))
    close = 50.0 * np.exp(np.cumsum(rng.normal(0.0, 0.05, shape), axis=0))
    new = {"open": close * 1.001, "high": close * 1.01, "low": close * 0.99, "close": close, "volume": rng.lognormal(3.0, 1.0, shape)}
    holes = rng.random(shape) < 0.05
    planes = {name: np.vstack([getattr(bars, name)[:row], np.where(holes, np.nan, plane)]) for name, plane in new.items()}
    return dataclasses.replace(bars, **planes)


def test_every_test_cell_is_predicted_once_and_nothing_else(both):
    usable = model_inputs(BARS, PARAMS).usable
    first = int(600 * 0.4)
    for m in (0, 1):
        said = both.action[m] >= 0
        assert not said[:first].any()
        assert (said[first:] == usable[first:]).all()  # an invalid row, and only that, is absent (D-13)
    assert both.fold.tolist() == [-1] * first + [k for k in range(3) for _ in range(120)]
    assert (both.action[2:] == -1).all()
    assert both.slots == MODELS[:2]
    assert not both.imported
    assert_same_bits(both.labels, make_labels(BARS, both.label)[0])
    assert both.label == LABELS["L1"]


def test_processes_and_repetitions_change_no_bit(both):
    again = train(BARS, n_folds=3, processes=2, profile="published")
    assert_same_bits(again.probs, both.probs)
    assert [a.hash for a in again.models.artefacts] == [a.hash for a in both.models.artefacts]
    other = train(BARS, n_folds=3, processes=1, seed=43, profile="published")
    assert [a.hash for a in other.models.artefacts] != [a.hash for a in both.models.artefacts]


def test_the_schedule_serves_the_predictions_again_one_bar_at_a_time(both):
    inputs = model_inputs(BARS, PARAMS)
    assert_same_bits(both.models.serve(inputs.matrix, BARS.close_time, inputs.names), both.probs)
    rows = [239, 240, 359, 360, 599]
    for t in rows:
        assert_same_bits(
            both.models.serve(inputs.matrix[t : t + 1], BARS.close_time[t : t + 1])[:, 0], np.ascontiguousarray(both.probs[:, t])
        )


def test_the_schedule_follows_the_folds_and_stays_valid_at_the_end(both):
    spans = [(a.fold, a.valid_from, a.valid_until) for a in both.models.artefacts if a.slot == "xgb"]
    close = BARS.close_time
    assert spans == [(0, close[240], close[360]), (1, close[360], close[480]), (2, close[480], FOREVER)]
    assert both.models.config["boundaries"] == [close[240], close[360], close[480]]


def test_training_again_reads_the_same_inputs(both):
    for fold in (0, 2):
        assert retrain_fold(BARS, both.models, fold) == both.models.hashes(fold)
    assert set(retrain_fold(BARS, both.models, 1, slots=("xgb",))) == {"xgb"}
    jump = np.where(np.arange(600)[:, None] == 100, 1.05, 1.0)
    changed = dataclasses.replace(BARS, high=BARS.high * jump, close=BARS.close * jump)
    assert retrain_fold(changed, both.models, 0)["lgbm"] != both.models.hashes(0)["lgbm"]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fold=st.integers(0, 2), seed=st.integers(0, 99))
def test_rewriting_every_bar_after_the_boundary_changes_no_artefact(fold, seed):
    """D-99, with the label and its percentiles chosen inside the training part."""
    made = _percentile_run()
    boundary = int(np.searchsorted(BARS.close_time, made.models.config["boundaries"][fold]))
    other = with_new_future(BARS, boundary, seed)
    assert retrain_fold(other, made.models, fold) == made.models.hashes(fold)


_KEPT: list[Predictions] = []


def _percentile_run() -> Predictions:
    if not _KEPT:
        _KEPT.append(quick(label="L4", n_folds=3))
    return _KEPT[0]


def test_predictions_before_a_changed_bar_stay(both):
    other = train(with_new_future(BARS, 500, 3), n_folds=3, processes=1, profile="published")
    assert_same_bits(np.ascontiguousarray(other.probs[:, :500]), np.ascontiguousarray(both.probs[:, :500]))
    assert_same_bits(other.models.artefacts[-1].hash, both.models.artefacts[-1].hash)


def test_percentiles_are_those_of_each_fold():
    made = _percentile_run()
    assert made.label == LABELS["L4"]
    plan = TrainingPlan(**made.models.config["plan"])
    prepared = prepare(BARS, plan)
    for fold, thresholds in zip(prepared.folds, prepared.thresholds):
        want = make_labels(BARS, "L4", thresholds)[0]
        assert (made.labels[fold.test] == want[fold.test]).all()
        stored = made.models.config["thresholds"][fold.number]
        assert [stored["buy"][symbol] for symbol in BARS.symbols] == thresholds[1].tolist()
    low = [thresholds[0][0] for thresholds in prepared.thresholds]
    assert len(set(low)) == 3


def test_auto_settles_the_label_on_the_first_training_part():
    calm = dataclasses.replace(BARS, **{name: 100.0 + (getattr(BARS, name) - 100.0) * 1e-4 for name in ("open", "high", "low", "close")})
    late = {name: np.vstack([getattr(calm, name)[:300], getattr(BARS, name)[300:]]) for name in ("open", "high", "low", "close")}
    assert quick(calm).label.id == "L4"
    assert quick(dataclasses.replace(calm, **late)).label.id == "L4"  # the moves come after the first training part


def test_saved_models_give_the_same_predictions(both, tmp_path):
    out = tmp_path / "models"
    made = quick(out=out)
    assert sorted(p.name for p in out.iterdir()) == ["fold_00", "fold_01", "predictions.parquet", "schedule.json"]
    again = Predictions.from_models(out, BARS)
    for name in ("probs", "action", "confidence", "fold"):
        assert_same_bits(getattr(again, name), getattr(made, name), name)
    assert (again.labels[240:] == made.labels[240:]).all()
    assert again.label == made.label
    stored = Predictions.load(out / "predictions.parquet")
    assert_same_bits(stored.probs, made.probs)
    part = Predictions.from_models(out, BARS[200:])  # fewer bars before: recursions start later, the schedule stays
    assert (part.fold == made.fold[200:]).all()
    assert retrain_fold(BARS, ModelSet.load(out), 0) == made.models.hashes(0)
    with pytest.raises(UserError, match=r"features.bb_ddof must be 1 as when the models were trained, was 0; train again"):
        Predictions.from_models(out, BARS, PARAMS.with_values({"features.bb_ddof": 0}))
    Predictions.from_models(out, BARS, PARAMS.with_values({"features.feature_set": "v5"}))
    (out / "schedule.json").unlink()
    latest = Predictions.from_models(out, BARS)  # the last fold's artefact alone, on the bars that it was not fitted on
    assert_same_bits(np.ascontiguousarray(latest.probs[:, 420:]), np.ascontiguousarray(made.probs[:, 420:]))
    assert np.isnan(latest.probs[:, :420]).all()
    assert (latest.labels == made.labels).all()


def test_metadata_say_what_a_model_is(both):
    meta = both.models.artefacts[1].meta
    assert meta["slot"] == "lgbm"
    assert meta["version"] == f"v{meta['timestamp']}_v5"
    assert meta["features"] == list(both.models.feature_names)
    assert meta["feature_hash"] == names_hash(both.models.feature_names)
    assert meta["class_mapping"] == {"SELL": 0, "HOLD": 1, "BUY": 2}
    assert meta["params"]["learning_rate"] == 0.05
    assert meta["split"]["rows"] == {"fit": 204 - 10, "valid": 36 - 10, "test": 120, "purged": 20}
    assert meta["split"]["cells"]["fit"] == sum(meta["fit_counts"])
    assert 1.0 <= meta["split"]["cells"]["fit"] / meta["split"]["fit_cells_effective"] < 5.0  # five labels share a bar, holes free some
    assert meta["label"] == LABELS["L1"].to_dict()
    assert meta["synthetic"] is False
    assert meta["data_fingerprint"] == fingerprint(BARS)
    assert meta["seed"] == 42
    assert set(meta["libraries"]) >= {"numpy", "lightgbm"}
    assert meta["status"] in ("accepted", "unskilled", "rejected")
    assert {*SHARES, *LOSSES, "log_loss_gain", "direction_ci95", "regime_accuracy"} <= set(meta)
    assert any("fewer than 1000" in text for text in meta["warnings"])
    assert any(text.startswith("lgbm, fold 1: ") for text in both.models.warnings)
    assert [row["model"] for row in both.models.table()] == ["xgb", "lgbm"] * 3
    json.dumps(meta, allow_nan=False)


def test_a_fold_that_lacks_a_class_has_no_model():
    close = np.where((np.arange(600)[:, None] < 250) & ~np.isnan(BARS.close), 1.02 ** np.arange(600)[:, None] * np.ones(4), BARS.close)
    rising = dataclasses.replace(BARS, open=close, high=close, low=close, close=close)
    made = quick(rising, label="L1", n_folds=3)
    assert made.notes[0].startswith("lgbm is absent in fold 1: training rows must hold every class, 363 were without SELL, HOLD")
    assert (made.action[1, made.fold == 0] == -1).all()
    assert (made.action[1, made.fold == 2] >= 0).any()
    assert made.models.hashes(0) == {}
    assert retrain_fold(rising, made.models, 0) == {}


def test_max_train_rows_keeps_the_most_recent_and_says_so():
    made = quick(max_train_rows=300)
    meta = made.models.artefacts[0].meta
    assert meta["split"]["cells"]["fit"] == 300
    assert meta["split"]["max_train_rows"] == 300
    assert "fitted on the 300 most recent training rows only" in meta["warnings"]
    early = dataclasses.replace(BARS, volume=np.where(np.arange(600)[:, None] < 20, BARS.volume * 3.0, BARS.volume))
    assert retrain_fold(early, made.models, 1) == made.models.hashes(1)


def test_progress_is_told_and_nothing_is_printed(capfd):
    seen = []
    quick(progress=lambda done, total, text: seen.append((done, total, text)))
    assert [(done, total) for done, total, _ in seen] == [(0, 2), (1, 2), (2, 2)]
    assert seen[1][2].startswith("training: lgbm, fold 2 done")  # the longer one first
    assert capfd.readouterr() == ("", "")


def test_rolling_training_forgets_the_beginning():
    made = quick(is_rolling=True, n_folds=3)
    assert made.models.artefacts[2].meta["split"]["kind"] == "walk_forward, rolling"
    changed = dataclasses.replace(BARS, volume=np.where(np.arange(600)[:, None] < 50, BARS.volume * 3.0, BARS.volume))
    assert retrain_fold(changed, made.models, 2) == made.models.hashes(2)


def test_one_split_and_a_schedule_of_retraining():
    made = quick(split="single_split")
    (meta,) = [a.meta for a in made.models.artefacts]
    assert meta["split"]["kind"] == "single_split"
    assert (made.fold == 0).sum() == 90  # the last 15 %
    assert retrain_fold(BARS, made.models, 0) == made.models.hashes(0)
    weekly = quick(retrain_every="6d", preset="tiny")
    assert np.diff(np.flatnonzero(np.diff(weekly.fold))).tolist() == [144, 144]
    assert retrain_fold(BARS, weekly.models, 2) == weekly.models.hashes(2)
    assert len(quick(preset="fast", n_folds=None).models.artefacts) == 6


def test_embargo_and_own_label():
    own = Label("mine", 3, -0.01, 0.01)
    made = quick(label=own, embargo=0, n_folds=1)
    assert made.label == own
    assert made.models.artefacts[0].meta["split"]["embargo_rows"] == 0
    assert retrain_fold(BARS, made.models, 0) == made.models.hashes(0)
    assert quick(label="L10", n_folds=1).label.buy > 0.0


OWN_MODEL = '''
import json
import numpy as np
from research.training.models.base import ModelAbsentError

class Majority:
    """Answers the shares of the training labels, always."""
    slot, stem, suffix = "tft", "majority", ".json"

    def __init__(self, feature_names, preset):
        self.feature_names, self.preset = feature_names, preset

    def fit(self, rows, labels, valid_rows, valid_labels, seed):
        self.shares = np.bincount(labels, minlength=3) / len(labels)

    def predict_proba(self, matrix):
        return np.tile(self.shares, (len(matrix), 1))

    def save(self, path):
        path.write_text(json.dumps(self.shares.tolist()))
        path.with_name(f"{path.stem}_scaler.json").write_text("{}")

    def load(self, path):
        self.shares = np.array(json.loads(path.read_text()))
        return self

    def params(self):
        return {"preset": self.preset}
'''


@pytest.mark.parametrize("processes", [1, 2])
def test_a_researchers_own_model_takes_a_slot(processes, tmp_path, monkeypatch):
    (tmp_path / "own_model.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("research.training.models.base._REGISTRY", {"lgbm": "research.training.models.lightgbm:LightGBM"})
    register("tft", "own_model:Majority")
    made = quick(models=("tft", "lgbm"), processes=processes)
    sys.modules.pop("own_model", None)
    assert made.slots == ("lgbm", "tft")
    shares = made.probs[4, 300][~np.isnan(made.probs[4, 300, :, 0])]
    assert (shares == shares[0]).all()
    assert made.models.artefacts[1].path.name.startswith("majority_v")


def test_train_tells_a_mistake_in_a_sentence():
    for options, match in (
        ({"models": ("xgb", "oracle")}, "models must be among .* was 'oracle'"),
        ({"models": ()}, "models must be one or more different names"),
        ({"models": ("xgb", "xgb")}, "models must be one or more different names"),
        ({"label": "L77"}, "must be auto, L1"),
        ({"preset": "slow"}, r"preset \(--preset\) must be one of default, published, original, fast, tiny, was 'slow'"),
        ({"shuffle": True}, "splits must keep the order of time, was run.shuffle=true; neighbouring labels share bars"),
        ({"split": "random"}, "split must be one of walk_forward, single_split, was 'random'"),
        ({"retrain_every": "often"}, "retrain_every must be rows such as 168 or a length of time such as 7d, was 'often'"),
        ({"bars": BARS[:60]}, "load a longer period or use fewer folds"),
        ({"bars": BARS[:1]}, "load a longer period or use fewer folds"),
    ):
        with pytest.raises(UserError, match=match):
            quick(**options)


def direction_z(made: Predictions, slot: str) -> tuple[float, float]:
    """Direction accuracy (D-92) and its distance from 1/2 in standard errors, from blocks of 40 rows of all symbols."""
    p = made.probs[MODELS.index(slot)]
    lean = p[..., 2] - p[..., 0]
    counts = (made.labels >= 0) & (made.labels != 1) & (np.abs(lean) > 0.0)
    right = counts & ((lean > 0.0) == (made.labels == 2))
    blocks = np.arange(made.n) // 40
    n, hits = (np.bincount(blocks, cells.sum(axis=1).astype(float)) for cells in (counts, right))
    accuracy = hits.sum() / n.sum()
    return accuracy, (accuracy - 0.5) / (np.sqrt(np.sum((hits - accuracy * n) ** 2)) / n.sum())


def test_a_random_walk_has_no_direction_quick():
    """T-1: on driftless noise, walk-forward training finds nothing (three standard errors, a fixed seed)."""
    made = quick(simulate("random_walk", seed=11, n_bars=1500, n_symbols=4))
    accuracy, z = direction_z(made, "lgbm")
    assert z < 3.0, accuracy


def test_a_planted_edge_is_found_quick():
    made = quick(simulate("planted_edge", seed=1, n_bars=2000, n_symbols=4, accuracy=0.7))
    accuracy, z = direction_z(made, "lgbm")
    assert accuracy > 0.6
    assert z > 4.0


@pytest.mark.slow
def test_random_walks_have_no_direction():
    """T-1 over many worlds and both models: the mean distance is within three of its standard errors, which the worlds themselves show."""
    worlds = [
        train(simulate("random_walk", seed=200 + seed, n_bars=3000, n_symbols=4), n_folds=4, profile="published") for seed in range(36)
    ]
    for slot in ("xgb", "lgbm"):
        z = [direction_z(made, slot)[1] for made in worlds]
        assert np.mean(z) * np.sqrt(len(z)) < 3.0 * np.std(z, ddof=1), z
