"""Governor state, asked one request at a time: the compiled rules behind the interface of `spec` 10.2 and 10.5.

For scenario files, `qt explain` and tests. It drives the rules that the trade loop inlines (`screen_rule`, `veto_step`, `govern_step`) on
the same ACCOUNT, POSITION and CLOSED records. One thing differs: a drawdown is judged at every request and halts nothing by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.declare import time_ns
from qtcore.governor import base_of, drawdown_rule, govern_step, roll_day, screen_rule, veto_step
from qtcore.params import Params
from qtcore.portfolio import init_account
from qtcore.rules import Reason
from qtcore.types import N_CLOSED, NEVER, NS_PER_DAY, Action
from research.runs.money import BASIS_POINTS
from research.runs.reason_text import Asked, asked_with, loss_time, odds_of, reason_text, size_of

RISK_FIELDS = {
    "max_position_size_pct": "governor.max_position",
    "max_total_exposure_pct": "governor.max_exposure",
    "max_drawdown_pct": "governor.max_drawdown",
    "min_confidence_threshold": "governor.min_confidence",
    "kelly_fraction": "governor.kelly_fraction",
    "cooldown_after_loss_minutes": "governor.cooldown_minutes",
    "max_daily_trades": "governor.max_daily_trades",
    "emergency_stop": "governor.emergency_stop",
    "risk_per_trade_pct": "governor.stop_loss",
    "sizing_mode": "governor.sizing_mode",
}
RECENT_TRADES = 20  # of recent_win_rate
UNKNOWN = float("nan"), float("nan")  # edge and risk of an opinion without a price


def with_risk(params: Params, config: Mapping[str, Any]) -> Params:
    """Return `params` with RiskConfig fields (`spec` 10.1) replaced; other keys are ignored.

    >>> with_risk(Params(), {"max_daily_trades": 2}).governor.max_daily_trades
    2
    """
    return params.with_values({RISK_FIELDS[name]: value for name, value in config.items() if name in RISK_FIELDS})


def position_pct(confidence: float, params: Params) -> float:
    """Share of the base that an approved trade of this confidence gets without trade history (`spec` 10.4).

    >>> round(position_pct(0.85, Params.profile("published")), 6)
    0.075893
    """
    g = params.governor
    return size_of({"confidence": confidence}, (g.win_rate, g.payoff), params)


@dataclass
class GovernorState:
    """A governor with an account; symbols get a column when they are first named.

    >>> governor = GovernorState(Params.profile("published"))
    >>> governor.allocate("BTCUSDT", "BUY", 0.85, "2026-01-12T12:00:00")["reason"]
    'APPROVED'
    """

    params: Params
    account: NDArray = field(init=False)
    positions: NDArray = field(init=False)
    closed: NDArray = field(init=False)
    symbols: list[str] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    last_updated: str = ""
    _file: dict[str, Any] | None = None  # what the state file holds since the last recorded trade

    def __post_init__(self) -> None:
        self.account, self.positions, self.closed = init_account(self.params, 0)
        self._record = self.params.record()

    @classmethod
    def load(cls, state: Mapping[str, Any], params: Params) -> "GovernorState":
        """Start from a state file's content (`spec` 10.5); missing keys take their defaults."""
        governor = cls(params)
        account = governor.account[0]
        account["balance"] = account["equity"] = state.get("current_balance", account["balance"])
        account["peak"] = state.get("peak_balance", account["balance"])
        account["trades_today"] = state.get("daily_trade_count", 0)
        if date := state.get("last_trade_date"):
            account["day"] = time_ns("last_trade_date", date) // NS_PER_DAY
        for symbol, notional in state.get("active_positions", {}).items():
            governor._position(symbol)["entry_notional"] = notional
        for trade in state.get("trade_history", []):
            governor._remember(trade)
        return governor

    def allocate(
        self, symbol: str, action: str, confidence: float, now: str, balance: float | None = None, price: tuple[float, float] = UNKNOWN
    ) -> dict[str, Any]:
        """Ask for a trade at the decision time `now` (ISO). Returns the allocation of `spec` 10.2; a refusal carries zeros.

        price: net edge, a fraction, and risk of the opinion, which sizes by edge need.
        """
        account, time = self.account[0], time_ns("now", now)
        if balance is not None:
            account["balance"] = account["equity"] = balance
            account["peak"] = max(account["peak"], balance)
        account["exposure"] = self._exposure()
        share = 0.0
        opinion = {"confidence": float(confidence), "edge": BASIS_POINTS * price[0], "risk": price[1]}
        notional, code = self._judge(symbol, Action[action], float(confidence), price, time)
        if code == Reason.APPROVED:
            account["trades_today"] += 1
            share = size_of(opinion, self._odds(), self.params)
        return {
            "symbol": symbol,
            "action": action,
            "approved": code == Reason.APPROVED,
            "position_size_usd": abs(notional),
            "position_size_pct": share,
            "risk_amount_usd": self.params.governor.stop_loss * abs(notional),
            "confidence": confidence,
            "reason": reason_text(code, self.params, opinion | self._asked(symbol, time).numbers(code, self.params, opinion)),
            "kelly_optimal": share,
            "timestamp": now,
        }

    def record_trade_result(self, trade: Mapping[str, Any], now: str) -> dict[str, Any]:
        """Book a closed trade {symbol, action, entry_price, exit_price, position_size, pnl} at `now`. Returns it as remembered."""
        names = ("symbol", "action", "entry_price", "exit_price", "position_size", "pnl")
        done = {**{name: trade[name] for name in names}, "timestamp": now}
        account = self.account[0]
        account["balance"] += done["pnl"]
        account["equity"] = account["balance"]
        account["peak"] = max(account["peak"], account["balance"])
        self._remember(done)
        self.last_updated = now
        self._file = self._state()
        return done

    def stats(self) -> dict[str, Any]:
        """Return the statistics of `spec` 10.5."""
        account, exposure = self.account[0], self._exposure()
        balance, n_closed = float(account["balance"]), int(account["n_closed"])
        recent = [self.closed[i % N_CLOSED]["pnl"] for i in range(max(n_closed - RECENT_TRADES, 0), n_closed)]
        return {
            "balance": balance,
            "peak_balance": float(account["peak"]),
            "drawdown_pct": float(drawdown_rule(account["peak"], balance)),
            "total_exposure_usd": exposure,
            "exposure_pct": exposure / balance if balance > 0.0 else 0.0,
            "daily_trades": int(account["trades_today"]),
            "recent_win_rate": sum(pnl > 0.0 for pnl in recent) / len(recent) if recent else 0.0,
            "total_trades": n_closed,
            "active_positions": int(np.count_nonzero(self.positions["entry_notional"])),
        }

    def saved_state(self) -> dict[str, Any]:
        """Return what a state file holds (`spec` 10.5): it is written when a trade is recorded, so later decisions are not in it."""
        return self._state() if self._file is None else self._file

    def _state(self) -> dict[str, Any]:
        account, day = self.account[0], int(self.account[0]["day"])
        losses = zip(self.symbols, self.positions["last_loss_time"].tolist())
        active = zip(self.symbols, self.positions["entry_notional"].tolist())
        return {
            "schema_version": 1,
            "initial_balance": self.params.broker.initial_cash,
            "current_balance": float(account["balance"]),
            "peak_balance": float(account["peak"]),
            "trade_history": self.history[-100:],
            "last_trade_date": str(np.datetime64(day, "D")) if day >= 0 else "",
            "daily_trade_count": int(account["trades_today"]),
            "active_positions": {symbol: notional for symbol, notional in active if notional != 0.0},
            "last_losses": {symbol: str(np.datetime64(time, "ns"))[:26] for symbol, time in losses if time != NEVER},
            "last_updated": self.last_updated,
        }

    def _judge(self, symbol: str, action: Action, confidence: float, price: tuple[float, float], time: int) -> tuple[float, int]:
        g, params, account = self.params.governor, self._record[0], self.account[0]
        code = screen_rule(int(action), confidence, 1.0, g.min_confidence, g.emergency_stop, self.params.broker.allow_short)
        if code == 0:
            is_halted = bool(self._drawdown() > g.max_drawdown)
            if not is_halted:
                roll_day(account, time, params)
            code = veto_step(is_halted, account, self.closed, params)
        if code != 0:
            return 0.0, int(code)
        column = self._column(symbol)
        side = 1 if action == Action.BUY else -1
        loss, position = self._loss_time(symbol), self.positions[column]
        judged = govern_step(side, confidence, *price, column, time, loss, *self._odds(), account, position, params)
        return float(judged[0]), int(judged[1])

    def _odds(self) -> tuple[float, float]:
        odds = odds_of(self.params, self.closed, int(self.account[0]["n_closed"]))
        assert odds is not None
        return odds

    def _loss_time(self, symbol: str) -> int:
        position, column = self._position(symbol), self._column(symbol)
        return loss_time(self.params, column, position, self.closed, int(self.account[0]["n_closed"]))

    def _drawdown(self) -> float:
        return float(drawdown_rule(self.account[0]["peak"], base_of(self.account[0], self._record[0])))

    def _exposure(self) -> float:
        total = 0.0
        for notional in self.positions["entry_notional"].tolist():
            total += notional
        return total

    def _remember(self, trade: Mapping[str, Any]) -> None:
        account, time, position = self.account[0], time_ns("timestamp", trade["timestamp"]), self._position(trade["symbol"])
        size = trade["position_size"]
        row = (time, self._column(trade["symbol"]), trade["pnl"], trade["pnl"] / size if size else 0.0)
        self.closed[int(account["n_closed"]) % N_CLOSED] = row
        account["n_closed"] += 1
        if trade["pnl"] < 0.0:
            position["last_loss_time"] = max(int(position["last_loss_time"]), time)
        self.history.append(dict(trade))

    def _column(self, symbol: str) -> int:
        if symbol not in self.symbols:
            self.symbols.append(symbol)
            known, self.positions = self.positions, init_account(self.params, len(self.symbols))[1]
            self.positions[:-1] = known
        return self.symbols.index(symbol)

    def _position(self, symbol: str) -> Any:
        column = self._column(symbol)  # may add a row
        return self.positions[column]

    def _asked(self, symbol: str, now: int) -> Asked:
        """Return the account as it is asked."""
        position, column = self._position(symbol), self._column(symbol)
        return asked_with(self.params, self.account[0], float(self.account[0]["exposure"]), column, position, self.closed, now)
