"""What should the governor, the broker and the books do? A slow twin in dicts and floats, written from `spec` 0.2, 10 and 17 alone.

It shares nothing with qtcore but the codes of its enums and the columns of its ledger. Parameters come as `Params().flat()`. Sums run
left to right in the order the specification names, so the comparison with the kernels is one of bits. What the text leaves open is
decided here and there alike:

- an opposite signal on the bar whose horizon ends is an exit (k) and no flip; a same-direction signal there may re-enter (l);
- a position ordered to leave keeps that reason when the open lies beyond its stop as well; an open equal to the stop is not beyond it;
- entries are refused with NO_BAR at a hole; a cancelled entry shows as NO_BAR (kill switch: EMERGENCY_STOP_ACTIVE) in the cell where it
  would have been filled, unless a position is open there;
- a Kelly share of zero is refused (ZERO_SIZE): nothing is approved without a size;
- a mark that leaves no equity ends the account: everything is closed there (LIQUIDATED), what is owed is written off, nothing is approved
  later (LIQUIDATED); the losing cells of that bar share the write-off, so that all cells add up to minus the equity before. Orders on their
  way are cancelled there (LIQUIDATED);
- a book (`tests.naive.book`) adds to a position at the mean of both prices; what a closed part brings waits in the fee of the rest;
- an order has a bar in which it is due; while an entry is on its way, and nothing is open, another one is POSITION_ALREADY_OPEN.
"""

import math

from qtcore.rules import Reason
from qtcore.types import FILL
from tests.naive.book import rebalance

SELL, HOLD, BUY = 0, 1, 2
NAN = math.nan
DAY, MINUTE = 86_400 * 10**9, 60 * 10**9
DELAY = {"close": 0, "one_bar_later": 2}  # bars from a decision to its fill, else 1


class Book:
    """The account, one dict per symbol, and the history of closed trades."""

    def __init__(self, p, n_symbols):
        cash = p["broker.initial_cash"]
        self.p = p
        self.balance = self.equity = self.peak = cash
        self.exposure = self.fees = self.slippage = self.funding = 0.0
        self.day, self.trades_today, self.halted, self.n_halted, self.halt_time = None, 0, False, 0, None
        self.n_trades, self.n_cancelled, self.t = 0, 0, -1
        flat = {"pos": None, "pending": None, "due": -1, "exit": None, "exit_due": -1, "last_close": NAN, "last_bar": -1, "last_loss": None}
        self.symbols = [{**flat, "traded": 0.0, "lasts": None} for _ in range(n_symbols)]
        self.history, self.ledger = [], []


def trade(bars, actions, confidences, p, book=None, funding=None, money=None):
    """Run bars (dict of lists) through the account. Returns the book and a dict of outputs, one row per bar.

    money: gross edge, edge and risk of every cell, for a book forecast and beta, and of several horizons how many bars a trade lasts, a
    list of rows each, empty where nobody asks; None where the opinion has no price.
    """
    n_symbols = len(bars["close"][0])
    book = book or Book(p, n_symbols)
    names = ("final_action", "governor_reason", "size", "pnl", "equity", "balance", "exposure", "worth")
    out = {name: [] for name in names}
    for i in range(len(bars["close"])):
        bar = {name: column[i] for name, column in bars.items()}
        bar["funding"] = funding[i] if funding else None
        book.t += 1
        book.money = None if money is None else [plane[i] if plane else [] for plane in money]
        zeros = [0.0] * n_symbols
        row = {"final_action": [HOLD] * n_symbols, "governor_reason": [None] * n_symbols, "size": [*zeros], "pnl": [*zeros]}
        fill_exits(book, bar, row, bar["open"], bar["open_time"], at_open=True)
        cancelled = {} if is_at_close(p) else fill_entries(book, bar, row, bar["open"], bar["open_time"])
        fill_stops(book, bar, row)
        pay_funding(book, bar, row)
        before = book.equity
        mark(book, bar, row)
        basis = base_of(book)
        book.peak = max(book.peak, basis)
        gone = liquidate(book, bar, row, before) if book.equity <= 0.0 < before else []
        if p["broker.fill"] == "next_close":
            late, ruined = fill_at_close(book, bar, row, before)
            cancelled, gone = cancelled | late, gone + ruined
        roll_day(book, bar)
        halt(book, bar)
        govern(book, bar, row, actions[i], confidences[i], cancelled | dict.fromkeys(gone, Reason.LIQUIDATED))
        if p["broker.fill"] == "close":
            for s in fill_at_close(book, bar, row, before)[1]:
                if row["governor_reason"][s] != Reason.APPROVED:
                    row["governor_reason"][s] = int(Reason.LIQUIDATED)
        if p["broker.impact"] > 0.0:
            for s, sym in enumerate(book.symbols):
                amount = bar["close"][s] * bar["volume"][s]
                sym["traded"] = amount if amount > 0.0 else sym["traded"]
        for name in ("equity", "balance", "exposure"):
            row[name] = getattr(book, name)
        row["worth"] = 0.0
        for sym in book.symbols:
            row["worth"] += abs(sym["pos"]["qty"]) * sym["last_close"] if sym["pos"] else 0.0
        for name in names:
            out[name].append(row[name])
    return book, out


def is_at_close(p):
    """Whether orders are filled at a close."""
    return p["broker.fill"] in ("close", "next_close")


def fill_at_close(book, bar, row, before):
    """10.6 d: orders that are due at this close, and the mark after them. Returns {symbol: reason} of the cancelled, and the ruined."""
    fill_exits(book, bar, row, bar["close"], bar["close_time"], at_open=False)
    cancelled = fill_entries(book, bar, row, bar["close"], bar["close_time"])
    marked = book.equity
    mark(book, bar, row)
    book.peak = max(book.peak, base_of(book))
    return cancelled, liquidate(book, bar, row, before) if book.equity <= 0.0 < marked else []


def traded_before(close, volume, last):
    """Quote volume of the last bar with any, before each bar of one symbol."""
    out = []
    for price, amount in zip(close, volume):
        out.append(last)
        last = price * amount if price * amount > 0.0 else last
    return out


def side_of(pos):
    """Sign of an open position."""
    return 1.0 if pos["qty"] > 0.0 else -1.0


def fill_exits(book, bar, row, prices, time, at_open):
    """10.6 b 1: ordered exits; at the open also positions whose open lies beyond the stop."""
    for s, sym in enumerate(book.symbols):
        pos, price = sym["pos"], prices[s]
        if pos is None or math.isnan(price):
            continue
        beyond = price < pos["stop"] if side_of(pos) > 0 else price > pos["stop"]
        is_due = sym["exit"] is not None and book.t >= sym["exit_due"] and not (at_open and book.p["broker.fill"] == "next_close")
        if is_due and sym["exit"] == Reason.REDUCED:
            reduce(book, s, worst(book, bar, s, -side_of(pos), price), time, row)
        elif is_due:
            leave(book, s, worst(book, bar, s, -side_of(pos), price), time, sym["exit"], row)
        elif at_open and beyond:
            leave(book, s, worst(book, bar, s, -side_of(pos), price), time, Reason.STOP, row)


def worst(book, bar, s, side, price):
    """10.6 d: the worst price of the bar for who buys (side 1.0) or sells, where that is assumed; else `price`."""
    if book.p["broker.fill"] != "worst":
        return price
    return bar["high"][s] if side > 0.0 else bar["low"][s]


def fill_entries(book, bar, row, prices, time):
    """10.6 b 2, r: ordered entries; a hole or the kill switch cancels. Returns {symbol: reason} of the cancelled, None under a position."""
    cancelled = {}
    for s, sym in enumerate(book.symbols):
        if sym["pending"] is None or sym["exit"] == Reason.REDUCED or (book.t < sym["due"] and not book.p["governor.emergency_stop"]):
            continue
        if book.p["governor.emergency_stop"]:
            cancelled[s] = Reason.EMERGENCY_STOP_ACTIVE if sym["pos"] is None else None
        elif math.isnan(prices[s]):
            cancelled[s] = Reason.NO_BAR if sym["pos"] is None else None
        else:
            enter(book, s, worst(book, bar, s, sym["pending"], prices[s]), time)
        sym["pending"] = None
    book.n_cancelled += len(cancelled)
    return cancelled


def enter(book, s, price, time):
    """10.6 d, e, i, j: fixed notional, slippage against us, stop from the fill price."""
    p, notional = book.p, abs(book.symbols[s]["pending"])
    side = 1.0 if book.symbols[s]["pending"] > 0.0 else -1.0
    fill = moved(book, s, side, price, notional) * (1.0 + side * p["broker.slippage_rate"])
    qty = side * (notional / fill)
    stop = fill * (1.0 - side * p["governor.stop_loss"])
    fee = notional * p["broker.fee_rate"]
    if (pos := book.symbols[s]["pos"]) is not None:
        pos["entry"] = (pos["qty"] * pos["entry"] + qty * fill) / (pos["qty"] + qty)
        pos["stop"] = pos["entry"] * (1.0 - side * p["governor.stop_loss"])
        pos["qty"], pos["notional"], pos["fee"] = pos["qty"] + qty, pos["notional"] + notional, pos["fee"] + fee
        note_fill(book, s, time, pos["id"], 1, Reason.ADDED, qty, fill, price, notional, pos["stop"], fee, 0.0, 0.0)
        return
    pos = {"qty": qty, "entry": fill, "notional": notional, "fee": fee, "stop": stop, "bar": book.t, "time": time}
    book.symbols[s]["pos"] = {**pos, "id": book.n_trades, "funding": 0.0, "unrealised": 0.0}
    book.n_trades += 1
    note_fill(book, s, time, book.symbols[s]["pos"]["id"], 1, Reason.APPROVED, qty, fill, price, notional, stop, fee, 0.0, 0.0)


def moved(book, s, side, price, notional):
    """10.6 e: the price after an order of `notional` has moved it, by the root of its share in what the bar before traded."""
    impact, traded = book.p["broker.impact"], book.symbols[s]["traded"]
    if impact == 0.0:
        return price
    return price * (1.0 + side * (min(impact * math.sqrt(notional / traded), 0.5) if traded > 0.0 else 0.5))


def reduce(book, s, price, time, row):
    """10.7: close what is pending of a position; what it brings, less the fee, waits in the fee of the rest."""
    sym, p = book.symbols[s], book.p
    pos, side, part = sym["pos"], -side_of(sym["pos"]), abs(sym["pending"]) / price
    if part >= abs(pos["qty"]):
        leave(book, s, price, time, Reason.EXIT_SIGNAL, row)
        return
    fill = moved(book, s, side, price, part * price) * (1.0 + side * p["broker.slippage_rate"])
    qty, sym["pending"], sym["exit"] = side * part, None, None
    notional = abs(qty) * fill
    fee = notional * p["broker.fee_rate"]
    pos["notional"] *= (pos["qty"] + qty) / pos["qty"]
    pos["fee"] = (pos["fee"] + fee) + qty * (fill - pos["entry"])
    pos["qty"] += qty
    note_fill(book, s, time, pos["id"], 0, Reason.REDUCED, qty, fill, price, notional, NAN, fee, 0.0, 0.0)


def leave(book, s, price, time, reason, row):
    """10.6 f: close in full; the balance changes once, by (gross - exit fee) - entry fee (0.2)."""
    sym, p = book.symbols[s], book.p
    pos, sym["pos"] = sym["pos"], None
    sym["pending"] = None if sym["exit"] == Reason.REDUCED else sym["pending"]
    sym["exit"] = None
    side, worth = -side_of(pos), abs(pos["qty"]) * price
    fill = moved(book, s, side, price, worth) * (1.0 + side * p["broker.slippage_rate"])
    notional = abs(pos["qty"]) * fill
    fee = notional * p["broker.fee_rate"]
    change = (pos["qty"] * (fill - pos["entry"]) - fee) - pos["fee"]
    pnl = change + pos["funding"]
    book.balance += change
    book.history.append({"time": time, "symbol": s, "pnl": pnl, "ret": pnl / pos["notional"]})
    if pnl < 0.0:
        sym["last_loss"] = time
    row["pnl"][s] += change - pos["unrealised"]
    note_fill(book, s, time, pos["id"], 0, reason, -pos["qty"], fill, price, notional, NAN, fee, pos["funding"], pnl)


def note_fill(book, s, time, trade_id, is_entry, reason, qty, price, reference, notional, stop, fee, funding, pnl):
    """Append one row to the ledger and add up what it cost."""
    slippage = abs(qty) * abs(price - reference)
    book.fees += fee
    book.slippage += slippage
    values = (time, book.t, s, trade_id, is_entry, int(reason), qty, price, reference, notional, stop, fee, slippage, funding, pnl)
    book.ledger.append(dict(zip(FILL.names, values)))


def fill_stops(book, bar, row):
    """10.6 b 3, j, r: stops with high and low, fill-bar entries included; after too many holes the position is delisted."""
    for s, sym in enumerate(book.symbols):
        pos = sym["pos"]
        if pos is None:
            continue
        if math.isnan(bar["close"][s]):
            if book.t - sym["last_bar"] >= book.p["broker.delist_after"]:
                leave(book, s, sym["last_close"], bar["close_time"], Reason.DELISTED, row)
        elif side_of(pos) > 0 and bar["low"][s] <= pos["stop"]:
            leave(book, s, worst(book, bar, s, -1.0, min(pos["stop"], bar["open"][s])), bar["close_time"], Reason.STOP, row)
        elif side_of(pos) < 0 and bar["high"][s] >= pos["stop"]:
            leave(book, s, worst(book, bar, s, 1.0, max(pos["stop"], bar["open"][s])), bar["close_time"], Reason.STOP, row)


def pay_funding(book, bar, row):
    """10.6 s: a long held at the close pays qty * close * rate, a short receives it; the bar's payments are added up, then booked."""
    paid = 0.0
    for s, sym in enumerate(book.symbols):
        pos, price = sym["pos"], bar["close"][s]
        rate = bar["funding"][s] if bar["funding"] else NAN
        if pos is not None and not math.isnan(price) and not math.isnan(rate):
            received = -(pos["qty"] * price * rate)
            pos["funding"] += received
            row["pnl"][s] += received
            paid += received
    book.funding += paid
    book.balance += paid


def mark(book, bar, row):
    """0.2: unrealised PnL and exposure summed in symbol order at the last valid closes; equity is balance plus unrealised."""
    unrealised = exposure = 0.0
    for s, sym in enumerate(book.symbols):
        pos, price = sym["pos"], bar["close"][s]
        if not math.isnan(price):
            sym["last_close"], sym["last_bar"] = price, book.t
        if pos is not None:
            value = pos["qty"] * (sym["last_close"] - pos["entry"]) - pos["fee"]
            row["pnl"][s] += value - pos["unrealised"]
            pos["unrealised"] = value
            unrealised += value
            exposure += pos["notional"]
        if sym["pending"] is not None and sym["exit"] != Reason.REDUCED:
            exposure += abs(sym["pending"])
    book.equity, book.exposure = book.balance + unrealised, exposure


def liquidate(book, bar, row, before):
    """Close everything at its mark and forgive what is owed. Returns the symbols that were held."""
    held = [s for s, sym in enumerate(book.symbols) if sym["pos"] is not None]
    ordered = [s for s, sym in enumerate(book.symbols) if sym["pending"] is not None and sym["exit"] != Reason.REDUCED]
    for s in ordered:
        book.symbols[s]["pending"] = None
    book.n_cancelled += len(ordered)
    for s in held:
        leave(book, s, book.symbols[s]["last_close"], bar["close_time"], Reason.LIQUIDATED, row)
    won, lost = total(x for x in row["pnl"] if x > 0.0), total(-x for x in row["pnl"] if x < 0.0)
    row["pnl"] = [x * ((before + won) / lost) if x < 0.0 else x for x in row["pnl"]]
    book.balance = book.equity = book.exposure = 0.0
    return held + ordered


def base_of(book):
    """10.6 i: one base for sizes, limits and drawdown."""
    return book.equity if book.p["governor.drawdown_basis"] == "equity" else book.balance


def roll_day(book, bar):
    """10.3 check 5, 10.6 n, p: a new UTC day of the decision time."""
    day = bar["close_time"] // DAY
    if day != book.day:
        book.day, book.trades_today = day, 0
        if book.p["governor.drawdown_reset"] == "daily":
            book.halted, book.peak = False, base_of(book)


def halt(book, bar):
    """10.6 p: a breach halts entries until the reset rule lifts it."""
    if not book.halted and book.peak and (book.peak - base_of(book)) / book.peak > book.p["governor.max_drawdown"]:
        book.halted = True
        book.halt_time = bar["close_time"] if book.halt_time is None else book.halt_time
    book.n_halted += book.halted


def govern(book, bar, row, actions, confidences, cancelled):
    """10.6 b 7: exits first, then entries in the configured order."""
    p, reasons, leaving = book.p, row["governor_reason"], set()
    for s in cancelled:
        reasons[s] = cancelled[s]
    if p["governor.book"] == "cross_section":
        govern_book(book, bar, row)
        return
    for s, sym in enumerate(book.symbols):
        if sym["pos"] is not None:
            is_meant = book.money is None or confidences[s] >= book.p["governor.min_confidence"]  # it would itself trade
            order_exit(book, s, actions[s] if is_meant else HOLD, reasons, leaving)
    wishes = [s for s in range(len(actions)) if reasons[s] is None]
    if book.p["governor.order"] == "by_confidence":
        wishes.sort(key=lambda s: -confidences[s] if confidences[s] == confidences[s] else 2.0)
    if book.p["governor.order"] == "by_edge":
        wishes.sort(key=lambda s: -book.money[0][s])
    for s in wishes:
        size, reasons[s] = govern_step(book, bar, s, actions[s], confidences[s], s in leaving)
        if reasons[s] == Reason.APPROVED:
            row["final_action"][s], row["size"][s] = actions[s], size
            book.symbols[s]["pending"], book.symbols[s]["due"] = size, book.t + DELAY.get(p["broker.fill"], 1)
            book.symbols[s]["lasts"] = book.money[5][s] if book.money and book.money[5] else None
            book.exposure += abs(size)
            book.trades_today += 1
    row["governor_reason"] = [int(r) for r in reasons]


def govern_book(book, bar, row):
    """10.7: a book's moves, those that make a position larger under the limits; the largest first where the day has no room for all."""
    p, reasons, now = book.p, row["governor_reason"], bar["close_time"]
    taken = {s for s, sym in enumerate(book.symbols) if sym["exit"] is not None or sym["pending"] is not None}
    wishes = rebalance(book, bar, row, book.money, taken)
    order = list(wishes)
    if len(order) > p["governor.max_daily_trades"] - book.trades_today:
        order.sort(key=lambda s: -abs(wishes[s]))
    for s in order:
        is_cooling = any(time > now - p["governor.cooldown_minutes"] * MINUTE for time in losses_of(book, s))
        reason = Reason.COOLDOWN_ACTIVE if is_cooling else Reason.APPROVED
        reason = vetoed(book) or (reason if wishes[s] != 0.0 else Reason.MAX_EXPOSURE_EXCEEDED)
        reasons[s] = reason if reasons[s] is None or reason == Reason.APPROVED else reasons[s]
        if reason == Reason.APPROVED:
            row["final_action"][s], row["size"][s] = BUY if wishes[s] > 0.0 else SELL, wishes[s]
            book.symbols[s]["pending"], book.symbols[s]["due"] = wishes[s], book.t + DELAY.get(p["broker.fill"], 1)
            book.exposure += abs(wishes[s])
            book.trades_today += 1
    row["governor_reason"] = [int(r) for r in reasons]


def vetoed(book):
    """10.3: what stops every candidate of the bar, None if nothing does."""
    if book.equity <= 0.0:
        return Reason.LIQUIDATED
    if book.halted:
        return Reason.MAX_DRAWDOWN_EXCEEDED
    if book.trades_today >= book.p["governor.max_daily_trades"]:
        return Reason.DAILY_TRADE_LIMIT_REACHED
    return None


def losses_of(book, s):
    """Times of the losses that a cooldown of the symbol looks at."""
    if book.p["governor.cooldown_scope"] == "symbol_last_loss":
        return [book.symbols[s]["last_loss"]] if book.symbols[s]["last_loss"] is not None else []
    return [h["time"] for h in book.history[-50:] if h["symbol"] == s and h["pnl"] < 0.0]


def order_exit(book, s, action, reasons, leaving):
    """10.6 k, l, q: opposite signal, horizon, flattening kill switch, in that order of precedence; all exits wait for a valid price."""
    p, sym = book.p, book.symbols[s]
    pos, is_new = sym["pos"], sym["exit"] is None
    side = side_of(pos)
    age = book.t - pos["bar"] + DELAY.get(p["broker.fill"], 1)
    code = None
    if (action == SELL and side > 0) or (action == BUY and side < 0):
        code = Reason.EXIT_SIGNAL
        reasons[s] = code
    elif (most := sym["lasts"] or p["broker.max_holding_bars"]) and age >= most:
        code = Reason.HORIZON
    elif p["governor.emergency_stop"] and p["governor.flatten_on_kill"]:
        code = Reason.EMERGENCY_STOP_ACTIVE
    if code is not None and is_new:
        sym["exit"], sym["exit_due"] = code, book.t + DELAY.get(p["broker.fill"], 1)
        leaving.add(s)
        if action not in (BUY, SELL):
            reasons[s] = code


def screen(book, bar, s, action, confidence, is_open):
    """Checks that need no account (10.3: 1, 2, 3; 10.6 g, h, r), in order; None if the cell is a candidate."""
    if action not in (BUY, SELL):
        return Reason.HOLD_SIGNAL
    if not confidence >= book.p["governor.min_confidence"]:
        return Reason.LOW_CONFIDENCE
    if is_open:
        return Reason.POSITION_ALREADY_OPEN
    if action == SELL and not book.p["broker.allow_short"]:
        return Reason.SHORTS_DISABLED
    if math.isnan(bar["close"][s]):
        return Reason.NO_BAR
    return Reason.EMERGENCY_STOP_ACTIVE if book.p["governor.emergency_stop"] else None


def govern_step(book, bar, s, action, confidence, is_leaving):
    """10.3: the first rule that hits gives the reason. Returns the signed notional and the reason."""
    p, now = book.p, bar["close_time"]
    is_taken = book.symbols[s]["pos"] is not None or book.symbols[s]["pending"] is not None
    refused = screen(book, bar, s, action, confidence, is_taken and not is_leaving)
    if refused is not None:
        return 0.0, refused
    if vetoed(book) is not None:
        return 0.0, vetoed(book)
    base = base_of(book)
    notional = base * size(book, s, confidence)
    planned = book.exposure + notional if p["governor.exposure_mode"] == "projected" else book.exposure
    if planned > base * p["governor.max_exposure"]:
        return 0.0, Reason.MAX_EXPOSURE_EXCEEDED
    if any(time > now - p["governor.cooldown_minutes"] * MINUTE for time in losses_of(book, s)):
        return 0.0, Reason.COOLDOWN_ACTIVE
    if not notional > 0.0:
        return 0.0, Reason.ZERO_SIZE
    return (notional if action == BUY else -notional), Reason.APPROVED


def size(book, s, confidence):
    """10.4: Kelly's share of the base, a fraction of it, scaled by confidence, clamped to [0, max_position].

    By edge: what the trade is expected to earn over the variance of that, nothing where one of them is unknown.
    """
    p = book.p
    if p["governor.sizing_mode"] == "kelly_edge":
        edge, risk = (plane[s] for plane in book.money[1:3])
        share = edge / risk * p["governor.kelly_fraction"] if risk > 0.0 and edge == edge else 0.0
        return min(max(share, 0.0), p["governor.max_position"])
    win_rate, payoff, scale = odds(book, confidence)
    share = (win_rate * payoff - (1.0 - win_rate)) / payoff * p["governor.kelly_fraction"] * scale
    return min(max(share, 0.0), p["governor.max_position"])


def odds(book, confidence):
    """Win rate, payoff and confidence scale of the sizing mode (D-63, D-64)."""
    p = book.p
    if p["governor.sizing_mode"] == "kelly_confidence":
        return confidence, p["governor.payoff"], 1.0
    win_rate, payoff, n = p["governor.win_rate"], p["governor.payoff"], p["governor.kelly_trades"]
    if p["governor.sizing_mode"] == "kelly_empirical" and len(book.history) >= n:
        wins = [h["ret"] for h in book.history[-n:] if h["ret"] > 0.0]
        losses = [-h["ret"] for h in book.history[-n:] if h["ret"] < 0.0]
        win_rate = len(wins) / n
        if wins and losses:
            payoff = (total(wins) / len(wins)) / (total(losses) / len(losses))
    return win_rate, payoff, confidence / p["governor.reference_confidence"]


def total(values):
    """Sum left to right."""
    out = 0.0
    for x in values:
        out += x
    return out


def close_all(book, now):
    """10.6 m: END_OF_DATA at the last valid closes; what is pending is dropped."""
    row = {"pnl": [0.0] * len(book.symbols)}
    for s, sym in enumerate(book.symbols):
        if sym["pos"] is not None:
            leave(book, s, sym["last_close"], now, Reason.END_OF_DATA, row)
        book.n_cancelled += sym["pending"] is not None
        sym["pending"] = None
    book.balance = book.equity = max(book.balance, 0.0)
    book.exposure = 0.0
    return book
