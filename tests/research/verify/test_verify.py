"""Does the proof hold for an honest run, and does it name the exact cell of a dishonest one?"""

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from qtcore.rules import Reason
from qtcore.types import MODELS, Action, Source, Verdict
from research import backtest
from research.errors import UserError
from research.training import walk_forward
from research.training.predictions import Predictions
from research.verify.accounting import check_accounting
from research.verify.evidence import Evidence, read_evidence
from research.verify.invariants import check_invariants
from research.verify.maps import map_claims
from research.verify.parity import compare, random_future, replay, single_edges, stored_outputs
from research.verify.rerun import future_claims, order_claim
from research.workflow.recording import verify_run
from tests.conftest import assert_same_bits, awkward_bars
from tests.qtcore.test_trade import RUINED
from tests.support import PUBLISHED

N = 400
VALUES = {"governor.max_drawdown": 1.0, "governor.max_exposure": 0.3, "governor.stop_loss": 0.03}


def funded_bars():
    bars = awkward_bars(N, seed=2)
    rates = np.random.default_rng(0).normal(0.0, 3e-4, bars.close.shape)
    return replace(bars, funding=np.where((np.arange(N) % 8 == 0)[:, None], rates, 0.0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    bars = funded_bars()
    run = backtest(bars, Predictions.random(bars, seed=1), PUBLISHED.with_values(VALUES))
    return run.save(tmp_path_factory.mktemp("verify") / "run", record=False)


@pytest.fixture(scope="module")
def run(folder) -> Evidence:
    return read_evidence(folder)


@pytest.fixture(scope="module")
def whole(run):
    return replay(run, [])[0]


def claims_of(run: Evidence) -> dict:
    return {claim.id: claim for claim in (*check_invariants(run), *check_accounting(run))}


def broken_by(run: Evidence) -> list[str]:
    return [claim.id for claim in claims_of(run).values() if not claim.holds]


def with_cell(run: Evidence, column: str, row: int, symbol: int, value: float) -> Evidence:
    plane = run.planes[column].copy()
    plane[row, symbol] = value
    return replace(run, planes={**run.planes, column: plane})


def with_fill(run: Evidence, k: int, **values: float) -> Evidence:
    fills = run.fills.copy()
    for name, value in values.items():
        fills[name][k] = value
    return replace(run, fills=fills)


def first_cell(mask: np.ndarray) -> tuple[int, int]:
    row, symbol = np.argwhere(mask)[len(np.argwhere(mask)) // 2]
    return int(row), int(symbol)


ASSUMED = {
    **{name: {"broker.fill": name} for name in ("close", "next_close", "one_bar_later", "worst")},
    "once": {"broker.fill": "one_bar_later", "broker.max_holding_bars": 1},
    "balance": {"broker.fill": "close", "governor.drawdown_basis": "balance", "governor.kelly_fraction": 1.0},
    "impact": {"broker.impact": 0.3, "governor.max_drawdown": 1.0},
    "ruined": {**RUINED, "broker.fill": "one_bar_later", "broker.max_holding_bars": 4},
    "ruined_close": {**RUINED, "broker.fill": "next_close"},
}


@pytest.mark.parametrize("name", ASSUMED)
def test_every_assumption_about_fills_is_proven_and_a_forged_price_is_found(name, tmp_path):
    bars = funded_bars()
    made = backtest(bars, Predictions.random(bars, seed=1), PUBLISHED.with_values(VALUES | ASSUMED[name]))
    run = read_evidence(made.save(tmp_path / "run", record=False))
    assert len(run.fills) > 8
    assert broken_by(run) == []
    k = int(np.flatnonzero(run.fills["is_entry"] == 1)[3])
    assert "reference" in broken_by(with_fill(run, k, reference_price=run.fills["reference_price"][k] * 1.001))
    assert "approved" in broken_by(with_fill(run, k, bar=run.fills["bar"][k] + 1))


# ------------------------------------------------------------------ an honest run


def test_an_honest_run_is_proven(folder):
    seen = []
    certificate = verify_run(folder, progress=lambda done, total, text: seen.append((done, total, text)))
    assert [c["detail"] for c in certificate["checks"] if not c["passed"]] == []
    assert certificate["passed"]
    assert [done for done, _, _ in seen] == list(range(len(seen)))
    assert max(done for done, _, _ in seen) < seen[0][1]
    stored = json.loads((folder / "verify.json").read_text())
    assert stored == json.loads(json.dumps(certificate))
    assert any("imported" in sentence for sentence in certificate["not_covered"])
    assert any(f"{N:,} bars" in sentence for sentence in certificate["covers"])
    ids = {c["id"] for c in certificate["checks"]}
    assert {"replay", "O-8", "O-8 bar by bar", "G-4", "O-9", "O-10", *(f"O-{i}" for i in range(1, 8)), "G-1", "G-2", "G-3", "G-5"} <= ids


def test_every_claim_was_checked_on_something(run):
    """A claim about no cell proves nothing; only what the parameters switch off may be empty."""
    assert [c.id for c in claims_of(run).values() if c.checked == 0] == ["O-7"]
    assert len(run.fills) > 300


def test_the_sample_of_single_bars_is_stated():
    edges, n_single = single_edges(20_000, seed=0)
    assert n_single == 5_000
    steps = np.diff([0, *edges, 20_000])
    assert np.count_nonzero(steps == 1) >= 5_000
    assert single_edges(300, seed=0) == (list(range(300)), 300)


# ------------------------------------------------------------------ one corrupted cell per promise


def traded(run):
    return run.planes["size"] != 0.0


def consensus(run):
    votes = np.stack([run.planes[f"{m}_action"] for m in MODELS])
    count = np.stack([(votes == a).sum(axis=0) for a in (0, 1, 2)])
    return (count.max(axis=0) == 4) & (run.planes["raw_action"] != Action.HOLD) & (run.planes["size"] == 0.0)


def idle(run):
    return (run.planes["raw_action"] == Action.HOLD) & (run.planes["n_voters"] >= 2)


CELLS = {
    "votes": (lambda r: idle(r), "n_voters", 7),
    "O-1": (consensus, "raw_action", Action.HOLD),
    "O-2": (lambda r: (r.planes["source"] == Source.ENSEMBLE) & (r.planes["n_voters"] >= 2), "source", Source.META),
    "O-3": (lambda r: r.planes["verdict"] == Verdict.DEFER, "arbiter_action", Action.BUY),
    "O-4": (lambda r: r.planes["source"] == Source.ENSEMBLE, "raw_confidence", 0.123),
    "O-5": (traded, "governor_reason", Reason.LOW_CONFIDENCE),
    "O-6": (idle, "final_action", Action.SELL),
    "G-1": (traded, "size", 5_000.0),
    "cell_pnl": (lambda r: r.planes["cell_pnl"] != 0.0, "cell_pnl", 77.0),
}


@pytest.mark.parametrize("name", CELLS)
def test_a_corrupted_cell_is_named(run, name):
    choose, column, value = CELLS[name]
    row, symbol = first_cell(choose(run))
    claim = claims_of(with_cell(run, column, row, symbol, value))[name]
    assert claim.violated >= 1
    assert (claim.first.bar, claim.first.symbol) == (row, run.bars.symbols[symbol])
    time = str(np.datetime64(int(run.bars.close_time[row]), "ns"))[:16]
    shown = {"O-2": "raw_action", "O-5": "final_action"}.get(name, column)
    assert f"first bar {row} ({time} UTC) {run.bars.symbols[symbol]} {shown}, distance " in claim.complaint
    assert claim.complaint.startswith(f"{name}: 1 of ")


@pytest.mark.parametrize("column", ["equity", "balance", "exposure"])
def test_a_corrupted_line_is_named(run, column):
    lines = {**run.lines, column: run.lines[column].copy()}
    lines[column][123] += 0.01
    claim = claims_of(replace(run, lines=lines))[{"exposure": "G-2b"}.get(column, column)]
    assert (claim.first.bar, claim.first.column, claim.first.symbol) == (123, column, "")
    assert claim.first.distance == pytest.approx(0.01)


def test_too_much_exposure_is_named(run):
    row = first_cell(traded(run))[0]
    lines = {**run.lines, "exposure": run.lines["exposure"].copy()}
    lines["exposure"][row] = 0.31 * run.lines["equity"][row]
    claim = claims_of(replace(run, lines=lines))["G-2"]
    assert claim.first.bar == row
    assert claim.first.distance == pytest.approx(0.01 * run.lines["equity"][row])


def nth(run: Evidence, is_entry: int, reason: int | None = None) -> int:
    hits = np.flatnonzero((run.fills["is_entry"] == is_entry) & ((reason is None) | (run.fills["reason"] == reason)))
    return int(hits[len(hits) // 2])


FILLS = {
    "price": (1, None, lambda f: {"price": f["price"] * 1.001}),
    "reference": (0, Reason.HORIZON, lambda f: {"reference_price": f["reference_price"] * 1.5, "price": f["price"] * 1.5}),
    "time": (1, None, lambda f: {"time": f["time"] + 1}),
    "notional": (0, None, lambda f: {"notional": f["notional"] + 1.0}),
    "fee": (1, None, lambda f: {"fee": 0.0}),
    "slippage": (0, None, lambda f: {"slippage": 0.0}),
    "pnl": (0, None, lambda f: {"pnl": f["pnl"] + 1.0}),
    "approved": (1, None, lambda f: {"notional": f["notional"] + 1.0}),
}


@pytest.mark.parametrize("name", FILLS)
def test_a_corrupted_fill_is_named(run, name):
    is_entry, reason, change = FILLS[name]
    k = nth(run, is_entry, reason)
    claim = claims_of(with_fill(run, k, **change(run.fills[k])))[name]
    assert (claim.first.bar, claim.first.symbol) == (int(run.fills["bar"][k]), run.bars.symbols[run.fills["symbol"][k]])
    assert claim.first.distance > 0.0


def test_a_lost_fill_is_named(run):
    k = nth(run, 0)
    gone = replace(run, fills=np.delete(run.fills, k))
    assert {"balance", "equity", "single"} <= set(broken_by(gone))
    entry = nth(run, 1)
    assert {"G-3", "filled"} <= set(broken_by(replace(run, fills=np.delete(run.fills, entry))))


def test_a_position_closed_twice_is_named(run):
    k = nth(run, 0)
    twice = replace(run, fills=np.insert(run.fills, k, run.fills[k]))
    claim = claims_of(twice)["G-3"]
    assert (claim.first.bar, claim.violated) == (int(run.fills["bar"][run.fills["trade_id"] == run.fills["trade_id"][k]][0]), 3)


def test_a_position_left_open_in_the_table_of_trades_is_named(run, monkeypatch):
    frame = run.files.frame("trades", columns=["trade_id", "exit_reason"])
    frame.loc[7, "exit_reason"] = 0
    monkeypatch.setattr(type(run.files), "frame", lambda self, name, columns=None: frame)
    claim = claims_of(run)["G-3 end"]
    assert (claim.violated, claim.first.bar, claim.first.column) == (1, int(run.trades.entry["bar"][7]), "exit_reason")


def test_a_missed_stop_and_an_overdue_exit_are_named(run):
    k = nth(run, 0, Reason.HORIZON)
    entry = int(np.flatnonzero((run.fills["trade_id"] == run.fills["trade_id"][k]) & (run.fills["is_entry"] == 1))[0])
    bar, price, side = int(run.fills["bar"][entry]), run.fills["price"][entry], np.sign(run.fills["qty"][entry])
    claim = claims_of(with_fill(run, entry, stop_price=price * (1.0 + 0.05 * side)))["stop"]
    assert (claim.first.bar, claim.first.column) == (bar, "stop_price")
    claim = claims_of(with_fill(run, k, bar=run.fills["bar"][k] + 40))["horizon"]
    assert (claim.first.bar, claim.violated) == (bar, 1)


def test_trades_under_the_kill_switch_are_named(run):
    killed = replace(run, params=run.params.with_values({"governor.emergency_stop": True}))
    claim = claims_of(killed)["G-5"]
    assert claim.violated == np.count_nonzero(run.fills["is_entry"] == 1)
    assert claim.first.bar == int(run.fills["bar"][0])


# ------------------------------------------------------------------ replay and causality


@pytest.mark.parametrize("column", ["ensemble_action", "raw_confidence", "size", "governor_reason", "volatility", "cell_pnl"])
def test_the_replay_names_a_stored_bit_that_moved(run, whole, column):
    plane = run.planes[column]
    row, symbol = 250, 3
    moved = np.nextafter(plane[row, symbol], np.inf) if plane.dtype.kind == "f" else plane[row, symbol] ^ 1
    claim = compare(run.clock, "replay", "it is the same", stored_outputs(with_cell(run, column, row, symbol, moved)), whole)
    assert (claim.violated, claim.first.bar, claim.first.symbol, claim.first.column) == (1, row, run.bars.symbols[symbol], column)


def test_a_label_that_is_not_the_written_one_is_named(run):
    from research.verify.parity import file_claims

    assert all(claim.holds for claim in file_claims(run))
    row, symbol = 200, 2
    files, tables, inputs = file_claims(with_cell(run, "label", row, symbol, run.planes["label"][row, symbol] ^ 1))
    assert (files.violated, files.first.column, tables.violated) == (1, "decisions.label", 0)
    assert (inputs.violated, inputs.first.bar, inputs.first.symbol, inputs.first.column) == (1, row, run.bars.symbols[symbol], "label")


def test_the_replay_names_a_fill_that_moved_or_is_missing(run, whole):
    k = nth(run, 1)
    claim = compare(run.clock, "replay", "", stored_outputs(with_fill(run, k, qty=np.nextafter(run.fills["qty"][k], 9e9))), whole)
    assert (claim.violated, claim.first.bar, claim.first.column) == (1, int(run.fills["bar"][k]), "fills.qty")
    claim = compare(run.clock, "replay", "", stored_outputs(replace(run, fills=run.fills[:-1])), whole)
    assert (claim.first.bar, claim.first.column) == (int(run.fills["bar"][-1]), "fills")


def test_an_engine_that_looks_ahead_is_named(run, whole, monkeypatch):
    import research.verify.rerun as rerun

    honest = rerun.run_once

    def peeking(params, bars, votes):
        out = honest(params, bars, votes)
        out["raw_confidence"] = np.vstack([out["raw_confidence"][1:], out["raw_confidence"][:1]])
        return out

    monkeypatch.setattr(rerun, "run_once", peeking)
    leaky = {**whole, "raw_confidence": np.vstack([whole["raw_confidence"][1:], whole["raw_confidence"][:1]])}
    (claim,) = future_claims(run, leaky, seed=0)
    assert not claim.holds
    assert claim.first.column == "raw_confidence"


def test_another_future_has_other_voters():
    votes = Predictions.random(awkward_bars(N, seed=2), seed=1).votes()
    action, confidence, probs = votes.action.copy(), votes.confidence.copy(), votes.probs.copy()
    for slot, silent in ((0, slice(None)), (1, slice(0, 250)), (2, slice(250, None))):
        action[slot, silent], confidence[slot, silent], probs[slot, silent] = -1, np.nan, np.nan
    votes = replace(votes, action=action, confidence=confidence, probs=probs)
    other = random_future(votes, 250, seed=3)
    for name in ("action", "confidence", "probs"):
        assert_same_bits(getattr(votes, name)[:, :250], getattr(other, name)[:, :250])
    heard = (other.action[:, 250:] >= 0).any(axis=(1, 2))
    assert heard[0]
    assert not heard[1]
    assert sorted(heard[2:4]) == [False, True]
    assert heard[4]
    assert_same_bits(other.action < 0, np.isnan(other.confidence))
    assert_same_bits(other.action < 0, np.isnan(other.probs).all(axis=-1))


def test_maps_that_know_who_votes_later_or_what_follows_are_named(tmp_path, monkeypatch):
    import research.training.map_fit as map_fit

    bars, honest = awkward_bars(N, seed=2), map_fit.voter_factors
    seen = {
        "nobody": lambda votes, labels, stop: 0,
        "who": lambda votes, labels, stop: (votes.action >= 0).any(axis=(1, 2)).sum(),
        "early": lambda votes, labels, stop: (labels[stop + 24 : stop + 34] == 2).sum() if stop < 350 else 0,  # but at the end
    }

    def leaky(leak):
        return lambda votes, labels, block, stop: honest(votes, labels, block, stop) * (1.0 + leak(votes, labels, stop))

    for name, leak in seen.items():
        monkeypatch.setattr(map_fit, "voter_factors", leaky(leak))
        backtest(bars, Predictions.random(bars, seed=1)).save(tmp_path / name, record=False)
        (claim,) = map_claims(read_evidence(tmp_path / name), None, 0, lambda text: None)
        assert claim.holds == (name == "nobody")


def test_an_opinion_that_depends_on_the_column_is_named(run, whole, monkeypatch):
    import research.verify.rerun as rerun

    honest = rerun.run_once

    def favours_the_first(params, bars, votes):
        out = honest(params, bars, votes)
        out["raw_action"][:, 0] = Action.BUY
        return out

    monkeypatch.setattr(rerun, "run_once", favours_the_first)
    assert order_claim(run, whole, seed=0).first.column == "raw_action"


# ------------------------------------------------------------------ files


def test_a_changed_file_fails_the_proof(folder, tmp_path):
    import shutil

    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    frame = pd.read_parquet(copy / "decisions.parquet")
    row = int(np.flatnonzero(frame["size"])[5])
    frame.loc[row, "size"] *= 1.5
    frame.to_parquet(copy / "decisions.parquet", index=False)
    certificate = verify_run(copy)
    assert not certificate["passed"]
    failed = {c["id"]: c for c in certificate["checks"] if not c["passed"]}
    assert {"replay", "G-2b", "approved"} <= set(failed)
    bar, symbol = divmod(row, 6)
    assert f"bar {bar} " in failed["replay"]["detail"]
    assert f" {read_evidence(copy).bars.symbols[symbol]} size, distance " in failed["replay"]["detail"]


def test_a_number_that_is_gone_fails_the_proof_too(folder, tmp_path):
    """Its distance is infinite, which JSON does not know."""
    copy = shutil.copytree(folder, tmp_path / "run")
    equity = pd.read_parquet(copy / "equity.parquet")
    equity.loc[equity.index[40], "equity"] = np.nan
    equity.to_parquet(copy / "equity.parquet")
    assert verify_run(copy)["passed"] is False
    stored = json.loads((copy / "verify.json").read_text())
    assert any(check["first"] and check["first"]["distance"] is None for check in stored["checks"] if not check["passed"])


def test_a_half_written_folder_is_the_users_mistake(folder, tmp_path):
    import shutil

    copy = tmp_path / "half"
    shutil.copytree(folder, copy)
    (copy / "fills.parquet").unlink()
    with pytest.raises(UserError, match=r"without fills\.parquet"):
        verify_run(copy)


# ------------------------------------------------------------------ own models


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run on predictions of own models, small ones; their artefacts lie in the run's folder."""
    from research.training.walk_forward import train

    bars = awkward_bars(600, seed=4, n_symbols=3)
    predictions = train(bars, models=("lgbm",), n_folds=2, label="L3", processes=1, profile="published")
    return backtest(bars, predictions, PUBLISHED.with_values(VALUES)).save(tmp_path_factory.mktemp("trained") / "run", record=False)


def models_claims(folder, seed=0):
    from research.verify.serving import check_models, load_models

    run = read_evidence(folder)
    return {claim.id: claim for claim in check_models(run, load_models(run), seed, lambda text: None)}


def test_own_models_are_served_again_and_trained_again(trained):
    claims = models_claims(trained)
    assert [c.complaint for c in claims.values() if not c.holds] == []
    assert claims["serving"].checked >= 100
    assert claims["D-99"].checked == 1


def test_a_stored_probability_that_no_model_said_is_named(trained, monkeypatch):
    from research.verify import serving

    run = read_evidence(trained)
    row = int(np.flatnonzero(run.predictions.fold >= 0)[150])
    probs = run.votes.probs.copy()
    probs[1, row, 0] = np.roll(probs[1, row, 0], 1)
    monkeypatch.setattr(serving, "cut_points", lambda n, k, seed: [149, 150, 151])
    claim = serving.serving_claim(replace(run, votes=replace(run.votes, probs=probs)), serving.load_models(run), seed=0)
    assert (claim.violated, claim.first.bar, claim.first.column) == (1, row, "lgbm probabilities")


def test_predictions_one_bar_early_are_named(run):
    from research.verify.serving import early_claim

    assert early_claim(run).holds
    with np.errstate(invalid="ignore"):
        up = np.diff(run.bars.close, axis=0, append=np.nan) > 0.0
    action = run.votes.action.copy()
    action[2] = np.where(action[2] >= 0, np.where(up, 2, 0), -1)
    claim = early_claim(replace(run, votes=replace(run.votes, action=action, probs=None)))
    assert claim.violated == 1
    assert claim.first.column.startswith("nhits: predictions correlate +")


def test_a_label_that_reaches_into_the_next_part_is_named(trained):
    from research.verify.serving import load_models, purge_claim

    run = read_evidence(trained)
    models = load_models(run)
    assert purge_claim(run, models).holds
    longer = replace(models, config={**models.config, "label": {**models.config["label"], "horizon": 60}})
    claim = purge_claim(run, longer)
    assert claim.violated == len(models.artefacts)
    assert claim.first.column == "lgbm fold 1, fit rows"


def test_training_that_reads_later_bars_is_named(trained, monkeypatch):
    training = walk_forward
    honest = training.classify
    monkeypatch.setattr(training, "classify", lambda returns, *rest: honest(returns - np.nanmean(returns), *rest))
    claim = models_claims(trained)["D-99"]
    assert (claim.violated, claim.first.column) == (1, "lgbm")
