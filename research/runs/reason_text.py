"""Reason texts: what each reason code means in words, with its numbers. Kernels emit integers; every text is made here (`spec` 0.4).

`reason_text` says any rule as the table declares it (`qtcore.rules`); `Asked` is the account as the governor saw it when it was
asked about a cell, from which a refusal takes its numbers. A number that is not known leaves the code alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qtcore.arbiter import signal_rule
from qtcore.choices import CooldownScope, DrawdownBasis, ExposureMode, FillAt, GovernOrder, SizingMode
from qtcore.governor import empirical_odds, last_loss, size_step
from qtcore.params import Params
from qtcore.rules import Reason, rule_of
from qtcore.types import MONEY_COLUMNS, NEVER, NS_PER_MINUTE, Action, Decisions
from research.runs.money import BASIS_POINTS, money_planes

OPINION = {  # numbers of a cell's opinion, by the names that texts know them by
    "confidence": "raw_confidence",
    "ensemble_confidence": "ensemble_confidence",
    "meta_confidence": "meta_confidence",
    "arbiter_confidence": "arbiter_confidence",
    "arbiter_score": "arbiter_score",
    "edge": "edge",
    "risk": "risk",
}


def reason_text(code: int, params: Params | None = None, numbers: Mapping[str, float] | None = None) -> str:
    """Name a reason, with the numbers that made it where they are all known; opinion in lower case, permission in upper case.

    params: those that held, for `limit`, the rule's parameter. numbers: of the cell and of the account, by the names of the table.

    >>> reason_text(20), reason_text(62), reason_text(62, Params.profile("published"), {"confidence": 0.6499})
    ('split_vote', 'LOW_CONFIDENCE', 'LOW_CONFIDENCE (0.650 < 0.650)')
    """
    rule, known = rule_of(code), dict(numbers or {})
    if params is not None and rule.parameter:
        layer, key = rule.parameter.split(".")
        known["limit"] = getattr(getattr(params, layer), key)
    if not rule.text or any(name not in known or known[name] != known[name] for name in rule.needs):
        return rule.name
    return rule.text.format(name=rule.name, **known)


def arbiter_text(inputs: Sequence[float], action: int, score: float) -> str:
    """Say what spoke for the arbiter's answer (`spec` 9.4), before the gate. inputs: the six `ARBITER_INPUTS`; score: NaN if it failed.

    >>> arbiter_text((25.0, 0.05, -0.02, 0.15, 1.8, 0.025), 2, 0.338)
    'buy_signal: bullish_macd, strong_momentum'
    """
    if score != score:
        return reason_text(Reason.ANALYSIS_ERROR if any(x == x for x in inputs) else Reason.NO_MARKET_DATA)
    if action == Action.HOLD:
        return reason_text(Reason.NEUTRAL_MARKET, None, {"arbiter_score": score})
    rsi, macd, _, _, momentum = signal_rule(*(float(x) for x in inputs))
    side = 1.0 if action == Action.BUY else -1.0
    words = (
        ("oversold_rsi", "bullish_macd", "strong_momentum")
        if action == Action.BUY
        else ("overbought_rsi", "bearish_macd", "negative_momentum")
    )
    spoke = (side * rsi > 0.5, side * macd > 0.5, side * momentum > 0.0)
    said = [word for word, is_said in zip(words, spoke, strict=True) if is_said] or ["technical_alignment"]
    return f"{reason_text(Reason.BUY_SIGNAL if action == Action.BUY else Reason.SELL_SIGNAL)}: {', '.join(said)}"


def gate_text(cell: Mapping[str, Any], params: Params, inputs: Sequence[float] | None) -> str:
    """Say why the arbiter's answer was taken or turned away; inputs: what it read, None where that is not known.

    cell: columns of the decision table.
    """
    code, action, numbers = int(cell["arbiter_reason"]), int(cell["arbiter_action"]), opinion_numbers(cell)
    if inputs is not None and code in (Reason.BUY_SIGNAL, Reason.SELL_SIGNAL):
        return arbiter_text(inputs, action, numbers["arbiter_score"])
    return reason_text(code, params, numbers)


def entropy_text(entropy: float) -> str:
    """Print an entropy, clamped to [0, 1]: a certain prediction may come out below zero by 1e-10 (`spec` D-47)."""
    return f"{min(max(entropy, 0.0), 1.0):.3f}"


def opinion_numbers(cell: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a cell's opinion, edges in basis points. cell: columns of the decision table; None for NaN."""
    found = {name: cell.get(column) for name, column in OPINION.items()}
    return {name: float("nan") if value is None else float(value) for name, value in found.items()}


def cell_of(decisions: Decisions, t: int, s: int) -> dict[str, Any]:
    """Return one cell's columns of the decision table."""
    names = (name for name in OPINION.values() if name not in MONEY_COLUMNS)
    cell = {name: getattr(decisions, name)[t, s] for name in (*names, "arbiter_reason", "arbiter_action", "meta_reason")}
    return cell | {name: plane[t, s] for name, plane in money_planes(decisions).items()}


@dataclass(frozen=True)
class Asked:
    """The account when the governor was asked about a cell.

    equity, balance, peak, exposure: quote, the last with what was approved before in the same bar. last_loss: the newest that counts, now:
    decision time, ns UTC. odds: win rate and payoff of the sizing mode, None where they are not known.
    """

    equity: float
    balance: float
    peak: float
    exposure: float
    trades_today: int
    last_loss: int
    now: int
    odds: tuple[float, float] | None

    def numbers(self, code: int, params: Params, opinion: Mapping[str, float]) -> dict[str, float]:
        """Return the numbers of the account that the text of a refusal needs, NaN where one does not exist. opinion: `opinion_numbers`."""
        known = {
            "drawdown": lambda: self._drawdown(params),
            "trades_today": lambda: float(self.trades_today),
            "exposure": lambda: self.exposure + self._planned(params, opinion),
            "most_exposure": lambda: self._base(params) * params.governor.max_exposure,
            "cooldown_left": lambda: self._cooldown_left(params),
        }
        return {name: known[name]() for name in rule_of(code).needs if name in known}

    def _base(self, params: Params) -> float:
        return self.equity if params.governor.drawdown_basis == DrawdownBasis.EQUITY else self.balance

    def _drawdown(self, params: Params) -> float:
        """Return the drawdown that halts; NaN where a halt goes on though the loss has become smaller than the limit again."""
        drawdown = (self.peak - self._base(params)) / self.peak if self.peak != 0.0 else 0.0
        return drawdown if drawdown > params.governor.max_drawdown else float("nan")

    def _planned(self, params: Params, opinion: Mapping[str, float]) -> float:
        """Return the notional that was asked for, as far as the exposure check counts it."""
        if params.is_book:  # its moves share what is left, so that no one of them is refused for its own size
            return float("nan")
        if params.governor.exposure_mode == ExposureMode.EXISTING:
            return 0.0
        return float("nan") if self.odds is None else self._base(params) * size_of(opinion, self.odds, params)

    def _cooldown_left(self, params: Params) -> float:
        ends = self.last_loss + params.governor.cooldown_minutes * NS_PER_MINUTE
        return float("nan") if self.last_loss == NEVER else (ends - self.now) / NS_PER_MINUTE


def size_of(opinion: Mapping[str, float], odds: tuple[float, float], params: Params) -> float:
    """Share of the base that a trade gets. opinion: `opinion_numbers`; only a size by edge needs more of them than the confidence."""
    edge, risk = opinion.get("edge", float("nan")) / BASIS_POINTS, opinion.get("risk", float("nan"))
    return float(size_step(opinion["confidence"], edge, risk, *odds, params.record()[0]["governor"]))


def odds_of(params: Params, closed: NDArray | None, n_closed: int) -> tuple[float, float] | None:
    """Return win rate and payoff of the sizing mode; closed: the ring of closed trades, None where it is not known."""
    g = params.governor
    if g.sizing_mode != SizingMode.KELLY_EMPIRICAL:
        return g.win_rate, g.payoff
    if closed is None:
        return None
    odds = empirical_odds(closed, n_closed, g.win_rate, g.payoff, g.kelly_trades)
    return float(odds[0]), float(odds[1])


def loss_time(params: Params, s: int, position: Any, closed: NDArray, n_closed: int) -> int:
    """Return the time of the newest loss that counts for column s."""
    if params.governor.cooldown_scope == CooldownScope.SYMBOL_LAST_LOSS:
        return int(position["last_loss_time"])
    return int(last_loss(s, closed, n_closed))


def asked_later(size: NDArray, confidence: NDArray, gross_edge: NDArray | None, s: int, params: Params) -> float:
    """Sum what was approved after column s was asked in its bar, quote. size, confidence, gross_edge [S]: of that bar."""
    is_later, order = np.arange(len(size)) > s, params.governor.order
    rank = {GovernOrder.BY_CONFIDENCE: confidence, GovernOrder.BY_EDGE: gross_edge}.get(order)
    if rank is not None:
        is_later = (rank < rank[s]) | ((rank == rank[s]) & is_later)
    return float(np.abs(size[is_later]).sum())


def asked_about(result: Any, s: int, params: Params, account: Any, position: Any, closed: NDArray) -> Asked | None:
    """Return the account as the governor saw it when it was asked about column s of a result's last bar.

    None where orders fill at the close. account, position, closed: those after that bar, records and the ring of closed trades.
    """
    if params.broker.fill != FillAt.NEXT_OPEN:
        return None  # what was filled after the question cannot be told from what was there before
    said = result.decisions
    later = asked_later(result.size[-1], said.raw_confidence[-1], None if said.gross_edge is None else said.gross_edge[-1], s, params)
    return asked_with(params, account, float(account["exposure"]) - later, s, position, closed, int(result.close_time[-1]))


def asked_with(params: Params, account: Any, exposure: float, s: int, position: Any, closed: NDArray, now: int) -> Asked:
    """Return an account as it is asked about column s at `now`, with this exposure; the rest as in `asked_about`."""
    n_closed = int(account["n_closed"])
    return Asked(
        equity=float(account["equity"]),
        balance=float(account["balance"]),
        peak=float(account["peak"]),
        exposure=exposure,
        trades_today=int(account["trades_today"]),
        last_loss=loss_time(params, s, position, closed, n_closed),
        now=now,
        odds=odds_of(params, closed, n_closed),
    )
