"""What happens to the account, bar by bar? The only sequential loop: symbols are coupled by shared cash.

Inside a bar, in this order (`spec` 10.6 b): exits ordered at the last close leave at the open, and positions whose open lies beyond
their stop; ordered entries are filled; stops are tried with high and low; funding; mark at the close; a new day; then the bar's
decisions are governed, exits first. Most cells need none of it: `screen` judges in one sweep what needs no account, and the loop
visits only symbols that hold something (`held`) and bars with a candidate. Adding 0.0 for a flat symbol is exact, so skipping changes
no bit.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qtcore.broker import enter, funding_rule, gap_rule, leave, stop_rule
from qtcore.governor import govern_step, halt, roll_day, screen, veto_rule
from qtcore.jit import kernel
from qtcore.params import DrawdownBasis, FillAt, GovernOrder, Params
from qtcore.portfolio import init_account, mark
from qtcore.types import ACCOUNT, CLOSED, F8, FILL, NS_PER_DAY, POSITION, Action, Bars, Reason, slab


@kernel
def fill_exits(t, price, time, bar, is_open, account, positions, closed, held, n_held, pnl, fills, k, params):
    """Fill ordered exits at row t of `price`; at the open also positions whose stop lies behind it. Returns the next ledger row."""
    for i in range(n_held):
        s = held[i]
        position, x = positions[s], price[t, s]
        if position["qty"] != 0.0 and x == x:
            reason = position["pending_exit"]
            if reason == 0 and is_open and gap_rule(position["qty"], position["stop_price"], x):
                reason = Reason.STOP
            if reason != 0:
                pnl[t, s] += leave(account, positions, closed, fills, k, s, x, time, bar, reason, params)
                k += 1
    return k


@kernel
def fill_entries(t, price, time, bar, account, positions, closed, held, n_held, reasons, fills, k, params):
    """Fill pending entries at row t of `price`; cancel them at a hole or under the kill switch. Returns the next ledger row."""
    is_killed = params[0]["governor"]["emergency_stop"] != 0
    for i in range(n_held):
        s = held[i]
        x = price[t, s]
        if positions[s]["pending_notional"] != 0.0:
            if x == x and not is_killed:
                enter(account, positions, closed, fills, k, s, x, time, bar, params)
                k += 1
            else:
                positions[s]["pending_notional"] = 0.0
                account[0]["n_cancelled"] += 1
                if positions[s]["qty"] == 0.0:
                    reasons[t, s] = Reason.EMERGENCY_STOP_ACTIVE if is_killed else Reason.NO_BAR
    return k


@kernel
def fill_stops(t, open_, high, low, close, time, bar, account, positions, closed, held, n_held, pnl, fills, k, params):
    """Close what touches its stop inside bar t, and what has had no bar for too long. Returns the next ledger row."""
    delist_after = params[0]["broker"]["delist_after"]
    for i in range(n_held):
        s = held[i]
        position = positions[s]
        if position["qty"] != 0.0:
            is_hit, reference = stop_rule(position["qty"], position["stop_price"], open_[t, s], low[t, s], high[t, s])
            if is_hit:
                pnl[t, s] += leave(account, positions, closed, fills, k, s, reference, time, bar, Reason.STOP, params)
                k += 1
            elif close[t, s] != close[t, s] and bar - position["last_bar"] >= delist_after:
                price = position["last_close"]
                pnl[t, s] += leave(account, positions, closed, fills, k, s, price, time, bar, Reason.DELISTED, params)
                k += 1
    return k


@kernel
def pay_funding(t, close, funding, account, positions, held, n_held, pnl):
    """Book the funding due in bar t to the positions held at its close."""
    for i in range(n_held):
        s = held[i]
        received = funding_rule(positions[s]["qty"], close[t, s], funding[t, s])
        if received != 0.0:
            positions[s]["funding"] += received
            account[0]["funding"] += received
            account[0]["balance"] += received
            pnl[t, s] += received


@kernel
def order_exits(t, bar, action, positions, held, n_held, reasons, params):
    """Order the exits of bar t: opposite signal, horizon, kill switch with `flatten_on_kill`; say so in the cell's reason.

    A same-direction signal on an open position is refused, unless the position has just been ordered to leave.
    """
    g, broker = params[0]["governor"], params[0]["broker"]
    is_flatten = g["emergency_stop"] != 0 and g["flatten_on_kill"] != 0
    horizon, fill_bar = broker["max_holding_bars"], 1 if broker["fill"] == FillAt.NEXT_OPEN else 0
    for i in range(n_held):
        s = held[i]
        position = positions[s]
        side = 1 if position["qty"] > 0.0 else -1
        wish = int(action[t, s]) - 1
        code = Reason.EMERGENCY_STOP_ACTIVE if is_flatten else Reason.NONE
        code = Reason.HORIZON if horizon > 0 and bar - position["entry_bar"] + fill_bar >= horizon else code
        code = Reason.EXIT_SIGNAL if wish == -side else code
        is_ordered = code != Reason.NONE and position["pending_exit"] == 0
        if is_ordered:
            position["pending_exit"] = code
        if wish == -side or (is_ordered and wish == 0):
            reasons[t, s] = code
        elif wish == side and not is_ordered and reasons[t, s] != Reason.LOW_CONFIDENCE:
            reasons[t, s] = Reason.POSITION_ALREADY_OPEN


@kernel
def next_candidate(t, s, confidence, reasons, is_by_confidence):
    """Column of the next cell of row t without a reason: the first from s on, or the most confident of all; S if there is none."""
    n_symbols = reasons.shape[1]
    if not is_by_confidence:
        while s < n_symbols and reasons[t, s] != Reason.NONE:
            s += 1
        return s
    best = n_symbols
    for i in range(n_symbols):
        if reasons[t, i] == Reason.NONE and (best == n_symbols or confidence[t, i] > confidence[t, best]):
            best = i
    return best


@kernel
def govern(t, now, action, confidence, account, positions, closed, held, n_held, reasons, final_action, size, params):
    """Judge the candidates of bar t one after the other; book approvals as pending entries. Returns the new length of `held`."""
    is_by_confidence = params[0]["governor"]["order"] == GovernOrder.BY_CONFIDENCE
    limit, a = params[0]["governor"]["max_daily_trades"], account[0]
    s = next_candidate(t, 0, confidence, reasons, is_by_confidence)
    while s < reasons.shape[1]:
        veto = veto_rule(a["is_halted"] != 0, a["trades_today"], limit)
        side = 1.0 if action[t, s] == Action.BUY else -1.0
        notional, reason = govern_step(side, confidence[t, s], s, now, veto, account, positions, closed, params)
        reasons[t, s] = reason
        if reason == Reason.APPROVED:
            final_action[t, s] = action[t, s]
            size[t, s] = notional
            positions[s]["pending_notional"] = notional
            a["exposure"] += abs(notional)
            a["trades_today"] += 1
            n_held = hold(held, n_held, s)
        s = next_candidate(t, s, confidence, reasons, is_by_confidence)
    return n_held


@kernel
def hold(held, n_held, s):
    """Insert symbol s into the ascending list `held` unless it is there. Returns the new length."""
    i = n_held
    while i > 0 and held[i - 1] >= s:
        i -= 1
    if i < n_held and held[i] == s:
        return n_held
    for j in range(n_held, i, -1):
        held[j] = held[j - 1]
    held[i] = s
    return n_held + 1


@kernel
def trade(
    open_, high, low, close, funding, open_time, close_time, action, confidence, params, account_slab, positions_slab, closed_slab,
    held, final_action, reasons, size, pnl, equity, balance, exposure, fills_slab,
):  # fmt: skip
    """Trade a block of n bars. Returns the number of fills.

    open_ ... close [n, S] prices, NaN at holes; funding [n, S], or shape (0, 0) without; open_time, close_time [n] ns UTC.
    action [n, S] int8, confidence [n, S]: the opinion before the governor. params: `Params.record()`.
    account, positions, closed: the state as bytes (`slab`), updated in place. held [S] int64: scratch.
    Outputs: final_action [n, S] int8; reasons [n, S] uint8; size [n, S] approved notional, signed, 0.0 else; pnl [n, S] what the
    symbol added to equity in the bar; equity, balance, exposure [n] when the bar is done; fills_slab: the ledger as bytes.
    """
    account, positions, closed = account_slab.view(ACCOUNT), positions_slab.view(POSITION), closed_slab.view(CLOSED)
    fills = fills_slab.view(FILL)
    is_equity_basis = params[0]["governor"]["drawdown_basis"] == DrawdownBasis.EQUITY
    is_close_fill = params[0]["broker"]["fill"] == FillAt.CLOSE
    screen(action, confidence, close, params, reasons, final_action, size, pnl)
    n_held, k = 0, 0
    for s in range(close.shape[1]):
        if positions[s]["qty"] != 0.0 or positions[s]["pending_notional"] != 0.0:
            held[n_held] = s
            n_held += 1
    for t in range(close.shape[0]):
        bar, now = account[0]["n_bars"], close_time[t]
        account[0]["n_bars"] = bar + 1
        k = fill_exits(t, open_, open_time[t], bar, True, account, positions, closed, held, n_held, pnl, fills, k, params)
        k = fill_entries(t, open_, open_time[t], bar, account, positions, closed, held, n_held, reasons, fills, k, params)
        k = fill_stops(t, open_, high, low, close, now, bar, account, positions, closed, held, n_held, pnl, fills, k, params)
        if funding.shape[0] > 0:
            pay_funding(t, close, funding, account, positions, held, n_held, pnl)
        n_held = mark(account, positions, held, n_held, close, t, bar, pnl, is_equity_basis)
        roll_day(account, now, params)
        halt(account, now, params)
        order_exits(t, bar, action, positions, held, n_held, reasons, params)
        n_held = govern(t, now, action, confidence, account, positions, closed, held, n_held, reasons, final_action, size, params)
        if is_close_fill:
            k = fill_exits(t, close, now, bar, False, account, positions, closed, held, n_held, pnl, fills, k, params)
            k = fill_entries(t, close, now, bar, account, positions, closed, held, n_held, reasons, fills, k, params)
            n_held = mark(account, positions, held, n_held, close, t, bar, pnl, is_equity_basis)
        equity[t], balance[t], exposure[t] = account[0]["equity"], account[0]["balance"], account[0]["exposure"]
    note_last_bars(close, positions, account[0]["n_bars"])
    return k


@kernel
def note_last_bars(close, positions, n_bars):
    """Note every symbol's last valid close [n, S] of the block that ends at bar number n_bars - 1."""
    n = close.shape[0]
    for s in range(close.shape[1]):
        t = n - 1
        while t >= 0 and close[t, s] != close[t, s]:
            t -= 1
        if t >= 0:
            positions[s]["last_close"] = close[t, s]
            positions[s]["last_bar"] = n_bars - n + t


@dataclass
class TradeState:
    """What the trade loop carries from block to block: plain arrays, updated in place."""

    account: NDArray  # ACCOUNT [1]
    positions: NDArray  # POSITION [S]
    closed: NDArray  # CLOSED [N_CLOSED], a ring

    @classmethod
    def fresh(cls, params: Params, n_symbols: int) -> "TradeState":
        """Start flat with the initial cash."""
        return cls(*init_account(params, n_symbols))

    def copy(self) -> "TradeState":
        """Copy every array."""
        return TradeState(self.account.copy(), self.positions.copy(), self.closed.copy())


@dataclass(frozen=True)
class TradeResult:
    """What the trade loop says about a block of n bars; arrays as `trade` describes them."""

    final_action: NDArray[np.int8]
    governor_reason: NDArray[np.uint8]
    size: F8
    pnl: F8
    equity: F8
    balance: F8
    exposure: F8
    fills: NDArray  # FILL [K]


def fill_capacity(params: Params, close_time: NDArray[np.int64], n_symbols: int) -> int:
    """Return the largest number of fills a block can have: two per approval, and what was carried into it."""
    days = int(close_time[-1] // NS_PER_DAY - close_time[0] // NS_PER_DAY) + 1 if len(close_time) else 0
    approvals = min(len(close_time) * n_symbols, params.governor.max_daily_trades * days)
    return 2 * approvals + 3 * n_symbols


def run_trade(bars: Bars, action: NDArray[np.int8], confidence: F8, params: Params, state: TradeState) -> TradeResult:
    """Trade the opinion `action`, `confidence` [n, S] on `bars`; `state` is carried on in place.

    The arrays must be C-contiguous as `as_bars` and `decide` return them.
    """
    n, n_symbols = bars.close.shape
    codes, values, lines = np.empty((2, n, n_symbols), np.int8), np.empty((2, n, n_symbols)), np.empty((3, n))
    ledger = np.empty(fill_capacity(params, bars.close_time, n_symbols), FILL)
    funding = np.empty((0, 0)) if bars.funding is None else bars.funding
    reasons = codes[1].view(np.uint8)
    k = trade(
        bars.open, bars.high, bars.low, bars.close, funding, bars.open_time, bars.close_time, action, confidence, params.record(),
        slab(state.account), slab(state.positions), slab(state.closed), np.empty(n_symbols, np.int64),
        codes[0], reasons, values[0], values[1], lines[0], lines[1], lines[2], slab(ledger),
    )  # fmt: skip
    return TradeResult(codes[0], reasons, values[0], values[1], lines[0], lines[1], lines[2], ledger[:k].copy())


def cell_pnl(pnl: F8) -> F8:
    """Shift PnL per bar to the decision it belongs to: row t is what the symbol earned from close t to close t+1 (`spec` D-94).

    The last row is 0.0: its bar has not come. Summed over everything it is the change of equity.
    """
    return np.vstack([pnl[1:], np.zeros_like(pnl[:1])])


def finish(state: TradeState, close_time: int, params: Params) -> tuple[TradeState, NDArray]:
    """Close what is open at the last valid closes, END_OF_DATA, on a copy (`spec` 10.6 m). Returns the copy and its fills.

    close_time: ns UTC of the last bar. Pending entries are dropped.
    """
    end = state.copy()
    fills = np.zeros(len(end.positions), FILL)
    k = close_all(end.account, end.positions, end.closed, fills, close_time, params.record())
    return end, fills[:k]


@kernel
def close_all(account, positions, closed, fills, now, params):
    """Close every position at its last valid close and drop what is pending. Returns the number of fills."""
    k = 0
    for s in range(len(positions)):
        if positions[s]["pending_notional"] != 0.0:
            positions[s]["pending_notional"] = 0.0
            account[0]["n_cancelled"] += 1
        if positions[s]["qty"] != 0.0:
            price, bar = positions[s]["last_close"], account[0]["n_bars"] - 1
            leave(account, positions, closed, fills, k, s, price, now, bar, Reason.END_OF_DATA, params)
            k += 1
    account[0]["equity"], account[0]["exposure"] = account[0]["balance"], 0.0
    return k
