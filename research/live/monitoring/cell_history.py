"""Cells as they were decided: the account and the indicators behind a decision of the past, from what a journal or run keeps of it.

Both sources tell the same arrays; what is not kept (the ring of closed trades, indicators from before the first bar) stays unknown.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars, Params
from qtcore.choices import CooldownScope, DrawdownReset, FillAt
from qtcore.rules import Reason, rule_of
from qtcore.types import F8, NEVER, NS_PER_DAY
from research.runs.reason_text import Asked, asked_later, odds_of

SETTLED = 1_000  # bars after which an indicator has forgotten where it began: (1 - 2/27)^1000 is below 1e-33


class Money(NamedTuple):
    """An account's amounts when a bar was done, quote."""

    equity: float
    balance: float
    peak: float
    exposure: float


@dataclass(frozen=True)
class DecidedBar:
    """One bar of the past. size, confidence, gross_edge [S]: what was approved on each symbol, and its opinion; no edge without a price.

    trades_today: approvals of the UTC day so far; loss_of: time of the newest loss on a column until then, NEVER if none. Both are asked
    only where a text needs them.
    """

    time: int
    money: Money
    size: F8
    confidence: F8
    gross_edge: F8 | None
    trades_today: Callable[[], int]
    loss_of: Callable[[int], int]

    def asked(self, s: int, code: int, params: Params) -> Asked | None:
        """Return the account when the governor was asked about column s; None where the text of its answer `code` needs none."""
        needs = rule_of(code).needs
        if not needs or params.broker.fill != FillAt.NEXT_OPEN:
            return None
        later = asked_later(self.size, self.confidence, self.gross_edge, s, params)
        is_own = params.governor.cooldown_scope == CooldownScope.SYMBOL_LAST_LOSS
        return Asked(
            **self.money._replace(exposure=self.money.exposure - later)._asdict(),
            trades_today=self.trades_today() if "trades_today" in needs else 0,
            last_loss=self.loss_of(s) if is_own and "cooldown_left" in needs else NEVER,
            now=self.time,
            odds=odds_of(params, None, 0),
        )


def peaks(base: F8, close_time: NDArray[np.int64], params: Params) -> F8:
    """Return the peak from which the drawdown of each bar is measured: of the day where that is what lifts a halt."""
    if params.governor.drawdown_reset != DrawdownReset.DAILY:
        return np.maximum(np.maximum.accumulate(base), params.broker.initial_cash)
    out, days = base.copy(), close_time // NS_PER_DAY
    for day in np.unique(days):
        out[days == day] = np.maximum.accumulate(base[days == day])
    return out


def has_signal(cell: Mapping[str, Any]) -> bool:
    """Say whether the text of a cell's arbiter needs what it read."""
    return cell["arbiter_action"] >= 0 and cell["arbiter_reason"] in (Reason.BUY_SIGNAL, Reason.SELL_SIGNAL)


def arbiter_inputs(bars: Bars, params: Params) -> F8:
    """Return what the arbiter read at the last bar, [6, S]. bars: all that there were, or `SETTLED` before it."""
    from qtcore.features import FeatureBank

    inputs: F8 = FeatureBank(params, bars.symbols, bars.interval, ()).compute(bars).arbiter[:, -1]
    return inputs
