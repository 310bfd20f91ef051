"""Export to `vectorbt.Portfolio`: our fills in its books, the same equity, and its plots and figures for who knows them.

vectorbt fills one order a row and column, so a bar becomes a few rows: exits at the open, entries at the open, stops, then fills at the
close where there are any, and last a row without orders at the bar's close. Prices carry our slippage; fees are a share of the notional.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore.rules import Reason
from qtcore.types import F8
from research.data.grid import filled
from research.errors import UserError, need
from research.runs.record import RunRecord


def to_vectorbt(run: RunRecord) -> Any:
    """Return the `vectorbt.Portfolio` of a run: one cash account, one column a symbol, `rows_per_bar(run)` rows a bar.

    Its value in the last row of each bar, indexed by the bar's close, is the run's equity to 1e-9 of it. Positions that are open at the end
    stay open. Raises UserError without vectorbt, and with funding or a debt that was written off, which vectorbt has no place for.
    """
    need("vectorbt", "to_vectorbt")
    import vectorbt

    if run.bars.funding is not None and np.nansum(np.abs(run.bars.funding)) > 0.0:
        raise UserError("to_vectorbt must have a run without funding, was one with; vectorbt cannot book it, use run.equity")
    if run.result.equity[-1] <= 0.0:
        raise UserError("to_vectorbt needs a run that was not liquidated, was one; vectorbt writes no debt off, use run.equity")
    broker, rows = run.params.broker, rows_per_bar(run)
    size, price = _orders(run, rows)
    index = _index(run, rows)
    columns = list(run.bars.symbols)
    close = filled(run.bars.close, 1.0)  # before a listing nothing is held, so that price is never used
    frames = [pd.DataFrame(plane, index=index, columns=columns) for plane in (np.repeat(close, rows, axis=0), size, price)]
    return vectorbt.Portfolio.from_orders(
        frames[0],
        frames[1],
        price=frames[2],
        size_type="amount",
        direction="both",
        fees=broker.fee_rate,
        init_cash=broker.initial_cash,
        cash_sharing=True,
        group_by=True,
        freq=pd.Timedelta(run.bars.interval // rows, unit="ns"),
    )


def rows_per_bar(run: RunRecord) -> int:
    """Count the rows that one bar takes: 4, or 6 where something is filled at closes."""
    fills = run.result.fills
    late = fills["time"] == run.bars.close_time[fills["bar"]]
    return 6 if run.params.broker.fill.is_at_close or bool(np.any(late & (fills["reason"] != Reason.STOP))) else 4


def _orders(run: RunRecord, rows: int) -> tuple[F8, F8]:
    """Spread the ledger over the rows [n * rows, S]: signed base units and prices, NaN where nothing is ordered."""
    fills, (n, width) = run.result.fills, run.bars.close.shape
    late, entry = fills["time"] == run.bars.close_time[fills["bar"]], fills["is_entry"].astype(np.int64)
    slot = np.where(late & (fills["reason"] == Reason.STOP), 2, np.where(late, 3 + entry, entry))
    out: NDArray[np.float64] = np.full((2, n, rows, width), np.nan)
    at = (fills["bar"], slot, fills["symbol"])
    out[0][at], out[1][at] = fills["qty"], fills["price"]
    return out[0].reshape(n * rows, width), out[1].reshape(n * rows, width)


def _index(run: RunRecord, rows: int) -> pd.DatetimeIndex:
    """Spread the rows evenly inside their bar, the last at its close."""
    step = run.bars.interval // rows
    times = run.bars.close_time[:, None] - step * np.arange(rows - 1, -1, -1)
    return pd.DatetimeIndex(times.reshape(-1).view("M8[ns]"), name="time").tz_localize("UTC")
