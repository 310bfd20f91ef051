"""Intrabar bounds: between which figures the net PnL lies, since a candle does not say what happened inside it (`spec` D-68v).

Orders fill at the open or the close of a bar (but for `broker.fill=worst`), so their place in it is known: an entry at the open comes
before a stop in that bar, an exit at the close after it. One thing is not known: the price of a stop that was passed inside a bar. The run
takes its level; where the price jumped over it, the first price beyond may be anything down to the bar's low (for a short, up to its high).
A bar that opens at or beyond the level, or whose low is the level, leaves one price: there the bounds are the run's own figure, to the bit.

Finer candles of the same market say in which of them the level was passed, and the same rule holds for that one. Its prices lie within
those of the run's bar, so the bounds only shrink; they are a point unless the finer bar holds two events, the passing of the level and a
price beyond it.

The model: trades are independent. Entries, quantities and funding stay those of the run, though another fill of a stop would have moved
later sizes and limits. For it the bounds are exact: each is reached by prices that give the candles.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from qtcore.broker import exit_amount_rule, fill_rule
from qtcore.choices import FillAt
from qtcore.portfolio import change_rule
from qtcore.rules import Reason
from qtcore.types import F8, I8, Bars
from research.data import load_bars
from research.data.clock import interval_text, iso
from research.data.resample import gather
from research.data.rows import bars_of
from research.errors import DataError, UserError, several
from research.runs.record import RunRecord
from research.runs.round_trips import closes, held_last, opens, resized

PRICES = ("open", "high", "low", "close")


@dataclass(frozen=True)
class Bounds:
    """What a run's candles leave open. Of the K stops that were passed inside a bar, in the order of their exits; all others are known.

    trade_id [K]; row, symbol [K]: the run's bar that holds the stop; open_time [K]: ns UTC, when the finest bar known to hold it opened.
    exit_worst, exit_best [K]: quote per base unit, with slippage, by what they earned; pnl_low, pnl_high [K]: quote, net.
    net: the run's own net PnL, quote; low, high: its bounds, an account cannot lose more than it has. n_bars: bars whose inside matters.
    n_finer: stops that finer bars located, None where none were given.
    """

    trade_id: I8
    open_time: I8
    exit_worst: F8
    exit_best: F8
    pnl_low: F8
    pnl_high: F8
    net: float
    low: float
    high: float
    n_bars: int
    n_finer: int | None

    @property
    def figures(self) -> dict[str, Any]:
        """The account's bounds, as `summary.json` holds them."""
        return {"low": self.low, "high": self.high, "n_bars": self.n_bars, "n_stops": len(self.trade_id), "n_finer": self.n_finer}

    def table(self, trades: pd.DataFrame) -> pd.DataFrame:
        """Stand beside the trades of the run, one row a trade: see `Run.intrabar`."""
        at = np.searchsorted(trades["trade_id"], self.trade_id)
        bar = np.full(len(trades), "NaT", "M8[ns]")
        bar[at] = self.open_time.astype("M8[ns]")
        out = trades[["trade_id", "symbol", "side", "exit_time"]].assign(stop_bar=pd.DatetimeIndex(bar).tz_localize("UTC"))
        for own, limits in (("exit_price", ("exit_worst", "exit_best")), ("pnl", ("pnl_low", "pnl_high"))):
            out[own] = trades[own]
            for name in limits:
                values = trades[own].to_numpy(copy=True)
                values[at] = getattr(self, name)
                out[name] = values
        return out


def bound(run: RunRecord, finer: Any = None) -> Bounds:
    """Bound the net PnL of a run by what its candles leave open.

    finer: `Bars`, or whatever `load_bars` reads: shorter candles of the run's symbols. A bar of which they hold nothing is bounded as
    without them. Raises UserError where `unbounded` names something, DataError where they do not gather into the run's own candles.
    """
    if (what := unbounded(run)) is not None:
        raise UserError(f"bounds inside bars must be of stops that the chain fills at their level, was one with {what}; bound one without")
    bars, (entry, left) = run.bars, _inside_stops(run)
    row, symbol, side, level = left["bar"], left["symbol"], np.sign(entry["qty"]), entry["stop_price"]
    worst, best = _prices(bars, row, symbol, side, level)
    open_time, is_open, n_finer = bars.open_time[row], worst != best, None
    if finer is not None:
        fine, first, last = _fitted(bars, finer if isinstance(finer, Bars) else load_bars(finer, bars.symbols))
        passed = _passed(fine, first[row], last[row], symbol, side, level)
        known = passed >= 0
        found = passed[known]
        worst[known], best[known] = _prices(fine, found, symbol[known], side[known], level[known])
        open_time[known], is_open, n_finer = fine.open_time[found], worst != best, int(known.sum())
    low, high = (_outcome(run, entry, left, side, reference) for reference in (worst, best))
    net, cash = float(run.result.equity[-1] - run.params.broker.initial_cash), run.params.broker.initial_cash
    lowest, highest = (max(net + float(np.sum(pnl - left["pnl"])), -cash) for _, pnl in (low, high))
    n_bars = len(np.unique(row[is_open] * len(bars.symbols) + symbol[is_open]))
    return Bounds(left["trade_id"], open_time, low[0], high[0], low[1], high[1], net, lowest, highest, n_bars, n_finer)


def unbounded(run: RunRecord) -> str | None:
    """Name what keeps a run's stops from being filled at their level by the chain's own rules, None where nothing does."""
    broker = run.params.broker
    asked = {"an own trade": "trade" in run.own_layers, "broker.fill=worst": broker.fill == FillAt.WORST}
    asked[f"broker.impact={broker.impact:g}"] = broker.impact > 0.0
    return next((what for what, is_asked in asked.items() if is_asked), None)


def bounds_text(figures: Mapping[str, Any]) -> str:
    """Say in one sentence what was left open. figures: `Bounds.figures`."""
    if figures["n_bars"] == 0:
        return "known: no bar leaves open at which price a stop inside it was filled"
    n, located = several(figures["n_bars"], "bars"), figures["n_finer"]
    where = "" if located is None else f"; finer bars located {located:,} of {several(figures['n_stops'], 'stops')}"
    why = f"depending on what happened inside {n}: a stop there was filled between its level and the far end of the bar"
    return f"between {figures['low']:+,.2f} and {figures['high']:+,.2f}, {why}{where}"


def _inside_stops(run: RunRecord) -> tuple[NDArray, NDArray]:
    """Return entries and exits, FILL [K] each, of the stops that were filled at their level inside a bar."""
    fills = run.result.fills
    entries, exits = fills[opens(fills)], fills[closes(fills) & (fills["reason"] == Reason.STOP)]
    entries = entries[np.argsort(entries["trade_id"], kind="stable")]
    for rows in resized(fills):  # the stop was that of what was held last
        entries[np.searchsorted(entries["trade_id"], rows["trade_id"][0])] = held_last(rows)
    exits = exits[np.isin(exits["trade_id"], entries["trade_id"])]  # a position that was taken over has no entry here
    entry = entries[np.searchsorted(entries["trade_id"], exits["trade_id"])]
    is_inside = (exits["reference_price"] == entry["stop_price"]) & (run.bars.open[exits["bar"], exits["symbol"]] != entry["stop_price"])
    return entry[is_inside], exits[is_inside]


def _prices(bars: Bars, row: I8, symbol: I8, side: F8, level: F8) -> tuple[F8, F8]:
    """Return the worst and the best price, before slippage, of stops [K] that were passed in these bars."""
    opened, extreme = bars.open[row, symbol], np.where(side > 0.0, bars.low[row, symbol], bars.high[row, symbol])
    is_gone = side * opened <= side * level  # the open is the first price there
    return np.where(is_gone, opened, extreme), np.where(is_gone, opened, level)


def _passed(bars: Bars, first: I8, last: I8, symbol: I8, side: F8, level: F8) -> I8:
    """Return for stops [K] the first row from `first` to before `last` that reaches the level, -1 where none does."""
    length = last - first
    stop = np.repeat(np.arange(len(first)), length)
    row = np.arange(len(stop)) + np.repeat(first - (np.cumsum(length) - length), length)
    of = symbol[stop]
    extreme = np.where(side[stop] > 0.0, bars.low[row, of], bars.high[row, of])
    reached = np.flatnonzero(side[stop] * extreme <= side[stop] * level[stop])
    which, at = np.unique(stop[reached], return_index=True)
    out = np.full(len(first), -1)
    out[which] = row[reached[at]]
    return out


def _outcome(run: RunRecord, entry: NDArray, left: NDArray, side: F8, reference: F8) -> tuple[F8, F8]:
    """Return price with slippage and net PnL of stops that were filled at `reference` [K], by the rules that book them."""
    fill, amount, change = (getattr(rule, "py_func", rule) for rule in (fill_rule, exit_amount_rule, change_rule))
    broker = run.params.broker
    price = fill(-side, reference, broker.slippage_rate)
    _, fee = amount(entry["qty"], price, broker.fee_rate)
    return price, change(entry["qty"], price, entry["price"], fee, entry["fee"]) + left["funding"]


def _fitted(bars: Bars, finer: Bars) -> tuple[Bars, I8, I8]:
    """Return finer bars in the run's order of symbols, and from which to before which row of them each of the run's bars reaches."""
    if lacking := [name for name in bars.symbols if name not in finer.symbols]:
        raise DataError(f"finer bars must hold every symbol of the run, was without {lacking[0]}; give those that it was made from")
    if finer.interval >= bars.interval:
        own, other = interval_text(bars.interval), interval_text(finer.interval)
        raise DataError(f"finer bars must be shorter than the run's {own}, was {other}; give those that it was made from")
    row = np.searchsorted(bars.close_time, finer.close_time)  # the first that closes with it or later
    is_within = row < bars.n
    is_within[is_within] = finer.open_time[is_within] >= bars.open_time[row[is_within]]
    column = [finer.symbols.index(name) for name in bars.symbols]
    planes = [np.ascontiguousarray(getattr(finer, name)[is_within][:, column]) for name in (*PRICES, "volume")]
    fine = bars_of((finer.open_time[is_within], finer.close_time[is_within]), planes, bars.symbols, finer.interval)
    first = np.searchsorted(row[is_within], np.arange(bars.n))
    last = np.searchsorted(row[is_within], np.arange(bars.n), side="right")
    _check_gathered(bars, fine, first, last)
    return fine, first, last


def _check_gathered(bars: Bars, fine: Bars, first: I8, last: I8) -> None:
    """Raise DataError with the first of the run's candles that the finer ones do not gather into."""
    used = np.flatnonzero(last > first)
    if not len(used):
        span = f"{iso(bars.open_time[0])} to {iso(bars.close_time[-1])}"
        raise DataError(f"finer bars must hold some of the run's time, {span}, was none of it; give those that it was made from")
    here = ~np.isnan(fine.close)
    planes = gather(fine, first[used], here, np.logical_or.reduceat(here, first[used], axis=0))
    own = [getattr(bars, name)[used] for name in PRICES]
    differs = np.array([(a != b) & ~np.isnan(a) & ~np.isnan(b) for a, b in zip(planes, own)])
    if differs.any():
        row, symbol = (int(i) for i in np.argwhere(differs.any(axis=0))[0])
        which = int(np.argmax(differs[:, row, symbol]))
        where = f"{bars.symbols[symbol]} at {iso(bars.open_time[used[row]])}"
        text = f"{PRICES[which]} of {where} with {planes[which][row, symbol]:.10g} instead of {own[which][row, symbol]:.10g}"
        raise DataError(f"finer bars must gather into the run's own candles, was {text}; give those that it was made from")
