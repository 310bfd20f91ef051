"""Are several horizons of a model one voter, trained, valued, served, proven and refused as they should be?"""

import shutil
from dataclasses import replace

import numpy as np
import pytest

import research
from qtcore import Params
from qtcore.chain.outcome import outcomes
from qtcore.chain.price import costs_rule
from qtcore.choices import DecideRule
from qtcore.rules import Reason
from qtcore.types import Bars, Source
from research.data.frames import save_bars
from research.errors import UserError
from research.evidence.placebo import Replay
from research.live.monitoring.gap import live_gap
from research.live.start import LiveOptions
from research.runs import tables
from research.runs.config import load_config
from research.runs.explain import explain_decision
from research.runs.folder import read_run
from research.training.labels import get_label, horizons_of
from research.training.map_fit import bets_of
from research.training.models.base import register
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions, hash_votes
from research.training.update import update
from research.workflow.load import export_run
from research.workflow.recording import verify_run
from tests.conftest import assert_same_bits
from tests.support.known_worlds import world
from tests.support.live_market import run_live

LABEL, LATER, FIRST = "L3@4+24", (24,), 3_900
ASKED = {"n_folds": 3, "processes": 1, "use_store": False, "preset": "tiny"}


@pytest.fixture(scope="module")
def bars() -> Bars:
    return world("momentum", 0.115, 14, 4_300)


@pytest.fixture(scope="module")
def folder(bars, tmp_path_factory):
    out = tmp_path_factory.mktemp("horizons") / "models"
    research.train(bars[:FIRST], ["linear"], LABEL, out=out, **ASKED)
    return out


@pytest.fixture(scope="module")
def made(bars, folder) -> Predictions:
    return Predictions.from_models(folder, bars[:FIRST])


@pytest.fixture(scope="module")
def run(bars, made):
    return research.backtest(bars[:FIRST], made)


def test_a_training_makes_one_voter_of_each_model(bars, made, folder):
    assert (made.label.id, made.label.horizon, made.later) == (LABEL, 4, LATER)
    assert made.probs.shape[3] == 6
    assert made.slots == ("linear",)
    alone = research.train(bars[:FIRST], ["linear"], "L3@4", **ASKED)
    assert_same_bits(made.probs[..., :3], alone.probs)
    assert_same_bits(made.action, alone.action)
    assert_same_bits(made.maps.maps, alone.maps.maps)
    (length, later), models = made.maps.later[0], made.models
    assert length == 24
    assert_same_bits(later.maps["start"], made.maps.maps["start"])
    assert [part.config["label"]["horizon"] for part in models.parts] == [4, 24]
    stored = Predictions.load(folder / "predictions.parquet")
    assert_same_bits(stored.probs, made.probs)
    assert_same_bits(stored.votes().maps, made.votes().maps)
    assert stored.later == LATER


def test_both_horizons_speak_and_their_trades_last_as_long(run):
    assert run.params.decide.rule == DecideRule.EDGE
    holding = run.result.decisions.holding
    assert set(np.unique(holding)) == {4.0, 24.0}
    trades, bar = run.trades, run.bars.interval
    ended = trades[trades["exit_reason"] == int(Reason.HORIZON)]
    length = ((ended["exit_time"] - ended.index).astype("int64") // bar).to_numpy()
    at = np.searchsorted(run.bars.close_time, ended["decision_time"].astype("int64"))
    column = [run.bars.symbols.index(name) for name in ended["symbol"]]
    np.testing.assert_array_equal(length, holding[at, column])
    assert len(set(length.tolist())) == 2


def test_a_run_is_proven_and_explained(run, tmp_path):
    run.save(tmp_path / "run")
    assert verify_run(tmp_path / "run")["passed"]
    files = read_run(tmp_path / "run")
    assert_same_bits(files.decisions()["holding"], run.result.decisions.holding)
    t, s = np.argwhere((run.result.decisions.holding == 24) & (run.result.size != 0.0))[0]
    told = explain_decision(tmp_path / "run", run.bars.symbols[s], str(np.datetime64(int(run.bars.close_time[t]), "ns")))
    layers = {layer["name"]: layer["saw"] for layer in told["layers"]}
    assert layers["price"]["horizon"] == "24 bars (of 4, 24: that with the largest edge speaks)"
    assert layers["price"]["expected funding"].endswith("(paid over 24 bars)")
    assert len(layers["model linear"]["SELL HOLD BUY at 24 bars"].split()) == 3


@pytest.mark.parametrize("change", ["maps", "models"])
def test_a_later_horizon_that_was_tampered_with_is_found(run, tmp_path, change):
    """Its maps, as if they had seen the test, and its models, which say something else."""
    known = run.predictions.maps
    if change == "maps":
        (bars, later), maps = known.later[0], known.later[0][1].maps.copy()
        maps["slope"][1:] += 0.01
        told = replace(run.predictions, maps=replace(known, later=((bars, replace(later, maps=maps)),)))
    else:
        probs = run.predictions.probs.copy()
        probs[..., 3:] = probs[..., [5, 4, 3]]
        told = replace(run.predictions, probs=probs)
    research.backtest(run.bars, told, run.params).save(tmp_path / "run")
    found = verify_run(tmp_path / "run")
    assert not found["passed"]
    failed = [check["name"] for check in found["checks"] if not check["passed"]]
    assert any(name.startswith("D-99 maps" if change == "maps" else "serving") for name in failed), failed


def test_placebos_begin_at_the_run_itself(run):
    assert Replay(run, tables.tested_rows(run)).is_exact


def test_the_sweep_gives_the_run(run):
    grid = {"decide.min_edge": [0.0, 0.002], "governor.kelly_fraction": [run.params.governor.kelly_fraction]}
    table = research.sweep(run.bars, run.predictions, grid, run.params).table()
    for _, row in table.iterrows():
        other = research.backtest(run.bars, run.predictions, run.params.with_values({"decide.min_edge": row["decide.min_edge"]}))
        assert row["n_trades"] == len(other.trades)
    with pytest.raises(UserError, match=r"broker.max_holding_bars must be left out with models of several horizons"):
        research.backtest(run.bars, run.predictions, Params().with_values({"broker.max_holding_bars": 8}))


def test_paper_trading_makes_the_same_decisions(bars, folder, run, tmp_path):
    save_bars(bars[:FIRST], tmp_path / "bars.parquet")
    served = {"models": str(folder), "allow_rejected": True, "allow_synthetic": True}
    asked = LiveOptions(f"replay:{tmp_path / 'bars.parquet'}", tmp_path / "j.db", load_config(), **served)
    run_live(asked)
    assert live_gap(tmp_path / "j.db")["identical"]
    export_run(tmp_path / "j.db", tmp_path / "run")
    exported = read_run(tmp_path / "run")
    assert_same_bits(exported.decisions()["holding"][-1_000:], run.result.decisions.holding[-1_000:])
    assert_same_bits(exported.decisions()["final_action"][-1_000:], run.result.final_action[-1_000:])


def test_bets_are_of_the_horizon_that_speaks(run):
    made, params = run.predictions, Params.stored(run.predictions.maps.params)
    labels, _ = bets_of(run.bars, made)
    d, cost = run.result.decisions, costs_rule(params.broker.fee_rate, params.broker.slippage_rate)
    paid = {h: outcomes(run.bars, params.with_values({"broker.max_holding_bars": h}))[0] for h in (4, 24)}
    cells = np.argwhere((d.lean != 0.0) & (labels >= 0) & (d.source != Source.ARBITER))
    for t, s in cells[:: max(1, len(cells) // 400)]:
        result = paid[int(d.holding[t, s])][1 if d.lean[t, s] > 0.0 else 0, t, s]
        assert (labels[t, s] == 2) == (result - cost > 0.0)


def test_a_model_of_one_horizon_takes_part_in_each(bars):
    register("onehorizon", "tests.support.own_models:OneHorizon")
    both = research.train(bars[:1_500], ["linear", "onehorizon"], LABEL, **ASKED)
    m = both.names.index("onehorizon")
    assert np.isnan(both.probs[m, ..., 3:]).all()
    assert (both.action[m] >= 0).any()
    heard = both.of_horizon(1, both.label, both.labels)
    assert_same_bits(heard.probs[m], np.ascontiguousarray(both.probs[m, ..., :3]))
    with pytest.raises(UserError, match="must have a model that learns it, was with onehorizon, which learn one horizon"):
        research.train(bars[:1_500], ["onehorizon"], LABEL, **ASKED)


def test_an_update_goes_on_at_every_horizon(bars, folder, monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    known = ModelSet.load(folder)
    after = update(bars, known)
    assert after.label.id == LABEL
    for old, new in zip(known.parts, after.models.parts, strict=True):
        assert len(new.config["boundaries"]) == len(old.config["boundaries"]) + 1
    assert_same_bits(after.probs[:, :FIRST], Predictions.from_models(known, bars[:FIRST]).probs)


def test_a_folder_without_its_later_horizon_is_refused(folder, tmp_path):
    broken = shutil.copytree(folder, tmp_path / "broken")
    shutil.rmtree(broken / "horizon_24")
    with pytest.raises(UserError, match=r"horizon_24"):
        ModelSet.load(broken)


def test_votes_of_one_horizon_keep_their_name(made):
    """The ledger knows runs from before there were horizons by it."""
    alone = replace(made, probs=made.probs[..., :3], later=(), maps=replace(made.maps, later=()))
    votes = alone.votes()
    assert "bars" not in alone.maps.to_dict()["maps"][0]
    assert hash_votes(votes) != hash_votes(made.votes())
    other = votes.maps.copy()
    other["bars"] = 7
    assert hash_votes(votes) != hash_votes(replace(votes, maps=other))


@pytest.mark.parametrize(
    ("label", "error"),
    [
        ("L3@24+4", "must have them rise"),
        ("L3@4+4", "must have them rise"),
        ("L3@+4", "must have them rise"),
        ("L3+4", "must have them rise"),
        ("L3@0+4", "must have them rise"),
        ("auto@4+8", "must name its rule"),
        ("XX@4+8", "label"),
        ("L6@4+8", "label must be known before trading"),
    ],
)
def test_horizons_that_mean_nothing_are_refused(bars, label, error):
    with pytest.raises(UserError, match=error):
        research.train(bars[:600], ["linear"], label, **ASKED)


def test_one_label_is_asked_for_one_horizon():
    assert horizons_of(get_label("L3@4")) == (get_label("L3@4"),)
    with pytest.raises(UserError, match="label must be of one horizon where no models are trained for each, was 'L3@4\\+24'"):
        get_label("L3@4+24")
