"""Are calibration, base rates, comparisons and provenance right? Against scikit-learn, plain loops and hand-made runs."""

import json
import math
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from research.errors import UserError
from research.evidence import summarise
from research.evidence.accuracy import opinions, symbol_blocks
from research.evidence.provenance import KINDS, over_budget, planes, provenance, refuse_synthetic
from research.runs import tables
from research.training.scoring.bootstrap import Bootstrap
from research.training.scoring.differences import common, difference, meta_against, sentence
from research.training.scoring.opinions import ECE_BINS, Opinion, blocks, tally
from research.training.scoring.reliability import reliability
from tests.naive import evidence as naive
from tests.support.fake_run import fake_run

WHOLE = slice(0, 400)


def random_opinion(n=400, n_symbols=3, seed=0):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet((1.0, 1.0, 1.0), (n, n_symbols))
    action = probs.argmax(axis=-1).astype(np.int8)
    action[rng.random(action.shape) < 0.1] = -1
    labels = rng.integers(-1, 3, (n, n_symbols)).astype(np.int8)
    return Opinion(action, probs.max(axis=-1), probs), labels


def total(opinion, labels, block=5.0):
    counted = tally(opinion, labels, np.zeros(labels.shape, np.int8), 1)
    boot = Bootstrap(len(labels), block, n_resamples=400)
    return blocks(counted, boot, slice(0, len(labels)), np.ones((1, 1)), ("total",))["total"]


# proper scores


def test_brier_and_base_rates_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    opinion, labels = random_opinion()
    at = (opinion.action >= 0) & (labels >= 0)
    y, block = labels[at], total(opinion, labels)
    assert block["brier"] == pytest.approx(metrics.brier_score_loss(y, opinion.probs[at], labels=[0, 1, 2]), abs=1e-12)
    shares = np.broadcast_to(np.bincount(y, minlength=3) / len(y), (len(y), 3))
    assert block["base_rate_log_loss"] == pytest.approx(metrics.log_loss(y, shares, labels=[0, 1, 2]), abs=1e-12)
    assert block["base_rate_brier"] == pytest.approx(metrics.brier_score_loss(y, shares, labels=[0, 1, 2]), abs=1e-12)


def test_the_brier_score_of_an_action_is_that_of_the_shares_it_stands_for():
    metrics = pytest.importorskip("sklearn.metrics")
    opinion, labels = random_opinion(seed=3)
    layer = Opinion(opinion.action, opinion.confidence)
    at = (layer.action >= 0) & (labels >= 0)
    stated = np.repeat((1.0 - layer.confidence[at])[:, None] / 2.0, 3, axis=1)
    stated[np.arange(len(stated)), layer.action[at]] = layer.confidence[at]
    assert total(layer, labels)["brier"] == pytest.approx(metrics.brier_score_loss(labels[at], stated, labels=[0, 1, 2]), abs=1e-12)
    assert total(layer, labels)["log_loss"] == pytest.approx(metrics.log_loss(labels[at], stated, labels=[0, 1, 2]), abs=1e-12)


def test_intervals_hold_their_figure_and_a_skilled_model_gains_on_the_base_rate():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, (400, 3)).astype(np.int8)
    probs = np.full((400, 3, 3), 0.2)
    np.put_along_axis(probs, np.where(rng.random(labels.shape) < 0.7, labels, 1)[..., None].astype(int), 0.6, axis=-1)
    skilled, noise = Opinion(probs.argmax(axis=-1).astype(np.int8), probs.max(axis=-1), probs), random_opinion()[0]
    for block in (total(skilled, labels), total(noise, labels)):
        pairs = (("accuracy", "ci95"), ("balanced_accuracy", "balanced_ci95"), ("activity_accuracy", "activity_ci95"))
        for name, limits in (*pairs, ("log_loss", "log_loss_ci95"), ("brier", "brier_ci95")):
            assert block[limits][0] < block[name] < block[limits][1], name
    assert total(skilled, labels)["log_loss_gain_ci95"][0] > 0.0 > total(noise, labels)["log_loss_gain_ci95"][1]
    assert total(skilled, labels)["balanced_ci95"][0] > 1 / 3


def test_balanced_intervals_cover_chance_as_often_as_they_say():
    inside = 0
    for seed in range(40):
        low, high = total(*random_opinion(n=250, seed=seed), block=1.0)["balanced_ci95"]
        inside += low <= 1 / 3 <= high
    assert inside >= 34  # 38 expected; fewer than 34 has a probability of 1 %


def test_small_whole_numbers_are_drawn_exactly_in_single_precision():
    x = np.random.default_rng(0).integers(0, 19, (5_000, 7)).astype(np.int32)
    boot = Bootstrap(5_000, 9.0, n_resamples=120)
    assert np.array_equal(boot.sums(x), boot.counts.astype(np.int64) @ x)
    large = x.astype(np.int64) * 100_003
    assert np.array_equal(boot.sums(large), boot.counts.astype(np.int64) @ large)


# calibration


@pytest.mark.parametrize("seed", range(3))
def test_reliability_is_that_of_a_plain_loop(seed):
    opinion, labels = random_opinion(seed=seed)
    at = (opinion.action >= 0) & (labels >= 0)
    rows, gap = naive.reliability(opinion.confidence[at].tolist(), (opinion.action == labels)[at].tolist())
    got = reliability(opinion, labels, Bootstrap(400, 5.0), WHOLE)
    assert got["n"] == [n for n, _, _ in rows]
    np.testing.assert_allclose(got["confidence"], [c for _, c, _ in rows], rtol=1e-12)
    np.testing.assert_allclose(got["accuracy"], [a for *_, a in rows], rtol=1e-12)
    assert got["ece"] == pytest.approx(gap, abs=1e-12)
    assert got["ece"] == pytest.approx(total(opinion, labels)["ece"], abs=1e-12)


def test_reliability_is_that_of_scikit_learn():
    calibration = pytest.importorskip("sklearn.calibration")
    opinion, labels = random_opinion(seed=5)
    at = (opinion.action >= 0) & (labels >= 0)
    right, said = calibration.calibration_curve((opinion.action == labels)[at], opinion.confidence[at], n_bins=ECE_BINS)
    got = reliability(opinion, labels, Bootstrap(400, 5.0), WHOLE)
    held = np.array(got["n"]) > 0
    np.testing.assert_allclose(np.array(got["accuracy"])[held], right, rtol=1e-12)
    np.testing.assert_allclose(np.array(got["confidence"])[held], said, rtol=1e-12)


def test_a_calibrated_opinion_is_as_far_off_as_chance_says():
    rng = np.random.default_rng(4)
    ratios = []
    for _ in range(8):
        confidence = rng.uniform(0.4, 1.0, (2_000, 1))
        right = rng.random(confidence.shape) < confidence
        opinion = Opinion(np.zeros(confidence.shape, np.int8), confidence)
        got = reliability(opinion, np.where(right, 0, 2).astype(np.int8), Bootstrap(2_000, 1.0), slice(0, 2_000))
        ratios.append(got["ece"] / got["ece_by_chance"])
        assert got["ece_by_chance"] < 0.05
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.25)


def test_bins_without_independent_cells_claim_nothing():
    opinion = Opinion(np.zeros((400, 1), np.int8), np.where(np.arange(400) < 10, 0.95, 0.5)[:, None])
    got = reliability(opinion, np.zeros((400, 1), np.int8), Bootstrap(400, 5.0), WHOLE)
    assert got["n"][14] == 10
    assert not got["enough"][14]
    assert math.isnan(got["accuracy"][0])


# symbols


def test_symbols_are_scored_alone_and_add_up():
    run = fake_run(n=600, seed=2, skill=0.3)
    rows, said = tables.tested_rows(run), opinions(run)
    boot = Bootstrap(rows.stop - rows.start, 5.0)
    got = symbol_blocks(said, run.labels, boot, rows, run.bars.symbols, said["lgbm"])
    assert list(got) == list(run.bars.symbols)
    whole = total(said["xgb"], run.labels)
    parts = [got[symbol]["models"]["xgb"] for symbol in run.bars.symbols]
    assert sum(p["n"] for p in parts) == whole["n"]
    assert sum(p["n"] * p["accuracy"] for p in parts) == pytest.approx(whole["n"] * whole["accuracy"])
    at = (said["xgb"].action[:, 1] >= 0) & (run.labels[:, 1] >= 0)
    assert parts[1]["accuracy"] == pytest.approx((said["xgb"].action[:, 1] == run.labels[:, 1])[at].mean())
    assert "confusion" not in parts[1]
    assert parts[1]["volatility_accuracy"] == got[run.bars.symbols[1]]["models"]["lgbm"]["accuracy"]


# comparisons


def test_an_opinion_set_against_itself_differs_by_nothing():
    opinion, labels = random_opinion()
    counted = tally(opinion, labels, np.zeros(labels.shape, np.int8), 1)
    got = difference(counted, counted, Bootstrap(400, 5.0), WHOLE)
    assert got["balanced_accuracy"]["difference"] == 0.0
    assert got["balanced_accuracy"]["ci95"] == [0.0, 0.0]
    assert got["n"] == int(((opinion.action >= 0) & (labels >= 0)).sum())


def test_what_two_opinions_share_cancels():
    """One copies the other and is right a little more often: the interval of the difference is far narrower than either's own."""
    rng = np.random.default_rng(7)
    labels = rng.integers(0, 3, (2_000, 1)).astype(np.int8)
    base = np.where(rng.random(labels.shape) < 0.4, labels, rng.integers(0, 3, labels.shape)).astype(np.int8)
    better = np.where(rng.random(labels.shape) < 0.03, labels, base).astype(np.int8)
    a, b = (tally(Opinion(x, np.full(labels.shape, 0.5)), labels, np.zeros(labels.shape, np.int8), 1) for x in (better, base))
    got = difference(a, b, Bootstrap(2_000, 1.0), slice(0, 2_000))["accuracy"]
    assert got["ci95"][0] > 0.0
    assert got["difference"] == pytest.approx((better == labels).mean() - (base == labels).mean())
    assert got["ci95"][1] - got["ci95"][0] < 0.03


def meta_case(skill, n=1_500, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, (n, 2)).astype(np.int8)

    def said(share):
        action = np.where(rng.random(labels.shape) < share, labels, rng.integers(0, 3, labels.shape)).astype(np.int8)
        return Opinion(action, np.full(labels.shape, 0.5))

    opinions_ = {"xgb": said(0.1), "lgbm": said(0.2), "meta_policy": said(skill), "ensemble": said(0.15)}
    opinions_["meta_policy"].action[: n // 3] = -1  # not ready
    return meta_against(opinions_, ["xgb", "lgbm"], labels, Bootstrap(n, 1.0), slice(0, n)), opinions_


def test_the_meta_layer_is_set_against_the_best_base_model_and_the_ensemble():
    found, said = meta_case(skill=0.5)
    assert [row["against"] for row in found] == ["lgbm", "ensemble"]
    assert all("beats" in row["sentence"] for row in found)
    assert "the best base model (lgbm)" in found[0]["sentence"]
    assert found[0]["n"] == 2 * 1_000
    assert common(said.values()).sum() == 2_000
    assert all("cannot be told from" in row["sentence"] for row in meta_case(skill=0.2)[0][:1])
    assert all("is worse than" in row["sentence"] for row in meta_case(skill=-1.0)[0][:1])
    assert "not enough data" in meta_case(skill=0.5, n=15)[0][0]["sentence"]
    assert sentence(found[1], is_best=False).startswith("meta_policy beats the ensemble")


# provenance


@dataclass
class FakeArtefact:
    slot: str
    valid_from: int
    valid_until: int
    meta: dict[str, Any] = field(default_factory=dict)


def with_models(run, **meta):
    times = run.bars.close_time
    split = {"split": {"close_time": {"test": [int(times[0]), int(times[len(times) // 2])]}}}
    artefacts = tuple(FakeArtefact(slot, int(times[0]), 2**62, split | meta.get(slot, {})) for slot in ("xgb", "lgbm"))
    run.predictions.models = SimpleNamespace(artefacts=artefacts)
    return run


def test_predictions_later_than_their_artefact_was_meant_for_are_stale():
    run = with_models(fake_run(n=600, seed=1))
    rows = tables.tested_rows(run)
    found = provenance(run, rows)
    plane = planes(run, rows)["xgb"]
    voted = run.result.votes.action[0] >= 0
    assert (plane[301:][voted[301:]] == KINDS.index("stale") + 1).all()
    assert (plane[rows.start : 301][voted[rows.start : 301]] == KINDS.index("real") + 1).all()
    assert found["total"]["stale"] == pytest.approx((plane == KINDS.index("stale") + 1).sum() / (plane > 0).sum())
    assert sum(found["total"][kind] for kind in KINDS) == pytest.approx(1.0)


def test_absent_predictions_are_counted_on_candles_alone():
    run = fake_run(n=600, seed=1)
    rows = tables.tested_rows(run)
    silent = [(400, 1), (401, 1), (402, 2)]
    for t, s in silent:
        run.result.votes.action[1, t, s] = -1
    found = provenance(run, rows)["models"]
    due = ~np.isnan(run.bars.close)
    due[: rows.start] = False
    assert found["lgbm"]["due"] <= due.sum()
    assert found["lgbm"]["absent"] - found["xgb"]["absent"] == pytest.approx(3 / found["lgbm"]["due"])


def test_one_synthetic_vote_makes_the_decision_synthetic_and_carries_its_pnl():
    run = with_models(fake_run(n=600, seed=1), lgbm={"synthetic": True})
    found = provenance(run, tables.tested_rows(run))
    assert found["models"]["xgb"]["synthetic"] == 0.0
    assert found["models"]["lgbm"]["synthetic"] > 0.9
    decided = found["decisions"]
    closed = run.trades[run.trades["exit_reason"] > 0]
    assert decided["synthetic"]["trades"] == len(closed)
    assert decided["synthetic"]["pnl"] == pytest.approx(closed["pnl"].sum())
    assert sum(part["share_of_gross_pnl"] for part in decided.values()) == pytest.approx(1.0)


def test_a_budget_is_a_sentence_and_synthetic_models_are_refused():
    run = with_models(fake_run(n=600, seed=1), lgbm={"synthetic": True})
    found = provenance(run, tables.tested_rows(run))
    assert over_budget(found, 1.0) is None
    text = over_budget(found, 0.05)
    assert text.startswith("provenance: at most 5.00% of predictions may be absent, stale or synthetic, was ")
    assert "synthetic" in text
    with pytest.raises(UserError, match="synthetic for lgbm; allow it"):
        refuse_synthetic(run.predictions.models, is_allowed=False)
    refuse_synthetic(run.predictions.models, is_allowed=True)
    refuse_synthetic(None, is_allowed=False)


def test_imported_predictions_are_imported():
    run = fake_run(n=500, seed=1)
    run.predictions.imported = True
    found = provenance(run, tables.tested_rows(run))
    assert found["total"]["real"] == 0.0
    assert found["total"]["imported"] > 0.99


def test_the_summary_holds_all_of_it_as_strict_json():
    s = summarise(fake_run(n=500, seed=5))
    assert json.loads(json.dumps(s, allow_nan=False)) == s
    assert {"reliability", "symbols", "meta_against", "dead", "provenance"} <= set(s)
    assert set(s["symbols"]) == set(s["data"]["symbols"])
    assert set(s["reliability"]) == {"xgb", "lgbm", "ensemble", "arbiter"}
    assert len(s["reliability"]["xgb"]["n"]) == ECE_BINS
    assert s["meta_against"] == []
    new = {"brier", "base_rate_brier", "base_rate_log_loss", "log_loss_gain_ci95", "balanced_ci95", "activity_ci95"}
    for part in (s, *s["regimes"].values(), *s["symbols"].values()):
        for block in (*part["models"].values(), *part["layers"].values()):
            assert new <= set(block)
