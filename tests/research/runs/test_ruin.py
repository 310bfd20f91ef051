"""Does an account that has lost everything end at nothing, in the kernels, a backtest, its proof, its report and live?"""

import sqlite3

import numpy as np
import pandas as pd
import pytest

from qtcore import Engine, InputError
from qtcore.chain.trade import cell_pnl, finish
from qtcore.rules import Reason
from qtcore.types import LEAST_PRICE, MOST, Bars
from research import backtest
from research.data import load
from research.errors import UserError
from research.live.broker.paper import PaperBroker
from research.live.feeds.feeds import ReplayFeed
from research.live.journal.journal import Journal
from research.live.monitoring.alerts import TOLD
from research.live.monitoring.health import status
from research.live.monitoring.journal_source import JournalSource
from research.live.session.runner import Options, Runner
from research.report.page import notices
from research.runs.ruin import ruin_of
from research.training.predictions import Predictions
from tests.conftest import START
from tests.qtcore.test_trade import FLAT, example, reasons
from tests.research.live.test_live import check_against
from tests.support import PUBLISHED

HOUR = 3_600_000_000_000
UP = (100_000.0,) * 4  # a thousand times FLAT


def test_a_short_through_a_step_of_a_thousand_ends_at_nothing():
    result, state, fills = example([FLAT, FLAT, UP, UP, UP], "S..BS")
    assert fills == [(1.0, "APPROVED", 100.0, 0.0), (2.0, "STOP", 100_000.0, -999_000.0)]
    assert result.equity.tolist() == result.balance.tolist() == [10_000.0, 10_000.0, 0.0, 0.0, 0.0]
    assert reasons(result)[2:] == ["HOLD_SIGNAL", "LIQUIDATED", "LIQUIDATED"]
    assert cell_pnl(result.pnl)[:, 0].tolist() == [0.0, -10_000.0, 0.0, 0.0, 0.0]
    ruin = ruin_of(START + HOUR * np.arange(1, 6), result.equity, result.fills, 10_000.0)
    assert (ruin.bar, ruin.written_off, ruin.n_positions) == (2, 989_000.0, 0)
    assert finish(state, START + 5 * HOUR, PUBLISHED)[0].account["balance"].tolist() == [0.0]


def test_what_is_held_is_closed_at_the_mark_and_the_winner_keeps_its_cell():
    """A is short and leaves at an open 19 times as high; B is long, wins, and is closed at that bar's close."""
    values = {"governor.stop_loss": 1.0, "governor.max_position": 0.5, "governor.max_exposure": 1.0, "broker.fee_rate": 0.001}
    won = (100.0, 300.0, 100.0, 300.0)
    rows = {"A": [FLAT, FLAT, FLAT, (1_900.0,) * 4, UP], "B": [FLAT, FLAT, FLAT, won, won]}
    result, state, fills = example(rows, {"A": "S..BB", "B": "B...."}, values=values)
    assert [fill[1] for fill in fills] == ["APPROVED", "APPROVED", "STOP", "LIQUIDATED"]
    assert fills[-1][0] == 4.0  # at the close
    assert result.fills["fee"][-1] == result.fills["notional"][-1] * 0.001
    assert result.equity[-2:].tolist() == [0.0, 0.0]
    assert reasons(result, 1)[3:] == ["LIQUIDATED", "HOLD_SIGNAL"]
    np.testing.assert_allclose(result.pnl.sum(axis=1), np.diff(np.append(10_000.0, result.equity)), atol=1e-9)
    assert result.pnl[3, 1] > 6_000.0
    assert state.account["exposure"] == 0.0
    assert not state.positions["pending_exit"].any()


def test_filled_at_the_close_it_is_gone_at_that_close():
    """Costs of ten times the equity: what was approved is filled and liquidated at once, and the cell keeps its approval."""
    values = {
        "broker.fill": "close",
        "governor.max_position": 1.0,
        "governor.max_exposure": 10.0,
        "governor.exposure_mode": "existing",
        "governor.win_rate": 0.99,
        "broker.fee_rate": 0.1,
        "broker.slippage_rate": 0.1,
    }
    names = [f"S{i}" for i in range(8)]
    result, _, fills = example({s: [FLAT] * 3 for s in names}, dict.fromkeys(names, "B.B"), values=values)
    assert [fill[1] for fill in fills] == ["APPROVED"] * 8 + ["LIQUIDATED"] * 8
    assert result.equity.tolist() == [0.0, 0.0, 0.0]
    assert set(result.governor_reason[0]) == {Reason.APPROVED}
    assert set(result.governor_reason[2]) == {Reason.LIQUIDATED}


def candles(factor: float = 1_000.0, at: int = 120, n: int = 240) -> pd.DataFrame:
    """Two symbols; the second multiplies at one bar, as after a wrong join of two contracts."""
    rng = np.random.default_rng(2)
    parts = []
    for s, name in enumerate(("AAA", "BBB")):
        close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.004, n)))
        close[at:] *= factor if s else 1.0
        open_ = np.append(close[0], close[:-1])
        open_[at] = close[at]
        rows = {"timestamp": START + HOUR * np.arange(n), "symbol": name, "open": open_, "close": close, "volume": 10.0}
        parts.append(pd.DataFrame(rows | {"high": np.maximum(open_, close), "low": np.minimum(open_, close)}))
    return pd.concat(parts)


def short_before(bars: Bars, at: int = 120) -> Predictions:
    """Random votes, all of them SELL for the second symbol in the two bars before the step."""
    predictions = Predictions.random(bars, seed=1)
    predictions.action[:4, at - 3 : at - 1, 1], predictions.confidence[:4, at - 3 : at - 1, 1] = 0, 0.95
    return predictions


VALUES = {"governor.max_daily_trades": 100, "governor.cooldown_minutes": 0, "broker.max_holding_bars": 5, "governor.stop_loss": 0.5}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    bars = load(candles()).bars
    run = backtest(bars, short_before(bars), PUBLISHED.with_values(VALUES))
    run.save(tmp_path_factory.mktemp("run"))
    return run


def test_a_backtest_says_it_and_its_proof_holds(run):
    assert run.result.equity.min() == run.result.balance.min() == run.result.equity[-1] == 0.0
    gone = run.summary["pnl"]["liquidation"]
    assert gone["written_off"] > 80_000.0
    assert gone["text"].startswith("liquidated at 2024-01-06 01:00: no equity was left")
    assert f"{gone['written_off']:,.2f} owed and written off" in gone["text"]
    assert run.summary["pnl"]["final_equity"] == 0.0
    assert run.summary["pnl"]["net_return"] == -1.0
    assert ("bad", f"The account was {gone['text']}.") in notices(run.summary, {"passed": True}, {})
    paid = run.result.fills["pnl"].sum()
    assert 10_000.0 + paid + gone["written_off"] == pytest.approx(0.0, abs=1e-6)
    certificate = run.verify()
    failed = [check for check in certificate["checks"] if not check["passed"]]
    assert failed == []


def test_a_proof_misses_money_that_a_ruined_account_got_back(run, tmp_path):
    from research.verify.accounting import check_accounting
    from research.verify.evidence import read_evidence

    evidence = read_evidence(run.folder)
    evidence.lines["balance"] = evidence.lines["balance"].copy()
    evidence.lines["balance"][-1] = 1.0
    failed = [claim for claim in check_accounting(evidence) if not claim.holds]
    assert [claim.id for claim in failed] == ["balance"]


def test_without_ruin_there_is_nothing_to_say():
    bars = load(candles(1.0)).bars
    run = backtest(bars, short_before(bars), PUBLISHED.with_values(VALUES))
    assert run.summary["pnl"]["liquidation"] is None
    assert not any("liquidated" in text for _, text in notices(run.summary, {"passed": True}, {}))


def test_live_says_the_same_and_its_broker_writes_off_the_same(run, tmp_path):
    journal = Journal(tmp_path / "j", {"symbols": run.bars.symbols, "interval": run.bars.interval}, durable=False)
    broker = PaperBroker(tmp_path / "b", run.bars.symbols, run.params)
    Runner(run.params, ReplayFeed(run.bars), journal, broker, run.predictions, options=Options(fills_gaps=False)).run()
    journal.close()
    check_against(run, tmp_path / "j")
    gone = run.summary["pnl"]["liquidation"]
    assert (broker.balance, broker.positions) == (0.0, {})
    assert broker.written_off == pytest.approx(gone["written_off"], rel=1e-12)
    with sqlite3.connect(tmp_path / "j") as db:
        (text,) = [text for (text,) in db.execute("SELECT text FROM events WHERE kind = 'liquidated'")]
    assert text == gone["text"]
    assert "liquidated" in TOLD
    told = status(JournalSource(tmp_path / "j"))
    assert [alarm["level"] for alarm in told["alarms"] if alarm["name"] == "liquidated"] == ["critical"]
    assert (told["governor"]["equity"], told["governor"]["balance"]) == (0.0, 0.0)


def test_vectorbt_is_refused_a_debt(run):
    pytest.importorskip("vectorbt", reason="vectorbt is not installed; it is the extra `vectorbt`")
    with pytest.raises(UserError, match="needs a run that was not liquidated"):
        run.to_vectorbt()


@pytest.mark.parametrize("price", [1e300, 1e31, 1e-31, 0.0, -1.0, np.inf])
def test_prices_that_overflow_are_refused_at_the_door(price):
    """Ten factors of the bound fit a float64, so whatever the chain multiplies is finite."""
    assert np.isfinite(MOST**10)
    assert LEAST_PRICE**10 > 0.0
    close = np.full((40_000, 1), 100.0)
    close[35_000] = price
    time = START + HOUR * np.arange(40_000)
    bars = Bars(time, time + HOUR, *[close] * 4, np.ones_like(close), ("A",), HOUR)
    with pytest.raises(InputError, match=r"bars\.open must be NaN or in \[1e-30, 1e\+30\], was "):
        Engine(PUBLISHED).run(bars)
    rows = candles(1.0)
    rows.loc[rows["symbol"] == "BBB", ["open", "high", "low", "close"]] = price
    with pytest.raises(UserError, match="240 of 240 rows have "):
        load(rows)
