"""Assumption waterfall of one run: its own decisions under other fills and costs. How much of the profit is the assumption?

What was decided stays: raw actions, their confidences and what they were priced at. Governor and account run anew over the same bars, each
time with one assumption changed: the five values of `broker.fill` (one is the run's own), twice the fees, slippage that grows with the root
of an order's share in the volume, and no funding. So each column is the run with the parameters of its `set`, to the bit; where opinions
have a price, with those prices kept, which hold the fees and the funding that the run was made with.

The move of the price is `broker.impact sqrt(order / volume)`, both of one bar. With `broker.impact` equal to the volatility of a bar, the
root mean square of its log returns, this is the square-root law of market impact with a factor of 1, and the same law at bars of any
length, as volatility grows with the root of time and volume with time.

Where the drawdown limit stopped an account, its return is that of the limit more than of the assumption: `without_breaker` tells what the
same account returns without it.

Break-even is the fee and slippage a side at which the profit is gone: the fee moves, slippage as it was, and below that alone slippage with
no fee. Capacity is the starting cash at which the profit is gone under that impact. Both are found by halving: the account stands on the
one side of 0 there, and one step further on the other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from qtcore.chain.trade import TradeResult, TradeState, run_trade, trade
from qtcore.rules import Reason
from research.evidence.summary import performance
from research.runs.record import RunRecord
from research.runs.tables import tested_rows

FILLS = {
    "close": "at the deciding bar's close",
    "next_open": "at the next bar's open",
    "next_close": "at the next bar's close",
    "one_bar_later": "at the open of the bar after the next",
    "worst": "at the worst price of the next bar",
}
COSTS = {
    "fees_twice": "fees twice as high",
    "impact": "slippage by the root of an order's share in the volume",
    "no_funding": "no funding",
}
TEXTS = FILLS | COSTS
BUDGET = 20_000_000  # cells that both searches may visit together: some seconds
MOST_FEE, FEE_STEP = 0.1, 1e-6  # bounds of `broker.fee_rate`, a fraction
MOST_CASH, CASH_STEP = 1e12, 1.02  # bound of `broker.initial_cash`, and the factor to which capacity is found


def waterfall(run: RunRecord, budget: int = BUDGET) -> dict[str, Any]:
    """Trade the decisions of a run under each assumption.

    Result: `refused` (why there is none, or None), `sentence`, `columns`, `break_even` {per_side, fee_rate, sentence} and `capacity` {cash,
    sentence}, figures None where there is none. A column has `name`, `set` (parameters that differ from the run's), `refused`, `is_own`,
    `net_return`, `difference` (from the run, both fractions of the starting cash over the tested bars), `max_drawdown`, `n_trades` and
    `without_breaker`, the net return without the drawdown limit where that blocked an entry, else None.
    budget: cells above which break-even and capacity are not searched for.
    """
    book = Book(run)
    if not (run.result.fills["is_entry"] == 1).any():
        return _refused("the run made no trade, so no assumption mattered")
    if not np.array_equal(book.trade(run).equity, run.result.equity):
        return _refused("what the account did does not follow from the decisions and the parameters alone")
    columns = [book.column(name) for name in TEXTS]
    searched = {"break_even": _too_many(run, "per_side", "fee_rate"), "capacity": _too_many(run, "cash")}
    if book.n_searched * run.bars.close.size <= budget:
        searched = {"break_even": book.break_even(), "capacity": book.capacity()}
    return {"refused": None, "sentence": _sentence(columns), "columns": columns, **searched}


def waterfall_table(found: dict[str, Any]) -> pd.DataFrame:
    """Return the columns as rows of a table; see `Run.waterfall`."""
    names = ["set", "net_return", "difference", "max_drawdown", "n_trades", "without_breaker", "refused"]
    rows = {column["name"]: {name: column[name] for name in names} for column in found["columns"]}
    return pd.DataFrame.from_dict(rows, orient="index", columns=names).rename_axis("assumption")


@dataclass(frozen=True)
class Book:
    """A run whose account can be made again."""

    run: RunRecord

    @property
    def n_searched(self) -> int:
        """Accounts that both searches make at most."""
        return math.ceil(math.log2(MOST_FEE / FEE_STEP)) + math.ceil(math.log2(math.log(MOST_CASH) / math.log(CASH_STEP))) + 6

    @cached_property
    def own(self) -> float:
        """Net return of the run itself."""
        return self.net_return(self.run)

    @cached_property
    def impact(self) -> float:
        """`broker.impact` of the square-root law: the volatility of a bar, or that of the run where it is higher; NaN without volume."""
        bars, rows = self.run.bars, tested_rows(self.run)
        if not np.any(bars.volume[rows] > 0.0):
            return math.nan
        moves = np.diff(np.log(bars.close[rows]), axis=0)
        volatility = math.sqrt(float(np.nanmean(moves**2))) if np.any(moves == moves) else 0.0
        return min(1.0, max(volatility, self.run.params.broker.impact))

    def set(self, values: dict[str, Any]) -> RunRecord:
        """Return the run with other parameters, not yet traded."""
        return replace(self.run, params=self.run.params.with_values(values))

    def trade(self, run: RunRecord) -> TradeResult:
        """Trade the decisions with the bars and parameters of `run`."""
        said, state = run.result.decisions, TradeState.fresh(run.params, len(run.bars.symbols))
        loop = run.own.trade or trade
        return run_trade(run.bars, said.raw_action, said.raw_confidence, run.params, state, loop, said.money)

    def net_return(self, run: RunRecord) -> float:
        """Net return over the tested bars."""
        return float(performance(run, self.trade(run), tested_rows(run))["net_return"])

    def change(self, name: str) -> tuple[RunRecord, dict[str, Any]] | str:
        """Return the run under an assumption with what was set for it, or why there is no such one."""
        broker = self.run.params.broker
        if name == "no_funding":
            if self.run.bars.funding is None:
                return "the run was made without funding"
            return replace(self.run, bars=replace(self.run.bars, funding=None)), {}
        if name == "fees_twice" and 2.0 * broker.fee_rate > MOST_FEE:
            return f"broker.fee_rate may not be above {MOST_FEE:g}"
        if name == "impact" and math.isnan(self.impact):
            return "the bars have no volume"
        values = {"fees_twice": {"broker.fee_rate": 2.0 * broker.fee_rate}, "impact": {"broker.impact": self.impact}}
        own = self.run.params.flat()
        changed = {key: value for key, value in values.get(name, {"broker.fill": name}).items() if own[key] != value}
        return self.set(changed), changed

    def column(self, name: str) -> dict[str, Any]:
        """Trade under one assumption."""
        out: dict[str, Any] = {"name": name, "set": {}, "refused": None, "is_own": False}
        found = self.change(name)
        if isinstance(found, str):
            return out | dict.fromkeys(("net_return", "difference", "max_drawdown", "n_trades", "without_breaker")) | {"refused": found}
        run, changed = found
        traded = self.trade(run)
        told = performance(run, traded, tested_rows(run))
        free = None
        if np.any(traded.governor_reason == Reason.MAX_DRAWDOWN_EXCEEDED):
            free = self.net_return(replace(run, params=run.params.with_values({"governor.max_drawdown": 1.0})))
        figures = {key: told[key] for key in ("net_return", "max_drawdown", "n_trades")}
        is_own = name == self.run.params.broker.fill.name.lower()
        return out | figures | {"set": changed, "is_own": is_own, "difference": told["net_return"] - self.own, "without_breaker": free}

    def break_even(self) -> dict[str, Any]:
        """Search the cost a side at which the profit is gone."""
        broker = self.run.params.broker
        paid = f"the run pays {_bp(broker.fee_rate + broker.slippage_rate)} a side, fee and slippage"

        def is_paid(fee: float) -> bool:
            return self.net_return(self.set({"broker.fee_rate": fee})) > 0.0

        def is_filled(slippage: float) -> bool:
            return self.net_return(self.set({"broker.fee_rate": 0.0, "broker.slippage_rate": slippage})) > 0.0

        if self.own <= 0.0 and not is_paid(0.0):
            if not is_filled(0.0):
                return {"per_side": None, "fee_rate": None, "sentence": f"Break-even: none; it loses without any cost, and {paid}."}
            cost = halved(is_filled, 0.0, broker.slippage_rate, FEE_STEP)
            return {"per_side": cost, "fee_rate": 0.0, "sentence": f"Break-even: nothing is left at {_bp(cost)} a side; {paid}."}
        low, high = (broker.fee_rate, MOST_FEE) if self.own > 0.0 else (0.0, broker.fee_rate)
        if self.own > 0.0 and is_paid(MOST_FEE):
            return {"per_side": None, "fee_rate": None, "sentence": f"Break-even: above {_bp(MOST_FEE)} a side; {paid}."}
        fee = halved(is_paid, low, high, FEE_STEP)
        cost = fee + broker.slippage_rate
        return {"per_side": cost, "fee_rate": fee, "sentence": f"Break-even: nothing is left at {_bp(cost)} a side; {paid}."}

    def capacity(self) -> dict[str, Any]:
        """Search the starting cash at which impact has eaten the profit."""
        cash = self.run.params.broker.initial_cash
        if math.isnan(self.impact):
            return {"cash": None, "sentence": "Capacity: not known, as the bars have no volume."}
        law = f"where an order as large as a bar's volume moves the price by {100.0 * self.impact:.2g} %, others by the root of their share"

        def is_paid(exponent: float) -> bool:
            return self.net_return(self.set({"broker.impact": self.impact, "broker.initial_cash": 2.0**exponent})) > 0.0

        low, high = math.log2(cash), math.log2(MOST_CASH)
        if self.own <= 0.0:
            return {"cash": None, "sentence": "Capacity: none, as the run earned nothing."}
        if not is_paid(low):
            return {"cash": None, "sentence": f"Capacity: nothing is left with its own {cash:,.0f} {law}."}
        if is_paid(high):
            return {"cash": None, "sentence": f"Capacity: above {MOST_CASH:,.0f} {law}."}
        found = 2.0 ** halved(is_paid, low, high, math.log2(CASH_STEP))
        return {"cash": found, "sentence": f"Capacity: nothing is left of a starting cash above about {_rounded(found):,.0f} {law}."}


def halved(holds: Callable[[float], bool], low: float, high: float, step: float) -> float:
    """Return where `holds`, true at `low` and false at `high`, still is true and no longer is within one `step`."""
    while high - low > step:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _sentence(columns: list[dict[str, Any]]) -> str:
    """Say what the run earned, between what its assumptions lie, and under which nothing is left."""
    made = [column for column in columns if column["refused"] is None]
    own = next(column for column in made if column["is_own"])
    low, high = min(made, key=lambda c: c["net_return"]), max(made, key=lambda c: c["net_return"])
    ends = " and ".join(f"{_percent(c['net_return'])} ({TEXTS[c['name']]}{_stopped(c)})" for c in (low, high))
    said = f"As it was run, {TEXTS[own['name']]}, it earned {_percent(own['net_return'])}; one assumption changed, it is between {ends}."
    gone = [TEXTS[c["name"]] for c in made if c["net_return"] <= 0.0]
    if own["net_return"] <= 0.0:
        return said
    if not gone:
        return f"{said} A profit is left under each of these {len(made)}."
    return f"{said} Nothing is left of the profit under {len(gone)} of these {len(made)}: {'; '.join(gone)}."


def _stopped(column: dict[str, Any]) -> str:
    """Say what an account that the drawdown limit stopped returns without it."""
    free = column["without_breaker"]
    return "" if free is None else f", where the drawdown limit stopped it; {_percent(free)} without that"


def _refused(why: str) -> dict[str, Any]:
    """Return the waterfall of a run that cannot be traded again."""
    nothing = {"break_even": {"per_side": None, "fee_rate": None, "sentence": ""}, "capacity": {"cash": None, "sentence": ""}}
    return {"refused": why, "sentence": f"Not traded again: {why}.", "columns": [], **nothing}


def _too_many(run: RunRecord, *names: str) -> dict[str, Any]:
    why = f"Not searched for over {run.bars.close.size:,} cells; research.evidence.waterfall.waterfall(run, budget) takes a larger budget."
    return {**dict.fromkeys(names), "sentence": why}


def _bp(rate: float) -> str:
    return f"{1e4 * rate:.4g} bp"


def _percent(x: float) -> str:
    return f"{100.0 * x:+.2f} %"


def _rounded(x: float) -> float:
    """Keep two digits."""
    return round(x, 1 - math.floor(math.log10(x)))
