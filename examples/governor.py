"""Drawdown-scaled governor: our governor's size, smaller the nearer the account is to its largest drawdown."""

from typing import Any

import qtcore as qt
from qtcore.governor import govern_step


@qt.kernel
def careful(
    side: int,
    confidence: float,
    edge: float,
    risk: float,
    symbol: int,
    now: int,
    loss_time: int,
    win_rate: float,
    payoff: float,
    account: Any,
    position: Any,
    params: Any,
) -> tuple[float, int]:
    """Ask our governor, then scale by the share of `governor.max_drawdown` that is left; no less than a tenth."""
    notional, reason = govern_step(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params)
    drawdown = 1.0 - account["equity"] / account["peak"]
    left = 1.0 - drawdown / params["governor"]["max_drawdown"]
    return notional * min(max(left, 0.1), 1.0), reason


CAREFUL_TRADE = qt.rebind(qt.trade, govern_step=careful)
trade = CAREFUL_TRADE  # for --layers
