"""Do the base models keep their protocol: same bits alone and in a batch, same hash when fitted again, absent rather than wrong?"""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, log_loss
from sklearn.preprocessing import StandardScaler
from sklearn.utils.class_weight import compute_class_weight

from qtcore.types import MODELS
from research.errors import ModelError, UserError
from research.training.models.artefacts import FOREVER
from research.training.models.base import (
    PRESETS,
    ModelAbsentError,
    Scaler,
    asked,
    check_names,
    class_weights,
    make_model,
    model_target,
    names_hash,
    register,
    scaler_path,
)
from research.training.models.schedule import Artefact, ModelSet, artefact_hash
from research.training.models.scores import score
from research.training.models.worker import run_jobs
from tests.conftest import assert_same_bits

NAMES = ("alpha", "beta", "gamma", "delta")
SLOTS = ("xgb", "lgbm")
BY_ROW = (*SLOTS, "linear")


def rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of which the first says something about the class."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, 1.0, (n, 4)).astype(np.float32) * np.float32([1.0, 100.0, 1e-4, 1.0])
    noise = x[:, 0] + rng.normal(0.0, 0.7, n)
    return x, np.where(noise > 0.6, 2, np.where(noise < -0.6, 0, 1)).astype(np.int8)


def fitted(slot: str, preset: str = "default", seed: int = 42):
    model = make_model(model_target(slot), NAMES, preset)
    model.fit(*rows(1200), *rows(400, 1), seed)
    return model


@pytest.mark.parametrize("slot", BY_ROW)
def test_one_row_gives_the_bits_of_the_batch_and_so_does_the_stored_model(slot, tmp_path):
    model, x = fitted(slot), rows(300, 7)[0]
    batch = model.predict_proba(x)
    assert batch.dtype == np.float64
    assert batch.shape == (300, 3)
    np.testing.assert_allclose(batch.sum(axis=1), 1.0, atol=1e-6)  # xgboost answers in float32
    assert_same_bits(np.vstack([model.predict_proba(x[i : i + 1]) for i in range(300)]), batch)
    assert_same_bits(np.vstack([model.predict_proba(x[:17]), model.predict_proba(x[17:])]), batch)
    path = tmp_path / f"m{model.suffix}"
    model.save(path)
    again = make_model(model_target(slot), NAMES).load(path)
    assert_same_bits(again.predict_proba(x), batch)
    again.save(tmp_path / f"again{model.suffix}")
    assert artefact_hash(tmp_path / f"again{model.suffix}") == artefact_hash(path)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("preset", ["default", "published", "tiny"])
def test_a_refit_has_the_same_hash_and_another_seed_another(slot, preset, tmp_path):
    hashes = []
    for i, seed in enumerate((42, 42, 43)):
        path, model = tmp_path / f"{i}.model", make_model(model_target(slot), NAMES, preset)
        model.fit(*rows(400), *rows(150, 1), seed)
        model.save(path)
        hashes.append(artefact_hash(path))
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize("slot", SLOTS)
def test_parameters_are_those_of_the_specification(slot):
    default, published = (make_model(model_target(slot), NAMES, preset).params() for preset in ("default", "published"))
    if slot == "xgb":
        want = {"learning_rate": 0.025, "max_rounds": 800, "patience": 40, "max_depth": 6, "subsample": 0.8, "colsample_bytree": 0.8}
        assert default.items() >= (want | {"gamma": 1.2, "reg_lambda": 2.0, "reg_alpha": 0.4, "class_weights": "balanced"}).items()
        assert published.items() >= {"learning_rate": 0.05, "max_rounds": 500, "max_depth": 6, "class_weights": "none"}.items()
    else:
        want = {"learning_rate": 0.05, "max_rounds": 1500, "patience": 100, "num_leaves": 31, "max_depth": -1}
        assert default.items() >= (want | {"bagging_fraction": 0.9, "bagging_freq": 5, "feature_fraction": 0.9}).items()
        assert default["class_weights"] == "max_share"
        assert published.items() >= {"learning_rate": 0.05, "max_rounds": 500, "num_leaves": 31, "bagging_fraction": 0.8}.items()


@pytest.mark.parametrize("slot", SLOTS)
def test_every_preset_has_a_name_that_all_models_know(slot):
    models = {preset: make_model(model_target(slot), NAMES, preset).params() for preset in PRESETS}
    as_run = models["default"].items() - {("preset", "default")}
    assert as_run == models["original"].items() - {("preset", "original")} == models["fast"].items() - {("preset", "fast")}
    assert models["tiny"]["max_rounds"] == 30


@pytest.mark.parametrize("slot", SLOTS)
def test_training_stops_on_the_validation_slice(slot):
    model = fitted(slot)
    assert 1 <= model.rounds < model.presets["default"].rounds
    x, y = rows(1200)
    noise = make_model(model_target(slot), NAMES)
    noise.fit(x, y, rows(400, 1)[0], np.random.default_rng(3).integers(0, 3, 400).astype(np.int8), 42)
    assert noise.rounds < model.rounds


@pytest.mark.parametrize("slot", BY_ROW)
def test_a_model_that_cannot_be_fitted_is_absent(slot):
    x, y = rows(600)
    with pytest.raises(ModelAbsentError, match="must hold every class, 600 were without SELL, BUY"):
        make_model(model_target(slot), NAMES).fit(x, np.ones_like(y), *rows(100, 1), 42)
    with pytest.raises(ModelAbsentError, match="validation rows must exist, was 0"):
        make_model(model_target(slot), NAMES).fit(x, y, x[:0], y[:0], 42)


@pytest.mark.parametrize("slot", BY_ROW)
def test_a_matrix_of_other_columns_is_refused(slot):
    model = fitted(slot)
    with pytest.raises(ValueError, match=r"float32 matrix \[N, 4\] of alpha, beta, gamma, delta, was float32 \[3, 5\]"):
        model.predict_proba(np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match=r"was float64 \[3, 4\]"):
        model.predict_proba(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="must be fitted or loaded before it predicts"):
        make_model(model_target(slot), NAMES).predict_proba(np.zeros((3, 4), np.float32))


def test_other_feature_names_are_refused_with_what_differs():
    check_names("xgb", NAMES, NAMES)
    with pytest.raises(ModelAbsentError, match="was missing delta, unknown epsilon; assemble the matrix by name"):
        check_names("xgb", (*NAMES[:3], "epsilon"), NAMES)
    with pytest.raises(ModelAbsentError, match="was in another order"):
        check_names("xgb", NAMES[::-1], NAMES)
    assert names_hash(NAMES) != names_hash(NAMES[::-1])


@pytest.mark.parametrize("slot", SLOTS)
def test_a_damaged_file_is_absent_never_a_dummy_vote(slot, tmp_path):
    model = fitted(slot)
    path = tmp_path / f"m{model.suffix}"

    def load():
        return make_model(model_target(slot), NAMES).load(path)

    with pytest.raises(ModelAbsentError, match="must be a model file as the training wrote it, was not found"):
        load()
    model.save(path)
    with pytest.raises(ModelAbsentError, match="unknown delta"):
        make_model(model_target(slot), NAMES[:3]).load(path)
    good = path.read_bytes()
    for bad in (b"", b"\x80\x04pickled", good[: len(good) // 3]):
        path.write_bytes(bad)
        with pytest.raises(ModelAbsentError, match="was altered or cut short"):
            load()
    scaler = scaler_path(path).read_text()
    path.write_bytes(b"another format")
    scaler_path(path).write_text(model.scaler.to_json(NAMES, b"another format"))
    with pytest.raises(ModelAbsentError, match="file of its library, was not"):
        load()
    scaler_path(path).write_text(scaler)
    path.write_bytes(good)
    for text in ("{", "[]", json.dumps({"features": NAMES, "mean": [0, 0, 0, 0], "scale": [1, 1, 1, 0]}), json.dumps({"features": NAMES})):
        scaler_path(path).write_text(text)
        with pytest.raises(ModelAbsentError, match=r"scaler must|its scaler was written with"):
            load()


def test_the_scaler_is_scikit_learns_and_works_in_place():
    x = rows(70_000)[0]
    x[:, 3] = 5.0
    scaler, oracle = Scaler.fit(x), StandardScaler().fit(x.astype(np.float64))
    np.testing.assert_allclose(scaler.mean, oracle.mean_, rtol=1e-9, atol=1e-12)  # another order of summation
    np.testing.assert_allclose(scaler.scale, oracle.scale_, rtol=1e-9)
    assert scaler.scale[3] == 1.0
    want = scaler.transform(x)
    assert_same_bits(Scaler.from_json(scaler.to_json(NAMES, b"m"), NAMES, b"m").transform(x), want)
    assert scaler.transform(x, x) is x
    assert_same_bits(x, want)


def test_class_weights_are_those_of_the_specification():
    labels = rows(500)[1]
    counts = np.bincount(labels)
    np.testing.assert_allclose(
        class_weights(counts, "balanced"), compute_class_weight("balanced", classes=np.arange(3), y=labels), rtol=1e-15
    )
    assert class_weights(counts, "max_share").tolist() == (counts.max() / counts).tolist()
    assert class_weights(counts, "none").tolist() == [1.0, 1.0, 1.0]


def test_registering_and_making_models_tell_a_mistake_in_a_sentence():
    with pytest.raises(UserError, match="models must be among xgb, lgbm, nhits, patchtst, linear, was 'tft'"):
        model_target("tft")
    with pytest.raises(UserError, match=r"preset \(--preset\) must be one of default, published, original, fast, tiny, was 'slow'"):
        make_model(model_target("xgb"), NAMES, "slow")
    for name, rule in (
        ("my model", "letters, digits and underscores"),
        ("meta_x", "must not begin with the word meta"),
        ("XGB", "way to write xgb"),
        (3, "was 3"),
    ):
        with pytest.raises(UserError, match=rule):
            register(name, "a:B")
    with pytest.raises(UserError, match="must be given as 'module:Class'"):
        register("tft", "a.B")
    for target, why in (("nowhere:B", "No module named 'nowhere'"), ("json:Nothing", "has no attribute 'Nothing'"), ("json", "''")):
        with pytest.raises(UserError, match=f"must be given as 'module:Class' and be there, was '{target}' .*{why}.*; correct it"):
            make_model(target, NAMES)


# ------------------------------------------------------------------ schedule

S, TIMES = 3, np.arange(100, 140, dtype=np.int64)


def artefact(slot: str, fold: int, start: int, stop: int, folder, seed: int) -> Artefact:
    model = fitted(slot, seed=seed)
    path = folder / f"fold_{fold:02d}" / f"{model.stem}_v20260101_00000{fold}_v5{model.suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path)
    rule = {"id": "L5", "horizon": 1, "sell": -0.004, "buy": 0.004}
    limits = {side: dict.fromkeys(("A", "B", "C"), rule[side]) for side in ("sell", "buy")}
    meta = {"slot": slot, "target": model_target(slot), "features": list(NAMES), "params": model.params(), "suffix": model.suffix}
    meta |= {"hash": artefact_hash(path), "valid_from": start, "label": rule, "label_thresholds": limits}
    return Artefact(fold, start, stop, path, meta["hash"], meta, slot=slot)


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> ModelSet:
    folder = tmp_path_factory.mktemp("models")
    spans = [("xgb", 0, 110, 125, 1), ("lgbm", 0, 110, 125, 2), ("xgb", 1, 125, FOREVER, 3), ("lgbm", 1, 125, FOREVER, 4)]
    made = tuple(artefact(slot, fold, start, stop, folder, seed) for slot, fold, start, stop, seed in spans)
    return ModelSet(made, NAMES, {"label": made[0].meta["label"], "thresholds": [made[0].meta["label_thresholds"]] * 2})


def some_matrix() -> np.ndarray:
    matrix = rows(len(TIMES) * S, 9)[0].reshape(len(TIMES), S, 4)
    matrix[12, 1] = np.nan
    matrix[30, 2, 0] = np.nan
    return matrix


def test_each_bar_is_served_by_the_artefact_valid_at_its_close(models):
    matrix = some_matrix()
    probs = models.serve(matrix, TIMES, NAMES)
    assert probs.shape == (5, 40, S, 3)
    assert np.isnan(probs[:, :10]).all()  # before the first artefact
    assert np.isnan(probs[2:]).all()
    assert np.isnan(probs[:, 12, 1]).all()  # an invalid row is absent (D-13)
    assert np.isnan(probs[:, 30, 2]).all()
    assert not np.isnan(probs[:2, 10:12]).any()
    first, second = (models.artefacts[i].load() for i in (0, 2))
    assert_same_bits(probs[0, 24], first.predict_proba(matrix[24]))
    assert_same_bits(probs[0, 25], second.predict_proba(matrix[25]))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda rows: 1 / 0, "must answer with probabilities, raised ZeroDivisionError: division by zero; try it"),
        (lambda rows: sys.exit(4), "must answer with probabilities, raised SystemExit: 4; try it"),
        (lambda rows: rows[:1], r"must answer \[\d+, 3\], was \[1, 4\]; try it with research.check_model"),
        (lambda rows: None, r"must answer \[\d+, 3\], was \[\]; try it"),
    ],
)
def test_a_model_that_raises_or_answers_otherwise_is_named(models, answer, words):
    served = replace(models, _loaded={})
    served.fitted(served.artefacts[0])
    served._loaded[served.artefacts[0].path] = SimpleNamespace(predict_proba=answer)
    with pytest.raises(ModelError, match=rf"^xgb {words}"):
        served.serve(some_matrix(), TIMES)


def test_serving_bar_by_bar_gives_the_bits_of_the_whole(models):
    matrix = some_matrix()
    whole = models.serve(matrix, TIMES)
    bars = [models.serve(matrix[t : t + 1], TIMES[t : t + 1]) for t in range(40)]
    assert_same_bits(np.concatenate(bars, axis=1), whole)
    assert_same_bits(np.concatenate([models.serve(matrix[:27], TIMES[:27]), models.serve(matrix[27:], TIMES[27:])], axis=1), whole)


def test_a_matrix_by_other_names_is_refused(models):
    with pytest.raises(ValueError, match="matrix must have the features alpha, beta, gamma, delta, was in another order"):
        models.serve(some_matrix(), TIMES, NAMES[::-1])


def test_a_schedule_survives_the_disk(models, tmp_path):
    saved = models.save(tmp_path / "m")
    again = ModelSet.load(tmp_path / "m")
    assert again.hashes(0) == models.hashes(0) == saved.hashes(0)
    assert set(again.hashes(1)) == set(SLOTS)
    assert again.slots == SLOTS
    assert again.notes == ()
    assert_same_bits(again.serve(some_matrix(), TIMES), models.serve(some_matrix(), TIMES))
    assert not [p for p in (tmp_path / "m").rglob("*") if p.suffix in (".pkl", ".pickle", ".tmp", ".joblib")]
    assert again.save(tmp_path / "m").hashes(0) == models.hashes(0)  # onto itself


def test_an_altered_or_missing_artefact_is_absent_and_named(models, tmp_path):
    folder = tmp_path / "m"
    models.save(folder)
    next((folder / "fold_00").glob("xgb*.ubj")).write_bytes(b"altered")
    shutil.rmtree(folder / "fold_01")
    again = ModelSet.load(folder)
    assert again.notes[0].startswith("xgb_v20260101_000000_v5.ubj must have the hash")
    assert "xgb of fold 1 must have the file" in again.notes[1]
    probs = again.serve(some_matrix(), TIMES)
    assert np.isnan(probs[0]).all()
    assert np.isnan(probs[1, 25:]).all()
    assert not np.isnan(probs[1, 10:12]).any()


def test_single_artefacts_are_served_by_the_latest_stamp_in_the_name(models, tmp_path):
    models.save(tmp_path / "m")
    (tmp_path / "m" / "schedule.json").unlink()
    again = ModelSet.load(tmp_path / "m")
    assert [a.path.name for a in again.artefacts] == ["lightgbm_v20260101_000001_v5.txt", "xgb_v20260101_000001_v5.ubj"]
    probs = again.serve(some_matrix(), TIMES)
    assert np.isnan(probs[:, :25]).all()  # fitted on these bars
    assert_same_bits(probs[:, 25:], models.serve(some_matrix(), TIMES)[:, 25:])


def test_folders_that_are_no_schedule_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"must be a folder with schedule.json"):
        ModelSet.load(tmp_path)
    with pytest.raises(UserError, match=r"must be a folder with schedule.json"):
        ModelSet.load(tmp_path / "nowhere")
    (tmp_path / "schedule.json").write_text('{"schema_version": 99}')
    with pytest.raises(UserError, match="must be of schema version 2, was 99"):
        ModelSet.load(tmp_path)
    (tmp_path / "schedule.json").write_text('{"schema_version": 2, "artefacts": [{}]}')
    with pytest.raises(UserError, match="must be a schedule as `qt train` writes it, was without"):
        ModelSet.load(tmp_path)


# ------------------------------------------------------------------ scores


def test_scores_equal_scikit_learn():
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet((1, 2, 1), (200, 4)), rng.integers(-1, 3, (200, 4)).astype(np.int8)
    probs[::9, 1] = np.nan
    regime = rng.random((2, 200, 4))
    counts, weights = np.array([30, 60, 10]), np.array([1.0, 0.5, 3.0])
    baseline = rng.dirichlet((2, 3, 1), (200, 4))
    figures = score(probs, labels, counts, weights, regime, baseline)
    known = (labels >= 0) & ~np.isnan(probs[..., 0])
    truth, said = labels[known], probs[known]
    assert figures["n_scored"] == known.sum()
    assert figures["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, said.argmax(axis=1)), rel=1e-12)
    assert figures["log_loss"] == pytest.approx(log_loss(truth, said), rel=1e-9)
    undone = said / weights
    assert figures["log_loss_unweighted"] == pytest.approx(log_loss(truth, undone / undone.sum(axis=1, keepdims=True)), rel=1e-9)
    assert figures["base_rate_log_loss"] == pytest.approx(log_loss(truth, np.tile(counts / 100, (len(truth), 1))), rel=1e-9)
    assert figures["majority_baseline"] == pytest.approx(np.bincount(truth).max() / len(truth))
    assert figures["volatility_baseline"] == pytest.approx(np.mean(baseline[known].argmax(axis=1) == truth))
    assert figures["volatility_log_loss"] == pytest.approx(log_loss(truth, baseline[known]), rel=1e-9)
    assert figures["log_loss_gain"] == pytest.approx(figures["volatility_log_loss"] - figures["log_loss_unweighted"], rel=1e-9)
    side, moved = said[:, 2] > said[:, 0], truth != 1
    assert figures["direction_accuracy"] == pytest.approx(np.mean((side == (truth == 2))[moved]))
    assert 0.005 < figures["balanced_accuracy_error"] < 0.05  # sqrt(2/9 / 250 a class / 3) is 0.017
    assert figures["status"] == "unskilled"
    assert "unskilled: log loss" in figures["warnings"][0]
    assert "is within chance" in figures["warnings"][0]


def test_a_model_that_knows_is_accepted_and_a_constant_one_is_named():
    labels = np.random.default_rng(1).integers(0, 3, (300, 2)).astype(np.int8)
    knows = np.full((300, 2, 3), 0.1)
    np.put_along_axis(knows, labels[..., None].astype(int), 0.8, axis=-1)
    regime, counts, ones = np.full((2, 300, 2), 0.5), np.array([1, 1, 1]), np.ones(3)
    assert score(knows, labels, counts, ones, regime)["status"] == "accepted"
    constant = score(np.tile([0.1, 0.8, 0.1], (300, 2, 1)), labels, counts, ones, regime)
    assert constant["status"] == "rejected"
    assert "100.0% of its answers have the same probabilities, which is a constant output above 99%" in constant["warnings"][0]
    assert any("in volatility_medium is below 0.57" in text for text in constant["warnings"])
    assert score(np.full((5, 2, 3), np.nan), labels[:5], counts, ones, regime[:, :5])["n_scored"] == 0


@pytest.mark.parametrize(("n_other", "status"), [(2, "rejected"), (9, "rejected"), (11, "accepted"), (120, "accepted")])
def test_a_model_that_answers_the_same_of_nearly_everything_is_a_constant_output(n_other, status):
    """1,000 cells, of which it knows some rare ones: better than chance and than the base rates, and all the same one answer."""
    labels = np.ones((500, 2), np.int8)
    rare = np.random.default_rng(3).permutation(1000)[:120]
    labels.reshape(-1)[rare[:60]], labels.reshape(-1)[rare[60:]] = 0, 2
    probs = np.tile([0.055, 0.89, 0.055], (500, 2, 1))
    for cell in rare[60 - n_other // 2 : 60 + (n_other + 1) // 2]:
        probs.reshape(-1, 3)[cell] = np.where(np.arange(3) == labels.reshape(-1)[cell], 0.9, 0.05)
    figures = score(probs, labels, np.array([60, 880, 60]), np.ones(3), np.full((2, 500, 2), 0.5))
    assert figures["predicted_shares"]["HOLD"] == pytest.approx(1.0 - n_other / 1000)
    assert figures["log_loss"] < figures["base_rate_log_loss"]
    if n_other >= 9:
        assert figures["balanced_accuracy"] > 1 / 3 + 2 * figures["balanced_accuracy_error"]
    assert figures["status"] == status
    text = " ".join(figures["warnings"])
    assert ("which is a constant output above 99%" in text) == (status == "rejected")
    assert ("usual are at most 90%" in text) == (n_other < 100)


def test_a_model_that_repeats_the_traded_action_knows_nothing_of_outcomes():
    rng = np.random.default_rng(5)
    traded = rng.choice(np.array([0, 2], np.int8), (400, 2))
    labels = np.where(rng.random((400, 2)) < 0.5, traded, 1).astype(np.int8)
    repeats, knows = np.full((400, 2, 3), 0.02), np.full((400, 2, 3), 0.1)
    np.put_along_axis(repeats, np.full((400, 2, 1), 1), 0.48, axis=-1)
    np.put_along_axis(repeats, traded[..., None].astype(int), 0.50, axis=-1)
    np.put_along_axis(knows, labels[..., None].astype(int), 0.8, axis=-1)
    how = np.array([200, 400, 200]), np.ones(3), np.full((2, 400, 2), 0.5)
    plain = score(repeats, labels, *how)
    assert (plain["balanced_accuracy"], plain["status"]) == (pytest.approx(2 / 3), "accepted")
    fair = score(repeats, labels, *how, traded=traded)
    assert (fair["chance"], fair["balanced_accuracy"], fair["status"]) == (0.5, 0.5, "unskilled")
    assert "direction_accuracy" not in fair
    assert fair["base_rate_log_loss"] == pytest.approx(np.log(2), rel=1e-3)
    assert score(knows, labels, *how, traded=traded)["status"] == "accepted"


# ------------------------------------------------------------------ workers


def test_a_worker_that_fails_says_why():
    job = {"folder": "/nowhere", "path": "/nowhere/x", "fold": 0, "slot": "xgb"}
    for processes in (1, 2):
        with pytest.raises(UserError, match=r"must be able to write its temporary files, was not: .*nowhere.*set TMPDIR"):
            run_jobs([job, job], processes)
        with pytest.raises(RuntimeError, match="fitting xgb of fold 0 failed: KeyError: 'path'"):
            run_jobs([{key: job[key] for key in ("folder", "fold", "slot")}] * 2, processes)


def test_model_libraries_are_imported_only_where_needed():
    code = (
        "import sys\nfrom research.training import import_predictions, predictions, walk_forward\n"
        "from research.training.models import lightgbm, xgboost\n"
        "print([m for m in ('xgboost', 'lightgbm', 'torch', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    assert MODELS[:2] == SLOTS


class Unsure:
    """Answers what a test hands it."""

    def __init__(self, answer):
        self.answer = answer

    def predict_proba(self, rows):
        return np.tile(np.array(self.answer, float), (len(rows), 1))


@pytest.mark.parametrize("answer", [[0.5, np.nan, 0.5], [-0.1, 0.6, 0.5], [0.5, 0.6, 0.5], [np.inf, 0.0, 0.0]])
def test_models_that_answer_with_no_probabilities_are_refused(answer):
    assert asked(Unsure([0.2, 0.3, 0.5]), "mine", np.zeros((2, 4))).shape == (2, 3)
    with pytest.raises(UserError, match=r"mine must answer with probabilities, 0 or more with a sum of 1, was \[.*\] in row 0; try it"):
        asked(Unsure(answer), "mine", np.zeros((2, 4)))


class Odd(Unsure):
    def predict_proba(self, rows):
        return self.answer


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([["a", "b", "c"]], "must answer with floats, was <U1"),
        ([[None, 0.5, 0.5]], "must answer with floats, was object"),
        (np.eye(3, dtype=int)[:1], "must answer with floats, was int64"),
        ([[0.5, 0.5]], r"must answer \[1, 3\], was \[1, 2\]"),
        ([[0.2, 0.3, 0.5], [1.0]], "must answer with probabilities, raised ValueError: .*"),
    ],
)
def test_models_that_answer_with_something_else_are_refused(answer, said):
    assert asked(Odd([[0.2, 0.3, 0.5]]), "mine", np.zeros((1, 4))).shape == (1, 3)  # a list will do
    with pytest.raises(UserError, match=f"^mine {said}; try it with research.check_model$"):
        asked(Odd(answer), "mine", np.zeros((1, 4)))
