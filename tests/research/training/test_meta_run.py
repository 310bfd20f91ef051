"""Does a run serve its learned meta layer bar by bar as in one block, keep it, prove it, and say what it is worth?"""

import json
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import research
from qtcore import Engine
from qtcore.rules import Reason
from qtcore.types import DECISION_COLUMNS, Action
from research import backtest
from research.cli.app import app
from research.cli.common import guarded
from research.data import save_bars, simulate
from research.errors import UserError
from research.live.session.controls import command_set
from research.runs.config import load_config
from research.runs.explain import explain_decision
from research.runs.folder import read_run
from research.training.meta import MetaSchedule, meta_scores, train_meta
from research.training.meta.estimators import Rows
from research.training.meta.fitted import KernelFit, fit_digest
from research.training.meta.schedule import write_fit
from research.training.predictions import Predictions
from research.verify.evidence import read_evidence
from research.verify.meta import meta_claims
from research.workflow.backtest_job import Job, run_job, train_job
from research.workflow.recording import verify_run
from tests.conftest import assert_same_bits
from tests.support import FLAG, PUBLISHED

MODES = {"override": ("meta26", "logistic"), "v5": ("v5", "mlp"), "policy": ("meta32", "xgboost")}


@pytest.fixture(scope="module")
def bars():
    return simulate("random_walk", n_bars=1200, n_symbols=3)


@pytest.fixture(scope="module")
def preds(bars):
    return Predictions.random(bars, seed=1, models=("xgb", "lgbm", "nhits"))


def params_of(mode):
    return PUBLISHED.with_values(
        {"meta.mode": mode, "meta.override_threshold": 0.4, "meta.v5_threshold": 0.4, "meta.entropy_threshold": 0.97}
    )


@pytest.mark.parametrize("mode", MODES)
def test_one_block_and_bar_by_bar_across_a_fold_boundary(bars, preds, mode):
    vector, kind = MODES[mode]
    params = params_of(mode).with_values({"meta.disagreement_threshold": 0.9, "meta.low_confidence": 0.1})
    meta = train_meta(bars, preds, params, kind=kind, vector=vector)
    edge = int(np.searchsorted(bars.close_time, meta.artefacts[1].valid_from))
    first = int(np.searchsorted(bars.close_time, meta.artefacts[0].valid_from))
    whole_engine, engine = Engine(params, meta_model=meta), Engine(params, meta_model=meta)
    whole = whole_engine.run(bars, preds.votes())
    cuts = [0, 400, first - 3, *range(first - 2, first + 3), *range(edge - 5, edge + 6), bars.n]
    parts = [engine.run(bars[a:b], preds.votes()[a:b]) for a, b in pairwise(cuts)]
    for name in DECISION_COLUMNS:
        assert_same_bits(getattr(whole.decisions, name), np.concatenate([getattr(p.decisions, name) for p in parts]), name)
    assert_same_bits(whole.meta_probs, np.concatenate([p.meta_probs for p in parts], axis=1))
    for name, array in whole_engine.state.items():
        assert_same_bits(array, engine.state[name], name)
    assert np.isnan(whole.meta_probs[:, :first]).all()
    assert not np.isnan(whole.meta_probs[:, first:]).any()
    assert (whole.decisions.meta_action[first:] >= 0).any()
    silent = {"override": Reason.MODEL_NOT_LOADED, "v5": Reason.MODEL_NOT_LOADED, "policy": Reason.CLEAR_ENSEMBLE_NO_MODEL}[mode]
    assert (whole.decisions.meta_reason[:first] == silent).any()
    assert not (whole.decisions.meta_reason[first:] == silent).any()


@pytest.fixture(scope="module")
def folder(bars, preds, tmp_path_factory):
    params = params_of("override")
    run = backtest(bars, preds, params, meta=train_meta(bars, preds, params))
    return run.save(tmp_path_factory.mktemp("runs") / "run", record=False)


def test_a_run_keeps_its_meta_layer_and_proves_it(folder, bars):
    stored = MetaSchedule.load(folder / "models" / "meta")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["meta_model"] == {"kind": "logistic", "vector": "meta26", "hash": stored.hash}
    certificate = verify_run(folder)
    names = [check["name"] for check in certificate["checks"]]
    assert certificate["passed"] is True, [c["detail"] for c in certificate["checks"] if not c["passed"]]
    assert any(name.startswith("D-99 meta") for name in names)
    assert any(name.startswith("meta files") for name in names)


def test_a_meta_layer_that_is_not_the_runs_fails_the_proof(folder, bars, preds, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "run")
    train_meta(bars, preds, params_of("override"), calibration="temperature").save(copy / "models" / "meta")
    (claim,) = meta_claims(read_evidence(copy), 0, lambda text: None)
    assert not claim.holds
    shutil.rmtree(copy / "models" / "meta")
    certificate = verify_run(copy)
    assert certificate["passed"] is False
    assert any("models/meta" in check["detail"] for check in certificate["checks"])


def claims_with(run, artefact):
    """Claims on a run whose last meta model is another, in its files, metadata and manifest alike: only fitting it again tells."""
    planted = MetaSchedule((*run.meta.artefacts[:-1], artefact), run.meta.feature_names, run.meta.config)
    manifest = run.files.manifest | {"meta_model": {"hash": planted.hash}}
    return meta_claims(replace(run, meta=planted, files=replace(run.files, manifest=manifest)), 0, lambda text: None)


def test_a_meta_model_that_saw_later_bars_is_caught(folder):
    """The fold's model is exchanged for the next fold's."""
    run = read_evidence(folder)
    last, before = run.meta.artefacts[-1], run.meta.artefacts[-2]
    moved = replace(last, path=before.path, hash=before.hash, meta=before.meta, meta_hash=before.meta_hash)
    assert [c.holds for c in claims_with(run, moved)] == [True, False]


@pytest.mark.parametrize(("change", "holds"), [(1e-14, True), (1e-4, False)])
def test_a_meta_model_may_differ_by_the_rounding_of_a_processor_and_no_more(folder, tmp_path, change, holds):
    run = read_evidence(shutil.copytree(folder, tmp_path / "run"))
    last = run.meta.artefacts[-1]
    model = last.load().model
    fit = KernelFit(replace(model, arrays=model.arrays | {"coef": model.arrays["coef"] * (1.0 + change)}))
    write_fit(fit, last.path)
    claim = claims_with(run, replace(last, hash=fit_digest(fit)))[-1]
    assert claim.holds is holds
    assert ("fitted on another processor" in claim.text) is holds


def test_a_meta_model_whose_fit_reads_later_bars_is_caught_on_any_processor(folder, monkeypatch):
    """Fits here differ with the future, so that the stored model is none of them, however near."""
    run = read_evidence(folder)
    last = run.meta.artefacts[-1]
    model = last.load().model

    def leaky(bars, *_):
        moved = replace(model, arrays=model.arrays | {"intercept": model.arrays["intercept"] + 1e-12 * bars.close[-1, 0]})
        return KernelFit(moved), Rows(np.zeros((1, len(model.feature_names))), np.zeros(1, np.int8))

    monkeypatch.setattr("research.training.meta.train.refit", leaky)
    assert [c.holds for c in claims_with(run, last)] == [True, False]


def explained(folder):
    """The last decision for which the learned model was asked: (its class, its number, what each layer says of it)."""
    files = read_run(folder)
    planes = files.decisions()
    t, s = np.argwhere(planes["meta_action"] >= 0)[-1]
    close = str(np.datetime64(int(files.bars().close_time[t]), "ns"))
    said = {layer["name"]: layer for layer in explain_decision(folder, files.symbols[s], close)["layers"]}
    assert f": {Reason(int(planes['governor_reason'][t, s])).name}" in said["governor"]["says"]
    return Action(int(planes["meta_action"][t, s])).name, planes["meta_confidence"][t, s], said


def test_explain_asks_the_learned_model_as_the_run_did(folder):
    answer, number, said = explained(folder)
    assert said["meta"]["saw"]["learned model"] == f"{answer}, probability {number:.4f} (0 to 1); overrides above 0.4"


def test_explain_calls_the_entropy_an_entropy(bars, preds, tmp_path):
    params = params_of("policy").with_values({"meta.disagreement_threshold": 0.9, "meta.low_confidence": 0.1})
    run = backtest(bars, preds, params, meta=train_meta(bars, preds, params))
    answer, number, said = explained(run.save(tmp_path / "run", record=False))
    wanted = f"{answer}, entropy {number:.3f} (0 certain to 1 undecided; above 0.97 it escalates)"
    assert said["meta"]["saw"]["learned model"] == wanted


def test_a_run_with_an_own_judge_says_so(bars, preds, tmp_path):
    def judge(votes, planes, params):
        return np.ones(votes.action.shape[1:], np.int8), np.full(votes.action.shape[1:], 0.5)

    run = backtest(bars, preds, PUBLISHED, judge=judge)
    certificate = verify_run(run.save(tmp_path / "run", record=False))
    assert certificate["passed"] is None
    assert certificate["not_covered"][0].startswith("the decisions: the run used an own judge")
    assert all(check["passed"] for check in certificate["checks"])
    assert not any("block" in text for text in certificate["covers"])


def test_scores_of_a_model_that_no_rule_asks(bars):
    """Four voters: the published policy never reaches the model; its figures stand apart from what the chain did."""
    preds = Predictions.random(bars, seed=2)
    run = backtest(bars, preds, PUBLISHED, meta=train_meta(bars, preds, PUBLISHED))
    assert (run.result.decisions.meta_action == -1).all()
    action, confidence, probs = meta_scores(run.result, run.params)["meta_policy"]
    known = action >= 0
    assert_same_bits(confidence[known], probs[known].max(axis=-1))
    assert_same_bits(np.argmax(probs[known], axis=-1).astype(np.int8), action[known])
    assert "meta_policy" in run.summary["models"]
    assert run.summary["models"]["meta_policy"]["n"] == int((known & (run.labels >= 0)).sum())
    assert meta_scores(backtest(bars, preds, PUBLISHED).result, PUBLISHED) == {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "m"
    config = load_config("published", sets=["run.models=xgb,lgbm", "run.folds=3", "run.preset=fast"])
    made, _ = train_job(Job("simulated:random_walk?n_bars=1500&n_symbols=3", config, out=out))
    return out, config, made


def test_training_and_backtest_share_the_meta_layer(trained, tmp_path):
    out, config, _ = trained
    stored = MetaSchedule.load(out / "meta")
    job = Job("simulated:random_walk?n_bars=1500&n_symbols=3", config, models=out, out=tmp_path / "run")
    served = run_job(job, verify=False, report=False)
    assert served.meta.hash == stored.hash
    again = run_job(replace(job, models=None, out=tmp_path / "again"), verify=False, report=False)
    assert again.meta.hash == stored.hash
    assert_same_bits(again.result.meta_probs, served.result.meta_probs)
    without = load_config("published", sets=["run.meta=none"])
    assert run_job(replace(job, config=without, out=tmp_path / "none"), verify=False, report=False).meta is None
    other = load_config("published", sets=["run.meta=svm"])
    with pytest.raises(UserError, match=r"run.meta must be .* was 'svm'"):
        run_job(replace(job, config=other, out=tmp_path / "svm"), verify=False, report=False)


def test_later_candles_are_traded_with_the_seat_that_the_training_gave_its_meta_layer(tmp_path):
    bars = simulate("reversion", n_bars=2_400, n_symbols=2)
    save_bars(bars, tmp_path / "all.parquet")
    save_bars(bars[:1_800], tmp_path / "first.parquet")
    save_bars(bars[1_500:], tmp_path / "later.parquet")
    config, out = load_config("default", sets=["run.models=xgb,lgbm", "run.folds=3", "run.preset=tiny"]), tmp_path / "models"
    made, _ = train_job(Job(str(tmp_path / "first.parquet"), config, out=out))
    assert made.maps.maps["skip"][-1] > 0.0
    for name in ("later", "all"):
        job = Job(str(tmp_path / f"{name}.parquet"), config, models=out, out=tmp_path / name)
        served = run_job(job, verify=False, report=False)
        assert_same_bits(served.predictions.maps.maps, made.maps.maps)
        assert served.predictions.maps.evidence == made.maps.evidence


def test_a_run_without_enough_voters_says_why_there_is_no_model(bars, tmp_path):
    preds = Predictions.random(bars, seed=1, models=("xgb",))
    meta = train_meta(bars, preds, PUBLISHED)
    assert meta.artefacts == ()
    assert meta.notes == (
        "the meta model is absent in every fold: training must have at least 1,000 out-of-sample rows on which two or more models voted, "
        "was 0; the rules alone act",
    )
    assert research.backtest(bars, preds, PUBLISHED, meta=meta).notes[-1] == meta.notes[0]


def test_a_meta_model_is_served_in_the_mode_that_it_was_trained_for_alone(bars, preds, tmp_path, capsys):
    preds.save(tmp_path / "preds.parquet")
    save_bars(bars, tmp_path / "bars.parquet")
    for trained in MODES:
        meta = train_meta(bars, preds, params_of(trained), kind="logistic")
        meta.save(tmp_path / trained)
        for served in MODES:
            if served == trained:
                assert backtest(bars, preds, params_of(served), meta=meta).meta is meta
                continue
            sentence = f"must be trained for meta.mode={served}, was trained for {trained}; serve it with --set meta.mode={trained}, or"
            with pytest.raises(UserError, match=sentence):
                backtest(bars, preds, params_of(served), meta=meta)
    how = ["--predictions", str(tmp_path / "preds.parquet"), "--set", "meta.mode=v5", "--meta", str(tmp_path / "policy")]
    feed = f"replay:{tmp_path / 'bars.parquet'}"
    for words in (
        ["backtest", FLAG, str(tmp_path / "bars.parquet"), "--out", str(tmp_path / "run"), *how],
        ["live", FLAG, "--feed", feed, "--journal", str(tmp_path / "j"), "--allow-rejected", *how],
    ):
        assert guarded(lambda words=words: app(words, standalone_mode=False)) == 2
        assert "must be trained for meta.mode=v5, was trained for policy" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match=r"must be trained for meta.mode=override, was trained for policy"):
        research.sweep(
            bars, preds, {"meta.mode": ["policy", "override"]}, meta=MetaSchedule.load(tmp_path / "policy"), record=False, params=PUBLISHED
        )
    assert len(research.sweep(bars, preds, {"meta.mode": ["policy", "override"]}, record=False, params=PUBLISHED)) == 2
    with pytest.raises(
        UserError, match=r"takes layer.name=value of ensemble \(but its rule\), meta \(but its mode\), arbiter, .*, was 'meta.mode=v5'"
    ):
        command_set(["meta.mode=v5"])
