"""SIMD driver: 64 settings run at once. Bars outside, symbols next, settings as SIMD lanes innermost.

The rules are those of a backtest, inlined: scalars in, scalars out, selects only. What no lane changes is worked out once for all 64, and
a pass over the lanes is made only where one of them can be concerned: a symbol that some lane holds, a price beyond the nearest stop, a
signal. Every sum is added in the order of `trade`; adding 0.0 for a lane that is not concerned is exact, so no bit differs.
"""

import numpy as np

from qtcore.chain.price import Bid, costs_rule
from qtcore.chain.trade import sort_falling
from qtcore.choices import DrawdownBasis, DrawdownReset, ExposureMode, GovernOrder, SizingMode
from qtcore.governor import new_day_rule
from qtcore.jit import kernel
from qtcore.portfolio import ruin_rule
from qtcore.sweep.layout import (
    ALLOWS_SHORT,
    BALANCE,
    BASIS,
    BY_STOP,
    DELIST_AFTER,
    ENDED,
    ENTERED,
    EQUITY,
    EXPOSURE,
    EXPOSURE_MODE,
    FEE_RATE,
    FILLS,
    IS_KILLED,
    LANES,
    LAST,
    LEAVES,
    MAX_HOLDING_BARS,
    MIN_EDGE,
    ORDER,
    PENDING,
    QTY,
    REFERENCE,
    RESET,
    SCORE_THRESHOLD,
    SIZING,
    SLIPPAGE_RATE,
    STOP_LOSS,
    WISH,
    WORTH,
)
from qtcore.sweep.passes import (
    bet_by_confidence,
    bet_by_share,
    close_bar,
    enter_lanes,
    exits_at_open,
    exits_in_bar,
    govern_lanes,
    leave_lanes,
    mark_lanes,
    measure_lanes,
    note_stops,
    opine_lanes,
    order_exits,
    pay_lanes,
    price_lanes,
    reset_lanes,
    screen_lanes,
)
from qtcore.types import NS_PER_DAY


@kernel
def liquidate_lanes(p, a, own, n_open, last_close, time):
    """Close everything at its mark in the lanes that were ruined at this close, and write off what they owe. n_open [S]: in place."""
    for s in range(len(p)):
        if n_open[s] > 0:
            for i in range(LANES):
                is_ruined = ruin_rule(a[EQUITY + i], a[LAST + i]) & (p[s, QTY + i] != 0.0)
                a[LEAVES + i] = 1.0 if is_ruined else 0.0
                a[BY_STOP + i] = 0.0
                a[REFERENCE + i] = last_close[s]
            n_open[s] = leave_lanes(p, s, a, own, time)
    for i in range(LANES):
        if ruin_rule(a[EQUITY + i], a[LAST + i]):
            a[BALANCE + i] = 0.0
            a[EQUITY + i] = 0.0
            a[EXPOSURE + i] = 0.0
            a[WORTH + i] = 0.0


@kernel
def run_lanes(
    open_, high, low, close, funding, close_time, open_key, close_key, kind, confidence, score, bids, is_priced, own, switches, reference,
    ends, a, p, marks, flags, equity,
):  # fmt: skip
    """Run 64 settings over all bars. open_ ... close [n, S], NaN at holes; funding [n, S] or (0, 0); close_time [n] ns UTC.

    open_key, close_key [n]: the times in the units of the cooldown. kind [n, S] int8, confidence, score [n, S], bids [7, n * S]: what
    `lay_out` says; is_priced: whether it says bids.
    own [N_SETTINGS * 64], switches [N_SWITCHES], reference (its confidence): the settings. ends [D]: bars whose equity is kept. Outputs:
    a [N_ACCOUNT * 64], whose first rows are RESULTS, and equity [D, 64]. Scratch: p [S, N_POSITION * 64], marks [4, S], flags [7, S] int64.
    """
    is_killed, allows_short, sizing = switches[IS_KILLED] != 0, switches[ALLOWS_SHORT] != 0, switches[SIZING]
    is_by_confidence, is_by_share = sizing == SizingMode.KELLY_CONFIDENCE, sizing == SizingMode.KELLY_EDGE
    is_projected, is_on_equity = switches[EXPOSURE_MODE] == ExposureMode.PROJECTED, switches[BASIS] == DrawdownBasis.EQUITY
    is_reset_daily, is_by_edge = switches[RESET] == DrawdownReset.DAILY, switches[ORDER] == GovernOrder.BY_EDGE
    last_close, highest, lowest, keys = marks[0], marks[1], marks[2], marks[3]
    n_open, n_exit, n_pending, last_bar, due, n_wish, queue = flags[0], flags[1], flags[2], flags[3], flags[4], flags[5], flags[6]
    reset_lanes(p, a, own)
    flags[:] = 0
    last_bar[:] = -1
    last_close[:] = np.nan
    highest[:] = -np.inf
    lowest[:] = np.inf
    least_score, least_age, least_stop, most_slippage, least_gross, longest = np.inf, np.inf, np.inf, 0.0, np.inf, 0.0
    for i in range(LANES):
        least_gross = min(least_gross, (costs_rule(own[FEE_RATE + i], own[SLIPPAGE_RATE + i]) + own[MIN_EDGE + i]) * (1.0 - 1e-9))
        longest = max(longest, own[MAX_HOLDING_BARS + i])
        least_score = min(least_score, own[SCORE_THRESHOLD + i])
        least_age = min(least_age, own[DELIST_AFTER + i])
        least_stop = min(least_stop, own[STOP_LOSS + i])
        most_slippage = max(most_slippage, own[SLIPPAGE_RATE + i])
    above, below = (1.0 + most_slippage) * (1.0 - least_stop) * (1.0 + 1e-9), (1.0 - most_slippage) * (1.0 + least_stop) * (1.0 - 1e-9)
    day, kept, n_free, has_funding = np.int64(-1), 0, LANES, funding.shape[0] > 0
    n_symbols = np.uintp(close.shape[1])
    for t in range(np.uintp(close.shape[0])):
        bar, now = float(t), close_time[t]
        is_new_day = new_day_rule(day, now)
        may_enter = n_free > 0 or is_new_day
        for s in range(n_symbols):  # 1 exits at the open
            price = open_[t, s]
            may_leave = n_open[s] > 0 and (n_exit[s] > 0 or price <= highest[s] or price >= lowest[s])
            if may_leave and price == price and exits_at_open(p, s, a, own, price) > 0:
                n_open[s] = leave_lanes(p, s, a, own, open_key[t])
                n_exit[s] = 0
        for s in range(n_symbols):  # 2 entries at the open
            if n_pending[s] > 0:
                n_pending[s] = 0
                price = open_[t, s]
                if price == price:
                    n_open[s], due[s] = enter_lanes(p, s, a, own, price, bar)
                    highest[s], lowest[s] = max(highest[s], price * above), min(lowest[s], price * below)
                else:
                    p[s, PENDING : PENDING + LANES] = 0.0
        for s in range(n_symbols):
            price = close[t, s]
            if n_open[s] > 0:
                age = 0.0 if price == price else float(np.int64(t) - last_bar[s])
                if low[t, s] <= highest[s] or high[t, s] >= lowest[s] or age >= least_age:  # 3 stops inside the bar
                    if exits_in_bar(p, s, a, own, open_[t, s], low[t, s], high[t, s], last_close[s], age) > 0:
                        n_open[s] = leave_lanes(p, s, a, own, close_key[t])
                    highest[s], lowest[s] = note_stops(p, s, a, own)
            if price == price:
                last_close[s] = price
                last_bar[s] = t
            action, called = np.int64(kind[t, s] & 3), np.int64(kind[t, s] >> 2)
            called = called if abs(score[t, s]) >= least_score else np.int64(0)
            acts, cell = action != 1 or called != 0, np.int64(t * n_symbols + s)
            if is_priced:
                keys[s] = max(abs(bids[Bid.ENSEMBLE, cell]), abs(bids[Bid.ARBITER, cell]))
                acts = keys[s] + 1.000001 * abs(longest * bids[Bid.CARRY, cell]) >= least_gross and keys[s] > 0.0
            n_wish[s] = 0
            if acts and (n_open[s] > 0 or (may_enter and price == price)):
                if is_priced:
                    n_wish[s] = price_lanes(p, s, own, bids, cell, is_killed, allows_short, is_by_confidence, is_by_share, reference)
                elif called != 0:
                    n_wish[s] = opine_lanes(
                        p, s, own, action, confidence[t, s], called & 1 != 0, called & 2 != 0, score[t, s], is_killed, allows_short,
                        is_by_confidence, reference,
                    )  # fmt: skip
                else:
                    n_wish[s] = screen_lanes(p, s, own, action, confidence[t, s], is_killed, allows_short, is_by_confidence, reference)
            if n_open[s] > 0:
                if has_funding and funding[t, s] != 0.0:  # 4 funding
                    pay_lanes(p, s, a, price, funding[t, s])
                mark_lanes(p, s, a, own, last_close[s])  # 5 mark at the close
                if np.int64(t) + 1 >= due[s] and not acts:
                    p[s, WISH : WISH + LANES] = 0.0
                if acts or np.int64(t) + 1 >= due[s]:  # 7 exits are ordered before entries
                    n_exit[s], due[s] = order_exits(p, s, own, bar)
        day = now // NS_PER_DAY if is_new_day else day
        n_free, n_ruined = close_bar(a, own, is_new_day, is_on_equity, is_reset_daily)  # 6
        if n_ruined > 0:
            liquidate_lanes(p, a, own, n_open, last_close, close_key[t])
        for s in range(n_symbols):
            queue[s] = s
        if is_by_edge:
            sort_falling(queue, np.int64(n_symbols), keys)
        for k in range(n_symbols):  # 7 entries
            s = np.uintp(queue[k])
            if n_free > 0 and n_wish[s] > 0 and close[t, s] == close[t, s]:
                if is_by_confidence:
                    bet_by_confidence(p, s, a, own)
                if is_by_share:
                    bet_by_share(p, s, a)
                n_pending[s], n_free = govern_lanes(p, s, a, own, close_key[t], bar, is_projected, is_on_equity)
        measure_lanes(a)
        if kept < len(ends) and ends[kept] == np.int64(t):
            for i in range(LANES):
                equity[kept, i] = a[EQUITY + i]
            kept += 1
    for i in range(LANES):
        a[ENDED + i] = a[FILLS + i]
        a[FILLS + i] += a[ENTERED + i]
