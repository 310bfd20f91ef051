"""Does the meta layer of mode `bet` learn from the voters' hit rates, and read the same ones in training, run, proof and live trading?"""

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import research
from qtcore import Engine, Params
from qtcore.chain.price import leans_of
from qtcore.meta import VECTORS, Hits
from qtcore.types import DECISION_COLUMNS, MONEY_COLUMNS
from research.errors import UserError
from research.live.monitoring.gap import live_gap
from research.live.start import LiveOptions, start_live
from research.runs.backtest import priced, resolved
from research.runs.config import load_config
from research.runs.prediction_log import export_log
from research.training.meta import MetaSchedule, read_log, train_from_log, train_meta
from research.training.meta.estimators import BET_KINDS
from research.training.meta.train import prepare
from research.training.models.base import CLASSES
from research.training.predictions import Predictions
from research.verify.evidence import read_evidence
from research.verify.meta import meta_claims
from tests.conftest import assert_same_bits
from tests.support import PUBLISHED
from tests.support.live_market import content, run_live

WORLD = "simulated:random_walk?n_bars=1200&n_symbols=3"
HORIZON = 12
PARAMS = Params()


@pytest.fixture(scope="module")
def bars():
    return research.load_bars(WORLD)


@pytest.fixture(scope="module")
def preds(bars):
    made = Predictions.random(bars, seed=1, models=("xgb", "lgbm", "nhits"), label=f"L3@{HORIZON}")
    return priced(bars, made, resolved(PARAMS, made))


@pytest.fixture(scope="module")
def meta(bars, preds):
    return train_meta(bars, preds, PARAMS)


def test_rates_are_what_the_bet_layer_reads_unless_told_otherwise(bars, preds, meta):
    assert (meta.vector, meta.horizon, len(meta.artefacts) > 1) == ("bet30", HORIZON, True)
    five = Predictions.random(bars, seed=1, models=("xgb", "lgbm", "nhits", "patchtst", "tft"))
    assert train_meta(bars, five, PARAMS).vector == "bet35"
    assert train_meta(bars, preds, PARAMS, vector="meta26").vector == "meta26"
    assert train_meta(bars, preds, PUBLISHED).vector == "meta26"
    assert train_meta(bars, preds, PUBLISHED, vector="bet30").vector == "bet30"  # where nothing prices an opinion, too


def test_training_reads_the_rates_that_the_engine_carries(bars, preds, meta):
    table = prepare(bars, preds, resolved(PARAMS, preds))[0].table.reshape(bars.n, len(bars.symbols), -1)
    engine = Engine(resolved(PARAMS, preds), meta_model=meta)
    engine.run(bars, preds.votes())
    rates = Hits.fresh(HORIZON, len(bars.symbols))
    hits = rates.advance(leans_of(preds.votes()), bars.close)
    assert_same_bits(rates.rate, engine.state["meta.hit_rate"])
    assert_same_bits(np.moveaxis(hits[:4], 0, -1), table[..., -4:])
    assert len(np.unique(hits[0])) > 1000


def test_one_block_and_bar_by_bar_across_a_fold_boundary(bars, preds, meta):
    params = resolved(PARAMS, preds)
    edge = int(np.searchsorted(bars.close_time, meta.artefacts[1].valid_from))
    whole_engine, engine = Engine(params, meta_model=meta), Engine(params, meta_model=meta)
    whole = whole_engine.run(bars, preds.votes())
    cuts = [0, 5, 400, *range(edge - HORIZON - 3, edge + HORIZON + 3), bars.n]
    parts = [engine.run(bars[a:b], preds.votes()[a:b]) for a, b in pairwise(cuts)]
    for name in (*DECISION_COLUMNS, *MONEY_COLUMNS):
        assert_same_bits(getattr(whole.decisions, name), np.concatenate([getattr(p.decisions, name) for p in parts]), name)
    assert_same_bits(whole.meta_probs, np.concatenate([p.meta_probs for p in parts], axis=1))
    for name, array in whole_engine.state.items():
        assert_same_bits(array, engine.state[name], name)
    assert np.isfinite(whole.meta_probs).any()


def test_holding_positions_for_longer_does_not_change_what_the_voters_were_right_about(bars, preds, meta):
    """All settings of a sweep share one market, the holding time among them."""
    held = [PARAMS.with_values({"broker.max_holding_bars": bars_held}) for bars_held in (HORIZON, 40)]
    one, other = (Engine(params, meta_model=meta).run(bars, preds.votes()) for params in held)
    assert_same_bits(one.meta_probs, other.meta_probs)


def test_a_run_keeps_and_proves_it(bars, preds, meta, tmp_path):
    run = research.backtest(bars, preds, PARAMS, meta=meta)
    folder = run.save(tmp_path / "run", record=False)
    assert json.loads((folder / "manifest.json").read_text())["meta_model"]["vector"] == "bet30"
    back = MetaSchedule.load(folder / "models" / "meta")
    assert (back.vector, back.horizon) == ("bet30", HORIZON)
    assert [claim.holds for claim in meta_claims(read_evidence(folder), 0, lambda text: None)] == [True, True]
    assert run.verify()["passed"], run.verification


@pytest.mark.parametrize("bar", [400, 401 + HORIZON // 2])
def test_a_killed_session_goes_on_with_the_same_bits(bars, preds, meta, tmp_path, bar):
    """Killed between two snapshots: rates come from the last one and the bars behind it."""
    preds.save(tmp_path / "predictions.parquet")
    meta.save(tmp_path / "meta")
    asked = LiveOptions(f"replay:{WORLD}", tmp_path / "whole", load_config(), tmp_path / "predictions.parquet", meta=tmp_path / "meta")
    asked = replace(asked, allow_rejected=True, allow_synthetic=True)
    expected = run_live(asked)[1]
    wish, passed = replace(asked, journal=tmp_path / "killed"), []

    def die(at: str) -> None:
        passed.append(at)
        if passed.count("committed") > bar:
            raise KeyboardInterrupt

    runner, close = start_live(wish)
    runner.passed = die
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    close()
    assert run_live(wish)[1] == expected
    assert content(wish.journal) == content(asked.journal)
    assert live_gap(wish.journal, meta=meta)["identical"]
    run = research.backtest(bars, preds, PARAMS, meta=meta)
    engine = Engine(run.params, meta_model=meta)
    engine.run(bars, run.predictions.votes())
    assert_same_bits(engine.state["meta.hit_rate"], runner_state(wish)["meta.hit_rate"])


def runner_state(wish):
    runner, close = start_live(wish)
    runner.run()
    close()
    return runner.engine.state


def test_a_log_holds_no_closes_so_its_bet_layer_reads_no_rates(tmp_path):
    bars = research.load_bars(WORLD.replace("1200", "2500"))
    run = research.backtest(bars, Predictions.random(bars, seed=1), PUBLISHED.with_values({"governor.min_confidence": 0.0}))
    log = export_log(run, tmp_path)
    with pytest.raises(UserError, match=r"run.meta_vector must be one without hit rates for a log, .* was bet30; use meta26"):
        train_from_log(*log, PARAMS, vector="bet30")
    made, _ = train_from_log(*log, PARAMS)
    assert made.vector == "meta26"
    read = read_log(*log)
    has, won = read.labels >= 0, read.labels == read.traded
    assert {int(side) for side in read.traded[has & won]} == {0, 2}
    for artefact in made.artefacts:  # whether a trade won, on either side
        _, start, stop = artefact.meta["split"]["rows"]
        pays, loses = np.count_nonzero((has & won)[start:stop]), np.count_nonzero((has & ~won)[start:stop])
        supports = [artefact.meta["cv_metrics"][name]["support"] for name in CLASSES]
        assert supports == [loses, 0, pays]
        assert artefact.meta["log_loss"] < 1.0


def in_turns(bars, seed=3, span=400):
    """Two voters that know the next five bars in turns, for `span` bars each, and otherwise guess in the same words."""
    rng, close = np.random.default_rng(seed), np.log(bars.close)
    n, n_symbols = close.shape
    ahead = np.nan_to_num((np.concatenate([close[5:], np.full((5, n_symbols), np.nan)]) - close) / 0.02)
    probs = np.full((5, n, n_symbols, 3), np.nan)
    is_first = (np.arange(n) // span % 2 == 0)[:, None]
    for m, knows in enumerate((is_first, ~is_first)):
        said = np.where(knows, 2.0 * ahead, 2.0 * rng.permutation(ahead)) + rng.normal(size=ahead.shape)
        buy = 1.0 / (1.0 + np.exp(-said))
        probs[m] = np.stack([0.6 * (1.0 - buy), np.full_like(buy, 0.4), 0.6 * buy], axis=-1)
    labels, label = research.training.labels.score_labels(bars, "L1")
    return Predictions.from_probs(bars, probs, np.full(n, -1, np.int16), labels, label, imported=True)


@pytest.mark.parametrize("kind", BET_KINDS)
def test_rates_say_which_of_two_voters_knows_at_present_and_earn_a_seat(kind):
    bars = research.load_bars("simulated:random_walk?n_bars=4000&n_symbols=4&seed=7&correlation=0.1")
    made = in_turns(bars)
    params = resolved(PARAMS, made)
    made = priced(bars, made, params)
    losses = {}
    for vector in ("meta26", "bet30"):
        material, _ = prepare(bars, made, params, vector=vector, kind=kind)
        meta = train_meta(bars, made, params, vector=vector, kind=kind)
        probs = meta.answer(material.table, np.repeat(bars.close_time, len(bars.symbols)))
        known = (material.labels.reshape(-1) >= 0) & np.isfinite(probs[:, 2])
        pays, said = material.labels.reshape(-1)[known] == 2, np.clip(probs[known, 2], 1e-6, 1.0 - 1e-6)
        losses[vector] = -np.mean(np.where(pays, np.log(said), np.log(1.0 - said)))
    assert losses["bet30"] < losses["meta26"] - 0.03, losses
    run, alone = (research.backtest(bars, made, PARAMS, meta=each) for each in (meta, None))
    seated = [told["meta"]["is_seated"] for told in run.predictions.maps.evidence]
    assert np.mean(seated[3:]) >= 0.5
    assert run.result.equity[-1] > 1.1 * alone.result.equity[-1]
    assert set(VECTORS["bet30"]) > set(VECTORS["meta26"])
