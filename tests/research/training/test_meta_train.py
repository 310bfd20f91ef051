"""Do the learned meta layers see only what was out of sample, and do their files come back as they were?"""

import json
import shutil

import numpy as np
import pytest

from qtcore.meta import VECTORS, MetaModel
from research.data import simulate
from research.errors import UserError
from research.training.meta import MetaSchedule, train_meta
from research.training.meta import train as training
from research.training.meta.estimators import (
    CALIBRATIONS,
    Rows,
    check_classes,
    fit_meta,
    resolve_calibration,
)
from research.training.meta.fitted import ForestFit, KernelFit, fit_digest
from research.training.models.base import ModelAbsentError, Scaler, scaler_path
from research.training.models.folder import meta_path
from research.training.predictions import Predictions
from research.verify.causality import rewrite_future
from tests.conftest import assert_same_bits
from tests.support import PUBLISHED

CHOICES = [(kind, calibration) for kind, own in CALIBRATIONS.items() for calibration in own]


@pytest.fixture(scope="module")
def bars():
    return simulate("random_walk", n_bars=1500, n_symbols=3)


@pytest.fixture(scope="module")
def preds(bars):
    return Predictions.random(bars, seed=1)


@pytest.fixture(scope="module")
def schedule(bars, preds):
    return train_meta(bars, preds, PUBLISHED)


def some_rows(n=900, width=26, seed=0):
    """Rows whose class leans on the first column; the rarer classes are a fifth each."""
    rng = np.random.default_rng(seed)
    y = rng.choice(3, n, p=[0.2, 0.6, 0.2]).astype(np.int8)
    x = rng.normal(size=(n, width)) * rng.uniform(0.1, 5.0, width) + rng.normal(size=width)
    x[:, 0] += 10.0 * y
    return Rows(x[: n * 4 // 5], y[: n * 4 // 5]), Rows(x[n * 4 // 5 :], y[n * 4 // 5 :])


@pytest.mark.parametrize(("kind", "calibration"), CHOICES)
def test_one_row_has_the_bits_of_the_batch_and_a_refit_the_same_hash(kind, calibration):
    train, held = some_rows()
    fit, again = (fit_meta(kind, VECTORS["meta26"], train, held, calibration=calibration) for _ in range(2))
    assert fit_digest(fit) == fit_digest(again)
    rows = held.x[:40].copy()
    rows[7, 3] = np.nan
    whole = fit.answer(rows)
    assert_same_bits(whole, np.concatenate([fit.answer(rows[i : i + 1]) for i in range(len(rows))]))
    assert np.isnan(whole[7]).all()
    assert np.allclose(np.delete(whole, 7, axis=0).sum(axis=1), 1.0)
    back = type(fit).parse(fit.dump(), fit.feature_names, fit.scaler)
    assert fit_digest(back) == fit_digest(fit)
    assert_same_bits(whole, back.answer(rows))
    assert np.mean(np.argmax(fit.answer(held.x), axis=1) == held.y) > 0.5
    other = fit_digest(fit_meta(kind, VECTORS["meta26"], Rows(train.x[1:], train.y[1:]), held, calibration=calibration))
    assert other != fit_digest(fit)


@pytest.mark.parametrize("calibration", ["platt", "temperature"])
def test_scikit_learn_agrees_on_the_calibrated_regression(calibration):
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, held = some_rows(seed=3)
    fit = fit_meta("logistic", VECTORS["meta26"], train, held, calibration=calibration)
    plain = LogisticRegression(C=0.1, max_iter=1000, class_weight="balanced", random_state=42)
    pipeline = make_pipeline(StandardScaler(), plain).fit(train.x, train.y)
    method = {"platt": "sigmoid", "temperature": "temperature"}[calibration]
    theirs = CalibratedClassifierCV(FrozenEstimator(pipeline), method=method).fit(held.x, held.y)
    np.testing.assert_allclose(fit.answer(held.x), theirs.predict_proba(held.x), rtol=1e-6, atol=1e-9)


def test_smote_fills_training_rows_and_touches_no_others():
    train, held = some_rows()
    kept = train.x.copy(), held.x.copy(), held.y.copy()
    plain, filled = (fit_meta("logistic", VECTORS["meta26"], train, held, smote=smote) for smote in (False, True))
    assert fit_digest(plain) != fit_digest(filled)
    for before, after in zip(kept, (train.x, held.x, held.y), strict=True):
        assert_same_bits(before, after)
    assert_same_bits(plain.scaler.mean, filled.scaler.mean)  # the scaler never sees a synthetic row


def test_unknown_names_missing_classes_and_constant_models_are_refused():
    train, held = some_rows()
    with pytest.raises(UserError, match=r"run\.meta must be one of logistic, mlp, forest, xgboost, lightgbm, was 'svm'"):
        resolve_calibration("svm", "auto")
    with pytest.raises(UserError, match="for kind forest, was 'platt'"):
        resolve_calibration("forest", "platt")
    with pytest.raises(ModelAbsentError, match=r"training rows .* was without BUY"):
        fit_meta("logistic", VECTORS["meta26"], Rows(train.x[train.y < 2], train.y[train.y < 2]), held)
    arrays = {"mean": np.zeros(26), "scale": np.ones(26), "coef": np.eye(3, 26), "intercept": np.array([0.0, 99.0, 0.0])}
    with pytest.raises(ModelAbsentError, match="more than one class"):
        check_classes(KernelFit(MetaModel("logistic_softmax", VECTORS["meta26"], arrays)), held)
    with pytest.raises(ModelAbsentError, match="was constant"):
        fit_meta("logistic", VECTORS["meta26"], Rows(np.ones_like(train.x), train.y), held)


def test_every_fold_sees_earlier_folds_only(bars, preds, schedule):
    """D-87: with bars, votes and labels from the boundary on rewritten, every model has the same hash."""
    assert [a.fold for a in schedule.artefacts] == [0, 1, 2, 3, 4, 5]
    rng = np.random.default_rng(9)
    for artefact in (schedule.artefacts[0], schedule.artefacts[3]):
        row = int(np.searchsorted(bars.close_time, artefact.valid_from))
        other = Predictions.random(rewrite_future(bars, row, seed=3), seed=77)
        probs, labels = preds.probs.copy(), preds.labels.copy()
        probs[:, row:] = other.probs[:, row:]
        labels[row - preds.label.horizon :] = rng.integers(
            0, 3, labels[row - preds.label.horizon :].shape
        )  # they end at or after the boundary
        rewritten = Predictions.from_probs(bars, probs, preds.fold, labels, preds.label, imported=True)
        changed = rewrite_future(bars, row, seed=3)
        assert fit_digest(training.refit(changed, rewritten, PUBLISHED, schedule, artefact.fold)[0]) == artefact.hash
        labels[: row // 2] = 1
        moved = Predictions.from_probs(bars, probs, preds.fold, labels, preds.label, imported=True)
        assert fit_digest(training.refit(changed, moved, PUBLISHED, schedule, artefact.fold)[0]) != artefact.hash


def test_no_label_reaches_into_the_next_part(bars, preds):
    material, plan = training.prepare(bars, preds, PUBLISHED)
    for _, start, _ in material.folds:
        train, held = (np.flatnonzero(part) for part in material.parts(start, plan.embargo))
        gap = preds.label.horizon + plan.embargo
        assert train[-1] + gap < held[0]
        assert held[-1] + gap < start


def test_base_folds_are_skipped_until_there_is_enough(bars, preds):
    """The first base fold has no earlier out-of-sample predictions; a fold with fewer than 1,000 rows has no model."""
    fold = np.full(bars.n, -1, np.int16)
    fold[600:900], fold[900:960], fold[960:] = 0, 1, 2
    action = preds.action.copy()
    action[:, :600] = -1
    probs = preds.probs.copy()
    probs[:, :600] = np.nan
    own = Predictions.from_probs(bars, probs, fold, preds.labels, preds.label)
    made = train_meta(bars, own, PUBLISHED)
    assert [a.fold for a in made.artefacts] == [2]
    assert "fold 2: training must have at least 1,000 out-of-sample rows on which two or more models voted, was 8" in made.notes[0]
    assert not made.ready(bars.close_time[:960]).any()
    assert made.ready(bars.close_time[960:]).all()


def test_a_stored_schedule_answers_as_before(bars, schedule, tmp_path):
    stored = schedule.save(tmp_path / "meta")
    back = MetaSchedule.load(tmp_path / "meta")
    assert back.hash == schedule.hash
    assert back.notes == schedule.notes
    rows = np.random.default_rng(0).normal(size=(bars.n, 26))
    assert_same_bits(schedule.answer(rows, bars.close_time), back.answer(rows, bars.close_time))
    names = sorted(p.name for p in stored.artefacts[0].path.parent.iterdir())
    stem = stored.artefacts[0].path.stem
    assert names == [f"{stem}.npz", f"{stem}_meta.json", f"{stem}_scaler.json"]
    assert stem.startswith("meta_v")
    assert stem.endswith("_v5")
    meta = json.loads((stored.artefacts[0].path.parent / f"{stem}_meta.json").read_text())
    wanted = "version training_date n_samples feature_names cv_accuracy cv_std test_accuracy cv_metrics regime_metrics config base_weights"
    assert set(wanted.split()) | {"label", "split"} <= set(meta)
    assert {"baseline_accuracy", "balanced_accuracy", "synthetic", "feature_hash", "status"} <= set(meta)
    assert meta["n_samples"] == meta["n_train"] + meta["n_held"] >= 1000
    assert not json.dumps(meta).count("NaN")


def break_scaler(folder, path):
    scaler_path(path).unlink()


def break_model(folder, path):
    path.write_bytes(path.read_bytes()[:-40])


def break_hash(folder, path):
    text = scaler_path(path).read_text()
    stored = json.loads(text)
    stored["mean"][0] += 1.0
    scaler_path(path).write_text(json.dumps(stored))


def break_metadata(folder, path):
    """Praise a rejected model: its metadata say whether it may trade."""
    stored = json.loads(meta_path(path).read_text())
    meta_path(path).write_text(json.dumps(stored | {"status": "accepted", "warnings": []}))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (break_scaler, "was without"),
        (break_model, "altered or cut short"),
        (break_hash, "was altered"),
        (break_metadata, "_meta.json must be as the training wrote it, was altered"),
    ],
)
def test_a_damaged_model_is_not_ready(schedule, bars, tmp_path, spoil, says):
    """D-43: a missing scaler is no identity scaler."""
    stored = schedule.save(tmp_path / "meta")
    first = stored.artefacts[0]
    spoil(tmp_path / "meta", first.path)
    back = MetaSchedule.load(tmp_path / "meta")
    assert says in back.notes[0]
    served = (bars.close_time >= first.valid_from) & (bars.close_time < first.valid_until)
    assert not back.ready(bars.close_time)[served].any()
    assert back.ready(bars.close_time).any()


def test_other_schedules_are_refused(schedule, tmp_path):
    schedule.save(tmp_path / "meta")
    path = tmp_path / "meta" / "schedule.json"
    good = json.loads(path.read_text())
    names = good["feature_names"]
    for change, says in (
        ({"schema_version": 0}, "schema version 1, was 0"),
        ({"feature_names": names[1:] + names[:1]}, "features of a known vector"),
        ({"artefacts": 3}, "as `qt train` writes it"),
        ({"notes": ["fine"]}, "must be as the training wrote it, was altered"),
    ):
        path.write_text(json.dumps(good | change))
        with pytest.raises(UserError, match=says):
            MetaSchedule.load(tmp_path / "meta")
    shutil.rmtree(tmp_path / "meta")
    with pytest.raises(UserError, match="as `qt train` writes it"):
        MetaSchedule.load(tmp_path / "meta")


def test_a_forest_with_foreign_types_is_refused():
    """A model file is data: whatever is not a tree is not loaded."""
    from sklearn.preprocessing import FunctionTransformer
    from skops import io as skops

    data = skops.dumps(FunctionTransformer(json.loads))
    with pytest.raises(ModelAbsentError, match="must hold trees only"):
        ForestFit.parse(data, ("a",), Scaler(np.zeros(1), np.ones(1)))
    with pytest.raises(ModelAbsentError, match="skops archive"):
        ForestFit.parse(b"nothing", ("a",), Scaler(np.zeros(1), np.ones(1)))


def test_the_kernels_hold_what_was_fitted():
    train, held = some_rows(width=8)
    fit = fit_meta("mlp", VECTORS["v5"], train, held)
    assert isinstance(fit.model, MetaModel)
    assert fit.model.arrays["w1"].shape == (8, 32)
    cooled = fit_meta("mlp", VECTORS["v5"], train, held, calibration="temperature")
    a, b = fit.answer(held.x), cooled.answer(held.x)
    assert np.array_equal(np.argmax(a, axis=1), np.argmax(b, axis=1))
    assert not np.allclose(a, b)
