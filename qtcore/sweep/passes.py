"""Passes over SIMD lanes: one for each thing that happens to a symbol or to the account, for 64 settings at once.

The arithmetic is that of the rules of a backtest; a pass loads, asks the rules and selects. p [S, N_POSITION * 64], a [N_ACCOUNT * 64] and
own [N_SETTINGS * 64] are the lanes' positions, accounts and settings, rows as in `layout`; s: the symbol.

All state is float64 in flat rows of 64: accesses with constant offsets from one base are what LLVM can prove independent. Counts and bar
numbers are exact in it; times are in units of `unit` (see `rows.py`).

What is selected is loaded first: a load inside a select kept the loop of `govern_lanes` from becoming SIMD (2026-11, 3 times slower).
"""

import numpy as np

from qtcore.arbiter import opinion_rule, settle_rule
from qtcore.broker import entry_rule, exit_amount_rule, fill_rule, funding_rule, gap_rule, stop_fill_rule, stop_level_rule, stop_rule
from qtcore.chain.price import Bid, costs_rule, price_rule
from qtcore.governor import (
    drawdown_rule,
    edge_share_rule,
    exit_rule,
    govern_rule,
    kelly_rule,
    open_cell_rule,
    scale_rule,
    screen_rule,
    size_rule,
    veto_rule,
)
from qtcore.jit import kernel
from qtcore.metrics import bar_rule
from qtcore.portfolio import change_rule, ruin_rule, slippage_rule, value_rule
from qtcore.rules import Reason
from qtcore.sweep.layout import (
    BALANCE,
    BY_STOP,
    COMMITTED,
    COOLDOWN,
    DELIST_AFTER,
    DRAWDOWN,
    ENTERED,
    ENTRY,
    EQUITY,
    EXIT,
    EXPOSED,
    EXPOSURE,
    FEE_RATE,
    FEES,
    FILLS,
    FUNDING,
    GATE_CONFIDENCE,
    GROSS_LOSS,
    GROSS_WIN,
    HALTED,
    HIGHEST,
    INITIAL_CASH,
    KELLY,
    KELLY_FRACTION,
    LANES,
    LAST,
    LEAVES,
    LONGEST,
    LOSS,
    LOSSES,
    LOW_CONFIDENCE,
    LOWEST,
    MAX_DAILY_TRADES,
    MAX_DRAWDOWN,
    MAX_EXPOSURE,
    MAX_HOLDING_BARS,
    MAX_POSITION,
    MIN_CONFIDENCE,
    MIN_EDGE,
    NOT_DUE,
    NOTIONAL,
    OPENED,
    PAID,
    PAYOFF,
    PEAK,
    PENDING,
    QTY,
    RECEIVED,
    REFERENCE,
    RET,
    RET2,
    RET3,
    RET4,
    SCALE,
    SCORE_THRESHOLD,
    SCREENED,
    SHARE,
    SHORTS,
    SLIPPAGE,
    SLIPPAGE_RATE,
    STOP_LOSS,
    STOPS,
    SURE,
    TOP,
    TRADES,
    TURNOVER,
    UNDER,
    UNREALISED,
    WIN_RATE,
    WINS,
    WISH,
    WORTH,
)


@kernel(inline=True)
def reset_lanes(p, a, own):
    """Begin flat with every lane's own cash."""
    a[:] = 0.0
    p[:] = 0.0
    for s in range(len(p)):
        for i in range(LANES):
            p[s, LOSS + i] = -np.inf
    for i in range(LANES):
        cash = own[INITIAL_CASH + i]
        a[LAST + i] = cash
        a[TOP + i] = cash
        a[BALANCE + i] = cash
        a[EQUITY + i] = cash
        a[PEAK + i] = cash
        a[KELLY + i] = kelly_rule(own[WIN_RATE + i], own[PAYOFF + i])


@kernel(inline=True)
def leave_lanes(p, s, a, own, time):
    """Close symbol s in the lanes that LEAVES names, at their REFERENCE; BY_STOP: whether by the stop. Returns how many still hold it."""
    n_open = 0
    for i in range(LANES):
        qty, entry, reference, rate = p[s, QTY + i], p[s, ENTRY + i], a[REFERENCE + i], own[FEE_RATE + i]
        is_left = a[LEAVES + i] != 0.0
        price = fill_rule(1.0 if -qty > 0.0 else -1.0, reference, own[SLIPPAGE_RATE + i])
        notional, fee = exit_amount_rule(qty, price, rate)
        received, committed, order, loss, by_stop = p[s, PAID + i], p[s, NOTIONAL + i], p[s, EXIT + i], p[s, LOSS + i], a[BY_STOP + i]
        change = change_rule(qty, price, entry, fee, committed * rate)
        pnl = change + received
        a[BALANCE + i] += change if is_left else 0.0
        a[TURNOVER + i] += notional if is_left else 0.0
        a[FEES + i] += fee if is_left else 0.0
        slippage = slippage_rule(qty, price, reference)
        a[SLIPPAGE + i] += slippage if is_left else 0.0
        a[FUNDING + i] += received if is_left else 0.0
        a[GROSS_WIN + i] += pnl if is_left & (pnl > 0.0) else 0.0
        a[GROSS_LOSS + i] -= pnl if is_left & (pnl < 0.0) else 0.0
        a[FILLS + i] += 1.0 if is_left else 0.0
        a[WINS + i] += 1.0 if is_left & (pnl > 0.0) else 0.0
        a[LOSSES + i] += 1.0 if is_left & (pnl < 0.0) else 0.0
        a[SHORTS + i] += 1.0 if is_left & (qty < 0.0) else 0.0
        a[STOPS + i] += by_stop if is_left else 0.0
        p[s, LOSS + i] = time if is_left & (pnl < 0.0) else loss
        kept = 0.0 if is_left else qty
        p[s, QTY + i] = kept
        p[s, ENTRY + i] = 0.0 if is_left else entry
        p[s, NOTIONAL + i] = 0.0 if is_left else committed
        p[s, PAID + i] = 0.0 if is_left else received
        p[s, EXIT + i] = 0.0 if is_left else order
        n_open += kept != 0.0
    return n_open


@kernel(inline=True)
def exits_at_open(p, s, a, own, price):
    """Name the lanes that leave symbol s at the open: an exit was ordered, or the open lies beyond the stop. Returns how many."""
    n = 0
    for i in range(LANES):
        qty, is_ordered = p[s, QTY + i], p[s, EXIT + i] != 0.0
        stop = stop_level_rule(1.0 if qty > 0.0 else -1.0, p[s, ENTRY + i], own[STOP_LOSS + i])
        is_stopped = gap_rule(qty, stop, price) & (not is_ordered)
        leaves = is_ordered | is_stopped
        a[LEAVES + i] = 1.0 if leaves else 0.0
        a[BY_STOP + i] = 1.0 if is_stopped else 0.0
        a[REFERENCE + i] = price
        n += leaves
    return n


@kernel(inline=True)
def exits_in_bar(p, s, a, own, open_price, low, high, last_close, age):
    """Name the lanes whose stop is touched inside the bar, or whose symbol has been gone for `age` bars. Returns how many."""
    n = 0
    for i in range(LANES):
        qty = p[s, QTY + i]
        stop = stop_level_rule(1.0 if qty > 0.0 else -1.0, p[s, ENTRY + i], own[STOP_LOSS + i])
        is_hit = stop_rule(qty, stop, low, high)
        leaves = (is_hit | (age >= own[DELIST_AFTER + i])) & (qty != 0.0)
        a[LEAVES + i] = 1.0 if leaves else 0.0
        a[BY_STOP + i] = 1.0 if is_hit else 0.0
        a[REFERENCE + i] = stop_fill_rule(qty, stop, open_price) if is_hit else last_close
        n += leaves
    return n


@kernel(inline=True)
def enter_lanes(p, s, a, own, price_before, bar):
    """Fill the pending entries of symbol s at the open. Returns how many lanes hold it, and the bar from which a horizon may end."""
    n_open, due = 0, NOT_DUE
    for i in range(LANES):
        pending, rate, held, entry, committed = p[s, PENDING + i], own[FEE_RATE + i], p[s, QTY + i], p[s, ENTRY + i], p[s, NOTIONAL + i]
        opened = p[s, OPENED + i]
        is_filled = pending != 0.0
        side, notional = 1.0 if pending > 0.0 else -1.0, abs(pending)
        price = fill_rule(side, price_before, own[SLIPPAGE_RATE + i])
        bought, fee = entry_rule(side, notional, price, rate)
        a[TURNOVER + i] += notional  # 0.0 where nothing is pending
        a[FEES + i] += fee
        a[SLIPPAGE + i] += slippage_rule(bought, price, price_before)
        a[ENTERED + i] += 1.0 if is_filled else 0.0
        qty = bought if is_filled else held
        opened = bar if is_filled else opened
        p[s, QTY + i] = qty
        p[s, ENTRY + i] = price if is_filled else entry
        p[s, NOTIONAL + i] = notional if is_filled else committed
        p[s, OPENED + i] = opened
        p[s, PENDING + i] = 0.0
        n_open += qty != 0.0
        ends = np.int64(opened + own[MAX_HOLDING_BARS + i])
        ends = ends if qty != 0.0 else NOT_DUE
        due = ends if ends < due else due
    return n_open, due


@kernel(inline=True)
def note_stops(p, s, a, own):
    """Return the highest stop of a long position in symbol s, and the lowest of a short one; infinite without."""
    for i in range(LANES):
        qty = p[s, QTY + i]
        stop = stop_level_rule(1.0 if qty > 0.0 else -1.0, p[s, ENTRY + i], own[STOP_LOSS + i])
        a[HIGHEST + i] = stop if qty > 0.0 else -np.inf
        a[LOWEST + i] = stop if qty < 0.0 else np.inf
    for i in range(LANES // 2):
        high, low, above, below = a[HIGHEST + i], a[LOWEST + i], a[HIGHEST + i + LANES // 2], a[LOWEST + i + LANES // 2]
        a[HIGHEST + i] = above if above > high else high
        a[LOWEST + i] = below if below < low else low
    for i in range(LANES // 4):
        high, low, above, below = a[HIGHEST + i], a[LOWEST + i], a[HIGHEST + i + LANES // 4], a[LOWEST + i + LANES // 4]
        a[HIGHEST + i] = above if above > high else high
        a[LOWEST + i] = below if below < low else low
    highest, lowest = -np.inf, np.inf
    for i in range(LANES // 4):
        highest = a[HIGHEST + i] if a[HIGHEST + i] > highest else highest
        lowest = a[LOWEST + i] if a[LOWEST + i] < lowest else lowest
    return highest, lowest


@kernel(inline=True)
def pay_lanes(p, s, a, price, rate):
    """Pay or receive the funding that is due on symbol s."""
    for i in range(LANES):
        received = funding_rule(p[s, QTY + i], price, rate)
        p[s, PAID + i] += received
        a[RECEIVED + i] += received


@kernel(inline=True)
def mark_lanes(p, s, a, own, last_close):
    """Add what symbol s has gained at the close, what it ties up and what it is worth."""
    for i in range(LANES):
        notional = p[s, NOTIONAL + i]
        qty = p[s, QTY + i]
        a[UNREALISED + i] += value_rule(qty, last_close, p[s, ENTRY + i], notional * own[FEE_RATE + i])
        a[COMMITTED + i] += notional
        a[WORTH + i] += abs(qty) * last_close


@kernel(inline=True)
def opine_lanes(p, s, own, action, confidence, is_called, is_called_low, score, is_killed, allows_short, is_by_confidence, reference):
    """Decide symbol s and screen it. Returns how many lanes pass the screen."""
    n, scale_if_asked = 0, scale_rule(settle_rule(score, 0.0)[1], is_by_confidence, reference)
    scale_else = scale_rule(confidence, is_by_confidence, reference)
    for i in range(LANES):
        low, threshold, gate = own[LOW_CONFIDENCE + i], own[SCORE_THRESHOLD + i], own[GATE_CONFIDENCE + i]
        asked, firm = settle_rule(score, threshold)
        is_due = is_called_low if confidence < low else is_called
        chosen, sure, is_asked = opinion_rule(action, confidence, is_due, asked, firm, gate)
        screened = screen_rule(chosen, sure, 0.0, own[MIN_CONFIDENCE + i], is_killed, allows_short)
        p[s, WISH + i] = chosen - 1
        p[s, SURE + i] = sure
        p[s, SCALE + i] = scale_if_asked if is_asked else scale_else  # two divisions a cell, none a lane
        p[s, SCREENED + i] = screened
        n += screened == 0
    return n


@kernel(inline=True)
def price_lanes(p, s, own, bids, cell, is_killed, allows_short, is_by_confidence, is_by_share, reference):
    """Decide symbol s by what each lane's costs leave of the bids in a column of bids [7, N], and screen it. Returns how many pass."""
    bid, win, risk = bids[Bid.ENSEMBLE, cell], bids[Bid.WIN, cell], bids[Bid.RISK, cell]
    other, other_win, other_risk, carry = (
        bids[Bid.ARBITER, cell],
        bids[Bid.ARBITER_WIN, cell],
        bids[Bid.ARBITER_RISK, cell],
        bids[Bid.CARRY, cell],
    )
    n, scale, other_scale = 0, scale_rule(win, is_by_confidence, reference), scale_rule(other_win, is_by_confidence, reference)
    for i in range(LANES):
        costs, due = costs_rule(own[FEE_RATE + i], own[SLIPPAGE_RATE + i]), own[MAX_HOLDING_BARS + i] * carry
        chosen, edge, _, is_arbiter = price_rule(bid, other, costs, due, due, own[MIN_EDGE + i])
        action = 2 if chosen > 0.0 else (0 if chosen < 0.0 else 1)
        sure = other_win if is_arbiter else win
        share = edge_share_rule(edge, other_risk if is_arbiter else risk)
        scaled = other_scale if is_arbiter else scale
        screened = screen_rule(action, sure, 0.0, own[MIN_CONFIDENCE + i], is_killed, allows_short)
        p[s, WISH + i] = 0.0 if screened == Reason.LOW_CONFIDENCE.value else action - 1.0
        p[s, SURE + i] = share if is_by_share else sure
        p[s, SCALE + i] = 1.0 if is_by_share else scaled
        p[s, SCREENED + i] = screened
        n += screened == 0
    return n


@kernel(inline=True)
def screen_lanes(p, s, own, action, confidence, is_killed, allows_short, is_by_confidence, reference):
    """Screen the opinion that all lanes share. Returns how many lanes pass."""
    n, wish, scale = 0, action - 1.0, scale_rule(confidence, is_by_confidence, reference)
    for i in range(LANES):
        screened = screen_rule(action, confidence, 0.0, own[MIN_CONFIDENCE + i], is_killed, allows_short)
        p[s, WISH + i] = wish
        p[s, SURE + i] = confidence
        p[s, SCALE + i] = scale
        p[s, SCREENED + i] = screened
        n += screened == 0
    return n


@kernel(inline=True)
def order_exits(p, s, own, bar):
    """Order the exits of symbol s: an opposite signal, the horizon. Returns how many lanes will leave, and the next bar of a horizon."""
    n, due = 0, NOT_DUE
    for i in range(LANES):
        qty, before, opened = p[s, QTY + i], p[s, EXIT + i], p[s, OPENED + i]
        side = 1.0 if qty > 0.0 else -1.0
        code = exit_rule(side, p[s, WISH + i], bar - opened + 1.0, own[MAX_HOLDING_BARS + i], False)
        order = bar + 1.0 if (code != 0) & (before == 0.0) & (qty != 0.0) else before
        p[s, EXIT + i] = order
        n += order != 0.0
        ends = np.int64(opened + own[MAX_HOLDING_BARS + i])
        ends = ends if (qty != 0.0) & (order == 0.0) else NOT_DUE
        due = ends if ends < due else due
    return n, due


@kernel(inline=True)
def close_bar(a, own, is_new_day, is_on_equity, is_reset_daily):
    """Add up the account, begin a day, halt after a drawdown. Returns how many lanes may enter, and how many have just been ruined."""
    n_free, n_ruined = 0, 0
    for i in range(LANES):
        balance = a[BALANCE + i] + a[RECEIVED + i]
        equity = balance + a[UNREALISED + i]
        n_ruined += ruin_rule(equity, a[LAST + i])
        base = equity if is_on_equity else balance
        peak, is_halted, trades = a[PEAK + i], a[HALTED + i], a[TRADES + i]
        peak = base if base > peak else peak
        peak = base if is_new_day & is_reset_daily else peak
        is_halted = 0.0 if is_new_day & is_reset_daily else is_halted
        a[BALANCE + i] = balance
        a[EQUITY + i] = equity
        a[PEAK + i] = peak
        is_halted = 1.0 if drawdown_rule(peak, base) > own[MAX_DRAWDOWN + i] else is_halted
        trades = 0.0 if is_new_day else trades
        a[HALTED + i] = is_halted
        a[EXPOSURE + i] = a[COMMITTED + i]
        a[TRADES + i] = trades
        a[UNREALISED + i] = 0.0
        a[COMMITTED + i] = 0.0
        a[RECEIVED + i] = 0.0
        n_free += veto_rule(is_halted != 0.0, trades, own[MAX_DAILY_TRADES + i]) == 0
    return n_free, n_ruined


@kernel(inline=True)
def bet_by_confidence(p, s, a, own):
    """Work out the Kelly share of symbol s from its confidence."""
    for i in range(LANES):
        a[KELLY + i] = kelly_rule(p[s, SURE + i], own[PAYOFF + i])


@kernel(inline=True)
def bet_by_share(p, s, a):
    """Take the Kelly share that the edge of symbol s asks for."""
    for i in range(LANES):
        a[KELLY + i] = p[s, SURE + i]


@kernel(inline=True)
def govern_lanes(p, s, a, own, now, bar, is_projected, is_on_equity):
    """Judge the entries of symbol s. Returns how many lanes will enter, and how many may enter yet."""
    n, n_free = 0, 0
    for i in range(LANES):
        qty, wish, screened, limit = p[s, QTY + i], p[s, WISH + i], p[s, SCREENED + i], own[MAX_DAILY_TRADES + i]
        equity, balance, is_halted, trades = a[EQUITY + i], a[BALANCE + i], a[HALTED + i] != 0.0, a[TRADES + i]
        is_ordered = p[s, EXIT + i] == bar + 1.0
        held = open_cell_rule(screened, Reason.EXIT_SIGNAL.value, is_ordered, 1.0 if qty > 0.0 else -1.0, wish)
        refused = screened if qty == 0.0 else held
        base = equity if is_on_equity else balance
        notional = base * size_rule(a[KELLY + i], own[KELLY_FRACTION + i], p[s, SCALE + i], own[MAX_POSITION + i])
        since = now - own[COOLDOWN + i]
        reason = govern_rule(a[EXPOSURE + i], notional, base * own[MAX_EXPOSURE + i], is_projected, p[s, LOSS + i], since)
        is_approved = (refused == 0) & (veto_rule(is_halted, trades, limit) == 0) & (reason == Reason.APPROVED.value)
        pending = wish * notional if is_approved else 0.0
        trades += 1.0 if is_approved else 0.0
        p[s, PENDING + i] = pending
        a[EXPOSURE + i] += abs(pending)
        a[TRADES + i] = trades
        n += is_approved
        n_free += veto_rule(is_halted, trades, limit) == 0
    return n, n_free


@kernel(inline=True)
def measure_lanes(a):
    """Count the bar in every lane's METRICS."""
    for i in range(LANES):
        equity, worth = a[EQUITY + i], a[WORTH + i]
        a[WORTH + i] = 0.0
        ret, share, under, top, drawdown = bar_rule(equity, worth, a[LAST + i], a[TOP + i], a[UNDER + i])
        a[LAST + i] = equity
        a[RET + i] += ret
        a[RET2 + i] += ret * ret
        a[RET3 + i] += ret * ret * ret
        a[RET4 + i] += (ret * ret) * (ret * ret)
        a[SHARE + i] += share
        a[EXPOSED + i] += 1.0 if worth > 0.0 else 0.0
        a[UNDER + i] = under
        a[LONGEST + i] = max(a[LONGEST + i], under)
        a[TOP + i] = top
        a[DRAWDOWN + i] = max(a[DRAWDOWN + i], drawdown)
