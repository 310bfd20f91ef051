"""Accounting audit: balance, equity, fees and every cell's PnL, computed again from the fills and the candles alone.

The kernel books bar by bar; here everything is worked out per position, in another order, so the two agree to 1e-9 of the initial cash
(prices, quantities and fees of a single fill agree to the bit).
"""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from qtcore.choices import FillAt
from qtcore.rules import MOST_IMPACT, Reason
from qtcore.types import F8
from research.runs.round_trips import closes, held_last, resized
from research.verify.claims import Claim, Clock
from research.verify.evidence import Evidence

TOLERANCE = 1e-9  # of the initial cash


def check_accounting(run: Evidence) -> list[Claim]:
    """Return the claims about money: equity, balance, PnL of cells and trades, fees, prices, orders, stops."""
    return [*ledger_claims(run), *fill_claims(run), *order_claims(run)]


def ledger_claims(run: Evidence) -> list[Claim]:
    """Balance and equity at every bar from the fills; the cells' PnL adds up to the change of equity."""
    cash, clock = run.params.broker.initial_cash, run.clock
    realised, unrealised = work_out(run)
    value = realised + np.diff(unrealised, axis=0, prepend=0.0)
    balance = cash + np.cumsum(realised.sum(axis=1))
    equity = balance + unrealised.sum(axis=1)
    end = ruin(equity)
    if end < run.bars.n:  # what is owed then is written off: an amount of its own, shared by the losing cells of that bar
        before, won, lost = equity[end - 1] if end else cash, value[end].clip(min=0.0).sum(), -value[end].clip(max=0.0).sum()
        value[end] *= np.where(value[end] < 0.0, (before + won) / lost, 1.0)
        written_off = -balance[end]
        balance[end:] += written_off
        equity[end:] += written_off
    everywhere = np.ones(run.bars.n, bool)
    gaps = {name: run.lines[name] - mine for name, mine in (("balance", balance), ("equity", equity))}
    earned = np.zeros_like(realised)
    earned[:-1] = value[1:]
    cell = run.planes["cell_pnl"] - earned
    total = run.planes["cell_pnl"].sum() - (run.lines["equity"][-1] - run.lines["equity"][0])
    limit = TOLERANCE * cash
    last = np.arange(run.bars.n) == run.bars.n - 1
    return [
        clock.bars(
            "balance",
            "the fills and the funding add up to the balance",
            "balance",
            everywhere,
            _near(gaps["balance"], limit),
            gaps["balance"],
        ),
        clock.bars(
            "equity", "balance plus unrealised PnL is the equity", "equity", everywhere, _near(gaps["equity"], limit), gaps["equity"]
        ),
        clock.cells(
            "cell_pnl", "each cell earns what its position earned", "cell_pnl", np.ones(cell.shape, bool), _near(cell, limit), cell
        ),
        clock.bars(
            "total",
            "the cells' PnL adds up to the total",
            "cell_pnl",
            last,
            np.full(run.bars.n, _near(total, limit)),
            np.full(run.bars.n, total),
        ),
        clock.rows(
            "ruin",
            "nothing is filled after the close that left no equity",
            "bar",
            run.fills["bar"],
            run.fills["symbol"],
            run.fills["bar"] <= end,
            run.fills["bar"] - end,
        ),
    ]


def ruin(equity: F8) -> int:
    """Return the first bar whose close leaves no equity [n], n where there is none."""
    gone = equity <= 0.0
    return int(gone.argmax()) if gone.any() else len(equity)


def _near(gap: F8, limit: float) -> NDArray[np.bool_]:
    return np.asarray(np.abs(gap) <= limit)  # a NaN is not near


def work_out(run: Evidence) -> tuple[F8, F8]:
    """Realised PnL booked in each bar and unrealised PnL at each close, both [n, S], quote.

    A trade realises in the bar in which it is flat again what its sales brought beyond its purchases, less all fees; funding is realised
    when it is due. An open one is worth what it holds at the last valid close, less what was paid for it so far.
    """
    bars, fills = run.bars, run.fills[np.argsort(run.fills["trade_id"], kind="stable")]
    realised, unrealised = np.zeros(bars.close.shape), np.zeros(bars.close.shape)
    last_close, is_last = carried(bars.close), np.append(fills["trade_id"][1:] != fills["trade_id"][:-1], True)[: len(fills)]
    stops = np.where(is_last, bars.n, np.append(fills["bar"][1:], bars.n)[: len(fills)])
    pays_before = fills["time"] == bars.close_time[np.minimum(fills["bar"], bars.n - 1)]  # that bar's funding, on what was held till then
    pays_before &= ~np.isin(fills["reason"], (Reason.STOP, Reason.DELISTED))
    due_from = fills["bar"] + pays_before
    due_to = np.where(is_last, bars.n, np.append(due_from[1:], bars.n)[: len(fills)])
    qty, cost = 0.0, 0.0
    for fill, ends, last, stop, first, until in zip(fills, closes(fills), is_last, stops, due_from, due_to):
        s, held = fill["symbol"], slice(fill["bar"], stop)
        qty, cost = qty + fill["qty"], cost + fill["qty"] * fill["price"] + fill["fee"]
        if ends:
            realised[fill["bar"], s] -= cost
        else:
            unrealised[held, s] = qty * last_close[held, s] - cost
        if bars.funding is not None and not ends:
            due = slice(first, until)
            paid = -((qty * bars.close[due, s]) * bars.funding[due, s])
            realised[due, s] += np.where(paid == paid, paid, 0.0)
        qty, cost = (0.0, 0.0) if last else (qty, cost)
    return realised, unrealised


def carried(close: F8) -> F8:
    """Last valid close at or before each row [n, S]; NaN before the first."""
    row = np.where(close == close, np.arange(len(close))[:, None], 0)
    return np.asarray(np.take_along_axis(close, np.maximum.accumulate(row, axis=0), axis=0))


def fill_claims(run: Evidence) -> list[Claim]:
    """Fee, slippage, price and PnL of every fill, to the bit; a reference price is one that its bar traded at."""
    fills, broker, clock = run.fills, run.params.broker, run.clock
    bar, symbol, qty = fills["bar"], fills["symbol"], fills["qty"]
    price, reference = fills["price"], fills["reference_price"]
    is_entry = fills["is_entry"] == 1
    ordered_for = np.where(is_entry, fills["notional"], np.abs(qty) * reference)
    slipped = reference * (1.0 + np.sign(qty) * _impact(run, ordered_for)) * (1.0 + np.sign(qty) * broker.slippage_rate)
    fee = fills["notional"] * broker.fee_rate
    slippage = np.abs(qty) * np.abs(price - reference)
    pnl = _pnl_of(run)
    inside = (bar >= 0) & (bar < run.bars.n)
    at = np.where(inside, bar, 0)
    lowest, highest = run.bars.low[at, symbol], run.bars.high[at, symbol]
    carried_close = carried(run.bars.close)[at, symbol]
    ordered, within = _meant(run)[at, symbol], (lowest <= reference) & (reference <= highest)
    if broker.fill == FillAt.CLOSE:  # an exit that found a hole leaves at the next open
        ordered = np.where(~is_entry & (fills["time"] == run.bars.open_time[at]), run.bars.open[at, symbol], ordered)
    if broker.fill == FillAt.WORST:
        ordered = np.where(qty > 0.0, highest, lowest)
        within = reference == ordered
    is_stop, is_marked = fills["reason"] == Reason.STOP, np.isin(fills["reason"], (Reason.DELISTED, Reason.LIQUIDATED))
    traded = inside & np.where(is_stop, within, reference == np.where(is_marked, carried_close, ordered))
    time = np.stack([run.bars.open_time[at], run.bars.close_time[at]])
    notional = np.where(is_entry, fills["notional"], np.abs(qty) * price)

    def claim(id_: str, text: str, column: str, holds: NDArray, distance: NDArray) -> Claim:
        return clock.rows(id_, text, column, bar, symbol, holds, distance)

    return [
        claim("price", "slippage moves every price against us", "price", price == slipped, price - slipped),
        claim("reference", "orders fill where they are meant to, stops inside their bar", "reference_price", traded, reference - ordered),
        claim(
            "time",
            "every fill has the time of its bar's open or close",
            "time",
            (time == fills["time"]).any(axis=0),
            fills["time"] - time[0],
        ),
        claim(
            "notional",
            "quantity times price is the notional of an exit",
            "notional",
            fills["notional"] == notional,
            fills["notional"] - notional,
        ),
        claim("fee", "every fee is the rate times the notional", "fee", fills["fee"] == fee, fills["fee"] - fee),
        claim(
            "slippage",
            "slippage is quantity times the price moved",
            "slippage",
            fills["slippage"] == slippage,
            fills["slippage"] - slippage,
        ),
        claim(
            "pnl",
            "a trade's PnL is its gross less all fees, plus funding, and stands with its last exit",
            "pnl",
            fills["pnl"] == pnl,
            fills["pnl"] - pnl,
        ),
    ]


def _pnl_of(run: Evidence) -> F8:
    """PnL that each fill must show: ((gross - exit fee) - entry fee) + funding for what closes a trade, else 0.0."""
    trades, fills = run.trades, run.fills
    ids, entries = trades.entry["trade_id"], trades.entry.copy()
    for rows in resized(fills):
        entries[np.searchsorted(ids, rows["trade_id"][0])] = held_last(rows)
    out = np.zeros(len(fills))
    exits = np.flatnonzero(closes(fills))
    at = np.minimum(np.searchsorted(ids, fills["trade_id"][exits]), max(len(ids) - 1, 0))
    if len(ids):
        entry, exit_ = entries[at], fills[exits]
        gross = entry["qty"] * (exit_["price"] - entry["price"])
        out[exits] = ((gross - exit_["fee"]) - entry["fee"]) + exit_["funding"]
    return out


def order_claims(run: Evidence) -> list[Claim]:
    """Every entry was approved, every approval filled or cancelled for a stated cause, no stop or horizon was missed."""
    return [_approved_before(run), _filled_after(run), _one_at_a_time(run), *_left_in_time(run)]


def _first(run: Evidence) -> int:
    """Bars from a fill to the first in which its position has a stop and pays funding: what fills at the close has done with its bar."""
    return int(run.params.broker.fill.is_at_close)


def _meant(run: Evidence) -> F8:
    """Prices [n, S] at which orders fill, the worst of a bar aside; NaN where they find no market."""
    return run.bars.close if run.params.broker.fill.is_at_close else run.bars.open


def _impact(run: Evidence, notional: F8) -> F8:
    """Move of the price by every fill of `notional`: the root of its share in what its symbol's last bar with a volume traded before."""
    impact, volume = run.params.broker.impact, run.bars.close * run.bars.volume
    if impact == 0.0:
        return np.zeros(len(notional))
    known = carried(np.where(volume > 0.0, volume, np.nan))
    before = np.vstack([np.full((1, known.shape[1]), np.nan), known])[run.fills["bar"], run.fills["symbol"]]
    return np.where(np.isnan(before), MOST_IMPACT, np.minimum(impact * np.sqrt(notional / before), MOST_IMPACT))


def _approved_before(run: Evidence) -> Claim:
    entries = run.fills[run.fills["is_entry"] == 1]
    decided = entries["bar"] - run.params.broker.fill.delay
    inside = (decided >= 0) & (decided < run.bars.n)
    wanted = run.planes["size"][np.where(inside, decided, 0), entries["symbol"]]
    signed = np.sign(entries["qty"]) * entries["notional"]
    text = "every entry fills the size that was approved at its decision"
    return run.clock.rows("approved", text, "notional", entries["bar"], entries["symbol"], inside & (signed == wanted), signed - wanted)


def _filled_after(run: Evidence) -> Claim:
    """Demand that an approval is filled at its bar unless that is a hole, has not come, or the account was gone by its close."""
    delay, n = run.params.broker.fill.delay, run.bars.n
    size = run.planes["size"]
    filled = np.zeros(size.shape, bool)
    entries = run.fills[run.fills["is_entry"] == 1]
    decided = entries["bar"] - delay
    inside = (decided >= 0) & (decided < n)
    filled[decided[inside], entries["symbol"][inside]] = True
    has_bar, meant = np.zeros(size.shape, bool), _meant(run)[delay:]
    has_bar[: n - delay] = (meant == meant) & (run.lines["equity"][delay:, None] > 0.0)
    text = "every approval is filled at once unless there is no bar"
    return run.clock.cells("filled", text, "size", size != 0.0, filled | ~has_bar, size)


def _one_at_a_time(run: Evidence) -> Claim:
    """Demand that positions of one symbol do not overlap; the next may open at the open where the last one left."""
    trades = run.trades
    order = np.lexsort((trades.entry["bar"], trades.entry["symbol"]))
    entry, last = trades.entry[order], trades.last[order]
    overlap = np.zeros(len(order), bool)
    overlap[1:] = (entry["symbol"][1:] == entry["symbol"][:-1]) & (entry["bar"][1:] < last[:-1])
    return run.clock.rows("single", "a symbol has one position at a time", "bar", entry["bar"], entry["symbol"], ~overlap)


def _left_in_time(run: Evidence) -> list[Claim]:
    """Demand that no bar touched the stop of a position that stayed, and that none outlived its horizon while it could leave.

    What is added to a position moves its stop; a book has no horizon.
    """
    bars, trades, delay = run.bars, run.trades, run.params.broker.fill.delay
    first, meant = _first(run), _meant(run)
    lasts = np.full(len(trades.entry), 0 if run.params.is_book else run.params.broker.max_holding_bars)
    if "holding" in run.planes and not run.params.is_book:
        decided = trades.entry["bar"] - delay
        lasts = run.planes["holding"][np.maximum(decided, 0), trades.entry["symbol"]].astype(np.int64)
    lasts = np.where(lasts > 0, np.maximum(lasts, delay), 0)  # an exit takes as long as an entry
    stopped, late = np.zeros(len(trades.entry)), np.zeros(len(trades.entry))
    added = run.fills[run.fills["reason"] == Reason.ADDED]
    added = added[np.argsort(added["trade_id"], kind="stable")]
    for k, (entry, stop) in enumerate(zip(trades.entry, trades.last)):
        s, (low, high) = entry["symbol"], np.searchsorted(added["trade_id"], [entry["trade_id"], entry["trade_id"] + 1])
        moves = [(int(row["bar"]) + first, row["stop_price"]) for row in (entry, *added[low:high])]
        for (start, level), (until, _) in pairwise([*moves, (int(stop), np.nan)]):
            held = slice(start, min(until, int(stop)))
            beyond = bars.low[held, s] <= level if entry["qty"] > 0.0 else bars.high[held, s] >= level
            stopped[k] += np.count_nonzero(beyond)
        due = entry["bar"] + lasts[k]
        if lasts[k] and stop > due:
            late[k] = np.count_nonzero(meant[due:stop, s] == meant[due:stop, s])
    entry = trades.entry
    clock: Clock = run.clock
    return [
        clock.rows(
            "stop", "no bar passes the stop of a position that stays", "stop_price", entry["bar"], entry["symbol"], stopped == 0, stopped
        ),
        clock.rows("horizon", "no position outlives its holding time", "bar", entry["bar"], entry["symbol"], late == 0, late),
    ]
