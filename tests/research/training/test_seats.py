"""Does a layer act only where it earned its seat? Worlds made for each layer, noise, causality, and the bounds of a library."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import research
from qtcore import Params
from qtcore.arbiter import score_cells
from qtcore.features import FeatureBank
from qtcore.rules import Reason
from qtcore.types import Source, Verdict
from research.data import fingerprint
from research.evidence.accuracy import opinions as opinions_of
from research.report.rows import rule_table
from research.runs.backtest import seated
from research.runs.explain import explain_decision
from research.runs.price_text import seat_text
from research.sweep.walk import fold_edges, walk, walk_forward
from research.training.labels import score_labels
from research.training.map_fit import Trades, fit_maps, periods, price_predictions, with_edge
from research.training.meta.estimators import BET_KINDS
from research.training.models.layers import given
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from research.training.seats import Gain, gain, gains
from tests.conftest import assert_same_bits
from tests.support.priced import PRICED

N, S = 4_000, 5
STARTS = list(range(800, N, 400))
PARAMS = Params.profile("published").with_values(PRICED | {"ensemble.weights": [0.25] * 4 + [0.0]})


def bars_of(drift=None, seed=0):
    """Hourly random walks; drift(score [S]) -> what the arbiter's score of a bar adds to the next one's return."""
    bars = research.load_bars(f"simulated:random_walk?n_bars={N}&n_symbols={S}&seed={seed}&correlation=0.1")
    if drift is None:
        return bars
    bank = FeatureBank(PARAMS, bars.symbols, bars.interval, ())
    planes = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    score, shift = np.zeros(S), np.zeros(S)
    for t in range(N):
        shift += drift(score)
        for name in ("open", "high", "low", "close"):
            planes[name][t] = getattr(bars, name)[t] * np.exp(shift)
        bar = replace(bars[t : t + 1], **{name: plane[t : t + 1] for name, plane in planes.items()})
        score_cells(np.ascontiguousarray(bank.compute(bar).arbiter.reshape(6, S)), score, 0, S)
        score = np.nan_to_num(score)
    return replace(bars, **planes, origin="")


def opinions(bars, strengths, seed=1):
    """Predictions of voters that know the next five bars so far, negative: the wrong way round."""
    rng, close = np.random.default_rng(seed), np.log(bars.close)
    ahead = np.nan_to_num((np.concatenate([close[5:], np.full((5, S), np.nan)]) - close) / 0.015)
    probs = np.full((5, N, S, 3), np.nan)
    for m, strength in enumerate(strengths):
        buy = 1.0 / (1.0 + np.exp(-(strength * ahead + rng.normal(size=ahead.shape))))
        probs[m] = np.stack([0.6 * (1.0 - buy), np.full_like(buy, 0.4), 0.6 * buy], axis=-1)
    probs[:, : STARTS[0]] = np.nan
    fold = np.full(N, -1, np.int16)
    for k, start in enumerate(STARTS):
        fold[start:] = k
    labels, label = score_labels(bars, "L1")
    return Predictions.from_probs(bars, probs, fold, labels, label)


def in_one_regime(bars, strength, seed=1):
    """Predictions that know the next five bars where volatility is high, and nothing elsewhere, in the same words."""
    planes = FeatureBank(PARAMS, bars.symbols, bars.interval, ()).compute(bars)
    is_high = planes.regime[0] > 0.5
    known, blind = opinions(bars, [strength, strength], seed), opinions(bars, [strength, strength], seed)
    order = np.random.default_rng(seed).permutation(N - STARTS[0]) + STARTS[0]
    probs = known.probs.copy()
    probs[:, STARTS[0] :] = np.where(is_high[STARTS[0] :, :, None], known.probs[:, STARTS[0] :], blind.probs[:, order])
    return Predictions.from_probs(bars, probs, known.fold, known.labels, known.label)


def fitted(bars, made, params=PARAMS):
    return fit_maps(bars, made.votes(), made.labels, made.label.horizon, STARTS, params)


def test_the_arbiter_earns_its_seat_where_the_market_follows_its_score_and_models_see_noise():
    bars = bars_of(lambda score: 0.004 * score)
    made = opinions(bars, [0.0, 0.0])
    found = fitted(bars, made)
    seated = [told["arbiter"]["is_seated"] for told in found.evidence]
    assert np.mean(seated[3:]) >= 0.5
    assert not seated[0]
    run = research.backtest(bars, replace(made, maps=found), params=PARAMS)
    d = run.result.decisions
    traded = run.result.final_action != 1
    assert np.all(d.source[traded] == Source.ARBITER)
    assert traded.sum() > 50
    assert run.summary["attribution"]["changed_actions"] == np.count_nonzero(d.source == Source.ARBITER)
    assert run.result.equity[-1] > run.result.equity[0]


def test_what_the_arbiter_earned_alone_gives_it_no_seat_beside_an_ensemble_that_has_a_map():
    bars = bars_of(lambda score: 0.004 * score)
    made, late = opinions(bars, [2.0, 2.0]), STARTS[3]
    probs = np.where(np.arange(N)[:, None, None] < late, np.nan, made.probs)
    found = fitted(bars, Predictions.from_probs(bars, probs, made.fold, made.labels, made.label))
    first = int(np.argmax(found.maps["slope"] > 0.0))
    assert first == 5  # a map needs eight blocks of 72 hours, more than one period
    assert found.evidence[first - 1]["arbiter"]["is_seated"]
    arbiter = found.evidence[first]["arbiter"]
    assert seat_text(arbiter, False) == "no seat, it advises: not tried, as the ensemble had no map before"
    assert (arbiter["is_seated"], arbiter["gain"]["n_blocks"]) == (False, 0)
    assert found.evidence[-1]["arbiter"]["gain"]["n_blocks"] > 8


def test_no_halt_of_a_drawdown_hides_what_a_layer_adds_afterwards():
    """Chains that had both stopped earned the same; one that had stopped earned nothing, which looks like a loss beside one that gains."""
    bars = bars_of()
    made, params = opinions(bars, [-2.0, -2.0]), with_edge(PARAMS)
    maps = fitted(bars, made).maps.copy()
    maps["slope"] = 1.0  # of opinions that are the wrong way round
    equity = Trades.of(bars, params).equity(made.votes(), params, maps)
    halted = equity < (1.0 - params.governor.max_drawdown) * np.maximum.accumulate(equity)
    assert halted.any()
    assert np.count_nonzero(np.diff(equity[-200:])) > 100


def test_nobody_is_said_to_have_been_left_out_of_a_vote():
    bars = bars_of()
    found = fitted(bars, opinions(bars, [2.0, -2.0]), PARAMS.with_values({"ensemble.rule": "vote"}))
    assert all(told["voters"] == {} for told in found.evidence)
    assert np.all(found.maps["factors"] > 0.0)


@pytest.mark.parametrize("kind", BET_KINDS)
def test_the_meta_layer_earns_its_seat_where_bets_pay_in_one_regime_only(kind, tmp_path):
    bars = bars_of(seed=2)
    made = in_one_regime(bars, 1.0)
    made = replace(made, maps=fitted(bars, made))
    meta = research.train_meta(bars, made, PARAMS, kind=kind)
    assert meta.mode == "bet"
    run, alone = (research.backtest(bars, made, params=PARAMS, meta=each) for each in (meta, None))
    seated = [told["meta"]["is_seated"] for told in run.predictions.maps.evidence]
    assert np.mean(seated[3:]) >= 0.5
    assert run.result.equity[-1] > alone.result.equity[-1]
    d = run.result.decisions
    assert {Reason.BET_TAKEN, Reason.BET_SKIPPED} <= set(np.unique(d.meta_reason).tolist())
    skipped = (d.meta_reason == Reason.BET_SKIPPED) & (d.verdict == Verdict.ESCALATE)
    assert np.all(d.raw_action[skipped] == 1)
    starts = run.predictions.maps.maps["start"]
    seat = np.array([False, *seated])[np.searchsorted(starts, bars.close_time, side="right")]
    assert 0 < seat.sum() < len(seat)
    said = {row["rule"]: row for row in run.summary["rules"]["meta"]}
    folder = run.save(tmp_path / "run", record=False)
    for reason in (Reason.BET_TAKEN, Reason.BET_SKIPPED):
        cells = (d.meta_reason == reason) & (d.n_voters > 0)
        assert said[reason.name]["decided"] == np.count_nonzero(cells)
        assert said[reason.name]["advised"] == np.count_nonzero(cells[~seat]) > 0
        for has_seat, word in ((True, "acts"), (False, "advises")):
            t, s = np.argwhere(cells & (seat == has_seat)[:, None])[-1]
            close = str(np.datetime64(int(bars.close_time[t]), "ns"))
            layers = {layer["name"]: layer["says"] for layer in explain_decision(folder, bars.symbols[s], close)["layers"]}
            assert layers["meta"].startswith(f"{word}: {reason.name.lower()} (pays with probability ")
    skips = said["BET_SKIPPED"]
    assert f"bet skipped, {skips['advised']:,} as advice" in {row[0] for row in rule_table(list(said.values())).rows}
    assert "bet skipped, as advice" in {row[0] for row in rule_table([skips | {"advised": skips["decided"]}]).rows}


def test_a_sweep_with_a_learned_meta_layer_is_the_single_run():
    bars = bars_of(seed=2)
    made = replace(in_one_regime(bars, 1.0), imported=True, fold=np.full(N, -1, np.int16))
    meta = research.train_meta(bars, made, Params())
    trials = research.sweep(bars, made, {"broker.fee_rate": [0.0004, 0.0008]}, meta=meta, record=False)
    for k, value in enumerate(trials.table()["total_return"].to_numpy()):
        run = research.backtest(bars, made, trials.params(k), meta=meta)
        assert any(told["meta"]["is_seated"] for told in run.predictions.maps.evidence)
        assert_same_bits(value, run.result.equity[-1] / run.params.broker.initial_cash - 1.0)


def test_what_a_walk_forward_scores_with_a_learned_meta_layer_is_the_single_run():
    bars = bars_of(seed=2)
    made = replace(in_one_regime(bars, 1.0), imported=True, fold=np.full(N, -1, np.int16))
    meta = research.train_meta(bars, made)
    whole = research.backtest(bars, made, meta=meta)
    found = walk(bars, made, {"broker.fee_rate": [0.0004, 0.0008]}, n_folds=3, meta=meta, record=False)
    edges, n_skipped = fold_edges(STARTS[0], N, 3), 0
    assert len(found.table) == 2
    for pick, (start, stop) in zip(found.table.to_dict("records"), pairwise(edges[1:])):
        piece = {name: getattr(whole.predictions, name).copy() for name in ("action", "confidence", "probs")}
        for name, plane in piece.items():
            plane[:, :start] = -1 if name == "action" else np.nan
        params = Params().with_values({"broker.fee_rate": pick["broker.fee_rate"]})
        known = replace(whole.predictions.maps, data=fingerprint(bars[:stop]))  # a walk asks nothing of what follows
        run = research.backtest(bars[:stop], replace(whole.predictions, **piece, maps=known)[:stop], params, meta=meta)
        assert_same_bits(pick["scored.total_return"], run.result.equity[-1] / run.params.broker.initial_cash - 1.0)
        assert pick["scored.n_trades"] == len(run.trades) > 20
        assert_same_bits(run.predictions.maps.maps, whole.predictions.maps.maps)
        n_skipped += np.count_nonzero(run.result.decisions.meta_reason == Reason.BET_SKIPPED)
    assert n_skipped > 0


def test_predictions_that_were_priced_are_priced_anew_for_other_bars_another_judge_and_no_meta_layer(tmp_path):
    bars = bars_of(seed=2)
    made = replace(in_one_regime(bars, 1.0), imported=True, fold=np.full(N, -1, np.int16))
    meta = research.train_meta(bars, made, Params())
    fresh, kept = research.backtest(bars, made), research.backtest(bars, made, meta=meta).predictions
    assert any(told["meta"]["is_seated"] for told in kept.maps.evidence)
    again = research.backtest(bars, kept)
    assert_same_bits(fresh.result.equity, again.result.equity)
    assert_same_bits(fresh.predictions.maps.maps, again.predictions.maps.maps)
    again.save(tmp_path / "run")
    assert {check["id"]: check["passed"] for check in again.verify()["checks"]}["D-99 maps"]
    rise = {name: getattr(bars, name) * np.linspace(1.0, 2.0, N)[:, None] for name in ("open", "high", "low", "close")}
    other = replace(bars, **rise, origin="")
    for part, cut in ((bars[:3_000], slice(3_000)), (other, slice(N))):
        assert_same_bits(research.backtest(part, kept[cut]).result.equity, research.backtest(part, made[cut]).result.equity)

    def follow(votes, planes, params):
        return votes.action[0].clip(0), np.nan_to_num(votes.confidence[0])

    judged = research.backtest(bars, made, judge=follow)
    assert_same_bits(fresh.result.equity, research.backtest(bars, judged.predictions).result.equity)
    trained = replace(judged.predictions, imported=False)
    with pytest.raises(research.UserError, match="train again"):
        research.backtest(bars, trained)
    picks = walk_forward(bars, made, {"decide.min_edge": [0.0, 0.001]}, n_folds=4, own=given(judge=follow), record=False)
    assert np.all(picks["scored.n_trades"] > 10)


def test_who_votes_later_changes_no_seat_before():
    bars = bars_of(seed=3)
    both, late = opinions(bars, [1.5, 1.5]).probs, 2_400
    both[0, 1_600:] = opinions(bars, [-1.5]).probs[0, 1_600:]  # the first voter turns; the second one comes later, or never
    both[1, :late] = np.nan
    alone = both.copy()
    alone[1] = np.nan
    said = [opinions(bars, [0.0]) for _ in range(2)]
    found = [fitted(bars, Predictions.from_probs(bars, probs, p.fold, p.labels, p.label)) for probs, p in zip((both, alone), said)]
    first = sum(start <= late for start in STARTS)
    assert_same_bits(found[0].maps[:first], found[1].maps[:first])
    assert np.any(found[0].maps["factors"][:, 0] == 0.0)


def test_maps_are_of_one_ensemble_rule():
    bars = bars_of(seed=4)
    made = opinions(bars, [1.0, 1.0])
    made = replace(made, maps=fitted(bars, made, Params().with_values({"broker.max_holding_bars": 5})))
    found = "ensemble.rule must be that under which the worth of opinions was found, mean, was vote"
    with pytest.raises(research.UserError, match=f"{found}; train with --set ensemble.rule=vote, or run with --set ensemble.rule=mean"):
        research.backtest(bars, made, Params().with_values({"ensemble.rule": "vote"}))
    with pytest.raises(research.UserError, match=r"--grid must leave ensemble\.rule as it is"):
        research.sweep(bars, made, {"ensemble.rule": ["mean", "vote"]}, record=False)
    free = replace(made, imported=True, fold=np.full(N, -1, np.int16), maps=None)
    kept, votes = research.backtest(bars, free), Params().with_values({"ensemble.rule": "vote"})
    again = research.backtest(bars, kept.predictions, votes)
    assert_same_bits(again.result.equity, research.backtest(bars, free, votes).result.equity)
    made, anew, of_means = (hashes(research.train_meta(bars, *each)) for each in ((kept.predictions, votes), (free, votes), (free,)))
    assert made == anew != of_means


def hashes(meta):
    return [artefact.hash for artefact in meta.artefacts]


def test_a_priced_file_that_is_scored_by_another_label_is_priced_anew(tmp_path):
    bars = bars_of(seed=4)
    free = replace(opinions(bars, [1.0, 1.0]), imported=True, fold=np.full(N, -1, np.int16))
    path = research.backtest(bars, free).predictions.save(tmp_path / "p.parquet")
    assert Predictions.import_file(path, bars).maps is not None
    assert Predictions.import_file(path, bars, label="L1").maps is not None
    assert Predictions.import_file(path, bars, label="L3").maps is None


def test_a_priced_file_is_priced_anew_on_other_bars(tmp_path):
    bars = bars_of(seed=4)
    free = replace(opinions(bars, [1.0, 1.0]), imported=True, fold=np.full(N, -1, np.int16))
    kept = research.backtest(bars, free).predictions
    path = kept.save(tmp_path / "p.parquet")
    for other in (bars[:3_000], replace(bars, high=bars.high * 1.001)):
        alone = research.backtest(other, free)
        read = Predictions.import_file(path, other)
        assert read.maps is None
        assert "the worth of their opinions was found on other bars" in read.notes[-1]
        run = research.backtest(other, read)
        assert_same_bits(run.predictions.maps.maps, alone.predictions.maps.maps)
        assert_same_bits(run.result.equity, alone.result.equity)
    assert_same_bits(research.backtest(bars[:3_000], kept).result.equity, research.backtest(bars[:3_000], free).result.equity)


def test_a_seat_of_the_meta_layer_is_evaluated_once_and_knows_nothing_of_its_own_period():
    bars = bars_of(seed=2)
    made = in_one_regime(bars, 1.0)
    made = replace(made, maps=fitted(bars, made))
    meta = research.train_meta(bars, made, PARAMS)
    params = PARAMS.with_values({"broker.max_holding_bars": 5})
    once = seated(bars, made, params, meta)
    assert seated(bars, once, params, meta) is once
    models = ModelSet((), ("rsi",), {"label": {"horizon": 5}, "maps": made.maps.to_dict()})
    served = seated(bars, replace(made, models=models), params, meta).models  # live as in the backtest
    assert served.map_schedule.hash == once.maps.hash != models.map_schedule.hash
    cut, planes = STARTS[5], {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    for plane in planes.values():
        plane[cut:] *= np.exp(np.cumsum(np.random.default_rng(5).normal(0.0, 0.02, (N - cut, S)), axis=0))
    other = seated(replace(bars, **planes), made, params, meta)
    assert_same_bits(once.maps.maps[:6], other.maps.maps[:6])


@pytest.mark.parametrize("seed", range(4))
def test_nobody_gets_a_seat_on_noise(seed):
    bars = bars_of(seed=10 + seed)
    found = fitted(bars, opinions(bars, [0.0, 0.0], seed))
    assert not any(told["arbiter"]["is_seated"] for told in found.evidence)
    assert all(each["is_kept"] for told in found.evidence for each in told["voters"].values())


def test_a_voter_that_costs_money_loses_its_place():
    bars = bars_of(seed=3)
    found = fitted(bars, opinions(bars, [1.5, 1.5, -1.0]))
    kept = {name: [told["voters"][name]["is_kept"] for told in found.evidence] for name in found.evidence[0]["voters"]}
    assert all(kept["xgb"]) or np.mean(kept["xgb"]) > 0.7
    assert not all(kept["nhits"])
    lost = np.flatnonzero(~np.array(kept["nhits"]))
    assert np.all(found.maps["factors"][lost, 2] == 0.0)


def test_seats_know_nothing_of_their_own_period():
    bars = bars_of(lambda score: 0.004 * score)
    made, cut = opinions(bars, [0.0, 0.5, -0.5]), STARTS[4]
    rng = np.random.default_rng(5)
    planes = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close")}
    factor = np.exp(np.cumsum(rng.normal(0.0, 0.02, (N - cut, S)), axis=0))
    for plane in planes.values():
        plane[cut:] *= factor
    other = fitted(replace(bars, **planes), made)
    whole = fitted(bars, made)
    assert_same_bits(whole.maps[:5], other.maps[:5])
    assert whole.evidence[:5] == other.evidence[:5]


def test_bounds_are_those_of_a_library():
    rng = np.random.default_rng(0)
    returns, block = rng.normal(0.0, 0.01, (2, 4_000)), np.arange(4_000) // 72
    one, two = np.cumprod(1.0 + returns, axis=1)
    found = gain(one, two, block)
    sums = np.bincount(block[1:], (np.diff(one) / one[:-1] - np.diff(two) / two[:-1]))
    want = stats.t.interval(0.90, len(sums) - 1, loc=sums.mean(), scale=stats.sem(sums))
    assert (found.lower, found.upper) == pytest.approx(want)
    assert found.n_blocks == len(sums)


def test_few_blocks_seat_nobody_and_unseat_nobody():
    equity, block = np.linspace(1.0, 2.0, 400), np.arange(400) // 72
    found = gain(equity, np.ones(400), block)
    assert found.mean > 0.0
    assert not found.lower > 0.0
    assert not found.upper < 0.0
    assert found.to_dict() == {"mean": found.mean, "lower": None, "upper": None, "n_blocks": 6}
    assert gain(equity[:1], equity[:1], block[:1]) == Gain()
    ruined = np.array([1.0, 0.5, 0.0, 0.0])
    assert gain(ruined, np.ones(4), np.arange(4)).mean == pytest.approx((-0.5 - 1.0) / 3)


def test_what_is_compared_begins_where_somebody_had_a_map():
    equity, block = np.linspace(1.0, 2.0, 2_000), np.arange(2_000) // 72
    found = gains(equity, np.ones(2_000), block, [400, 800, 1_200, 1_600], np.array([False, True, True, True]))
    assert [each.n_blocks for each in found[:2]] == [0, 0]
    assert found[2].n_blocks == len(np.unique(block[800:1_200]))
    assert found[3].n_blocks == len(np.unique(block[800:1_600]))


def test_predictions_without_folds_are_cut_into_periods_from_the_first_vote():
    action = np.full((5, 1_000, 2), -1, np.int8)
    action[0, 100:] = 1
    starts = periods(action)
    assert starts[0] == 100
    assert len(starts) == 24
    assert max(np.diff(starts)) - min(np.diff(starts)) <= 1
    assert periods(np.full((5, 3, 1), -1, np.int8)) == [0, 1, 2]


def test_imported_predictions_and_an_own_judge_are_priced_as_they_are_loaded():
    bars = bars_of(seed=4)
    trained = opinions(bars, [1.5, 1.5])
    made = replace(trained, imported=True, fold=np.full(N, -1, np.int16))
    run = research.backtest(bars, made, params=PARAMS)
    assert len(run.predictions.maps.maps) == 24
    assert len(run.result.fills) > 50
    assert run.result.equity[-1] > run.result.equity[0]
    with pytest.raises(research.UserError, match="train again"):
        research.backtest(bars, trained, params=PARAMS)

    def follow(votes, planes, params):
        return votes.action[0].clip(0), np.nan_to_num(votes.confidence[0])

    judged = research.backtest(bars, made, params=PARAMS, judge=follow)
    assert len(judged.result.fills) > 50
    assert set(np.unique(judged.result.decisions.source)) == {Source.META}


def test_no_map_of_imported_opinions_knows_the_bars_that_teach_their_label_before_their_time(tmp_path):
    bars, cut, path = bars_of(), 1_200, tmp_path / "p.parquet"
    made = opinions(bars, [2.0, -2.0])
    columns = [f"{voter}_p_{side}" for voter in ("xgb", "lgbm") for side in ("sell", "hold", "buy")]
    frame = pd.DataFrame(made.probs[:2].transpose(1, 2, 0, 3).reshape(-1, 6), columns=columns)
    frame["close_time"], frame["symbol"] = pd.to_datetime(np.repeat(bars.close_time, S), utc=True), np.tile(bars.symbols, N)
    frame.dropna().to_parquet(path)
    grown = np.where(np.arange(N)[:, None] < cut, 1.0, np.exp(np.linspace(0.0, 3.0, N))[:, None])
    later = replace(bars, **{name: getattr(bars, name) * grown for name in ("open", "high", "low", "close")}, origin="")
    runs = [research.backtest(world, Predictions.import_file(path, world, "L4"), params=PARAMS) for world in (bars, later)]
    labels = [run.predictions.labels[: cut - 10] for run in runs]
    assert (labels[0] != labels[1]).any()  # percentiles of the first 40 %
    for name in ("lean", "edge", "raw_action"):
        assert_same_bits(*(getattr(run.result.decisions, name)[:cut] for run in runs), name)
    assert_same_bits(*(run.result.size[:cut] for run in runs))
    calm = replace(bars, **{name: getattr(bars, name) ** 0.1 for name in ("open", "high", "low", "close")}, origin="")
    made = Predictions.import_file(path, calm)
    assert made.label.id == "L4"
    assert sum("label auto is L4 by the bars before" in note for note in made.notes) == 1
    assert not any("label auto" in note for note in runs[0].predictions.notes)


def test_a_run_with_seats_is_proven_and_a_map_that_saw_the_future_is_not(tmp_path):
    bars = bars_of(seed=2)
    made = replace(in_one_regime(bars, 1.0), imported=True, fold=np.full(N, -1, np.int16))
    made = replace(made, maps=price_predictions(bars, made.votes(), made.labels, 5, PARAMS))
    meta = research.train_meta(bars, made, PARAMS)
    run = research.backtest(bars, replace(made, maps=None), params=PARAMS, meta=meta)
    run.save(tmp_path / "run")
    found = {check["id"]: check["passed"] for check in run.verify()["checks"]}
    assert all(found.values())
    assert {"D-99 maps", "D-99 meta", "E-1"} <= set(found)
    assert not any(name.startswith("meta_") for name in opinions_of(run))
    leaky = run.predictions.maps.maps.copy()
    leaky["slope"] *= 1.01
    told = replace(run.predictions, maps=replace(run.predictions.maps, maps=leaky))
    other = research.backtest(bars, told, params=PARAMS, meta=meta)
    other.save(tmp_path / "other")
    assert {check["id"] for check in other.verify()["checks"] if not check["passed"]} == {"D-99 maps"}
