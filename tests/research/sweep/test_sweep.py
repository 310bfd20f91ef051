"""Does `research.sweep` draw what it says, write what it runs, and count what it tries?"""

import json
import sqlite3
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import research
from qtcore import InputError
from qtcore.metrics import metrics_of, summarise
from qtcore.profiles import LATER
from research.errors import UserError
from research.evidence.ledger import Ledger
from research.evidence.sharpe import Moments, deflated_sharpe
from research.evidence.trials import hash_params
from research.runs.case import Case
from research.runs.metrics import FIGURES, REGIMES
from research.runs.space import BLOCK, Space
from research.sweep import run as run_module
from research.sweep.counting import ParamsHash
from research.sweep.drivers import driver_words
from research.sweep.rules import parse_rules
from tests.support import PUBLISHED

GRID = {"governor.min_confidence": "0.5:0.8:0.1", "arbiter.score_threshold": [0.05, 0.15, 0.3], "governor.max_daily_trades": [2, 20]}
BASE = PUBLISHED.with_values({"broker.max_holding_bars": 5, "governor.max_drawdown": 1.0})


@pytest.fixture(scope="module")
def world():
    bars = research.load_bars("simulated:random_walk?n_bars=700&n_symbols=3&seed=4")
    predictions = research.Predictions.random(bars, seed=1)
    predictions.action[:, :150] = -1
    predictions.confidence[:, :150] = np.nan
    return bars, predictions


def sweep(world, grid=None, **options):
    return research.sweep(*world, GRID if grid is None else grid, BASE, **options)


def test_a_grid_is_every_combination_the_last_axis_fastest():
    space = Space.of(BASE, GRID)
    assert space.size == 4 * 3 * 2
    assert [space.setting(i)["governor.max_daily_trades"] for i in range(3)] == [2, 20, 2]
    assert space.setting(23) == {"governor.min_confidence": 0.8, "arbiter.score_threshold": 0.3, "governor.max_daily_trades": 20}
    assert len({json.dumps(space.setting(i)) for i in range(24)}) == 24


def test_records_are_those_of_the_parameters():
    grid = {**GRID, "governor.order": "symbols,by_confidence", "ensemble.weights": "1 1 1 1 0; 2 1 1 1 1", "meta.enabled": "on,off"}
    space = Space.of(BASE, grid)
    rows = np.random.default_rng(0).integers(0, space.size, 40)
    for row in rows:
        drawn = space.draw(row, row + 1)
        assert space.records(drawn).tobytes() == BASE.with_values(space.setting(row)).record().tobytes()


@pytest.mark.parametrize(("first", "last"), [(0, 3), (BLOCK - 2, BLOCK + 5), (5_000, 5_001)])
def test_a_random_search_draws_the_same_however_it_is_cut(first, last):
    space = Space.of(BASE, {"governor.min_confidence": "0.5:0.9", "broker.max_holding_bars": "1,5,24"}, "random", 6_000, seed=7)
    whole = space.draw(0, 6_000)
    for part, all_ in zip(space.draw(first, last), whole, strict=True):
        assert np.array_equal(part, all_[first:last])
    assert 0.5 <= whole[0].min() < 0.51 < 0.89 < whole[0].max() <= 0.9
    assert len(np.unique(whole[0])) == 6_000


def test_an_exact_step_ends_where_it_says():
    values = Space.of(BASE, {"governor.min_confidence": "0.50:0.80:0.01"}).axes[0].values
    assert len(values) == 31
    assert (values[0], values[15], values[-1]) == (0.5, 0.65, 0.8)


@pytest.mark.parametrize(
    ("grid", "options", "sentence"),
    [
        ({}, {}, "a sweep must have at least one --grid, was none"),
        ({"governor.min_confidense": [0.5]}, {}, "did you mean governor.min_confidence"),
        ({"governor.min_confidence": [0.5, 1.5]}, {}, r"governor.min_confidence must be a number in \[0.0, 1.0\], was 1.5"),
        ({"governor.min_confidence": []}, {}, "must have at least one value, was none"),
        ({"governor.min_confidence": "0.8:0.5:0.1"}, {}, "low <= high and a step above 0"),
        ({"governor.min_confidence": "0.5:0.8:0"}, {}, "low <= high and a step above 0"),
        ({"governor.min_confidence": "a:b:c"}, {}, "must be numbers between colons"),
        ({"governor.min_confidence": "0.5:0.8"}, {}, "must have a step, was a range"),
        ({"governor.min_confidence": "0:1:0.0000001"}, {}, "must have at most 1,000,000 values, was '0:1:0.0000001'; take a larger step"),
        ({"governor.order": "symbols,nonsense"}, {}, "governor.order must be one of symbols, by_confidence, by_edge, was 'nonsense'"),
        ({"governor.min_confidence": [0.5]}, {"search": "clever"}, r"\(--search\) must be one of"),
        ({"governor.min_confidence": [0.5]}, {"search": "adaptive", "settings": 0}, "--settings must be 1 or more, was 0"),
        ({"governor.min_confidence": [0.5]}, {"search": "adaptive", "settings": 9, "objective": "luck"}, "was 'luck'"),
        (
            {"governor.min_confidence": [0.5]},
            {"search": "adaptive", "settings": 9, "engine": "ray"},
            "must run on the local engine, was ray",
        ),
        ({"governor.min_confidence": [0.5]}, {"search": "random", "settings": 0}, "--settings must be 1 or more, was 0"),
        ({"governor.min_confidence": [0.5]}, {"address": "127.0.0.1:1"}, "--address must come with --engine ray"),
        ({"governor.min_confidence": [0.5]}, {"engine": "abacus"}, "--engine must be one of local, ray"),
        ({"governor.min_confidence": [0.5]}, {"where": ["max_drawdown < 0.1", "max_drawdown > 0.2"]}, "which no trial can keep"),
        ({"governor.min_confidence": [0.5]}, {"where": ["max_drawdown < 0.1", "max_drawdown >= 0.1"]}, "which no trial can keep"),
        ({"governor.min_confidence": [0.5]}, {"where": ["drawdown < 0.1"]}, "did you mean max_drawdown"),
        ({"governor.min_confidence": [0.5]}, {"where": ["max_drawdown"]}, "must be a figure, one of"),
    ],
)
def test_what_cannot_be_swept_is_refused_in_one_sentence(world, grid, options, sentence):
    with pytest.raises((UserError, InputError), match=sentence):
        sweep(world, grid, **options)
    assert Ledger().count() == 0


def test_a_parameter_that_no_setting_reads_is_not_swept(world):
    for grid, where in (
        ({"meta.v5_threshold": [0.5, 0.6]}, "meta.v5_threshold, which is not where meta.mode is policy; set meta.mode=v5"),
        ({"meta.v5_threshold": [0.5, 0.6], "meta.mode": ["policy", "override"]}, "meta.v5_threshold, which is not"),
    ):
        with pytest.raises(UserError, match=f"--grid must name parameters that are read, was {where}"):
            research.sweep(*world, grid, BASE, record=False)
    both = {"meta.v5_threshold": [0.5, 0.6], "meta.mode": ["policy", "v5"]}
    assert len(research.sweep(*world, both, BASE, record=False)) == 4


def test_stages_are_refused(world):
    params = BASE.with_values({"stages": [("2024-03-01", True, False)]})
    with pytest.raises(UserError, match="one set of parameters over time"):
        research.sweep(*world, GRID, params)


def test_rows_say_what_a_single_run_says(world):
    trials = sweep(world, by_regime=True)
    table = trials.table()
    assert list(table["trial"]) == list(range(24))
    for trial in (0, 9, 23):
        run = research.backtest(*world, trials.params(trial))
        evidence, row = run.summary["evidence"]["sharpe"], table.iloc[trial]
        assert row["sharpe_bar"] == pytest.approx(evidence["per_bar"], rel=1e-9)
        assert row["sharpe"] == pytest.approx(evidence["per_bar"] * trials.case.bars_per_year**0.5, rel=1e-9)
        assert row["last_equity"] == run.result.equity[-1]
        slices = run.summary["regimes"]
        for name in REGIMES:
            assert row[f"return.{name}"] * 10_000.0 == pytest.approx(slices[name]["pnl"], abs=1e-7)
        assert row["n_trades"] == len(run.trades)


@pytest.mark.parametrize("driver", ["lanes", "few", "regimes"])
def test_trades_that_the_end_of_the_data_closes_count(world, driver):
    grid = {"governor.min_confidence": "0.50:0.73:0.01" if driver == "lanes" else [0.5, 0.55, 0.6]}
    trials = sweep(world, grid, by_regime=driver == "regimes", record=False)
    assert set(trials.drivers) == {driver}
    table, cut = trials.table(), 0
    for trial in (0, 1, 2):
        run = research.backtest(*world, trials.params(trial))
        assert table["n_trades"][trial] == len(run.trades) == run.summary["pnl"]["n_trades"]
        cut += len(run.closing_fills)
        closed = run.result.fills["pnl"][run.result.fills["is_entry"] == 0]
        assert table["win_rate"][trial] == pytest.approx((closed > 0.0).mean(), rel=1e-12)
    assert cut > 0


def test_it_is_told_who_ran_the_rows_and_why(world):
    grid = {"governor.min_confidence": "0.50:0.82:0.01", "arbiter.score_threshold": [0.05, 0.15]}  # 66 settings
    ordered = grid | {"governor.order": "symbols,by_confidence"}
    counts = sweep(world, ordered, record=False).drivers
    assert counts == {"lanes": 64, "few": 2, "governor.order": 66}
    assert driver_words(counts) == (
        "SIMD lanes, 64 settings side by side: 64; the plain driver: 2 (fewer than 24 settings that differ in thresholds alone), "
        "66 (a value of governor.order that lanes do not take)"
    )
    assert sweep(world, grid, by_regime=True, record=False).drivers == {"regimes": 66}
    markets = sweep(world, {"features.rsi_variant": ["sma", "wilder"], "governor.min_confidence": "0.50:0.74:0.01"}, record=False)
    assert markets.drivers == {"lanes": 50}  # 25 of each


def test_figures_mean_what_they_mean_in_a_run(world):
    trials = sweep(world, record=False)
    case = Case.of(*world)
    result, metrics = case.single(trials.params(3))
    assert len(result.equity) == 700
    m = metrics.copy()
    m["n_bars"] = case.n_returns(BASE.record())[0]
    want, row = summarise(m, case.bars_per_year), trials.table().iloc[3]
    for name in set(FIGURES) - {"mean_exposure", "time_in_market"}:  # of the tested bars, one more than the returns; below
        if name in want:
            assert row[name] == pytest.approx(want[name], rel=1e-12, nan_ok=True), name
    assert metrics_of(result.equity, result.worth, result.fills, 10_000.0)["last_equity"] == metrics["last_equity"]


def test_exposure_is_what_was_held_in_a_sweep_as_in_a_run(world):
    """Orders on their way are not held: half of what is approved at a horizon of one bar."""
    trials = sweep(world, {"broker.max_holding_bars": [1, 5]}, record=False)
    table = trials.table()
    for i in range(2):
        run = research.backtest(*world, trials.params(i))
        tested = run.equity[run.equity["worth"].cumsum() > 0.0]
        held = (run.equity["worth"] / run.equity["equity"]).sum()
        assert run.summary["pnl"]["mean_exposure"] == pytest.approx(held / 550, rel=1e-12)
        assert table["mean_exposure"].iloc[i] == pytest.approx(held / 550, rel=1e-12)
        assert table["time_in_market"].iloc[i] == pytest.approx((run.equity["worth"] > 0.0).sum() / 550, rel=1e-12)
        assert held < 0.95 * (tested["exposure"] / tested["equity"]).sum()


@pytest.mark.parametrize("fill", ["next_open", "next_close", "one_bar_later", "worst"])
def test_the_bars_of_a_setting_are_those_of_a_run_however_it_is_filled(world, fill):
    """Votes end before the candles, and what they opened is held to its end."""
    bars, predictions = world[0], replace(world[1], action=world[1].action.copy(), confidence=world[1].confidence.copy())
    predictions.action[:, 600:], predictions.confidence[:, 600:] = -1, np.nan
    trials = research.sweep(bars, predictions, {"broker.max_holding_bars": [1, 7]}, BASE.with_values({"broker.fill": fill}), record=False)
    for i in range(2):
        run = research.backtest(bars, predictions, trials.params(i))
        assert trials.table()["sharpe_bar"].iloc[i] == pytest.approx(run.summary["evidence"]["sharpe"]["per_bar"], rel=1e-12)


@pytest.mark.parametrize("fill", ["close", "next_open", "worst"])
def test_the_first_order_of_a_setting_meets_the_volume_before_its_vote(world, fill):
    """A symbol without a bar there meets that of its last one."""
    bars = replace(world[0], **{name: getattr(world[0], name).copy() for name in ("open", "high", "low", "close", "volume")})
    first = int(np.flatnonzero((world[1].action >= 0).any(axis=(0, 2)))[0])
    assert first > 10
    for name in ("open", "high", "low", "close", "volume"):
        getattr(bars, name)[first - 3 : first, 0] = np.nan
    base = BASE.with_values({"broker.fill": fill})
    trials = research.sweep(bars, world[1], {"broker.impact": [0.0, 0.05]}, base, record=False)
    for i in range(2):
        assert trials.table()["last_equity"].iloc[i] == research.backtest(bars, world[1], trials.params(i)).result.equity[-1]


def test_parameters_of_features_are_swept_too(world):
    trials = sweep(world, {"arbiter.macd_units": "percent,price", "features.rsi_variant": ["sma", "wilder"]}, record=False)
    for trial in range(4):
        run = research.backtest(*world, trials.params(trial))
        assert trials.table().iloc[trial]["last_equity"] == run.result.equity[-1]
    assert trials.n_distinct == 4


def test_every_row_counts_once_in_the_ledger(world):
    first = sweep(world)
    assert first.tried.trials == Ledger().count() == 24
    assert 1.0 <= first.tried.effective <= 24.0
    best = first.best()
    moments = Moments(best["sharpe_bar"], best["skew"], best["kurtosis"], int(best["n_bars"]))
    assert first.deflated() == deflated_sharpe(moments, 24, first.tried.variance)  # every trial counts (D-98), not the independent ones
    again = sweep(world, {"governor.min_confidence": [0.5, 0.55], "arbiter.score_threshold": [0.05], "governor.max_daily_trades": [2]})
    assert again.tried.trials == 25  # one of the two was known
    run = research.backtest(*world, first.params(7))
    assert run.summary["evidence"]["trials"]["trials"] == 25  # so was this one
    assert 0.0 <= first.deflated() <= 1.0


def test_the_quick_hash_of_parameters_is_the_hash():
    space = Space.of(
        BASE, {**GRID, "governor.order": ["by_confidence"], "ensemble.weights": [[1, 1, 1, 1, 0], [2, 1, 1, 1, 1]], "meta.enabled": [True]}
    )
    hashes = ParamsHash(space)
    for row in range(0, space.size, 7):
        values = space.setting(row)
        assert hashes.of(values) == hash_params(BASE.with_values(values).flat())


def test_a_later_parameter_without_effect_does_not_rename_a_trial(monkeypatch):
    space = Space.of(BASE, {"governor.max_daily_trades": [20, 30], "governor.min_confidence": [0.6]})
    known = BASE.with_values({"governor.min_confidence": 0.6}).flat()
    for name in ("governor.max_daily_trades", "governor.stop_loss"):  # as if 0.2 had been without
        monkeypatch.setitem(LATER, name, known[name])
    hashes = ParamsHash(space)
    of = [hash_params(BASE.with_values(space.setting(row)).flat()) for row in range(2)]
    assert [hashes.of(space.setting(row)) for row in range(2)] == of
    assert of[0] == hash_params({name: value for name, value in known.items() if name not in LATER}) != of[1]


def test_a_sweep_of_an_earlier_version_goes_on(world, tmp_path, monkeypatch):
    grid, name = {"governor.min_confidence": [0.6]}, "governor.stop_loss"
    sweep(world, grid, out=tmp_path, record=False)
    told = json.loads((tmp_path / "sweep.json").read_text())
    monkeypatch.setitem(LATER, name, told["space"]["base"].pop(name))
    (tmp_path / "sweep.json").write_text(json.dumps(told))
    assert len(sweep(world, grid, out=tmp_path, resume=True, record=False)) == 1


def test_gate_values_below_the_arbiters_least_confidence_differ_in_nothing(world):
    trials = sweep(world, {"arbiter.gate_confidence": "0.50:0.77:0.03"}, record=False)
    assert len(trials) == 10
    assert trials.n_distinct == 1


def test_results_stream_to_a_folder_and_go_on_where_they_stopped(world, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "PART_CELLS", 1)
    grid = {"governor.min_confidence": "0.50:0.80:0.01", "arbiter.score_threshold": "0.05:0.30:0.05"}
    whole = sweep(world, grid, out=tmp_path / "whole", record=False)
    assert len(whole.parts) == 3
    seen = []

    def stop(done, total, text):
        seen.append((done, total, text))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^stopped with 64 of 186 settings done; --resume goes on$"):
        sweep(world, grid, out=tmp_path / "cut", progress=stop)
    assert seen[0][:2] == (64, 186)
    assert Ledger().count() == 64  # what was done was tried
    rest = sweep(world, grid, out=tmp_path / "cut", resume=True)
    assert len(rest) == len(whole) == 186
    assert rest.tried.trials == 186
    for path in sorted((tmp_path / "whole" / "trials").iterdir()):
        assert path.read_bytes() == (tmp_path / "cut" / "trials" / path.name).read_bytes()
    pd.testing.assert_frame_equal(whole.table(), sweep(world, grid, record=False).table())
    with pytest.raises(UserError, match="--resume must go on with the same sweep, was another space"):
        sweep(world, GRID, out=tmp_path / "cut", resume=True)
    with pytest.raises(UserError, match="--resume must find a sweep"):
        sweep(world, grid, out=tmp_path / "none", resume=True)


def test_results_that_do_not_fit_the_disk_are_refused(world, tmp_path):
    grid = {f"governor.{name}": "0.1:0.9:0.0001" for name in ("min_confidence", "max_position", "kelly_fraction", "win_rate")}
    with pytest.raises(UserError, match="must fit on the disk"):
        sweep(world, grid, out=tmp_path / "big")


def test_a_damaged_ledger_is_told_before_the_work(world, tmp_path):
    ledger = Ledger()
    ledger.path.parent.mkdir(parents=True, exist_ok=True)
    ledger.path.write_bytes(b"no database" * 1_000)
    with pytest.raises(UserError, match=r"trial ledger must be readable, was damaged"):
        sweep(world, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    ledger.reset()
    assert sweep(world, out=tmp_path / "out").tried.trials == 24


def test_a_locked_ledger_loses_no_result(world, tmp_path, monkeypatch):
    Ledger().reset()
    sweep(world, {"governor.min_confidence": [0.9]})
    monkeypatch.setattr("research.evidence.ledger.BUSY_SECONDS", 0.2)
    other = sqlite3.connect(Ledger().path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match=r"trial ledger must be free within 0 s, was locked"):
        sweep(world, out=tmp_path / "out")
    other.execute("ROLLBACK")
    other.close()
    done = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "trials").iterdir()}
    again = sweep(world, out=tmp_path / "out", resume=True)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out" / "trials").iterdir()} == done
    assert (len(again), again.tried.trials) == (24, 25)


@pytest.mark.parametrize("change", [lambda column: column + np.uint64(1), lambda column: column.astype(float)])
def test_a_stored_outcome_that_its_setting_does_not_give_is_refused(world, tmp_path, change):
    sweep(world, out=tmp_path / "out")
    (part,) = (tmp_path / "out" / "trials").iterdir()
    table = pd.read_parquet(part)
    table.assign(outcome=change(table["outcome"])).to_parquet(part, index=False)
    with pytest.raises(UserError, match=r"part-000000000\.parquet must be results as `qt sweep` wrote them, was .*outcome.*; remove it"):
        sweep(world, out=tmp_path / "out", resume=True)


def test_the_best_trial_keeps_the_constraints(world):
    trials = sweep(world, where=["max_drawdown < 0.9", "n_trades >= 10"], by_regime=True, record=False)
    table = trials.table()
    assert trials.best()["trial"] == table.loc[table["sharpe"].idxmax(), "trial"]
    few = trials.best("-n_trades")
    assert few["n_trades"] == table.loc[table["n_trades"] >= 10, "n_trades"].min()
    calm = trials.best("sharpe.volatility_low", where=[])
    assert calm["sharpe.volatility_low"] == table["sharpe.volatility_low"].max()
    with pytest.raises(UserError, match="none of 24 did; loosen a constraint"):
        trials.best(where=["n_trades > 1e9"])
    assert len(trials.table(["sharpe"], ["n_trades >= 10"])) <= 24


def test_rules_of_equal_limits():
    assert len(parse_rules(["sharpe >= 1", "sharpe <= 1"], ["sharpe"])) == 2
    with pytest.raises(UserError, match="which no trial can keep"):
        parse_rules(["sharpe > 1", "sharpe <= 1"], ["sharpe"])


def test_a_heatmap_shows_the_mean_over_the_other_axes(world):
    trials = sweep(world, record=False)
    table = trials.pivot("governor.min_confidence", "arbiter.score_threshold", "n_trades")
    assert table.shape == (3, 4)
    whole = trials.table()
    some = whole[(whole["governor.min_confidence"] == 0.5) & (whole["arbiter.score_threshold"] == 0.05)]
    assert table.loc[0.05, 0.5] == some["n_trades"].mean()
    axes = trials.heatmap("governor.min_confidence", "arbiter.score_threshold")
    assert axes.get_xlabel() == "governor.min_confidence"
    with pytest.raises(UserError, match="must be a parameter of the sweep"):
        trials.heatmap("governor.min_confidence", "governor.stop_loss")
