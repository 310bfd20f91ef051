"""Account liquidation: when nothing was left, and what was owed then. The one place that finds it, in a backtest and live.

At a close whose mark leaves no equity every position is closed at that mark (`LIQUIDATED`); what the account owes then is written off, its
balance and equity are 0.0 from that bar on, and every later BUY and SELL is refused (`LIQUIDATED`).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qtcore.rules import Reason
from qtcore.types import F8, I8
from research.data.clock import iso


@dataclass(frozen=True)
class Ruin:
    """The end of an account. bar: row of the close; written_off: quote, >= 0, what was owed; n_positions: that were closed at the mark."""

    bar: int
    time: int  # ns UTC, the close
    written_off: float
    n_positions: int

    @property
    def text(self) -> str:
        """Say it in one sentence."""
        closed = f"{self.n_positions:,} open position{'' if self.n_positions == 1 else 's'} closed at the mark"
        owed = f"{self.written_off:,.2f} owed and written off"
        return f"liquidated at {iso(self.time)}: no equity was left, {closed}, {owed}; no trade after it"


def ruined(before: np.void, after: np.void, fills: NDArray, close_time: int) -> Ruin | None:
    """Say whether one bar left nothing. before, after: ACCOUNT records; fills: FILL records of the bar; close_time: ns UTC."""
    if not after["equity"] <= 0.0 < before["equity"]:
        return None
    paid = float(after["funding"] - before["funding"])
    cash = float(before["balance"]) + paid - float(fills["funding"].sum())  # funding is booked when it is due, and in the PnL of an exit
    return ruin_of(np.array([close_time]), np.array([after["equity"]]), fills, cash)


def ruin_of(close_time: I8, equity: F8, fills: NDArray, cash: float) -> Ruin | None:
    """Find the bar at whose close [n] nothing was left; None for an account that lives.

    fills: FILL records of these bars; cash: quote, what everything that the fills settle began with. All positions are closed then, so the
    PnL of the exits is all that happened to the money.
    """
    if not len(equity) or equity[-1] > 0.0:  # once gone, it stays so
        return None
    bar = int(np.argmax(equity <= 0.0))
    exits = fills[fills["is_entry"] == 0]
    owed = -(cash + float(exits["pnl"].sum()))
    return Ruin(bar, int(close_time[bar]), max(owed, 0.0), int((exits["reason"] == Reason.LIQUIDATED).sum()))
