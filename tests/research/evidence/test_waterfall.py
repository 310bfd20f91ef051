"""Is every column of the assumption waterfall the separate run, to the bit, and are break-even and capacity where nothing is left?"""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

import research
from qtcore import Bars, Params
from qtcore.chain.trade import trade
from qtcore.choices import FillAt
from qtcore.types import N_MODELS
from research.evidence import summary
from research.evidence.finding import fill_in_doubt
from research.evidence.waterfall import COSTS, FEE_STEP, FILLS, TEXTS, Book, halved, waterfall
from research.runs import tables
from tests.conftest import assert_same_bits
from tests.naive import trade as naive
from tests.support import PUBLISHED

FREE = {"governor.min_confidence": 0.0, "meta.enabled": False, "arbiter.enabled": False, "governor.max_drawdown": 1.0}
FIGURES = ("net_return", "max_drawdown", "n_trades")


def knowing(bars: Bars, skill: float) -> research.Predictions:
    """Predictions of one voter that knows the next five bars' return, in a noise of 1, with the weight `skill`."""
    rng, close = np.random.default_rng(1), np.log(bars.close)
    ahead = np.nan_to_num((np.concatenate([close[5:], np.full((5, close.shape[1]), np.nan)]) - close) / 0.015)
    probs, buy = np.full((N_MODELS, *close.shape, 3), np.nan), 1.0 / (1.0 + np.exp(-(skill * ahead + rng.normal(size=ahead.shape))))
    probs[0] = np.stack([0.6 * (1.0 - buy), np.full_like(buy, 0.4), 0.6 * buy], axis=-1)
    rule = research.Predictions.random(bars, seed=0)
    return research.Predictions.from_probs(bars, probs, np.full(bars.n, -1, np.int16), rule.labels, rule.label, imported=True)


@pytest.fixture(scope="module")
def bars() -> Bars:
    made = research.load_bars("simulated:random_walk?n_bars=1200&n_symbols=3&seed=3")
    funding = np.where(np.arange(made.n)[:, None] % 8 == 0, 4e-4, 0.0) * np.array([1.0, -1.0, 0.5])
    return replace(made, funding=funding)


@pytest.fixture(scope="module")
def published(bars) -> research.Run:
    return research.backtest(bars, knowing(bars, 1.0), PUBLISHED.with_values(FREE))


@pytest.fixture(scope="module")
def priced(bars) -> research.Run:
    """Opinions with a price; the arbiter goes on duty half-way."""
    stages = [(str(np.datetime64(int(bars.open_time[700]), "ns")), False, True)]
    return research.backtest(bars, knowing(bars, 1.0), Params().with_values({"arbiter.enabled": False}), stages=stages)


@pytest.fixture(scope="module")
def losing(bars) -> research.Run:
    return research.backtest(bars, research.Predictions.random(bars, seed=1), PUBLISHED.with_values(FREE))


def separate(run: research.Run, column: dict) -> research.Run:
    """The run that a column stands for, made from the start."""
    bars = replace(run.bars, funding=None) if column["name"] == "no_funding" else run.bars
    return research.backtest(bars, run.predictions, run.params.with_values(column["set"]))


@pytest.mark.parametrize("name", TEXTS)
def test_each_column_is_the_separate_run(published, name):
    column = next(column for column in published.assumed["columns"] if column["name"] == name)
    own, book = separate(published, column), Book(published)
    again = book.trade(book.change(name)[0])
    assert_same_bits(again.equity, own.result.equity)
    assert_same_bits(again.fills, own.result.fills)
    pnl = own.summary["pnl"]
    assert [column[key] for key in ("net_return", "max_drawdown", "n_trades")] == [
        pnl[k] for k in ("net_return", "max_drawdown", "n_trades")
    ]
    assert column["difference"] == pnl["net_return"] - published.summary["pnl"]["net_return"]
    assert column["is_own"] == (name == "next_open") == (column["difference"] == 0.0)


@pytest.mark.parametrize("name", [*FILLS, "impact"])
def test_fills_of_priced_opinions_are_the_separate_run_too(priced, name):
    column, book = Book(priced).column(name), Book(priced)
    assert len(priced.result.fills) > 50
    assert_same_bits(book.trade(book.change(name)[0]).equity, separate(priced, column).result.equity)


@pytest.mark.parametrize("name", ["fees_twice", "no_funding"])
def test_costs_of_priced_opinions_are_those_of_the_same_decisions(priced, name):
    """By the naive account, which reads the decisions alone."""
    book = Book(priced)
    run, _ = book.change(name)
    said = priced.result.decisions
    columns = {k: getattr(run.bars, k).tolist() for k in ("open_time", "close_time", "open", "high", "low", "close", "volume")}
    funding = None if run.bars.funding is None else run.bars.funding.tolist()
    money = tuple(plane.tolist() for plane in said.money)
    _, out = naive.trade(columns, said.raw_action.tolist(), said.raw_confidence.tolist(), run.params.flat(), None, funding, money)
    assert_same_bits(book.trade(run).equity, np.array(out["equity"]))
    assert not np.array_equal(np.array(out["equity"]), priced.result.equity)


def test_the_columns_of_another_fill_are_told_from_it(bars):
    run = research.backtest(bars, knowing(bars, 1.0), PUBLISHED.with_values({**FREE, "broker.fill": "one_bar_later"}))
    columns = {column["name"]: column for column in run.assumed["columns"]}
    assert [name for name, column in columns.items() if column["is_own"]] == ["one_bar_later"]
    assert columns["one_bar_later"]["set"] == {}
    assert columns["next_open"]["set"] == {"broker.fill": "next_open"}
    assert columns["fees_twice"]["set"] == {"broker.fee_rate": 2.0 * run.params.broker.fee_rate}
    assert separate(run, columns["fees_twice"]).summary["pnl"]["net_return"] == columns["fees_twice"]["net_return"]


def test_nothing_is_left_beyond_break_even_and_something_before(published):
    found = published.assumed["break_even"]
    earned = [separate(published, {"name": "", "set": {"broker.fee_rate": found["fee_rate"] + k * FEE_STEP}}) for k in (0, 1)]
    first, then = (run.summary["pnl"]["net_return"] for run in earned)
    assert first > 0.0 >= then
    assert found["per_side"] == found["fee_rate"] + published.params.broker.slippage_rate > 0.0005
    assert (
        found["sentence"]
        == f"Break-even: nothing is left at {1e4 * found['per_side']:.4g} bp a side; the run pays 5 bp a side, fee and slippage."
    )
    wrong = research.backtest(published.bars, knowing(published.bars, -1.0), published.params).assumed["break_even"]
    assert wrong["per_side"] is None
    assert wrong["sentence"].startswith("Break-even: none; it loses without any cost, and the run pays 5 bp a side")
    dear = research.backtest(published.bars, published.predictions, published.params.with_values({"broker.fee_rate": 0.02}))
    assert dear.assumed["break_even"]["fee_rate"] == pytest.approx(found["fee_rate"], abs=FEE_STEP)


def test_break_even_below_the_slippage_alone_is_found_there(published):
    dear = research.backtest(published.bars, published.predictions, published.params.with_values({"broker.slippage_rate": 0.02}))
    found = dear.assumed["break_even"]
    assert (found["fee_rate"], dear.assumed["capacity"]["cash"]) == (0.0, None)
    assert 0.0 < found["per_side"] < 0.02
    assert found["sentence"].startswith(
        f"Break-even: nothing is left at {1e4 * found['per_side']:.4g} bp a side; the run pays 204 bp a side"
    )
    values = [{"broker.fee_rate": 0.0, "broker.slippage_rate": found["per_side"] + k * FEE_STEP} for k in (0, 1)]
    first, then = (separate(dear, {"name": "", "set": each}).summary["pnl"]["net_return"] for each in values)
    assert first > 0.0 >= then


def test_an_account_that_the_drawdown_limit_stopped_says_what_it_would_return(bars, tmp_path):
    """The worst price takes it to the limit, where the figure is the limit's."""
    run = research.backtest(bars, knowing(bars, 1.0), PUBLISHED.with_values(FREE | {"governor.max_drawdown": 0.1}))
    columns = {column["name"]: column for column in run.assumed["columns"]}
    worst = columns["worst"]
    free = separate(run, {"name": "", "set": {"broker.fill": "worst", "governor.max_drawdown": 1.0}}).summary["pnl"]["net_return"]
    assert worst["without_breaker"] == free < worst["net_return"] < -0.09
    assert columns["next_open"]["without_breaker"] is None
    assert f"where the drawdown limit stopped it; {100.0 * free:+.2f} % without that" in run.assumed["sentence"]
    assert f"{100.0 * free:+.1f} %" in run.report(tmp_path / "page.html").read_text()


def test_capacity_is_the_cash_that_impact_eats_up(published, losing):
    found, impact = published.assumed["capacity"], Book(published).impact
    both = []
    for cash in (found["cash"], 1.021 * found["cash"]):
        values = {"broker.impact": impact, "broker.initial_cash": cash}
        both.append(separate(published, {"name": "", "set": values}).summary["pnl"]["net_return"])
    assert both[0] > 0.0 >= both[1]
    assert found["cash"] > published.params.broker.initial_cash
    assert "nothing is left of a starting cash above about" in found["sentence"]
    assert losing.assumed["capacity"]["sentence"] == "Capacity: none, as the run earned nothing."
    rich = replace(published, params=published.params.with_values({"broker.initial_cash": 2.0 * found["cash"]}))
    rich = research.backtest(rich.bars, rich.predictions, rich.params)
    assert "nothing is left with its own" in rich.assumed["capacity"]["sentence"]


def test_impact_is_the_volatility_of_a_bar(published, bars):
    rows = tables.tested_rows(published)
    moves = np.diff(np.log(bars.close[rows]), axis=0)
    assert Book(published).impact == pytest.approx(np.sqrt(np.mean(moves**2)), rel=1e-12)
    own = replace(published, params=published.params.with_values({"broker.impact": 0.5}))
    assert Book(own).impact == 0.5
    mute = research.backtest(replace(bars, volume=np.zeros_like(bars.volume)), published.predictions, published.params)
    assert math.isnan(Book(mute).impact)
    columns = {column["name"]: column for column in mute.assumed["columns"]}
    assert columns["impact"]["refused"] == "the bars have no volume"
    assert columns["impact"]["net_return"] is None
    assert mute.assumed["capacity"]["sentence"] == "Capacity: not known, as the bars have no volume."


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("holding", [1, 5])
def test_what_the_last_vote_opened_leaves_within_the_tested_bars(bars, fill, holding):
    votes = knowing(bars, 1.0)
    action = votes.action.copy()
    action[:, :900] = action[:, 901:] = -1
    values = {**FREE, "broker.fill": fill, "broker.max_holding_bars": holding, "governor.stop_loss": 0.5}
    run = research.backtest(bars, replace(votes, action=action), PUBLISHED.with_values(values))
    delay = FillAt[fill.upper()].delay
    assert len(run.result.fills) > 0
    assert run.result.fills["bar"].max() == 900 + delay + max(delay, holding)
    assert tables.tested_rows(run) == slice(900, 901 + max(delay, 1) + max(delay, holding))


def test_what_cannot_be_told_is_said(published, bars):
    free = replace(bars, funding=None)
    run = research.backtest(free, published.predictions, published.params.with_values({"broker.fee_rate": 0.06}))
    columns = {column["name"]: column for column in run.assumed["columns"]}
    assert columns["no_funding"]["refused"] == "the run was made without funding"
    assert columns["fees_twice"]["refused"] == "broker.fee_rate may not be above 0.1"
    idle = research.backtest(free, knowing(free, 0.0), Params().with_values({"decide.min_edge": 0.04}))
    assert idle.assumed["sentence"] == "Not traded again: the run made no trade, so no assumption mattered."
    altered = replace(published, result=replace(published.result, equity=published.result.equity * (1.0 + 1e-15)))
    assert waterfall(altered)["refused"].startswith("what the account did does not follow")
    few = waterfall(published, budget=1000)
    assert len(few["columns"]) == len(TEXTS)
    assert few["break_even"]["sentence"].startswith("Not searched for over 3,600 cells")


def test_halving_ends_on_the_side_that_holds():
    asked = []
    assert 0.25 - 1e-3 < halved(lambda x: asked.append(x) or x < 0.25, 0.0, 1.0, 1e-3) < 0.25
    assert len(asked) == 10


@pytest.mark.parametrize("values", [{}, {"broker.slippage_rate": 0.02}, {"broker.fee_rate": 0.02}])
def test_the_searches_visit_no_more_than_they_are_counted_for(published, values, monkeypatch):
    run = research.backtest(published.bars, published.predictions, published.params.with_values(values))
    book, visited = Book(run), []
    monkeypatch.setattr(Book, "trade", lambda self, run, trade=Book.trade: visited.append(run) or trade(self, run))
    book.break_even(), book.capacity()
    assert len(visited) <= book.n_searched


def test_table_page_and_summary_tell_the_same(published, tmp_path):
    run = replace(published)
    folder = run.save(tmp_path / "run", record=False)
    stored = json.loads((folder / "summary.json").read_text())["waterfall"]
    assert stored == json.loads(json.dumps(run.assumed)) == json.loads(json.dumps(research.load_run(folder).assumed))
    table, page = run.waterfall(), run.report(tmp_path / "page.html").read_text()
    assert table.index.tolist() == [*FILLS, *COSTS]
    assert table["net_return"].tolist() == [column["net_return"] for column in stored["columns"]]
    for sentence in (stored["sentence"], stored["break_even"]["sentence"], stored["capacity"]["sentence"]):
        assert sentence.replace("'", "&#39;") in page
    assert f"{100.0 * table.loc['worst', 'net_return']:+.2f} % (at the worst price of the next bar)" in stored["sentence"]
    assert "broker.fill=worst" in page


@pytest.mark.parametrize("fill", FillAt)
def test_the_close_that_decides_and_the_worst_price_never_make_an_edge(bars, fill, monkeypatch):
    monkeypatch.setattr(summary, "decide", lambda *_: "edge")
    monkeypatch.setattr(summary, "in_doubt", lambda _: None)
    monkeypatch.setattr(summary.sr, "refusal", lambda *_: None)
    run = research.backtest(bars, knowing(bars, 1.0), PUBLISHED.with_values({**FREE, "broker.fill": fill.name.lower()}))
    told = run.summary["evidence"]
    if fill in (FillAt.CLOSE, FillAt.WORST):
        assert (told["finding"], told["reason"]) == ("not enough data", fill_in_doubt(fill))
        assert f"broker.fill was {fill.name.lower()}, and " in told["sentence"]
    else:
        assert told["finding"] == "edge"
        assert fill_in_doubt(fill) is None


def test_an_own_trade_loop_trades_again(bars, published):
    called = []

    def mine(*arguments):
        called.append(len(arguments))
        return trade(*arguments)

    run = research.backtest(bars, published.predictions, published.params, trade=mine)
    before = len(called)
    assert run.assumed["refused"] is None
    assert len(called) >= before + len(TEXTS)
    assert "does not follow" in waterfall(replace(run, own=replace(run.own, trade=lambda *_: 0)))["refused"]
