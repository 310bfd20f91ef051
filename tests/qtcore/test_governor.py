"""Does the governor say what the specification says, case by case?"""

import json
import re

import numpy as np
import pytest

from qtcore.chain.trade import TradeState, run_trade, trade
from qtcore.governor import (
    empirical_odds,
    exit_rule,
    govern_rule,
    govern_step,
    kelly_rule,
    last_loss,
    open_cell_rule,
    screen_rule,
    size_rule,
    veto_rule,
)
from qtcore.jit import kernel, rebind
from qtcore.params import Params
from qtcore.rules import Reason
from qtcore.types import CLOSED, N_CLOSED, NEVER, zeros
from research.runs.governor_state import GovernorState, position_pct, with_risk
from tests.conftest import awkward_bars, scenario_cases
from tests.support import PUBLISHED

TOLERANCE = 1e-9


def differences(expected, got, path=""):
    """Where `got` lacks or differs from what is expected; floats to 1e-9, absolute or relative."""
    if isinstance(expected, dict):
        return [d for key, value in expected.items() for d in differences(value, got.get(key, "missing"), f"{path}.{key}")]
    if isinstance(expected, list):
        if len(expected) != len(got):
            return [f"{path}: {len(expected)} against {len(got)}"]
        return [d for i, (a, b) in enumerate(zip(expected, got)) for d in differences(a, b, f"{path}[{i}]")]
    if isinstance(expected, float) or isinstance(got, float):
        close = abs(expected - got) <= TOLERANCE * max(1.0, abs(expected))
        return [] if close else [f"{path}: {expected} against {got}"]
    return [] if expected == got else [f"{path}: {expected!r} against {got!r}"]


def play(case: dict, params: Params) -> dict:
    """Answer a governor case step by step."""
    governor = GovernorState.load(case["input"]["state"], with_risk(params, case["config"]))
    steps = []
    for step in case["input"]["steps"]:
        account = governor.account[0]
        if step["op"] == "allocate":
            out = {"allocation": governor.allocate(*(step[k] for k in ("symbol", "action", "confidence", "now")), step.get("balance"))}
            out["daily_trade_count"] = int(account["trades_today"])
        elif step["op"] == "record":
            out = {"trade": governor.record_trade_result(step, step["now"])}
        else:
            out = {"stats": governor.stats()}
        balances = {"current_balance": float(account["balance"]), "peak_balance": float(account["peak"])}
        steps.append({"op": step["op"], **out, **balances})
    return {"steps": steps, "saved_state": governor.saved_state()}


def without_cooldown_text(answer: dict) -> dict:
    """Cut the minutes from cooldown reasons: the original prints the remaining ones as "ago"."""
    text = json.dumps(answer)
    return json.loads(re.sub(r"COOLDOWN_ACTIVE \([^)]*\)", "COOLDOWN_ACTIVE", text))


@pytest.mark.parametrize("profile", ["original", "published"])
def test_governor_scenarios(profile):
    known = scenario_cases("governor")
    assert len(known) == 39
    wrong = {}
    for case in known:
        if profile == "published" and set(case["switches"]) - {"cooldown_reason"}:
            continue
        found = differences(without_cooldown_text(case["expected"]), without_cooldown_text(play(case, Params.profile(profile))))
        if found:
            wrong[case["id"]] = found
    assert wrong == {}


@pytest.mark.parametrize("profile", ["original", "published"])
def test_kelly_scenarios(profile):
    known = scenario_cases("kelly")
    assert len(known) == 19
    for case in known:
        if profile == "published" and case["switches"]:
            continue
        got = position_pct(case["input"]["confidence"], with_risk(Params.profile(profile), case["config"]))
        assert differences(case["expected"]["position_pct"], got, case["id"]) == []


def test_the_state_file_holds_the_moment_of_the_last_recorded_trade():
    """Trades recorded on the 3rd and, before that day's first decision, on the 4th: what is saved is the day of the 3rd."""
    governor = GovernorState(Params.profile("original"))
    trade = {"symbol": "BTCUSDT", "action": "BUY", "entry_price": 100.0, "exit_price": 99.0, "position_size": 500.0, "pnl": -5.0}
    assert governor.saved_state()["last_trade_date"] == ""
    governor.allocate("BTCUSDT", "BUY", 0.9, "2026-02-03T20:00:00")
    governor.record_trade_result(trade, "2026-02-03T21:35:00")
    governor.record_trade_result(trade, "2026-02-04T01:37:00")
    saved = governor.saved_state()
    governor.allocate("ETHUSDT", "BUY", 0.9, "2026-02-04T01:44:00", balance=20_000.0)
    assert governor.saved_state() == saved
    assert (saved["last_trade_date"], saved["daily_trade_count"], saved["current_balance"]) == ("2026-02-03", 1, 9_990.0)
    assert [t["timestamp"] for t in saved["trade_history"]] == ["2026-02-03T21:35:00", "2026-02-04T01:37:00"]
    governor.record_trade_result(trade, "2026-02-04T02:00:00")
    assert governor.saved_state()["last_trade_date"] == "2026-02-04"


# ---------------------------------------------------------------- rules, one by one


@pytest.mark.parametrize(
    ("action", "confidence", "close", "is_killed", "allow_short", "expected"),
    [
        (1, 0.9, 1.0, True, True, Reason.HOLD_SIGNAL),
        (-1, 0.9, 1.0, False, True, Reason.HOLD_SIGNAL),
        (2, 0.64, 1.0, True, True, Reason.LOW_CONFIDENCE),
        (2, np.nan, 1.0, False, True, Reason.LOW_CONFIDENCE),
        (0, 0.9, np.nan, True, False, Reason.SHORTS_DISABLED),
        (2, 0.9, np.nan, True, False, Reason.NO_BAR),
        (2, 0.9, 1.0, True, False, Reason.EMERGENCY_STOP_ACTIVE),
        (2, 0.65, 1.0, False, False, Reason.NONE),
        (0, 0.65, 1.0, False, True, Reason.NONE),
    ],
)
def test_the_screen_hits_in_order(action, confidence, close, is_killed, allow_short, expected):
    assert screen_rule(action, confidence, close, 0.65, is_killed, allow_short) == expected


def test_vetoes_of_the_bar_and_of_the_candidate_hit_in_order():
    assert veto_rule(True, 20, 20) == Reason.MAX_DRAWDOWN_EXCEEDED
    assert veto_rule(False, 20, 20) == Reason.DAILY_TRADE_LIMIT_REACHED
    assert veto_rule(False, 19, 20) == Reason.NONE
    assert govern_rule(4_500.0, 501.0, 5_000.0, True, 10, 5) == Reason.MAX_EXPOSURE_EXCEEDED
    assert govern_rule(4_500.0, 500.0, 5_000.0, True, 10, 5) == Reason.COOLDOWN_ACTIVE
    assert govern_rule(5_000.0, 500.0, 5_000.0, False, 5, 5) == Reason.APPROVED  # existing exposure at the limit, loss just forgotten
    assert govern_rule(0.0, 0.0, 5_000.0, True, NEVER, 5) == Reason.ZERO_SIZE


def test_an_exit_needs_no_permission():
    assert exit_rule(1, -1, 0, 0, False) == Reason.EXIT_SIGNAL
    assert exit_rule(1, -1, 9, 5, True) == Reason.EXIT_SIGNAL
    assert exit_rule(-1, -1, 5, 5, True) == Reason.HORIZON
    assert exit_rule(-1, 0, 4, 5, True) == Reason.EMERGENCY_STOP_ACTIVE
    assert exit_rule(-1, -2, 400, 0, False) == 0
    assert open_cell_rule(61, Reason.HORIZON, True, 1, 0) == Reason.HORIZON
    assert open_cell_rule(61, 0, False, 1, 0) == Reason.HOLD_SIGNAL
    assert open_cell_rule(0, 0, False, 1, 1) == Reason.POSITION_ALREADY_OPEN
    assert open_cell_rule(62, 0, False, 1, 1) == Reason.LOW_CONFIDENCE
    assert open_cell_rule(0, Reason.HORIZON, True, 1, 1) == 0  # it leaves, so it may enter again
    assert open_cell_rule(0, Reason.EXIT_SIGNAL, False, 1, -1) == Reason.EXIT_SIGNAL


def test_sizes_of_the_published_table():
    shares = [size_rule(kelly_rule(0.55, 1.5), 0.25, c / 0.70, 0.10) for c in (0.65, 0.70, 0.80, 0.85, 0.92, 1.00)]
    np.testing.assert_allclose(shares, [0.0580357, 0.0625, 0.0714286, 0.0758929, 0.0821429, 0.0892857], rtol=1e-6)
    assert size_rule(kelly_rule(0.65, 1.5), 0.25, 1.0, 0.10) == 0.10
    assert size_rule(kelly_rule(0.30, 1.5), 0.25, 1.0, 0.10) == 0.0


def ring(rows):
    """A ring of closed trades from (symbol, time, ret) with pnl = 1000 ret, written as a running account would."""
    closed = zeros(CLOSED, N_CLOSED)
    for i, (symbol, time, ret) in enumerate(rows):
        closed[i % N_CLOSED] = (time, symbol, 1000.0 * ret, ret)
    return closed


def test_empirical_odds_take_the_last_trades_only():
    rows = [(0, i, 0.5) for i in range(70)] + [(0, i, 0.03 if i % 3 else -0.02) for i in range(30)]
    win_rate, payoff = empirical_odds(ring(rows), 100, 0.55, 1.5, 30)
    assert win_rate == pytest.approx(2 / 3)
    assert payoff == pytest.approx(1.5)
    assert empirical_odds(ring(rows[:29]), 29, 0.55, 1.4, 30) == (0.55, 1.4)
    assert empirical_odds(ring(rows[:30]), 30, 0.55, 1.4, 30) == (1.0, 1.4)  # no loss: the constant payoff
    losses = [(0, i, -0.01) for i in range(30)]
    win_rate, payoff = empirical_odds(ring(losses), 30, 0.55, 1.4, 30)
    assert size_rule(kelly_rule(win_rate, payoff), 0.25, 1.0, 0.1) == 0.0
    even = [(0, i, (0.02, -0.01, 0.0)[i % 3]) for i in range(30)]
    assert empirical_odds(ring(even), 30, 0.55, 1.4, 30) == (pytest.approx(1 / 3), pytest.approx(2.0))


def test_the_last_fifty_trades_forget():
    loss, wins = (3, 77, -0.01), [(1, 90 + i, 0.01) for i in range(60)]
    assert last_loss(3, ring([loss, *wins[:49]]), 50) == 77
    assert last_loss(3, ring([loss, *wins[:50]]), 51) == NEVER
    assert last_loss(3, ring([loss, (3, 80, -0.01), (3, 79, -0.02), (3, 99, 0.0)]), 4) == 80
    assert last_loss(1, ring([loss]), 1) == NEVER


def test_a_researchers_governor_takes_the_place_of_ours():
    """Half the size, nothing on the second symbol: a few lines and `rebind`."""

    @kernel
    def mine(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params):
        """Judge a candidate."""
        notional, reason = govern_step(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params)
        if symbol == 1:
            return 0.0, Reason.GOVERNOR_ERROR.value
        return 0.5 * notional, reason

    bars = awkward_bars(60, 1, 3)
    action, confidence = np.full(bars.close.shape, 2, np.int8), np.full(bars.close.shape, 0.9)
    own = rebind(trade, govern_step=mine)
    a = run_trade(bars, action, confidence, PUBLISHED, TradeState.fresh(PUBLISHED, 3))
    b = run_trade(bars, action, confidence, PUBLISHED, TradeState.fresh(PUBLISHED, 3), own)
    assert b.size[0, 0] == 0.5 * a.size[0, 0]
    assert set(b.governor_reason[~np.isnan(bars.close[:, 1]), 1]) == {int(Reason.GOVERNOR_ERROR)}
