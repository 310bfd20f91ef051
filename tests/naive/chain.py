"""What should the whole decision chain say? A slow twin in dicts and floats, written from the specification alone.

It shares nothing with qtcore but the codes of its enums: parameters come as `Params().flat()`, prices as nested lists. Every sum runs
left to right as `spec` 0.2 asks, so the comparison with the kernels is one of bits.
"""

import math

from qtcore.types import Consensus, Reason, Source, Verdict

SELL, HOLD, BUY = 0, 1, 2
NAN = math.nan
DAY = 86_400_000_000_000
MINUTE = 60_000_000_000
N_BASE = 4  # the fifth slot is optional: its absence is never filled


# ---------------------------------------------------------------- opinion: 4, 5, 6, 7, 9, 11


def decide(votes, market, regime, params, meta=None):
    """Say what the opinion layers make of one cell.

    votes: five (action, confidence) pairs, None where a model is absent. market: the six arbiter inputs. regime: volatility, trend.
    meta: three probabilities or None. Returns a dict with every decision column.
    """
    p = params
    ens = ensemble(votes, regime, p)
    out = {
        **ens,
        "verdict": Verdict.NONE,
        "meta_reason": Reason.NONE,
        "meta_action": -1,
        "meta_confidence": NAN,
        "arbiter_action": -1,
        "arbiter_confidence": NAN,
        "arbiter_score": NAN,
        "arbiter_reason": Reason.NONE,
        "raw_action": ens["ensemble_action"],
        "raw_confidence": ens["ensemble_confidence"],
        "source": Source.ENSEMBLE,
    }
    if not p["meta.enabled"]:
        return out
    if ens["n_voters"] < 2:
        out["meta_reason"] = Reason.NO_VALID_MODELS if ens["n_voters"] == 0 else Reason.TOO_FEW_VOTERS
        return out
    judge = {"policy": policy, "override": override, "v5": v5}[p["meta.mode"]]
    out.update(judge(votes, ens, p, meta))
    if out["verdict"] == Verdict.ESCALATE:
        out.update(arbiter(market, p) if p["arbiter.enabled"] else {"arbiter_reason": Reason.NOT_AVAILABLE})
    return out


def ensemble(votes, regime, p):
    """Vote by weight; confidence is the mean of the winner's voters (4.2, 4.3)."""
    weights = regime_weights(p["ensemble.weights"], p["ensemble.regime_factors"], regime)
    score = dict.fromkeys((SELL, HOLD, BUY), 0.0)
    count = dict.fromkeys(score, 0)
    total = dict.fromkeys(score, 0.0)
    for weight, vote in zip(weights, votes):
        if vote is not None:
            action, confidence = vote
            score[action] += weight
            count[action] += 1
            total[action] += confidence
    n = sum(count.values())

    def result(action, confidence, label, winners):
        return {
            "ensemble_action": action,
            "ensemble_confidence": confidence,
            "consensus": label,
            "consensus_count": winners,
            "n_voters": n,
        }

    if n == 0:
        return result(HOLD, 0.5, Consensus.NO_VALID_MODELS, 0)
    top = max(score.values())
    if p["ensemble.tie_break"] == "hold" and sum(top - s <= 1e-12 for s in score.values()) >= 2:
        return result(HOLD, 0.5, Consensus.TIE, count[HOLD])
    winner = next(a for a in (BUY, SELL, HOLD) if score[a] == top)
    k = count[winner]
    label = Consensus.UNANIMOUS if k >= n else Consensus.STRONG if k >= 0.75 * n else Consensus.SPLIT if k >= 0.5 * n else Consensus.WEAK
    base = total[winner] / k if k else 0.5
    multiplier = p["ensemble.multipliers"][int(label) - int(Consensus.WEAK)]
    return result(winner, min(0.95, base * multiplier), label, k)


def regime_weights(weights, factors, regime):
    """Scale the weights by regime and back to their sum; all factors 1 leaves them as they are (4.6)."""
    if all(f == 1.0 for f in factors):
        return list(weights)
    volatility, trend = regime
    row = 0 if volatility < 0.4 else 2 if volatility >= 0.6 else 1
    column = 0 if trend < -0.2 else 2 if trend > 0.2 else 1
    start = (row * 3 + column) * 5
    scaled = [w * f for w, f in zip(weights, factors[start : start + 5])]
    before, after = 0.0, 0.0
    for w, s in zip(weights, scaled):
        before += w
        after += s
    return [s * (before / after) for s in scaled] if after > 0.0 else list(weights)


def weighted_score(votes, p):
    """Confidence-weighted score (4.5): action and its score."""
    score = dict.fromkeys((SELL, HOLD, BUY), 0.0)
    present = 0.0
    for weight, vote in zip(p["ensemble.weights"], votes):
        if vote is not None:
            score[vote[0]] += weight * vote[1]
            present += weight
    if present <= 0.0:
        return HOLD, 0.0
    score = {a: s / present for a, s in score.items()}
    top = max(score.values())
    if p["ensemble.tie_break"] == "hold" and sum(top - s <= 1e-12 for s in score.values()) >= 2:
        return HOLD, score[HOLD]
    winner = next(a for a in (SELL, HOLD, BUY) if score[a] == top)
    return winner, score[winner]


def counts_of(votes):
    """Count SELL, HOLD and BUY among the present votes."""
    return [sum(v is not None and v[0] == a for v in votes) for a in (SELL, HOLD, BUY)]


def mean_confidence(votes, action):
    """Mean confidence of the voters for `action`, summed in model order."""
    total, k = 0.0, 0
    for v in votes:
        if v is not None and v[0] == action:
            total, k = total + v[1], k + 1
    return total / k


def policy(votes, ens, p, meta):
    """Keep the ensemble or ask the arbiter (7.3)."""
    given = votes
    if p["meta.missing_fill"] == "hold_half":
        votes = [(HOLD, 0.5) if v is None and m < N_BASE else v for m, v in enumerate(votes)]
    counts = counts_of(votes)
    n = sum(counts)
    share = max(counts) / n
    if share >= p["meta.consensus_threshold"]:
        return consensus(given if votes is given else None, counts, ens)
    confidence = ens["ensemble_confidence"] if p["meta.policy_base"] == "shared" else weighted_score(votes, p)[1]
    if counts[BUY] == 2 and counts[SELL] == 2:
        return {"verdict": Verdict.ESCALATE, "meta_reason": Reason.SPLIT_VOTE}
    if 1.0 - share >= p["meta.disagreement_threshold"]:
        return {"verdict": Verdict.ESCALATE, "meta_reason": Reason.HIGH_DISAGREEMENT}
    if confidence < p["meta.low_confidence"]:
        return {"verdict": Verdict.ESCALATE, "meta_reason": Reason.LOW_ENSEMBLE_CONFIDENCE}
    if meta is None:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.CLEAR_ENSEMBLE_NO_MODEL}
    total = 0.0
    for x in meta:
        total += x * math.log(x + 1e-10)
    entropy = -total / math.log(3.0)
    undecided = entropy > p["meta.entropy_threshold"]
    return {
        "verdict": Verdict.ESCALATE if undecided else Verdict.DEFER,
        "meta_reason": Reason.UNDECIDED_MARKET if undecided else Reason.CLEAR_ENSEMBLE,
        "meta_action": meta.index(max(meta)),
        "meta_confidence": entropy,
    }


def consensus(votes, counts, ens):
    """Defer; a consensus that the weights outvote wins all the same, unless absent models were counted in it (D-70; votes None)."""
    winner = counts.index(max(counts))
    out = {"verdict": Verdict.DEFER, "meta_reason": Reason.STRONG_CONSENSUS_SELL + winner}
    if votes is not None and counts.count(max(counts)) == 1 and winner != ens["ensemble_action"]:
        out |= {"raw_action": winner, "raw_confidence": mean_confidence(votes, winner)}
    return out


def override(votes, ens, p, meta):
    """Let a confident meta model replace the ensemble (6.3); an error holds when it fails closed."""
    if meta is None:
        if p["meta.fail_open"]:
            return {"verdict": Verdict.DEFER, "meta_reason": Reason.MODEL_NOT_LOADED}
        return {
            "verdict": Verdict.DEFER,
            "meta_reason": Reason.MODEL_NOT_LOADED,
            "raw_action": HOLD,
            "raw_confidence": 0.0,
            "source": Source.META,
        }
    counts = counts_of(votes)
    if max(counts) / sum(counts) >= p["meta.consensus_threshold"]:
        return consensus(votes, counts, ens)
    action, confidence = meta.index(max(meta)), max(meta)
    asked = {"meta_action": action, "meta_confidence": confidence}
    if confidence < p["meta.override_threshold"]:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.META_LOW_CONFIDENCE, **asked}
    return {
        "verdict": Verdict.OVERRIDE,
        "meta_reason": Reason.META_OVERRIDE_SELL + action,
        "raw_action": action,
        "raw_confidence": confidence,
        "source": Source.META,
        **asked,
    }


def v5(votes, ens, p, meta):
    """Let MetaPredictor v5 replace the ensemble unless a strong consensus guards its action (5, D-40)."""
    if meta is None:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.MODEL_NOT_LOADED}
    action, confidence = meta.index(max(meta)), max(meta)
    asked = {"meta_action": action, "meta_confidence": confidence}
    if not confidence > p["meta.v5_threshold"]:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.META_LOW_CONFIDENCE, **asked}
    counts = counts_of(votes)
    agreed = max(counts) / sum(counts) >= 0.75
    if p["meta.consensus_guard"] and agreed and action != ens["ensemble_action"]:
        return {"verdict": Verdict.DEFER, "meta_reason": Reason.CONSENSUS_GUARD, **asked}
    return {
        "verdict": Verdict.OVERRIDE,
        "meta_reason": Reason.META_V5_OVERRIDE,
        "raw_action": action,
        "raw_confidence": confidence,
        "source": Source.META,
        **asked,
    }


def arbiter(market, p):
    """Read five indicators, trade on their score, pass the gate (9.2, 9.3, 9.6)."""
    if all(x != x for x in market):
        return {"arbiter_action": HOLD, "arbiter_confidence": 0.5, "arbiter_reason": Reason.NO_MARKET_DATA}
    s = score(market)
    if s >= p["arbiter.score_threshold"]:
        action, confidence = BUY, min(0.70 + 0.5 * s, 0.95)
    elif s <= -p["arbiter.score_threshold"]:
        action, confidence = SELL, min(0.70 + 0.5 * abs(s), 0.95)
    else:
        action, confidence = HOLD, 0.50 + 2.0 * (0.1 - abs(s))
    out = {"arbiter_action": action, "arbiter_confidence": confidence, "arbiter_score": s}
    if confidence < p["arbiter.gate_confidence"]:
        return {**out, "arbiter_reason": Reason.DEFER_LOW_CONFIDENCE}
    if action == HOLD:
        return {**out, "arbiter_reason": Reason.DEFER_ACTION_IS_HOLD}
    reason = Reason.BUY_SIGNAL if action == BUY else Reason.SELL_SIGNAL
    return {**out, "arbiter_reason": reason, "raw_action": action, "raw_confidence": confidence, "source": Source.ARBITER}


def score(market):
    """Sum the five terms `(signal * strength) * weight` in the order of 9.1; a NaN input adds 0."""
    rsi, macd, macd_signal, bb, volume, momentum = market
    d = macd - macd_signal
    terms = []
    if rsi < 30.0:
        terms.append((1.0, (30.0 - rsi) / 30.0, 0.20))
    elif rsi > 70.0:
        terms.append((-1.0, (rsi - 70.0) / 30.0, 0.20))
    if d > 0.0 or d < 0.0:
        terms.append((1.0 if d > 0.0 else -1.0, min(10.0 * abs(d), 1.0), 0.25))
    if bb < 0.2:
        terms.append((1.0, 0.2 - bb, 0.15))
    elif bb > 0.8:
        terms.append((-1.0, bb - 0.8, 0.15))
    if volume > 1.5 and (d > 0.0 or d < 0.0):
        terms.append((1.0 if d > 0.0 else -1.0, min((volume - 1.0) / 2.0, 1.0), 0.15))
    if momentum > 0.02:
        terms.append((1.0, min(10.0 * momentum, 1.0), 0.25))
    elif momentum < -0.02:
        terms.append((-1.0, min(10.0 * abs(momentum), 1.0), 0.25))
    total = 0.0
    for signal, strength, weight in terms:
        total += (signal * strength) * weight
    return total


# ---------------------------------------------------------------- permission: 10


def trade(bars, raw_action, raw_confidence, params, funding=None):
    """Fill, stop, mark and govern bar by bar (10.6 b).

    bars: dict of `open_time`, `close_time` [n] and `open`, `high`, `low`, `close` [n][S], NaN at holes. raw_*: [n][S].
    Returns a dict: per-cell and per-bar lists, `fills` as a list of dicts, and the final `account` and `positions`.
    """
    p = params
    n, width = len(bars["close_time"]), len(bars["close"][0])
    acc = {
        "balance": p["broker.initial_cash"],
        "equity": p["broker.initial_cash"],
        "peak": p["broker.initial_cash"],
        "exposure": 0.0,
        "fees": 0.0,
        "slippage": 0.0,
        "funding": 0.0,
        "day": -1,
        "trades_today": 0,
        "is_halted": False,
        "n_trades": 0,
        "closed": [],
        "fills": [],
    }
    book = [flat() for _ in range(width)]
    out = {
        "final_action": [[HOLD] * width for _ in range(n)],
        "governor_reason": [[Reason.NONE] * width for _ in range(n)],
        "size": [[0.0] * width for _ in range(n)],
        "cell_pnl": [[0.0] * width for _ in range(n)],
        "equity": [],
        "balance": [],
        "exposure": [],
    }
    for t in range(n):
        bar = {name: bars[name][t] for name in ("open", "high", "low", "close", "open_time", "close_time")}
        bar["t"] = t
        cancelled, gone = fill_bar(acc, book, bar, p, funding[t] if funding else None)
        for s in range(width):
            if t > 0:
                out["cell_pnl"][t - 1][s] = book[s]["cell_pnl"]
            book[s]["cell_pnl"] = 0.0
        out["equity"].append(acc["equity"])
        out["balance"].append(acc["balance"])
        for s, (action, reason, size) in enumerate(govern_bar(acc, book, bar, gone, raw_action[t], raw_confidence[t], p)):
            out["final_action"][t][s] = action
            out["governor_reason"][t][s] = Reason.NO_BAR if s in cancelled else reason
            out["size"][t][s] = size
        out["exposure"].append(acc["exposure"])
    return {**out, "fills": acc["fills"], "account": acc, "positions": book}


def flat():
    """State of a symbol that has not traded."""
    return {
        "qty": 0.0,
        "entry": NAN,
        "notional": 0.0,
        "entry_fee": 0.0,
        "funding": 0.0,
        "stop": NAN,
        "entry_bar": -1,
        "trade_id": -1,
        "pending": 0.0,
        "pending_exit": Reason.NONE,
        "last_close": NAN,
        "last_loss": None,
        "n_holes": 0,
        "unrealised": 0.0,
        "cell_pnl": 0.0,
    }


def fill_bar(acc, book, bar, p, rates):
    """Exits at the open, entries at the open, stops, funding, delisting, mark, liquidation.

    Returns the flat symbols whose entry was cancelled, and those that were liquidated.
    """
    cancelled = set()
    symbols = range(len(book))
    for s in symbols:
        pos, price = book[s], bar["open"][s]
        if pos["qty"] and price == price:
            if pos["pending_exit"]:
                close_position(acc, book, s, price, pos["pending_exit"], bar["open_time"], bar, p)
            elif (price - pos["stop"]) * pos["qty"] < 0.0:
                close_position(acc, book, s, price, Reason.STOP, bar["open_time"], bar, p)
    for s in symbols:
        pos, price = book[s], bar["open"][s]
        if pos["pending"]:
            if price == price:
                open_position(acc, book, s, price, bar, p)
            elif not pos["qty"]:
                cancelled.add(s)
            pos["pending"] = 0.0
    for s in symbols:
        pos = book[s]
        pos["n_holes"] = 0 if bar["close"][s] == bar["close"][s] else pos["n_holes"] + 1
        if pos["qty"] > 0.0 and bar["low"][s] <= pos["stop"]:
            close_position(acc, book, s, min(pos["stop"], bar["open"][s]), Reason.STOP, bar["close_time"], bar, p)
        elif pos["qty"] < 0.0 and bar["high"][s] >= pos["stop"]:
            close_position(acc, book, s, max(pos["stop"], bar["open"][s]), Reason.STOP, bar["close_time"], bar, p)
        elif pos["qty"] and pos["n_holes"] >= p["broker.delist_after"]:
            close_position(acc, book, s, pos["last_close"], Reason.DELISTED, bar["close_time"], bar, p)
    due = 0.0
    for s in symbols:
        pos, price = book[s], bar["close"][s]
        if rates and pos["qty"] and price == price and rates[s] == rates[s]:
            received = -(pos["qty"] * price * rates[s])
            pos["funding"] += received
            pos["cell_pnl"] += received
            due += received
        if price == price:
            pos["last_close"] = price
    acc["balance"] += due
    acc["funding"] += due
    before = acc["equity"]
    mark(acc, book, p)
    gone = liquidate(acc, book, bar, p, before) if acc["equity"] <= 0.0 < before else set()
    return cancelled, gone


def liquidate(acc, book, bar, p, before):
    """Nothing is left: close at the marks, forgive the debt, let the losing cells share what is forgiven. Returns who was held."""
    gone = {s for s in range(len(book)) if book[s]["qty"]}
    for s in sorted(gone):
        close_position(acc, book, s, book[s]["last_close"], Reason.LIQUIDATED, bar["close_time"], bar, p)
    won = lost = 0.0
    for pos in book:
        won += max(pos["cell_pnl"], 0.0)
        lost += max(-pos["cell_pnl"], 0.0)
    for pos in book:
        if pos["cell_pnl"] < 0.0:
            pos["cell_pnl"] *= (before + won) / lost
    acc["balance"] = acc["equity"] = acc["exposure"] = 0.0
    return gone


def open_position(acc, book, s, price, bar, p):
    """Fill an entry: the notional is fixed, slippage moves the price against us, the stop hangs on the fill price (10.6 d-j)."""
    pos = book[s]
    side = 1.0 if pos["pending"] > 0.0 else -1.0
    fill = price * (1.0 + side * p["broker.slippage_rate"])
    notional = abs(pos["pending"])
    qty = side * (notional / fill)
    fee = notional * p["broker.fee_rate"]
    slippage = abs(qty) * abs(fill - price)
    pos.update(
        qty=qty,
        entry=fill,
        notional=notional,
        entry_fee=fee,
        funding=0.0,
        stop=fill * (1.0 - side * p["governor.stop_loss"]),
        entry_bar=bar["t"],
        trade_id=acc["n_trades"],
        unrealised=0.0,
    )
    acc["n_trades"] += 1
    acc["fees"] += fee
    acc["slippage"] += slippage
    book_fill(acc, bar["open_time"], bar, s, pos["trade_id"], 1, Reason.APPROVED, qty, fill, price, fee, slippage, 0.0, 0.0)


def close_position(acc, book, s, price, reason, time, bar, p):
    """Fill an exit: the balance changes once, by (gross - exit fee) - entry fee; funding was booked when it was due."""
    pos = book[s]
    side = 1.0 if pos["qty"] > 0.0 else -1.0
    fill = price * (1.0 - side * p["broker.slippage_rate"])
    gross = pos["qty"] * (fill - pos["entry"])
    fee = abs(pos["qty"]) * fill * p["broker.fee_rate"]
    slippage = abs(pos["qty"]) * abs(price - fill)
    change = (gross - fee) - pos["entry_fee"]
    pnl = change + pos["funding"]
    acc["balance"] += change
    acc["fees"] += fee
    acc["slippage"] += slippage
    acc["closed"].append({"time": time, "symbol": s, "pnl": pnl, "ret": pnl / pos["notional"]})
    book_fill(acc, time, bar, s, pos["trade_id"], 0, reason, -pos["qty"], fill, price, fee, slippage, pos["funding"], pnl)
    last_loss = time if pnl < 0.0 else pos["last_loss"]
    kept = {name: pos[name] for name in ("pending", "last_close", "n_holes")}
    book[s] = {**flat(), **kept, "last_loss": last_loss, "cell_pnl": pos["cell_pnl"] + (change - pos["unrealised"])}


def book_fill(acc, time, bar, s, trade_id, is_entry, reason, qty, price, reference, fee, slippage, funding, pnl):
    """Append one row to the ledger."""
    acc["fills"].append(
        {
            "time": time,
            "bar": bar["t"],
            "symbol": s,
            "trade_id": trade_id,
            "is_entry": is_entry,
            "reason": int(reason),
            "qty": qty,
            "price": price,
            "reference_price": reference,
            "fee": fee,
            "slippage": slippage,
            "funding": funding,
            "pnl": pnl,
        }
    )


def mark(acc, book, p):
    """Value the book at the last valid closes; unrealised PnL is net of the entry fee, summed in symbol order (0.2)."""
    unrealised, exposure = 0.0, 0.0
    for pos in book:
        if pos["qty"]:
            value = pos["qty"] * (pos["last_close"] - pos["entry"]) - pos["entry_fee"]
            pos["cell_pnl"] += value - pos["unrealised"]
            pos["unrealised"] = value
            unrealised += value
            exposure += pos["notional"]
    acc["equity"] = acc["balance"] + unrealised
    acc["exposure"] = exposure
    basis = base_of(acc, p)
    acc["peak"] = max(acc["peak"], basis)
    if acc["peak"] and (acc["peak"] - basis) / acc["peak"] > p["governor.max_drawdown"]:
        acc["is_halted"] = True


def base_of(acc, p):
    """What drawdown, sizes and limits are measured on (10.6 i, p)."""
    return acc["equity"] if p["governor.drawdown_basis"] == "equity" else acc["balance"]


def govern_bar(acc, book, bar, gone, actions, confidences, p):
    """Order exits, then ask for entries in symbol order. Returns (final action, reason, signed size) per symbol."""
    day = bar["close_time"] // DAY
    if day != acc["day"]:
        acc["day"], acc["trades_today"] = day, 0
        if p["governor.drawdown_reset"] == "daily":
            acc["is_halted"] = False
            acc["peak"] = base_of(acc, p)
    horizon = p["broker.max_holding_bars"]
    flatten = p["governor.emergency_stop"] and p["governor.flatten_on_kill"]
    out, leaving = [(HOLD, Reason.LIQUIDATED, 0.0) if s in gone else None for s in range(len(book))], {}
    for s, pos in enumerate(book):
        if not pos["qty"]:
            continue
        is_opposite = actions[s] - 1 == (-1 if pos["qty"] > 0.0 else 1)
        if is_opposite:
            code = Reason.EXIT_SIGNAL
            out[s] = (HOLD, code, 0.0)
        elif horizon and bar["t"] - pos["entry_bar"] + 1 >= horizon:
            code = Reason.HORIZON
        else:
            code = Reason.EMERGENCY_STOP_ACTIVE if flatten else Reason.NONE
        if code and not pos["pending_exit"]:
            pos["pending_exit"] = leaving[s] = code
    entries = [s for s in range(len(book)) if out[s] is None]
    if p["governor.order"] == "by_confidence":
        entries.sort(key=lambda s: -confidences[s])
    for s in entries:
        size, reason = entry(acc, book[s], s, bar, leaving.get(s), actions[s], confidences[s], p)
        out[s] = (actions[s] if reason == Reason.APPROVED else HOLD, reason, size)
    return out


def entry(acc, pos, s, bar, leaves_for, action, confidence, p):
    """Check one wish in the order of 10.3 and 10.6 g; book the approval. Returns the signed notional and the reason.

    leaves_for: why the open position was ordered to leave at this very close, None otherwise; its symbol may enter again at the same open.
    """
    now = bar["close_time"]
    if action == HOLD:
        return 0.0, leaves_for or Reason.HOLD_SIGNAL
    if not confidence >= p["governor.min_confidence"]:
        return 0.0, Reason.LOW_CONFIDENCE
    if pos["qty"] and leaves_for is None:
        return 0.0, Reason.POSITION_ALREADY_OPEN
    if action == SELL and not p["broker.allow_short"]:
        return 0.0, Reason.SHORTS_DISABLED
    if bar["close"][s] != bar["close"][s]:
        return 0.0, Reason.NO_BAR
    if p["governor.emergency_stop"]:
        return 0.0, Reason.EMERGENCY_STOP_ACTIVE
    if acc["equity"] <= 0.0:
        return 0.0, Reason.LIQUIDATED
    if acc["is_halted"]:
        return 0.0, Reason.MAX_DRAWDOWN_EXCEEDED
    if acc["trades_today"] >= p["governor.max_daily_trades"]:
        return 0.0, Reason.DAILY_TRADE_LIMIT_REACHED
    base = base_of(acc, p)
    size = base * kelly_share(acc, confidence, p)
    planned = acc["exposure"] + size if p["governor.exposure_mode"] == "projected" else acc["exposure"]
    if planned > base * p["governor.max_exposure"]:
        return 0.0, Reason.MAX_EXPOSURE_EXCEEDED
    since = now - p["governor.cooldown_minutes"] * MINUTE
    if p["governor.cooldown_scope"] == "symbol_last_loss":
        losses = [pos["last_loss"]] if pos["last_loss"] is not None else []
    else:
        losses = [c["time"] for c in acc["closed"][-50:] if c["symbol"] == s and c["pnl"] < 0.0]
    if any(time > since for time in losses):
        return 0.0, Reason.COOLDOWN_ACTIVE
    if not size > 0.0:
        return 0.0, Reason.ZERO_SIZE
    acc["trades_today"] += 1
    acc["exposure"] += size
    pos["pending"] = size if action == BUY else -size
    return pos["pending"], Reason.APPROVED


def kelly_share(acc, confidence, p):
    """Kelly's share of the base, clamped (10.4); `kelly_empirical` takes its odds from the last closed trades (D-64)."""
    mode, b, win_rate = p["governor.sizing_mode"], p["governor.payoff"], p["governor.win_rate"]
    if mode == "kelly_confidence":
        win_rate = confidence
    last = acc["closed"][-p["governor.kelly_trades"] :]
    if mode == "kelly_empirical" and len(last) >= p["governor.kelly_trades"]:
        wins = [c["ret"] for c in last if c["ret"] > 0.0]
        losses = [-c["ret"] for c in last if c["ret"] < 0.0]
        win_rate = len(wins) / len(last)
        if wins and losses:
            b = (sum(wins) / len(wins)) / (sum(losses) / len(losses))
    f = (win_rate * b - (1.0 - win_rate)) / b
    pct = f * p["governor.kelly_fraction"]
    if mode != "kelly_confidence":
        pct *= confidence / p["governor.reference_confidence"]
    return min(max(pct, 0.0), p["governor.max_position"])
