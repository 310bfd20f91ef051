"""Trade loop: what happens to the account, bar by bar. The only sequential loop: symbols are coupled by shared cash.

Inside a bar, in this order (`spec` 10.6 b): exits ordered at the last close leave at the open, and positions whose open lies beyond
their stop; ordered entries are filled; stops are tried with high and low; funding; mark at the close, and liquidation where equity is
gone; a new day; then the bar's decisions are governed, exits first. Other values of `broker.fill` move the orders (`FillAt`). Most cells
need none of it: `screen` judges in one sweep what needs no account, and the loop visits only symbols that hold or await something (`held`)
and bars with a candidate. Adding 0.0 for a flat symbol is exact, so skipping changes no bit.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qtcore.broker import enter, funding_rule, gap_rule, leave, stop_fill_rule, stop_rule, traded_before, worst_rule
from qtcore.chain.book import book_rule, rebalance
from qtcore.choices import BookKind, CooldownScope, DrawdownBasis, DrawdownReset, FillAt, GovernOrder, SizingMode
from qtcore.governor import (
    empirical_odds,
    exit_rule,
    govern_step,
    halt,
    last_loss,
    open_cell_rule,
    roll_day,
    screen,
    veto_step,
)
from qtcore.jit import kernel
from qtcore.params import Params
from qtcore.portfolio import init_account, mark_step, reduces_rule, ruin_rule, sum_up, write_off
from qtcore.rules import Reason
from qtcore.types import F8, FILL, I8, N_CLOSED, NS_PER_DAY, NS_PER_MINUTE, WAITS, Action, Bars, InputError, Money


@kernel(inline=True)
def begin(fill, s, time, bar):
    """Begin a row of the ledger."""
    fill["symbol"] = s
    fill["time"] = time
    fill["bar"] = bar
    return fill


@kernel(inline=True)
def cancel(account, position, reason, code):
    """Drop a pending entry. Returns the cell's new reason: `code`, unless a position is open there."""
    position["pending_notional"] = 0.0
    account["n_cancelled"] += 1
    return code if position["qty"] == 0.0 else reason


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
def sort_falling(candidates, m, keys):
    """Sort the first m columns in `candidates` by falling `keys` [S]; equals keep their order."""
    for i in range(1, m):
        s, j = candidates[i], i
        while j > 0 and keys[candidates[j - 1]] < keys[s]:
            candidates[j] = candidates[j - 1]
            j -= 1
        candidates[j] = s


@kernel
def liquidate(t, traded, before, time, bar, account, positions, closed, held, n_held, reasons, pnl, fills, k, params):
    """Close what is held at its mark, the last valid close, and write off what is owed then. Returns the next ledger row.

    before: equity at the bar before. A cell says LIQUIDATED unless an entry was approved there and filled at this close. Orders on their
    way are dropped.
    """
    for i in range(n_held):
        s = held[i]
        position = positions[s]
        if position["qty"] != 0.0:
            slot, fill = closed[account["n_closed"] % N_CLOSED], begin(fills[np.uintp(k)], s, time, bar)
            mark, depth = position["last_close"], depth_of(traded, t, s)
            gain = leave(account, position, slot, fill, mark, depth, Reason.LIQUIDATED.value, params)
            pnl[t, s] += gain
            reasons[t, s] = reasons[t, s] if reasons[t, s] == Reason.APPROVED else Reason.LIQUIDATED.value
            k += 1
        if position["pending_notional"] != 0.0:
            reasons[t, s] = cancel(account, position, int(reasons[t, s]), Reason.LIQUIDATED.value)
    write_off(account, before, pnl[t])
    return k


@kernel
def fill_at_close(t, close, traded, before, time, bar, account, positions, closed, held, n_held, reasons, pnl, fills, k, params):
    """Fill what is ordered at the close of bar t and mark again: its own orders (`fill = close`) or those of the bar before (`next_close`).

    Returns the next ledger row and the length of `held`.
    """
    unrealised, committed, kept, marked = 0.0, 0.0, 0, account["equity"]
    is_killed = params["governor"]["emergency_stop"] != 0
    for i in range(n_held):
        s = held[i]
        position = positions[s]
        if position["pending_exit"] != 0 and close[t, s] == close[t, s]:
            slot, fill = closed[account["n_closed"] % N_CLOSED], begin(fills[np.uintp(k)], s, time, bar)
            gain = leave(account, position, slot, fill, close[t, s], depth_of(traded, t, s), position["pending_exit"], params)
            pnl[t, s] += gain
            k += 1
    for i in range(n_held):
        s = held[i]
        position = positions[s]
        if position["pending_notional"] != 0.0 and not reduces_rule(position["pending_exit"]):
            if is_killed:
                reasons[t, s] = cancel(account, position, int(reasons[t, s]), Reason.EMERGENCY_STOP_ACTIVE.value)
            elif close[t, s] != close[t, s]:
                reasons[t, s] = cancel(account, position, int(reasons[t, s]), Reason.NO_BAR.value)
            else:
                row = begin(fills[np.uintp(k)], s, time, bar)
                enter(account, position, closed[0], row, close[t, s], depth_of(traded, t, s), params)
                k += 1
        if position["qty"] != 0.0:
            gain = mark_step(position, close[t, s], bar)
            pnl[t, s] += gain
            unrealised += position["unrealised"]
            committed += position["entry_notional"]
            held[kept] = s
            kept += 1
    sum_up(account, unrealised, committed, 0.0, params)
    if ruin_rule(account["equity"], marked):
        return liquidate(t, traded, before, time, bar, account, positions, closed, held, kept, reasons, pnl, fills, k, params), 0
    return k, kept


@kernel(inline=True)
def worth_of(positions, held, n_held):
    """Sum what is held, long or short, at the last valid closes, quote. Orders on their way are not held; `account` counts them too."""
    worth = 0.0
    for i in range(n_held):
        position = positions[held[i]]
        worth += abs(position["qty"]) * position["last_close"] if position["qty"] != 0.0 else 0.0
    return worth


@kernel(inline=True)
def depth_of(traded, t, s):
    """Quote volume that the fills of cell (t, s) meet; without limit where nobody asks (`traded` of shape (0, 0))."""
    return traded[t, s] if traded.shape[0] > 0 else np.inf


@kernel(inline=True)
def order_exit(t, s, bar, position, action, reasons, is_priced, own_bar, horizon, is_flatten, waits):
    """Order the exit of an open position at the close of bar t, if there is cause, and say so in its cell; an order stands as it is."""
    side, wish = 1 if position["qty"] > 0.0 else -1, int(action[t, s]) - 1
    wish = 0 if is_priced & (reasons[t, s] == Reason.LOW_CONFIDENCE.value) else wish  # it would not itself trade
    code = exit_rule(side, wish, bar - position["entry_bar"] + own_bar, horizon, is_flatten)
    is_ordered = (code != 0) & (position["pending_exit"] == 0)
    position["pending_exit"] = code + waits if is_ordered else position["pending_exit"]
    reasons[t, s] = open_cell_rule(int(reasons[t, s]), code, is_ordered, side, wish)


@kernel
def trade(
    open_, high, low, close, funding, traded, open_time, close_time, action, confidence, gross, edge, risk, forecast, beta, holding,
    params_record, account_record, positions, closed, lasts, scratch, final_action, reasons, size, pnl, equity, balance, exposure, worth,
    fills,
):  # fmt: skip
    """Trade a block of n bars. Returns the number of fills.

    open_ ... close [n, S] prices, NaN at holes; funding [n, S], or shape (0, 0) without; traded [n, S]: `traded_before`, read where
    `broker.impact` is above 0, else shape (0, 0); open_time, close_time [n] ns UTC.
    action [n, S] int8, confidence [n, S]: the opinion before the governor; gross, edge, risk [n, S]: its price (`MONEY_COLUMNS`), or shape
    (0, 0) where it has none; forecast, beta [n, S]: what a book reads (`BOOK_COLUMNS`), else (0, 0); holding [n, S]: bars that a
    trade on the opinion lasts, or (0, 0) for `broker.max_holding_bars`. params_record: `Params.record()`.
    account_record ACCOUNT [1], positions POSITION [S], closed CLOSED [N_CLOSED], lasts [S] int64, `TradeState.lasts`: the state, updated in
    place. scratch [2, S] uintp.
    Outputs: final_action [n, S] int8; reasons [n, S] uint8; size [n, S] approved notional, signed, 0.0 else; pnl [n, S] what the
    symbol added to equity in the bar; equity, balance, exposure, worth [n] when the bar is done; fills FILL [K]: the ledger.

    One long kernel: every step works on the account, the positions and the prices of a bar, and the steps are in the order of the
    specification (10.6); what is a rule of its own is called.
    """
    params, account, n_symbols, zero = params_record[0], account_record[0], close.shape[1], np.int64(0)  # a literal 0 compiles twice
    g, broker = params["governor"], params["broker"]
    is_killed, is_by_confidence, is_priced = g["emergency_stop"] != 0, g["order"] == GovernOrder.BY_CONFIDENCE, edge.shape[0] > 0
    is_by_edge = is_priced & (g["order"] == GovernOrder.BY_EDGE)
    is_flatten, is_last_50 = is_killed and g["flatten_on_kill"] != 0, g["cooldown_scope"] == CooldownScope.LAST_50
    is_empirical, win_rate, payoff = g["sizing_mode"] == SizingMode.KELLY_EMPIRICAL, g["win_rate"], g["payoff"]
    is_close_fill, horizon, delist_after = broker["fill"] == FillAt.CLOSE, broker["max_holding_bars"], broker["delist_after"]
    is_next_close, is_worst = broker["fill"] == FillAt.NEXT_CLOSE, broker["fill"] == FillAt.WORST
    waits = WAITS if broker["fill"] == FillAt.ONE_BAR_LATER else 0
    is_book = g["book"] == BookKind.CROSS_SECTION
    has_lengths = holding.shape[0] > 0 and not is_book
    has_funding, own_bar = funding.shape[0] > 0, (0 if is_close_fill else 1) + (1 if waits != 0 else 0)
    held, candidates, n_held, n_pending, k = scratch[0], scratch[1], zero, zero, zero
    screen(action, confidence, close, params, reasons, final_action, size, pnl)
    for s in range(n_symbols):
        n_pending += positions[s]["pending_notional"] != 0.0
        if positions[s]["qty"] != 0.0 or positions[s]["pending_notional"] != 0.0:
            held[n_held] = s
            n_held += 1
    for t in range(close.shape[0]):
        bar, now = account["n_bars"], close_time[t]
        account["n_bars"] = bar + 1

        for i in range(n_held):  # 1 exits at the open
            s = held[i]
            position, price = positions[s], open_[t, s]
            reason, waiting = position["pending_exit"], position["pending_exit"] & WAITS
            reason = 0 if is_next_close | (waiting != 0) else reason
            reason = Reason.STOP.value if (reason == 0) & gap_rule(position["qty"], position["stop_price"], price) else reason
            if reason != 0 and price == price:
                slot, fill = closed[account["n_closed"] % N_CLOSED], begin(fills[np.uintp(k)], s, open_time[t], bar)
                price = worst_rule(-position["qty"], low[t, s], high[t, s]) if is_worst else price
                gain = leave(account, position, slot, fill, price, depth_of(traded, t, s), reason, params)
                position["pending_exit"] = waiting  # an entry may still wait
                pnl[t, s] += gain
                k += 1

        if n_pending > 0 and not is_next_close:  # 2 entries at the open
            n_pending = zero
            for i in range(n_held):
                s = held[i]
                position, price = positions[s], open_[t, s]
                if position["pending_notional"] != 0.0 and not reduces_rule(position["pending_exit"]):
                    if is_killed:
                        reasons[t, s] = cancel(account, position, int(reasons[t, s]), Reason.EMERGENCY_STOP_ACTIVE.value)
                    elif position["pending_exit"] & WAITS != 0:
                        n_pending += 1
                    elif price != price:
                        reasons[t, s] = cancel(account, position, int(reasons[t, s]), Reason.NO_BAR.value)
                    else:
                        row = begin(fills[np.uintp(k)], s, open_time[t], bar)
                        price = worst_rule(position["pending_notional"], low[t, s], high[t, s]) if is_worst else price
                        enter(account, position, closed[0], row, price, depth_of(traded, t, s), params)
                        k += 1

        unrealised, committed, paid, kept = 0.0, 0.0, 0.0, zero
        for i in range(n_held):
            s = held[i]
            position, price = positions[s], close[t, s]
            position["pending_exit"] &= WAITS - 1  # the next open is the one that is meant
            is_hit = stop_rule(position["qty"], position["stop_price"], low[t, s], high[t, s])
            is_gone = (price != price) & (bar - position["last_bar"] >= delist_after)
            if (position["qty"] != 0.0) & (is_hit | is_gone):  # 3 stops inside the bar, and symbols that have gone
                level = stop_fill_rule(position["qty"], position["stop_price"], open_[t, s]) if is_hit else position["last_close"]
                level = worst_rule(-position["qty"], low[t, s], high[t, s]) if is_hit & is_worst else level
                slot, fill = closed[account["n_closed"] % N_CLOSED], begin(fills[np.uintp(k)], s, now, bar)
                code = Reason.STOP.value if is_hit else Reason.DELISTED.value
                gain = leave(account, position, slot, fill, level, depth_of(traded, t, s), code, params)
                pnl[t, s] += gain
                k += 1
            if position["qty"] != 0.0:
                if has_funding:  # 4 funding
                    received = funding_rule(position["qty"], price, funding[t, s])
                    position["funding"] += received
                    pnl[t, s] += received
                    paid += received
                pnl[t, s] += mark_step(position, price, bar)  # 5 mark at the close
                unrealised += position["unrealised"]
                committed += position["entry_notional"]
                if not (is_next_close | is_book):  # 7 exits are ordered before entries
                    most = lasts[s] if lasts[s] > 0 else horizon
                    order_exit(t, s, bar, position, action, reasons, is_priced, own_bar, most, is_flatten, waits)
            is_entering = (position["pending_notional"] != 0.0) & (not reduces_rule(position["pending_exit"]))
            if is_entering:  # on its way: to the open after the next, or to this close
                committed += abs(position["pending_notional"])
                is_wish = (action[t, s] != Action.HOLD) & (reasons[t, s] != Reason.LOW_CONFIDENCE.value) & (not is_next_close)
                is_alone = is_wish & (position["qty"] == 0.0)
                reasons[t, s] = Reason.POSITION_ALREADY_OPEN.value if is_alone else reasons[t, s]
            if (position["qty"] != 0.0) | (position["pending_notional"] != 0.0):
                held[kept] = s
                kept += 1
        n_held, before = kept, account["equity"]
        sum_up(account, unrealised, committed, paid, params)
        if ruin_rule(account["equity"], before):
            k = liquidate(t, traded, before, now, bar, account, positions, closed, held, n_held, reasons, pnl, fills, k, params)
            n_held = zero
        if is_next_close:
            k, n_held = fill_at_close(
                t, close, traded, before, now, bar, account, positions, closed, held, n_held, reasons, pnl, fills, k, params
            )
            n_pending = zero
            for i in range(n_held if not is_book else zero):
                s = held[i]
                most = lasts[s] if lasts[s] > 0 else horizon
                order_exit(t, s, bar, positions[s], action, reasons, is_priced, own_bar, most, is_flatten, waits)

        roll_day(account, now, params)  # 6
        halt(account, now, params)
        veto = veto_step(account["is_halted"] != 0, account, closed, params)
        veto = veto if account["equity"] > 0.0 else Reason.LIQUIDATED.value
        m = zero
        if is_book:  # 7 of a book: what becomes smaller is ordered, what would become larger is asked for
            m = rebalance(
                t, bar, now - open_time[t], close, forecast, risk, beta, holding, account, waits, positions, params, candidates, reasons,
                final_action, size,
            )  # fmt: skip
            if m > g["max_daily_trades"] - account["trades_today"]:
                sort_falling(candidates, m, size[t])
        if veto == 0 and not is_book:  # 7 entries
            for s in range(n_symbols):
                candidates[m] = s
                m += reasons[t, s] == 0
            if is_by_confidence:
                sort_falling(candidates, m, confidence[t])
            if is_by_edge:
                sort_falling(candidates, m, gross[t])
            if is_empirical:
                win_rate, payoff = empirical_odds(closed, account["n_closed"], g["win_rate"], g["payoff"], g["kelly_trades"])
        for i in range(m if veto == 0 else zero):
            s = candidates[i]
            position, side = positions[s], 1 if action[t, s] == Action.BUY else -1
            loss_time = last_loss(s, closed, account["n_closed"]) if is_last_50 else position["last_loss_time"]
            if is_book:
                side = 1 if final_action[t, s] == Action.BUY else -1
                notional, reason = side * size[t, s], book_rule(size[t, s], loss_time, now - g["cooldown_minutes"] * NS_PER_MINUTE)
                reasons[t, s] = reason if (reason == Reason.APPROVED) | (reasons[t, s] == 0) else reasons[t, s]
            else:
                earns, varies = (edge[t, s], risk[t, s]) if is_priced else (np.nan, np.nan)
                sure = confidence[t, s]
                notional, reason = govern_step(side, sure, earns, varies, s, now, loss_time, win_rate, payoff, account, position, params)
                reasons[t, s] = reason
            if reason == Reason.APPROVED:
                final_action[t, s] = final_action[t, s] if is_book else action[t, s]
                size[t, s] = notional
                lasts[s] = np.int64(holding[t, s]) if has_lengths else zero
                position["pending_notional"] = notional
                position["pending_exit"] |= waits
                account["exposure"] += abs(notional)
                account["trades_today"] += 1
                n_pending += 1
                n_held = hold(held, n_held, s)
                veto = veto_step(account["is_halted"] != 0, account, closed, params)
                if veto != 0:
                    break
        if veto != 0:
            for s in range(n_symbols):
                reasons[t, s] = reasons[t, s] if reasons[t, s] != 0 else veto
        for i in range(m if is_book else zero):
            s = candidates[i]
            if reasons[t, s] != Reason.APPROVED:  # what was asked for in vain
                final_action[t, s] = Action.HOLD
                size[t, s] = 0.0

        if is_close_fill:
            k, n_held = fill_at_close(
                t, close, traded, before, now, bar, account, positions, closed, held, n_held, reasons, pnl, fills, k, params
            )
            n_pending = zero
        equity[t], balance[t], exposure[t] = account["equity"], account["balance"], account["exposure"]
        worth[t] = worth_of(positions, held, n_held)
    note_last_bars(close, positions, account["n_bars"])
    return k


@kernel(inline=True)
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
    traded: F8  # [S] quote volume of the last bar with any (`traded_before`); followed where `broker.impact` is above 0
    lasts: I8  # [S] bars that the trade ordered last on a symbol lasts; 0: `broker.max_holding_bars`

    @classmethod
    def fresh(cls, params: Params, n_symbols: int) -> "TradeState":
        """Start flat with the initial cash."""
        return cls(*init_account(params, n_symbols), np.zeros(n_symbols), np.zeros(n_symbols, np.int64))

    def copy(self) -> "TradeState":
        """Copy every array."""
        return TradeState(*(np.copy(array) for array in vars(self).values()))

    def lift_halt(self, params: Params) -> None:
        """Allow entries again after a drawdown halt; the peak restarts from today's equity or balance (`spec` 10.6 p).

        Raises InputError unless `governor.drawdown_reset` is manual.
        """
        reset = params.governor.drawdown_reset
        if reset != DrawdownReset.MANUAL:
            raise InputError(f"a halt can be lifted by hand only with governor.drawdown_reset manual, was {reset.name.lower()}")
        self.account["is_halted"] = 0
        self.account["peak"] = self.account["equity" if params.governor.drawdown_basis == DrawdownBasis.EQUITY else "balance"]


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
    worth: F8
    fills: NDArray  # FILL [K]


def fill_capacity(params: Params, close_time: NDArray[np.int64], n_symbols: int) -> int:
    """Return the largest number of fills a block can have: two per approval, what was carried into it, and what a book made smaller."""
    days = int(close_time[-1] // NS_PER_DAY - close_time[0] // NS_PER_DAY) + 1 if len(close_time) else 0
    approvals = min(len(close_time) * n_symbols, params.governor.max_daily_trades * days)
    reductions = (len(close_time) // params.governor.rebalance_bars + 1) * n_symbols if params.is_book else 0
    return 2 * approvals + reductions + 3 * n_symbols


UNPRICED = (np.empty((0, 0)),) * 6  # what an opinion without a price has of it
UNASKED = np.empty((0, 0))  # quote volumes where nobody asks how much was traded


def depths(bars: Bars, params: Params, traded: F8) -> F8:
    """Return the volumes that `trade` takes for a block, [n, S] or shape (0, 0); traded [S]: of the bar before it, carried on in place."""
    if params.broker.impact == 0.0:
        return UNASKED
    out = np.empty(bars.close.shape)
    traded_before(bars.close, bars.volume, traded, out)
    return out


def run_trade(
    bars: Bars,
    action: NDArray[np.int8],
    confidence: F8,
    params: Params,
    state: TradeState,
    loop: Callable[..., int] = trade,
    money: Money = UNPRICED,
) -> TradeResult:
    """Trade the opinion `action`, `confidence` [n, S] on `bars`; `state` is carried on in place.

    loop: `trade`, or an own one from `rebind`. money: `Decisions.money`. The arrays must be C-contiguous as
    `as_bars` and `decide` return them.
    """
    n, n_symbols = bars.close.shape
    codes, values, lines = np.empty((2, n, n_symbols), np.int8), np.empty((2, n, n_symbols)), np.empty((4, n))
    ledger = np.empty(fill_capacity(params, bars.close_time, n_symbols), FILL)
    funding = np.empty((0, 0)) if bars.funding is None else bars.funding
    reasons = codes[1].view(np.uint8)
    k = loop(
        bars.open, bars.high, bars.low, bars.close, funding, depths(bars, params, state.traded), bars.open_time, bars.close_time, action,
        confidence, *money, params.record(),
        state.account, state.positions, state.closed, state.lasts, np.empty((2, n_symbols), np.uintp),
        codes[0], reasons, values[0], values[1], *lines, ledger,
    )  # fmt: skip
    return TradeResult(codes[0], reasons, values[0], values[1], lines[0], lines[1], lines[2], lines[3], ledger[:k].copy())


def cell_pnl(pnl: F8) -> F8:
    """Shift PnL per bar to the decision it belongs to: row t is what the symbol earned from close t to close t+1 (`spec` D-94).

    The last row is 0.0: its bar has not come. What the first bar itself earned (0.0 after a fresh start, but for the costs of
    `fill = close`) is added to row 0, so that the cells add up to the change of equity.
    """
    cells = np.vstack([pnl[1:], np.zeros_like(pnl[:1])])
    cells[:1] += pnl[:1]
    return cells


def finish(state: TradeState, close_time: int, params: Params) -> tuple[TradeState, NDArray]:
    """Close what is open at the last valid closes, END_OF_DATA, on a copy (`spec` 10.6 m). Returns the copy and its fills.

    close_time: ns UTC of the last bar. Pending entries are dropped.
    """
    end = state.copy()
    fills = np.zeros(len(end.positions), FILL)
    traded = UNASKED if params.broker.impact == 0.0 else end.traded[None]
    k = close_all(end.account, end.positions, end.closed, traded, fills, close_time, params.record())
    return end, fills[:k]


@kernel
def close_all(account_record, positions, closed, traded, fills, now, params_record):
    """Close every position at its last valid close and drop what is pending. Returns the number of fills.

    The records as in `trade`; traded [1, S]: quote volume of each symbol's last bar with any, or shape (0, 0); now: ns UTC.
    """
    account, params, k = account_record[0], params_record[0], 0
    for s in range(len(positions)):
        position = positions[s]
        if position["qty"] != 0.0:
            slot, fill = closed[account["n_closed"] % N_CLOSED], begin(fills[np.uintp(k)], s, now, account["n_bars"] - 1)
            leave(account, position, slot, fill, position["last_close"], depth_of(traded, 0, s), Reason.END_OF_DATA.value, params)
            k += 1
        if position["pending_notional"] != 0.0:
            position["pending_notional"] = 0.0
            position["pending_exit"] = 0
            account["n_cancelled"] += 1
    account["balance"] = max(account["balance"], 0.0)  # closing costs may be more than is left
    account["equity"], account["exposure"] = account["balance"], 0.0
    return k
