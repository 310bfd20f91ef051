"""May this trade be made, and how large? The only code that says no.

A cell is judged in two steps. The *screen* needs no account: HOLD, low confidence, shorts switched off, no bar, kill switch; it runs
over a whole block as SIMD. What passes it is *governed* in order: drawdown halt and daily limit (the same for every candidate of a
bar), then exposure and cooldown. The first rule that hits gives the reason (`spec` 10.3). Own governor: `rebind(trade, govern_step=mine)`.
"""

from qtcore.jit import kernel
from qtcore.params import CooldownScope, DrawdownBasis, DrawdownReset, ExposureMode, SizingMode
from qtcore.types import N_CLOSED, NEVER, NS_PER_DAY, NS_PER_MINUTE, Action, Reason

LAST_TRADES = 50  # closed trades that `last_50` looks at


@kernel(inline=True)
def screen_rule(action, confidence, close, min_confidence, is_killed, allow_short):
    """Reason why a cell is refused whatever the account looks like, NONE if it is a candidate. A NaN confidence is a low one."""
    reason = Reason.EMERGENCY_STOP_ACTIVE if is_killed else Reason.NONE
    reason = reason if close == close else Reason.NO_BAR
    reason = Reason.SHORTS_DISABLED if (action == Action.SELL) & (not allow_short) else reason
    reason = reason if confidence >= min_confidence else Reason.LOW_CONFIDENCE
    return reason if (action == Action.SELL) | (action == Action.BUY) else Reason.HOLD_SIGNAL


@kernel
def screen(action, confidence, close, params, reason, final_action, size, pnl):
    """Screen a block: action, confidence, close [n, S] in, reason [n, S] out; the other outputs [n, S] are set to "no trade"."""
    g, allow_short = params[0]["governor"], params[0]["broker"]["allow_short"] != 0
    min_confidence, is_killed = g["min_confidence"], g["emergency_stop"] != 0
    for t in range(action.shape[0]):
        for s in range(action.shape[1]):
            reason[t, s] = screen_rule(action[t, s], confidence[t, s], close[t, s], min_confidence, is_killed, allow_short)
            final_action[t, s] = Action.HOLD
            size[t, s] = 0.0
            pnl[t, s] = 0.0


@kernel(inline=True)
def kelly_rule(win_rate, payoff):
    """Kelly's share of capital for a bet that wins `payoff` with probability `win_rate` and else loses 1 (`spec` 10.4)."""
    return (win_rate * payoff - (1.0 - win_rate)) / payoff


@kernel(inline=True)
def size_rule(kelly, kelly_fraction, scale, max_position):
    """Share of the base to risk: a fraction of Kelly's share, scaled by confidence, clamped to [0, max_position]."""
    share = kelly * kelly_fraction * scale
    share = share if share > 0.0 else 0.0
    return share if share < max_position else max_position


@kernel(inline=True)
def veto_rule(is_halted, trades_today, max_daily_trades):
    """Reason that holds for every candidate of the bar, NONE if there is none."""
    reason = Reason.DAILY_TRADE_LIMIT_REACHED if trades_today >= max_daily_trades else Reason.NONE
    return Reason.MAX_DRAWDOWN_EXCEEDED if is_halted else reason


@kernel(inline=True)
def govern_rule(veto, exposure, notional, limit, is_projected, last_loss_time, since):
    """Reason for one candidate in the order of `spec` 10.3: the bar's veto, exposure, cooldown, nothing to buy, else APPROVED.

    exposure, notional, limit: quote. last_loss_time, since: ns UTC; a loss exactly at `since` is forgotten.
    """
    planned = exposure + notional if is_projected else exposure
    reason = Reason.APPROVED if notional > 0.0 else Reason.ZERO_SIZE
    reason = Reason.COOLDOWN_ACTIVE if last_loss_time > since else reason
    reason = Reason.MAX_EXPOSURE_EXCEEDED if planned > limit else reason
    return veto if veto != Reason.NONE else reason


@kernel
def odds(confidence, closed, n_closed, governor):
    """Win rate, payoff and confidence scale that the sizing mode uses.

    `kelly_empirical` takes them from the returns of the last `kelly_trades` closed trades, oldest first; with fewer, or for a payoff
    without both wins and losses, the constants stand in.
    """
    win_rate, payoff, scale = governor["win_rate"], governor["payoff"], confidence / governor["reference_confidence"]
    if governor["sizing_mode"] == SizingMode.KELLY_CONFIDENCE:
        return confidence, payoff, 1.0
    n = governor["kelly_trades"]
    if governor["sizing_mode"] == SizingMode.KELLY_EMPIRICAL and n_closed >= n:
        wins, losses, n_wins, n_losses = 0.0, 0.0, 0, 0
        for i in range(n_closed - n, n_closed):
            ret = closed[i % N_CLOSED]["ret"]
            if ret > 0.0:
                wins += ret
                n_wins += 1
            if ret < 0.0:
                losses -= ret
                n_losses += 1
        win_rate = n_wins / n
        if n_wins > 0 and n_losses > 0:
            payoff = (wins / n_wins) / (losses / n_losses)
    return win_rate, payoff, scale


@kernel
def last_loss(symbol, position, closed, n_closed, scope):
    """Time of the newest loss that counts for `symbol`, ns UTC; NEVER if none."""
    if scope == CooldownScope.SYMBOL_LAST_LOSS:
        return position["last_loss_time"]
    newest = NEVER
    for i in range(max(n_closed - LAST_TRADES, 0), n_closed):
        trade = closed[i % N_CLOSED]
        if trade["symbol"] == symbol and trade["pnl"] < 0.0 and trade["time"] > newest:
            newest = trade["time"]
    return newest


@kernel
def base_of(account, governor):
    """Choose what drawdown, sizes and limits are measured on: equity, or the realised balance (`spec` 10.6 i)."""
    return account[0]["equity"] if governor["drawdown_basis"] == DrawdownBasis.EQUITY else account[0]["balance"]


@kernel
def roll_day(account, now, params):
    """Start a new UTC day if the decision time lies in one; `drawdown_reset = daily` then lifts a halt and restarts the peak."""
    a = account[0]
    if now >= (a["day"] + 1) * NS_PER_DAY or now < a["day"] * NS_PER_DAY:
        a["day"] = now // NS_PER_DAY
        a["trades_today"] = 0
        if params[0]["governor"]["drawdown_reset"] == DrawdownReset.DAILY:
            a["is_halted"] = 0
            a["peak"] = base_of(account, params[0]["governor"])


@kernel
def halt(account, now, params):
    """Halt entries when the drawdown from the peak exceeds the limit (a drawdown equal to it passes); count the halted bars."""
    a = account[0]
    base = base_of(account, params[0]["governor"])
    if a["is_halted"] == 0 and (a["peak"] - base) / a["peak"] > params[0]["governor"]["max_drawdown"]:
        a["is_halted"] = 1
        if a["halt_time"] == NEVER:
            a["halt_time"] = now
    a["n_halted"] += a["is_halted"]


@kernel
def govern_step(side, confidence, symbol, now, veto, account, positions, closed, params):
    """Judge one candidate. side: 1.0 buys, -1.0 sells. Returns the signed notional (0.0 if refused) and the reason."""
    g, a = params[0]["governor"], account[0]
    base = base_of(account, g)
    win_rate, payoff, scale = odds(confidence, closed, a["n_closed"], g)
    notional = base * size_rule(kelly_rule(win_rate, payoff), g["kelly_fraction"], scale, g["max_position"])
    is_projected = g["exposure_mode"] == ExposureMode.PROJECTED
    loss = last_loss(symbol, positions[symbol], closed, a["n_closed"], g["cooldown_scope"])
    since = now - g["cooldown_minutes"] * NS_PER_MINUTE
    reason = govern_rule(veto, a["exposure"], notional, base * g["max_exposure"], is_projected, loss, since)
    return (side * notional if reason == Reason.APPROVED else 0.0), reason
