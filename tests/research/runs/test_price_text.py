"""Does an explanation tell what an opinion was worth, what it cost, and on what evidence, with the numbers of the chain?"""

from dataclasses import replace

import numpy as np
import pytest

import research
from qtcore import Params
from qtcore.rules import Reason
from qtcore.types import N_KNOTS, Action, Source
from research.runs.explain import explain_decision
from research.runs.governor_state import GovernorState
from research.runs.reason_text import size_of
from research.training.predictions import Predictions
from tests.support.priced import PRICED

WORLD = "simulated:random_walk?n_bars=400&n_symbols=3&seed=2"
PARAMS = Params.profile("published").with_values(PRICED)


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A saved run of random votes whose maps believe in them from the middle on, and its decisions by layer."""
    bars, folder = research.load_bars(WORLD), tmp_path_factory.mktemp("run") / "run"
    run = research.backtest(bars, Predictions.random(bars, seed=1), PARAMS)
    schedule = run.predictions.maps
    maps = schedule.maps.copy()
    late = maps["start"] >= bars.close_time[200]
    maps["slope"], maps["arbiter_slope"] = np.where(late, 2.0, 0.0), np.where(maps["start"] >= bars.close_time[300], 3.0, 0.0)
    maps["variance"], maps["arbiter_variance"] = 3.0, 5.0
    maps["win"] = maps["arbiter_win"] = np.linspace(0.4, 0.7, N_KNOTS)
    run = research.backtest(bars, replace(run.predictions, maps=replace(schedule, maps=maps)), PARAMS)
    run.save(folder, record=False)

    def explain(t: int, s: int) -> dict[str, dict]:
        close = str(bars.close_time[t].astype("M8[ns]"))
        return {layer["name"]: layer for layer in explain_decision(folder, bars.symbols[s], close)["layers"]}

    return run, explain


def first(mask) -> tuple[int, int]:
    return tuple(np.argwhere(mask)[0].tolist())


def test_the_edge_of_a_trade_is_told_with_its_costs_and_its_map(told):
    run, explain = told
    d = run.result.decisions
    t, s = first((run.result.governor_reason == Reason.APPROVED) & (d.source == Source.ENSEMBLE))
    price = explain(t, s)["price"]
    assert price["says"].startswith(f"net edge {1e4 * d.edge[t, s]:.1f} bp on the ")
    assert price["says"].endswith("side, enough to trade")
    assert price["saw"]["gross edge"].startswith(f"{1e4 * d.gross_edge[t, s]:.1f} bp ") or d.arbiter_action[t, s] >= 0
    assert price["saw"]["fees and slippage"] == "10.0 bp (both sides)"
    assert price["saw"]["win probability"].startswith(f"{d.raw_confidence[t, s]:.4f}")
    assert price["saw"]["map"].startswith("slope 2")
    assert price["saw"]["block of time"] == "3 days"
    quiet = explain(250, int(np.argmin(np.abs(d.lean[250]))))["price"]
    assert "decide.min_edge" in quiet["saw"]["net edge"]
    assert explain(150, 0)["price"]["says"] == "no edge"


def test_a_voter_that_lost_its_place_has_no_weight(told, tmp_path):
    run, _ = told
    schedule = run.predictions.maps
    maps, name = schedule.maps.copy(), run.result.votes.names[0]
    maps["factors"][:, 0], maps["win"] = 0.0, np.nan
    lost = {"is_kept": False, "gain": {"mean": -0.0002, "lower": -0.0003, "upper": -0.0001, "n_blocks": 20}}
    evidence = tuple(each | {"voters": {name: lost}} for each in schedule.evidence)
    run = research.backtest(run.bars, replace(run.predictions, maps=replace(schedule, maps=maps, evidence=evidence)), PARAMS)
    run.save(tmp_path / "run", record=False)
    d = run.result.decisions
    t, s = first((d.n_voters == 4) & np.isnan(d.raw_confidence) & (np.arange(run.bars.n)[:, None] >= 100))
    layers = explain_decision(tmp_path / "run", run.bars.symbols[s], str(run.bars.close_time[t].astype("M8[ns]")))["layers"]
    saw = {layer["name"]: layer["saw"] for layer in layers}
    place = "lost its place: with it the chain earned 2.0 bp less a block of time (95 % upper bound -1.0 bp, below 0 loses it; 20 blocks)"
    assert (saw[f"model {name}"]["weight"], saw[f"model {name}"]["place"]) == ("0.0000 (of 1, in the mean of this period)", place)
    weights = [float(saw[f"model {voter}"]["weight"].split()[0]) for voter in run.result.votes.names[:4]]
    assert sum(weights) == pytest.approx(1.0, abs=2e-4)
    assert saw["ensemble"]["voters"] == f"4, among them {name}, which lost its place"
    assert saw["price"]["win probability"] == "unknown, because too few trades were known before"
    assert saw["governor"]["asked"].startswith(f"{Action(int(d.raw_action[t, s])).name}, confidence unknown, from ")
    assert "nan" not in str(layers)


def test_the_arbiter_tells_its_seat(told):
    run, explain = told
    d = run.result.decisions
    for reason, words in ((Reason.NO_SEAT, "no seat, it advises"), (Reason.DEFER_NO_EDGE, "has a seat")):
        t, s = first(d.arbiter_reason == reason)
        arbiter = explain(t, s)["arbiter"]
        assert arbiter["saw"]["gate"] == f"rejected: {reason.name.lower()}"
        assert arbiter["saw"]["seat"].startswith(words)
        assert "acts from" not in arbiter["saw"]["score"]


def test_sizes_by_edge_are_those_of_the_chain(told):
    run, _ = told
    d, size, close = run.result.decisions, run.result.size, run.bars.close_time
    assert run.params.governor.order.name == "BY_EDGE"
    t, s = first(size != 0.0)
    opinion = {"confidence": d.raw_confidence[t, s], "edge": 1e4 * d.edge[t, s], "risk": d.risk[t, s]}
    assert size_of(opinion, (0.5, 1.0), run.params) == pytest.approx(abs(size[t, s]) / run.result.equity[t])
    governor, side = GovernorState(run.params), "BUY" if size[t, s] > 0.0 else "SELL"
    asked = "BTCUSDT", side, float(d.raw_confidence[t, s]), str(close[t].astype("M8[ns]"))
    answer = governor.allocate(*asked, price=(d.edge[t, s], d.risk[t, s]))
    assert answer["position_size_pct"] == pytest.approx(abs(size[t, s]) / run.result.equity[t])
    assert GovernorState(run.params).allocate(*asked)["reason"] == "ZERO_SIZE"
