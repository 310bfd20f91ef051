"""SIMD driver of cross-sectional books: 64 settings run at once. Bars outside, symbols next, settings as SIMD lanes innermost.

As `qtcore.sweep.lanes`, with weights instead of entries: each lane's costs choose its forecasts, these its aims, and what it holds moves
towards them. The order of every sum is that of `trade` and `rebalance`, so no bit differs.
"""

import numpy as np

from qtcore.chain.book import NS_PER_YEAR, beta_rule
from qtcore.chain.price import BETA, Bid
from qtcore.choices import DrawdownBasis, DrawdownReset, Neutral
from qtcore.governor import new_day_rule
from qtcore.jit import kernel
from qtcore.portfolio import ruin_rule
from qtcore.sweep.book_passes import (
    aim_lanes,
    approve_lanes,
    begin_book,
    choose_lanes,
    drop_entries,
    enter_book,
    forecast_lanes,
    leave_book,
    level_lanes,
    limit_lanes,
    mark_book,
    rebalance_lanes,
    room_lanes,
    weigh_lanes,
)
from qtcore.sweep.layout import (
    ALLOWS_SHORT,
    BALANCE,
    BASIS,
    BY_STOP,
    DELIST_AFTER,
    EQUITY,
    IS_KILLED,
    LANES,
    LAST,
    LEAVES,
    NEUTRAL,
    QTY,
    REFERENCE,
    RESET,
    SLIPPAGE_RATE,
    STOP_LOSS,
    WORTH,
)
from qtcore.sweep.passes import close_bar, exits_at_open, exits_in_bar, measure_lanes, note_stops, pay_lanes, reset_lanes
from qtcore.types import NS_PER_DAY


@kernel
def liquidate_book(p, a, own, n_open, last_close, time):
    """Close everything at its mark in the lanes that were ruined at this close, and write off what they owe. n_open [S]: in place."""
    for s in range(len(p)):
        if n_open[s] > 0:
            for i in range(LANES):
                is_ruined = ruin_rule(a[EQUITY + i], a[LAST + i]) & (p[s, QTY + i] != 0.0)
                a[LEAVES + i] = 1.0 if is_ruined else 0.0
                a[BY_STOP + i] = 0.0
                a[REFERENCE + i] = last_close[s]
            n_open[s] = leave_book(p, s, a, own, time, False)
    for i in range(LANES):
        if ruin_rule(a[EQUITY + i], a[LAST + i]):
            a[BALANCE + i] = 0.0
            a[EQUITY + i] = 0.0
            a[WORTH + i] = 0.0


@kernel
def run_book_lanes(
    open_, high, low, close, funding, open_time, close_time, open_key, close_key, lean, bids, pricing, own, switches, first, every, ends,
    a, p, marks, flags, equity,
):  # fmt: skip
    """Run 64 settings of a book over all bars. open_ ... close [n, S], NaN at holes; funding [n, S] or (0, 0); times [n] ns UTC.

    open_key, close_key [n]: the times in the units of the cooldown. lean [n, S], bids [7, n * S]: what `lay_out` says; pricing [B, 3, C]:
    as in `Market`. own [N_SETTINGS * 64], switches [N_SWITCHES], every (`rebalance_bars`): the settings; first: number of the first bar
    since the account began. ends [D]: bars whose equity is kept. Outputs: a [N_ACCOUNT * 64], whose first rows are RESULTS, and equity
    [D, 64]. Scratch: p [S, N_POSITION * 64], marks [4, S], flags [7, S] int64.
    """
    is_killed, allows_short, neutral = switches[IS_KILLED] != 0, switches[ALLOWS_SHORT] != 0, switches[NEUTRAL]
    is_on_equity, is_reset_daily = switches[BASIS] == DrawdownBasis.EQUITY, switches[RESET] == DrawdownReset.DAILY
    last_close, highest, lowest = marks[0], marks[1], marks[2]
    n_open, n_exit, n_pending, last_bar, n_in, n_more = flags[0], flags[1], flags[2], flags[3], flags[4], flags[5]
    reset_lanes(p, a, own)
    begin_book(a, own)
    flags[:] = 0
    last_bar[:] = -1
    last_close[:] = np.nan
    highest[:] = -np.inf
    lowest[:] = np.inf
    least_age, least_stop, most_slippage = np.inf, np.inf, 0.0
    for i in range(LANES):
        least_age = min(least_age, own[DELIST_AFTER + i])
        least_stop = min(least_stop, own[STOP_LOSS + i])
        most_slippage = max(most_slippage, own[SLIPPAGE_RATE + i])
    above, below = (1.0 + most_slippage) * (1.0 - least_stop) * (1.0 + 1e-9), (1.0 - most_slippage) * (1.0 + least_stop) * (1.0 - 1e-9)
    day, kept, has_funding = np.int64(-1), 0, funding.shape[0] > 0
    n_symbols = np.uintp(close.shape[1])
    size = pricing.shape[2] // np.int64(n_symbols)
    for t in range(np.uintp(close.shape[0])):
        now, is_due = close_time[t], (first + np.int64(t)) % every == 0
        is_new_day = new_day_rule(day, now)
        for s in range(n_symbols):  # 1 exits at the open, whole or in part
            price = open_[t, s]
            may_leave = n_open[s] > 0 and (n_exit[s] > 0 or price <= highest[s] or price >= lowest[s])
            if may_leave and price == price and exits_at_open(p, s, a, own, price) > 0:
                n_open[s] = leave_book(p, s, a, own, open_key[t], True)
                n_exit[s] = 0
        for s in range(n_symbols):  # 2 entries at the open
            if n_pending[s] > 0:
                n_pending[s] = 0
                price = open_[t, s]
                if price == price:
                    n_open[s] = enter_book(p, s, a, own, price)
                    # a mean of two entry prices has its stop between theirs, but for rounding
                    highest[s] = max(highest[s] * (1.0 + 1e-9), price * above)
                    lowest[s] = min(lowest[s] * (1.0 - 1e-9), price * below)
                else:
                    drop_entries(p, s)
        for s in range(n_symbols):
            price = close[t, s]
            if n_open[s] > 0:
                age = 0.0 if price == price else float(np.int64(t) - last_bar[s])
                if low[t, s] <= highest[s] or high[t, s] >= lowest[s] or age >= least_age:  # 3 stops inside the bar
                    if exits_in_bar(p, s, a, own, open_[t, s], low[t, s], high[t, s], last_close[s], age) > 0:
                        n_open[s] = leave_book(p, s, a, own, close_key[t], False)
                    highest[s], lowest[s] = note_stops(p, s, a, own)
            if price == price:
                last_close[s] = price
                last_bar[s] = t
            if n_open[s] > 0:
                if has_funding and funding[t, s] != 0.0:  # 4 funding
                    pay_lanes(p, s, a, price, funding[t, s])
                mark_book(p, s, a, last_close[s])  # 5 mark at the close
        day = now // NS_PER_DAY if is_new_day else day
        n_free, n_ruined = close_bar(a, own, is_new_day, is_on_equity, is_reset_daily)  # 6
        if n_ruined > 0:
            liquidate_book(p, a, own, n_open, last_close, close_key[t])
        block = np.int64(t) // size  # 7
        start = (np.int64(t) - block * size) * np.int64(n_symbols)
        for s in range(n_symbols):
            cell = np.int64(t * n_symbols + s)
            is_said = lean[t, s] != 0.0 or bids[Bid.ARBITER, cell] != 0.0
            n_in[s] = 0
            if is_said and close[t, s] == close[t, s] and (is_due or n_open[s] > 0):
                n_in[s] = forecast_lanes(p, s, own, bids, cell, lean[t, s])
                if is_due and neutral != Neutral.NONE and n_in[s] > 0:
                    beta = pricing[block, BETA, start + np.int64(s)]
                    weigh_lanes(p, s, a, beta_rule(beta) if neutral >= Neutral.BETA else 0.0)
        if is_due:
            level_lanes(a, neutral)
            for s in range(n_symbols):
                if n_in[s] > 0:
                    aim_lanes(p, s, a, own, pricing[block, BETA, start + np.int64(s)], allows_short)
            limit_lanes(a, own, NS_PER_YEAR / (now - open_time[t]))
        for s in range(n_symbols):
            is_hole = close[t, s] != close[t, s]
            n_more[s] = 0
            if n_open[s] > 0 or n_in[s] > 0:
                n_exit[s], n_more[s] = rebalance_lanes(
                    p, s, a, own, last_close[s], is_hole, n_in[s] > 0, is_due, is_killed, allows_short, is_on_equity
                )
        if is_due and n_free > 0:
            if room_lanes(a, own) > 0:
                choose_lanes(p, a, own, close_key[t], n_more, n_pending)
            for s in range(n_symbols):
                if n_more[s] > 0:
                    n_pending[s] += approve_lanes(p, s, a, own, close_key[t])
        measure_lanes(a)
        if kept < len(ends) and ends[kept] == np.int64(t):
            for i in range(LANES):
                equity[kept, i] = a[EQUITY + i]
            kept += 1
