"""What should a cross-sectional book order? A slow twin in dicts and floats, written from `spec` 10.7 alone; `trade` has the rest."""

import math

from qtcore.rules import Reason

HOLD, SELL, BUY = 1, 0, 2
YEAR = 31_557_600 * 10**9
DELAY = {"close": 0, "one_bar_later": 2}


def rebalance(book, bar, row, money, taken):
    """Order what becomes smaller, and return what would become larger: {symbol: signed quote}, before cooldown and daily limit.

    money: gross edge, edge, risk, forecast, beta and, of several horizons, their lengths, of the bar, a list each. taken: symbols with
    an order on its way.
    """
    p, reasons, n = book.p, row["governor_reason"], len(book.symbols)
    base = book.equity if p["governor.drawdown_basis"] == "equity" else book.balance
    is_due = book.t % p["governor.rebalance_bars"] == 0
    targets = band(p, bar, money)
    now, then = [0.0] * n, [0.0] * n
    for s, sym in enumerate(book.symbols):
        is_hole, is_flat = math.isnan(bar["close"][s]), sym["pos"] is None
        if book.equity <= 0.0:
            reasons[s] = Reason.NO_BAR if is_hole and reasons[s] != Reason.LIQUIDATED else Reason.LIQUIDATED
            continue
        price = sym["last_close"] if is_hole else bar["close"][s]
        now[s] = then[s] = (0.0 if is_flat else sym["pos"]["qty"] * price) / base if base > 0.0 else 0.0
        if is_hole or s in taken or not base > 0.0 or (not is_due and targets[s] is not None):
            why = Reason.ZERO_SIZE if not base > 0.0 else Reason.NOT_DUE
            reasons[s] = Reason.NO_BAR if is_hole else Reason.POSITION_ALREADY_OPEN if s in taken else why
        elif targets[s] is None:
            then[s] = 0.0
            reasons[s] = Reason.HOLD_SIGNAL if is_flat else Reason.IN_BAND
        else:
            low, high, wants_short = targets[s]
            then[s] = low if now[s] < low else high if now[s] > high else now[s]
            reasons[s] = Reason.SHORTS_DISABLED if is_flat and wants_short else Reason.IN_BAND
        if p["governor.emergency_stop"] and p["governor.flatten_on_kill"] and not is_flat and sym["exit"] is None:
            order(book, s, Reason.EMERGENCY_STOP_ACTIVE)
            reasons[s], then[s] = Reason.EMERGENCY_STOP_ACTIVE, now[s]
    if book.equity <= 0.0:
        return {}
    wishes, kept, asked = {}, 0.0, 0.0
    for s, sym in enumerate(book.symbols):
        if sym["pos"] is not None and then[s] != now[s] and then[s] * now[s] <= 0.0:  # to the other side, or out
            order(book, s, Reason.EXIT_SIGNAL)
            reasons[s] = Reason.EXIT_SIGNAL
            stays, move = 0.0, abs(then[s])
        else:
            stays, move = min(abs(then[s]), abs(now[s])), abs(then[s]) - abs(now[s])
            if move < 0.0:
                order(book, s, Reason.REDUCED)
                sym["pending"], sym["due"] = (then[s] - now[s]) * base, sym["exit_due"]
                reasons[s] = Reason.REDUCED
        kept += stays
        kept += abs(sym["pending"]) / base if sym["pending"] is not None and sym["exit"] is None and base > 0.0 else 0.0
        if move > 0.0:
            asked += move
            wishes[s] = math.copysign(move * base, then[s])
            if reasons[s] != Reason.EXIT_SIGNAL:
                reasons[s] = Reason.EMERGENCY_STOP_ACTIVE if p["governor.emergency_stop"] else None
    if p["governor.emergency_stop"]:
        return {}
    room = max(p["governor.max_exposure"] - kept, 0.0)
    return {s: wish * min(room / asked, 1.0) for s, wish in wishes.items()}


def order(book, s, code):
    """Order an exit of the position, or of a part."""
    book.symbols[s]["exit"], book.symbols[s]["exit_due"] = code, book.t + DELAY.get(book.p["broker.fill"], 1)


def band(p, bar, money):
    """Lower and upper weight between which each symbol is left, and whether it wants to be short where that is not allowed.

    None where it has no opinion.
    """
    _, _, risk, forecast, beta, holding = money
    n = len(risk)
    known = [s for s in range(n) if not math.isnan(bar["close"][s]) and not math.isnan(forecast[s]) and risk[s] > 0.0]
    betas = [1.0 if math.isnan(b) else b for b in beta] if beta else [1.0] * n
    level, slope = neutral(p["governor.neutral"], known, risk, forecast, betas)
    excess = {s: forecast[s] - level - (slope * betas[s] if slope != 0.0 else 0.0) for s in known}
    aims = {s: p["governor.kelly_fraction"] * excess[s] / risk[s] for s in known}
    if not p["broker.allow_short"]:
        aims = {s: max(aim, 0.0) for s, aim in aims.items()}
    first = max(p["broker.max_holding_bars"], 1)
    share = scaled(p, bar, aims, [v * (first / holding[s]) for s, v in enumerate(risk)] if holding else risk)
    cost = p["governor.band"] * (p["broker.fee_rate"] + p["broker.slippage_rate"])
    most = p["governor.max_position"]
    least = -most if p["broker.allow_short"] else 0.0
    out = [None] * n
    for s in known:
        low, high = share * (excess[s] - cost) / risk[s], share * (excess[s] + cost) / risk[s]
        is_barred = not p["broker.allow_short"] and excess[s] < -cost
        out[s] = min(max(low, least), most), min(max(high, least), most), is_barred
    return out


def scaled(p, bar, aims, risk):
    """Share of excess over variance after all aims are scaled down together to the largest position, the exposure and the volatility."""
    largest = max([abs(aim) for aim in aims.values()], default=0.0)
    factors = [1.0]
    if largest > 0.0:
        factors.append(p["governor.max_position"] / largest)
        factors.append(p["governor.max_exposure"] / total(abs(aim) for aim in aims.values()))
    variance, target = total(aim * aim * risk[s] for s, aim in aims.items()), p["governor.target_volatility"]
    if target > 0.0 and variance > 0.0:
        a_year = YEAR / (bar["close_time"] - bar["open_time"]) / max(p["broker.max_holding_bars"], 1)
        factors.append(target / math.sqrt(variance * a_year))
    return p["governor.kelly_fraction"] * min(factors)


def neutral(kind, known, risk, forecast, betas):
    """What is taken off every forecast, and off it for each unit of beta."""
    ones, money = total(1.0 / risk[s] for s in known), total(forecast[s] / risk[s] for s in known)
    first, second = total(betas[s] / risk[s] for s in known), total(betas[s] * betas[s] / risk[s] for s in known)
    exposed = total(betas[s] * forecast[s] / risk[s] for s in known)
    if kind == "none":
        return 0.0, 0.0
    if kind == "beta":
        return 0.0, exposed / second if second > 0.0 else 0.0
    whole = ones * second - first * first
    if kind == "dollar_beta" and whole > 1e-12 * ones * second:
        return (second * money - first * exposed) / whole, (ones * exposed - first * money) / whole
    return money / ones if ones > 0.0 else 0.0, 0.0


def total(values):
    """Sum left to right."""
    out = 0.0
    for x in values:
        out += x
    return out
