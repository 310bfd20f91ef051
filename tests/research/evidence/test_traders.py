"""Does a run say who traded, why a layer made no trade, and how near its edges came to their costs?"""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import research
from qtcore import Params
from qtcore.chain.price import VOLATILITY
from qtcore.rules import Reason
from qtcore.types import N_KNOTS, Action, Source
from research.evidence.accuracy import opinions
from research.evidence.headline import headline, not_yet_paid
from research.evidence.traders import Absent, declined
from research.report.page import edge_tables, fitted_text, traders_text
from research.report.rows import score_table, seat_table, slice_accuracy, trader_table
from research.report.words import scored
from research.runs import tables
from research.runs.price_text import place_text, seat_text
from research.training.predictions import Predictions
from tests.support import PUBLISHED
from tests.support.priced import PRICED

WORLD = "simulated:random_walk?n_bars=400&n_symbols=3&seed=2"
PARAMS = Params.profile("published").with_values(PRICED)


@pytest.fixture(scope="module")
def bars():
    return research.load_bars(WORLD)


def priced(bars, slope: float, arbiter_slope: float = 0.0, told=None, **values):
    """A run of random votes whose maps have found these slopes. told: evidence of the periods, instead of their own."""
    params = PARAMS.with_values(values)
    made = research.backtest(bars, Predictions.random(bars, seed=1), params).predictions
    maps = made.maps.maps.copy()
    maps["slope"], maps["arbiter_slope"], maps["variance"], maps["arbiter_variance"] = slope, arbiter_slope, 3.0, 3.0
    maps["win"] = maps["arbiter_win"] = np.linspace(0.4, 0.7, N_KNOTS)
    evidence = made.maps.evidence if told is None else tuple(told(k, each) for k, each in enumerate(made.maps.evidence))
    return research.backtest(bars, replace(made, maps=replace(made.maps, maps=maps, evidence=evidence)), params)


def said(run) -> str:
    return " ".join(run.summary["traders"]["sentences"])


def test_an_ensemble_without_a_price_that_hardly_traded_says_which_rule_took_its_sides(bars):
    votes, published = Predictions.random(bars, seed=1), Params.profile("published")
    run = research.backtest(bars, votes, published)
    d, (text,) = run.result.decisions, run.summary["traders"]["sentences"]
    opened, n = int((run.trades["source"] == Source.ENSEMBLE).sum()), run.summary["pnl"]["n_trades"]
    voted = d.n_voters > 0
    sides = voted & (d.ensemble_action != Action.HOLD)
    sure = d.ensemble_confidence[sides]
    assert opened < 0.2 * n
    assert text.startswith(
        f"The ensemble made {opened} of {n} trades because it said BUY or SELL on {sides.sum():,} of {voted.sum():,} cells, of"
    )
    assert text.endswith(f"governor.min_confidence of 0.65 on {(sure >= 0.65).sum():,} of them and is {sure.max():.3f} at most.")
    assert text in traders_text(run.summary)
    strict = research.backtest(bars, votes, published.with_values({"meta.enabled": False, "governor.min_confidence": 0.999}))
    (text,) = strict.summary["traders"]["sentences"]
    assert text.startswith("The ensemble made no trade because it said")
    assert f"of which LOW_CONFIDENCE (governor.min_confidence) took the most, {sides.sum():,}; its confidence reaches" in text
    assert " of 0.999 on 0 of them and is " in text
    free = research.backtest(bars, votes, published.with_values({"meta.enabled": False, "governor.min_confidence": 0.0}))
    assert free.summary["traders"]["sentences"] == []


def test_a_layer_without_a_map_says_so_beside_its_costs(bars):
    run = priced(bars, 0.0)
    assert "The ensemble made no trade because the 99 % lower bound of its slope is above 0 in none of " in said(run)
    assert "its edge before costs is 0.0 bp, beside costs of 10.0 bp (broker.fee_rate, broker.slippage_rate)" in said(run)
    assert "The arbiter made no trade because the 99 % lower bound of its slope is above 0 in none of " in said(run)


def test_the_nearest_map_is_that_of_the_largest_lower_bound(bars):
    def told(k, each):  # the first has the larger slope for its error, but the second lacks less
        slope, error = ((0.2, 0.1), (0.01, 0.02))[k % 2]
        return each | {"ensemble": {"slope": slope, "error": error, "n_cells": 2_000, "n_effective": 21.0, "counts": 0.0}}

    nearest = f"the nearest is {0.01 - stats.t.ppf(0.99, 20) * 0.02:.3g}, of a slope of 0.01 with an error of 0.02; "
    run = priced(bars, 0.0, told=told)
    assert nearest in said(run)
    assert nearest in run.summary["evidence"]["sentence"]


def test_seats_say_in_which_periods_a_layer_could_act_and_why(bars):
    run = priced(bars, 0.02, 3.0)
    told = {row["layer"]: row for row in run.summary["traders"]["seats"]}
    assert all(told["ensemble"]["acts"])
    assert all(told["arbiter"]["acts"])
    assert not any(told["meta"]["acts"])
    assert told["meta"]["evidence"] == "no seat: the maps were found without a learned model of it"
    table = seat_table(run.summary["traders"]["seats"])
    n = len(told["ensemble"]["acts"])
    assert [row[1] for row in table.rows[:1]] == [f"{n} of {n}"]
    assert {*table.rows[0][2].split()} == {"\u25cf"}


def test_maps_and_seats_are_found_at_the_values_of_the_profile(bars):
    said, block = research.Predictions.random(bars, seed=1), "A block of time is 3 days."
    assert fitted_text(research.backtest(bars, said).summary) == f"Maps and seats were found at the parameters of this run. {block}"
    dearer = research.backtest(bars, said, Params().with_values({"broker.fee_rate": 0.001}))
    found = "Maps and seats were found at `broker.fee_rate` 0.0004 (here 0.001); they are held fixed."
    assert fitted_text(dearer.summary) == f"{found} {block}"


def test_the_nearest_edge_stands_beside_what_it_falls_short_of(bars):
    run = priced(bars, 0.02, 3.0)
    d, gross = run.result.decisions, 0.02 * np.abs(run.result.decisions.lean) * run.result.pricing[VOLATILITY]
    n, nearest = run.summary["pnl"]["n_trades"], 1e4 * np.nanmax(gross)
    assert set(run.trades["source"]) == {Source.ARBITER}
    assert nearest < 10.0
    short = f"its largest edge before costs was {nearest:.1f} bp, below its costs of 10.0 bp (broker.fee_rate, broker.slippage_rate)"
    assert said(run).startswith(f"The ensemble made 0 of {n} trades because {short}.")
    edges = run.summary["traders"]["edges"]
    assert edges["costs"] == pytest.approx(10.0)
    assert edges["all"]["largest"] == pytest.approx(1e4 * np.nanmax(d.edge))
    assert edges["by_symbol"]["SIM01"]["p99"] == pytest.approx(1e4 * np.nanpercentile(d.edge[:, 0], 99.0))
    assert sum(group["cells"] for group in edges["by_hour"].values()) == edges["all"]["cells"] == np.count_nonzero(~np.isnan(d.edge))
    strict = priced(bars, 2.0, **{"decide.min_edge": 0.5})
    assert "not above decide.min_edge of 5000.0 bp" in said(strict)
    stopped = priced(bars, 2.0, **{"governor.emergency_stop": True})
    assert "of its wishes, most by EMERGENCY_STOP_ACTIVE (governor.emergency_stop)" in said(stopped)


def test_a_limit_that_refuses_most_wishes_is_named(bars):
    run = priced(bars, 2.0, **{"governor.max_daily_trades": 1})
    reasons = run.result.governor_reason[run.result.decisions.raw_action != Action.HOLD]
    n, opened = int((reasons == Reason.DAILY_TRADE_LIMIT_REACHED).sum()), int((reasons == Reason.APPROVED).sum())
    assert n > opened > 0
    text = "wishes for a new position, by DAILY_TRADE_LIMIT_REACHED (governor.max_daily_trades)."
    assert f"The governor refused {n:,} of " in said(run)
    assert text in said(run)
    assert "wishes for a new position" not in said(priced(bars, 2.0))


def test_a_bound_that_is_nearly_nothing_shows_its_side():
    told = {"gain": {"mean": 4.2e-8, "lower": -1.3e-7, "upper": 2.0e-7, "n_blocks": 20}, "is_kept": True}
    assert "earned 0.00042 bp more a block of time (95 % lower bound -0.0013 bp, above 0 needed" in seat_text(told, False)
    assert "(95 % upper bound +0.002 bp, below 0 loses it" in place_text(told)
    nothing = {"gain": {"mean": 0.0, "lower": 0.0, "n_blocks": 20}}
    assert seat_text(nothing, False) == "no seat, it advises: it would have changed no bet before (20 blocks of time)"


def test_a_period_before_which_a_layer_changed_nothing_does_not_count_as_tried(bars):
    def of(*gains):
        def told(k, each):
            mean, lower = gains[k % len(gains)]
            gain = {"mean": mean, "lower": lower, "upper": None if lower is None else -lower, "n_blocks": 20}
            return each | {"arbiter": each["arbiter"] | {"counts": 0.1, "gain": gain}}

        run = priced(bars, 0.02, told=told)
        return said(run).partition("The arbiter made no trade because it earned a seat in none of ")[2], len(run.predictions.maps.evidence)

    nothing, worse, unknown = (0.0, 0.0), (-0.0004, -0.00051), (0.0, None)
    both, n = of(nothing, worse)
    bound = "the 95 % lower bound of what it added was at most -5.1 bp a block of time (3 days), above 0 needed."
    assert both == f"{n} periods: before {n // 2} of them it would have changed no bet; where it would, {bound}"
    assert of(worse)[0] == f"{n} periods: {bound}"
    assert of(nothing)[0] == f"{n} periods: before {n} of them it would have changed no bet."
    late, _ = of(unknown, nothing)
    assert late == f"{n} periods: before {n // 2} of them it would have changed no bet, and before the others too little was known."


def test_a_chain_that_declines_every_trade_says_so_and_lacks_no_data(bars):
    run = priced(bars, 0.02)
    s = run.summary
    why = said(run).partition(" because ")[2].partition(". ")[0]
    assert why.startswith("its largest edge before costs was ")
    assert s["evidence"]["sentence"] == f"Declined, not proven: the chain wished for no trade; nearest came the ensemble: {why}."
    n = s["rates"]["counts"]["cells"]
    no_edge = f"on none of {n:,} cells with a vote was an edge large enough to trade."
    assert s["evidence"]["no_trades"] == f"No trades, because the chain declined: {no_edge}"
    assert (s["verdict"], headline(s)["verdict"]) == ("not enough data", "declined")
    unproven = priced(bars, 0.0).summary["evidence"]["sentence"]
    assert "nearest came the ensemble: the 99 % lower bound of its slope" in unproven
    assert "its edge before costs is 0.0 bp, beside costs of 10.0 bp" in unproven
    near = priced(bars, 0.002, 0.02).summary["evidence"]["sentence"]
    assert "nearest came the arbiter: its largest edge before costs was " in near


def test_a_chain_that_wished_or_heard_nobody_did_not_decline(bars):
    stopped = priced(bars, 2.0, **{"governor.emergency_stop": True}).summary["evidence"]
    assert stopped["sentence"].startswith("Not enough data")
    assert "the rule EMERGENCY_STOP_ACTIVE blocked" in stopped["no_trades"]
    assert not stopped["declined"]
    assert not priced(bars, 2.0).summary["evidence"]["declined"]
    published = research.backtest(bars, Predictions.random(bars, seed=1), PUBLISHED.with_values({"governor.min_confidence": 1.0}))
    assert published.summary["evidence"]["sentence"].startswith("Not enough data")


def test_a_seated_meta_layer_that_leaves_out_every_bet_is_named(bars):
    run = priced(bars, 2.0)
    run.result.decisions.raw_action[:] = Action.HOLD
    rows = tables.tested_rows(run)
    assert "nearest came the ensemble: the meta layer left out every bet whose edge before costs, up to " in declined(run, rows, 0)


def test_an_ensemble_whose_slope_counts_but_that_leans_to_no_side_says_so(bars):
    run = priced(bars, 2.0, **{"ensemble.weights": [0.0, 0.0, 0.0, 0.0, 1.0]})
    n = len(run.predictions.maps.maps)
    why = f"it leaned to no side, or no volatility was known, in the {n} of {n} periods in which its slope counts"
    assert f"The ensemble made no trade because {why}." in said(run)
    assert run.summary["evidence"]["sentence"] == f"Declined, not proven: the chain wished for no trade; nearest came the ensemble: {why}."


def test_a_meta_layer_that_had_a_seat_and_changed_nothing_says_so(bars):
    run = replace(priced(bars, 2.0), meta=object())
    rows, maps = tables.tested_rows(run), run.result.votes.maps
    run.predictions.maps.maps["is_seated"] = maps["is_seated"] = 0
    assert "because it earned a seat in none of 24 periods" in " ".join(Absent(run, rows, 9).sentences())
    run.predictions.maps.maps["is_seated"][20:] = maps["is_seated"][20:] = 1
    d, late = run.result.decisions, run.bars.close_time[rows] >= maps["start"][20]
    bets = (d.raw_action[rows] != Action.HOLD) & (d.source[rows] == Source.ENSEMBLE)
    text = " ".join(Absent(run, rows, 9).sentences())
    why = f"it left whole all {bets[late].sum():,} that were made in the 4 of 24 periods in which it had a seat"
    assert f"The meta layer changed 0 of {bets.sum():,} bets because {why}." in text
    d.raw_action[rows][late] = Action.HOLD
    assert "because it was asked about none in the 4 of 24 periods in which it had a seat." in " ".join(Absent(run, rows, 9).sentences())


def test_a_seated_arbiter_without_a_score_says_so(bars):
    run = priced(bars, 0.0, 3.0)
    run.trades = run.trades[:0]
    run.result.decisions.arbiter_score[:] = np.nan
    texts = " ".join(Absent(run, tables.tested_rows(run), 0).sentences())
    assert "no score of its own or no volatility was known in the 24 of 24 periods in which it had a seat" in texts


def test_the_seat_of_an_arbiter_says_what_the_sentence_says(bars):
    def told(k, each):
        own = {"slope": -0.04, "error": 0.02, "n_cells": 2_000, "n_effective": 21.0, "counts": 0.0}
        return each | {"arbiter": own | {"is_seated": False, "gain": {"mean": 0.0, "lower": None, "upper": None, "n_blocks": 0}}}

    run = priced(bars, 0.02, told=told)
    bound = f"{-0.04 - stats.t.ppf(0.99, 20) * 0.02:.4g}"
    seat = next(row["evidence"] for row in run.summary["traders"]["seats"] if row["layer"] == "arbiter")
    assert seat == f"no seat, it advises: its own map knows no edge (99 % lower bound of its slope {bound}, above 0 needed)"
    assert "The arbiter made no trade because the 99 % lower bound of its slope is above 0 in none of " in said(run)


def test_layers_that_are_off_or_act_say_no_more(bars):
    run = priced(bars, 2.0, 3.0, **{"arbiter.enabled": False, "meta.enabled": False})
    seats = {row["layer"]: row for row in run.summary["traders"]["seats"]}
    for layer in ("arbiter", "meta"):
        assert seats[layer]["evidence"] == f"{layer}.enabled is off"
        assert not any(seats[layer]["acts"])
    assert said(run) == (
        "The meta layer changed no bet because meta.enabled is off. "
        f"The arbiter made 0 of {run.summary['pnl']['n_trades']} trades because arbiter.enabled is off."
    )


@pytest.mark.parametrize("params", [PARAMS, PUBLISHED], ids=["priced", "published"])
def test_trades_by_layer_add_up_for_every_profile(bars, params):
    run = priced(bars, 2.0, 3.0) if params is PARAMS else research.backtest(bars, Predictions.random(bars, seed=1), params)
    s = run.summary
    rows = trader_table(s).rows
    assert [row[0] for row in rows][:3] == ["ensemble", "meta", "arbiter"]
    closed = run.trades[run.trades["exit_reason"] > 0]
    assert sum(group["pnl"] for group in s["attribution"]["by_source"].values()) == pytest.approx(closed["pnl"].sum())
    assert f"arbiter {(closed['source'] == Source.ARBITER).sum()}" in headline(s)["trades by layer"]
    last, broker = run.trades[run.trades["exit_reason"] == Reason.END_OF_DATA], run.params.broker
    prices = run.bars.close[-1, [run.bars.symbols.index(name) for name in last["symbol"]]]
    unpaid = float(np.sum(np.abs(last["qty"]) * prices) * (broker.fee_rate + broker.slippage_rate))
    assert len(last) > 0
    assert not_yet_paid(s) == pytest.approx(unpaid, rel=0.01)
    assert rows[-1][:4] == ["closing, not yet paid", "", "", f"{unpaid:+.2f}"]
    assert headline(s)["closing, not yet paid"] == pytest.approx(unpaid, abs=0.01)
    assert sum(float(row[3].replace(",", "")) for row in rows) == pytest.approx(s["pnl"]["net_pnl"], abs=0.03)
    size, base = np.abs(run.result.size), run.result.equity[:, None] * run.params.governor.max_position
    full = int(np.isclose(size, base)[run.result.governor_reason == Reason.APPROVED].sum())
    assert s["traders"]["at_max_position"] == full
    assert (full > 0) == (params is PARAMS)
    assert traders_text(s)[-1].startswith(f"{full:,} of ")
    assert len(edge_tables(s)) == (2 if params is PARAMS else 0)


def test_rows_of_accuracies_say_what_they_score(bars):
    run = priced(bars, 1.0, 6.0)
    s, d, said = run.summary, run.result.decisions, opinions(run)
    bets, by_arbiter = d.raw_action != Action.HOLD, d.source == Source.ARBITER
    assert (bets & by_arbiter).any()
    assert (bets & ~by_arbiter).any()
    spoke = said["ensemble"].action >= 0
    assert (said["meta"].action[spoke] == np.where(by_arbiter, Action.HOLD, d.raw_action)[spoke]).all()
    assert (said["arbiter"].action[spoke] == d.raw_action[spoke]).all()
    assert not (said["arbiter_calls"].action >= 0)[~spoke].any()
    mean = said["ensemble"].probs
    assert mean[spoke].sum(axis=1) == pytest.approx(1.0)
    assert (mean[..., 2] - mean[..., 0])[spoke] == pytest.approx(d.lean[spoke], abs=1e-12)
    assert np.take_along_axis(mean, d.ensemble_action[..., None].astype(int), axis=2)[spoke, 0] == pytest.approx(mean.max(axis=2)[spoke])
    assert mean.max(axis=2)[spoke] == pytest.approx(d.ensemble_confidence[spoke])
    at = spoke & (run.labels >= 0)
    loss = -np.log(np.take_along_axis(mean[at], run.labels[at][:, None].astype(int), axis=1)).mean()
    assert s["layers"]["ensemble"]["log_loss"] == pytest.approx(loss)
    assert s["layers"]["ensemble"]["brier"] is not None
    table = score_table(scored(s, s))
    rows, losses = {row[0]: row for row in table.rows}, table.headers.index("log loss")
    for name in ("meta", "arbiter", "arbiter_calls", "final"):
        block = s["layers"][name]
        assert block["accuracy"] is not None
        assert [block[key] for key in ("log_loss", "brier", "ece", "log_loss_ci95")] == [None, None, None, [None, None]]
        assert all(s["symbols"][symbol]["layers"][name]["log_loss"] is None for symbol in s["symbols"])
        assert rows[s["scored"][name]][losses] == "-" or not block["enough"]
    assert "ensemble's class" in rows
    assert "bets after arbiter" in slice_accuracy(s).headers
    assert "arbiter" not in s["reliability"]


def test_votes_that_are_priced_and_published_rows_keep_the_confidence_of_the_action(bars):
    votes = priced(bars, 1.0, **{"ensemble.rule": "vote"})
    assert opinions(votes)["ensemble"].probs is None
    assert votes.summary["layers"]["ensemble"]["log_loss"] is not None
    published = research.backtest(bars, Predictions.random(bars, seed=1), PUBLISHED).summary
    assert published["scored"] == {}
    assert published["layers"]["arbiter"]["log_loss"] is not None
    assert "arbiter" in published["reliability"]
