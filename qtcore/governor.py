"""Risk governor: whether a trade may be made, and how large. The only code that says no.

A cell is judged in three steps. `screen` needs no account: HOLD, low confidence, shorts switched off, no bar, kill switch; it runs
over a whole block as SIMD. What passes it is governed: `veto_step` asks what holds for every candidate of a bar (drawdown halt, daily
limit), `govern_step` what holds for one (exposure, cooldown). The first rule that hits gives the reason (`spec` 10.3).
Own governor: `qtcore.rebind(qtcore.trade, govern_step=mine)`.
"""

from qtcore.choices import DrawdownBasis, DrawdownReset, ExposureMode, SizingMode
from qtcore.jit import kernel
from qtcore.rules import Reason
from qtcore.types import N_CLOSED, NEVER, NS_PER_DAY, NS_PER_MINUTE, Action

LAST_TRADES = 50  # closed trades that `last_50` looks at


@kernel(inline=True)
def screen_rule(action, confidence, close, min_confidence, is_killed, allow_short):
    """Reason why a cell is refused whatever the account looks like, 0 if it is a candidate. A NaN confidence is a low one."""
    reason = Reason.EMERGENCY_STOP_ACTIVE.value if is_killed else 0
    reason = reason if close == close else Reason.NO_BAR.value
    reason = Reason.SHORTS_DISABLED.value if (action == Action.SELL) & (not allow_short) else reason
    reason = reason if confidence >= min_confidence else Reason.LOW_CONFIDENCE.value
    return reason if (action == Action.SELL) | (action == Action.BUY) else Reason.HOLD_SIGNAL.value


@kernel
def screen(action, confidence, close, params, reason, final_action, size, pnl):
    """Screen a block: action, confidence, close [n, S] in, reason [n, S] out; the other outputs [n, S] are set to "no trade"."""
    min_confidence, is_killed = params["governor"]["min_confidence"], params["governor"]["emergency_stop"] != 0
    allow_short = params["broker"]["allow_short"] != 0
    actions, confidences, closes, reasons = action.reshape(-1), confidence.reshape(-1), close.reshape(-1), reason.reshape(-1)
    finals, sizes, pnls = final_action.reshape(-1), size.reshape(-1), pnl.reshape(-1)
    for i in range(actions.size):
        reasons[i] = screen_rule(actions[i], confidences[i], closes[i], min_confidence, is_killed, allow_short)
        finals[i] = Action.HOLD
    for i in range(actions.size):
        sizes[i] = 0.0
        pnls[i] = 0.0


@kernel(inline=True)
def exit_rule(side, wish, bars_held, horizon, is_flatten):
    """Code of the exit that the close orders for an open position, 0 if it stays: opposite signal, horizon, flattening kill switch.

    side, wish: 1 buys, -1 sells; any other wish holds. horizon: bars, 0 for none. An opposite signal needs no confidence and no permission.
    """
    code = Reason.EMERGENCY_STOP_ACTIVE.value if is_flatten else 0
    code = Reason.HORIZON.value if (horizon > 0) & (bars_held >= horizon) else code
    return Reason.EXIT_SIGNAL.value if wish == -side else code


@kernel(inline=True)
def open_cell_rule(reason, code, is_ordered, side, wish):
    """Reason of a cell whose position is open. reason: what the screen said; code: of the exit; is_ordered: whether it was just ordered.

    An exit-only cell says its exit. A same-direction signal is refused, unless the position has just been ordered to leave.
    """
    is_refused = (wish == side) & (not is_ordered) & (reason != Reason.LOW_CONFIDENCE.value)
    reason = Reason.POSITION_ALREADY_OPEN.value if is_refused else reason
    return code if (wish == -side) | (is_ordered & (wish != side)) else reason


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
    """Reason that holds for every candidate of the bar, 0 if there is none."""
    reason = Reason.DAILY_TRADE_LIMIT_REACHED.value if trades_today >= max_daily_trades else 0
    return Reason.MAX_DRAWDOWN_EXCEEDED.value if is_halted else reason


@kernel(inline=True)
def veto_step(is_halted, account, closed, params):
    """Ask what stops every candidate of the bar. Returns its reason, 0 if there is none.

    is_halted: whether a drawdown halt holds. account: record ACCOUNT, what this bar approved before already in `trades_today`. closed: the
    ring of closed trades, the newest at `(n_closed - 1) % N_CLOSED`. params: record of every layer's parameters.
    """
    return veto_rule(is_halted, account["trades_today"], params["governor"]["max_daily_trades"])


@kernel(inline=True)
def govern_rule(exposure, notional, limit, is_projected, last_loss_time, since):
    """Reason for one candidate in the order of `spec` 10.3: exposure, cooldown, nothing to buy, else APPROVED.

    exposure, notional, limit: quote. last_loss_time, since: ns UTC; a loss exactly at `since` is forgotten.
    """
    planned = exposure + notional if is_projected else exposure
    reason = Reason.APPROVED.value if notional > 0.0 else Reason.ZERO_SIZE.value
    reason = Reason.COOLDOWN_ACTIVE.value if last_loss_time > since else reason
    return Reason.MAX_EXPOSURE_EXCEEDED.value if planned > limit else reason


@kernel
def empirical_odds(closed, n_closed, win_rate, payoff, n):
    """Win rate and payoff of the last n closed trades by their returns, oldest first (`spec` D-64).

    closed: the ring. With fewer than n trades the given `win_rate` and `payoff` stay; so does `payoff` without both wins and losses.
    """
    wins, losses, n_wins, n_losses = 0.0, 0.0, 0, 0
    if n_closed < n:
        return win_rate, payoff
    for i in range(n_closed - n, n_closed):
        ret = closed[i % N_CLOSED]["ret"]
        if ret > 0.0:
            wins += ret
            n_wins += 1
        if ret < 0.0:
            losses -= ret
            n_losses += 1
    if n_wins > 0 and n_losses > 0:
        payoff = (wins / n_wins) / (losses / n_losses)
    return n_wins / n, payoff


@kernel
def last_loss(symbol, closed, n_closed):
    """Time of the newest loss on `symbol` among the last 50 closed trades of all symbols, ns UTC; NEVER if none."""
    newest = NEVER
    for i in range(max(n_closed - LAST_TRADES, 0), n_closed):
        trade = closed[i % N_CLOSED]
        if trade["symbol"] == symbol and trade["pnl"] < 0.0 and trade["time"] > newest:
            newest = trade["time"]
    return newest


@kernel(inline=True)
def base_of(account, params):
    """Choose what drawdown, sizes and limits are measured on: equity, or the realised balance (`spec` 10.6 i)."""
    return account["equity"] if params["governor"]["drawdown_basis"] == DrawdownBasis.EQUITY else account["balance"]


@kernel(inline=True)
def new_day_rule(day, now):
    """Say whether the decision time `now`, ns UTC, lies outside the UTC day number `day`."""
    return (now >= (day + 1) * NS_PER_DAY) | (now < day * NS_PER_DAY)


@kernel(inline=True)
def roll_day(account, now, params):
    """Start a new UTC day if the decision time lies in one; `drawdown_reset = daily` then lifts a halt and restarts the peak."""
    if new_day_rule(account["day"], now):
        account["day"] = now // NS_PER_DAY
        account["trades_today"] = 0
        if params["governor"]["drawdown_reset"] == DrawdownReset.DAILY:
            account["is_halted"] = 0
            account["peak"] = base_of(account, params)


@kernel(inline=True)
def drawdown_rule(peak, base):
    """Drawdown from the peak, a fraction; one that equals the limit passes. A peak of 0.0 has nothing to lose: 0.0."""
    return (peak - base) / peak if peak != 0.0 else 0.0


@kernel(inline=True)
def halt(account, now, params):
    """Halt entries when the drawdown from the peak exceeds the limit; count the halted bars."""
    base, limit = base_of(account, params), params["governor"]["max_drawdown"]
    if account["is_halted"] == 0 and drawdown_rule(account["peak"], base) > limit:
        account["is_halted"] = 1
        if account["halt_time"] == NEVER:
            account["halt_time"] = now
    account["n_halted"] += account["is_halted"]


@kernel(inline=True)
def scale_rule(confidence, is_by_confidence, reference_confidence):
    """Factor of a trade's size: its confidence against the reference, 1.0 where the Kelly share itself follows the confidence."""
    return 1.0 if is_by_confidence else confidence / reference_confidence


@kernel(inline=True)
def edge_share_rule(edge, risk):
    """Kelly's share of capital for a trade that earns `edge` on average with variance `risk`; 0.0 where one is unknown."""
    share = edge / risk
    return share if (risk > 0.0) & (share == share) else 0.0


@kernel(inline=True)
def size_step(confidence, edge, risk, win_rate, payoff, governor):
    """Share of the base that a trade gets under the sizing mode, in [0, max_position] (`spec` 10.4)."""
    is_by_confidence, is_by_edge = (
        governor["sizing_mode"] == SizingMode.KELLY_CONFIDENCE,
        governor["sizing_mode"] == SizingMode.KELLY_EDGE,
    )
    kelly = kelly_rule(confidence if is_by_confidence else win_rate, payoff)
    scale = scale_rule(confidence, is_by_confidence, governor["reference_confidence"])
    kelly, scale = edge_share_rule(edge, risk) if is_by_edge else kelly, 1.0 if is_by_edge else scale
    return size_rule(kelly, governor["kelly_fraction"], scale, governor["max_position"])


@kernel
def govern_step(side, confidence, edge, risk, symbol, now, loss_time, win_rate, payoff, account, position, params):
    """Judge one candidate that no veto of the bar stops. Returns the signed notional (0.0 if refused) and the reason.

    A governor of one's own takes these arguments in this order, by whatever names, and writes to none of the records:

    side: 1 buys, -1 sells; an approved notional has its sign.
    confidence: of the decision, from `governor.min_confidence` to 1.
    edge, risk: what the trade is expected to earn after costs, a fraction, and the variance of that; NaN where the opinion has no price.
    symbol: column of the bars.
    now: decision time, the close of the bar, ns UTC.
    loss_time: newest losing exit of the symbol that the cooldown looks at, ns UTC; NEVER if none.
    win_rate, payoff: the odds of the sizing mode, a fraction, and the mean win over the mean loss.
    account: record ACCOUNT at this close: money in quote, what this bar approved before already in `exposure` and `trades_today`.
    position: record POSITION of the symbol: flat, or ordered to leave at the next open.
    params: record of every layer's parameters, `params["governor"]["max_position"]` for example.

    The notional is in quote. The reason is APPROVED or the code of a refusal, never NONE; types.py declares records, rules.py codes.
    """
    g, base = params["governor"], base_of(account, params)
    notional = base * size_step(confidence, edge, risk, win_rate, payoff, g)
    since = now - g["cooldown_minutes"] * NS_PER_MINUTE
    is_projected = g["exposure_mode"] == ExposureMode.PROJECTED
    reason = govern_rule(account["exposure"], notional, base * g["max_exposure"], is_projected, loss_time, since)
    return (side * notional if reason == Reason.APPROVED else 0.0), reason
