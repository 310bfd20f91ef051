"""What should every feature be? Slow twins written from the specification: slices of the last rows, one bar after the other.

Arrays are [n, S] with NaN at a hole. Sums run through `math.fsum` around the present value, so that a flat price has no deviation.
"""

import math

import numpy as np
import pandas as pd

NAN = math.nan


# ---------------------------------------------------------------- primitives of spec 1.2, with the holes of D-82


def by_symbol(function):
    """Let a function of one symbol's series work on [n, S]."""

    def wide(x, *args):
        return np.column_stack([function(x[:, s], *args) for s in range(x.shape[1])])

    return wide


def window(x, t, n):
    """Return the valid values among the last n rows up to t; none where x[t] is a hole or below 80 % of them are valid."""
    rows = x[max(0, t - n + 1) : t + 1]
    values = [float(v) for v in rows if v == v]
    return values if x[t] == x[t] and len(values) >= math.ceil(0.8 * n - 1e-9) else []


def mean_of(values):
    base = values[-1]
    return base + math.fsum(v - base for v in values) / len(values)


def std_of(values, ddof):
    mean = mean_of(values)
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - ddof))


@by_symbol
def sma(x, n):
    return [mean_of(w) if (w := window(x, t, n)) else NAN for t in range(len(x))]


@by_symbol
def std(x, n, ddof=1):
    return [std_of(w, ddof) if (w := window(x, t, n)) else NAN for t in range(len(x))]


def there(x, t, n):
    """What a window of a family takes: a long one what there is, where 80 % of the last 24 are."""
    return [float(v) for v in x[max(0, t - n + 1) : t + 1] if v == v] if window(x, t, min(n, 24)) else []


@by_symbol
def average(x, n):
    return [mean_of(w) if (w := there(x, t, n)) else NAN for t in range(len(x))]


@by_symbol
def extreme(x, n, which):
    return [which(w) if (w := there(x, t, n)) else NAN for t in range(len(x))]


@by_symbol
def last_known(x):
    return pd.Series(x).ffill()


def before(x, k):
    """x[t - k]: the last valid value at or before t - k."""
    out = np.full(x.shape, NAN)
    out[k:] = last_known(x)[: max(0, len(x) - k)]
    return out


@by_symbol
def ema_bank(x, alpha):
    out, mean = [], NAN
    for v in x:
        if v == v:
            mean = v if mean != mean else mean + alpha * (v - mean)
        out.append(mean if v == v else NAN)
    return out


@by_symbol
def wilder(x, n):
    out, seen, mean = [], [], NAN
    for v in x:
        if v == v:
            seen.append(v)
            mean = sum(seen) / n if len(seen) == n else mean + (v - mean) / n
        out.append(mean if v == v and len(seen) >= n else NAN)
    return out


def ratio(a, b, empty):
    """a / b, `empty` where b is 0."""
    return np.where(b == 0.0, empty, a / np.where(b == 0.0, 1.0, b))


def known(x, otherwise):
    return np.where(np.isnan(x), otherwise, x)


def rsi(x, n, mean):
    move = x - before(x, 1)
    up, down = (mean(np.where(np.isnan(move), NAN, np.maximum(sign * move, 0.0)), n) for sign in (1.0, -1.0))
    some = np.where(down == 0.0, 1.0, down)
    index = np.where(down == 0.0, np.where(up == 0.0, 50.0, 100.0), 100.0 - 100.0 / (1.0 + up / some))
    return np.where(np.isnan(up), NAN, index)


def true_range(high, low, close):
    old = before(close, 1)
    return np.where(np.isnan(old), high - low, np.fmax(high - low, np.fmax(abs(high - old), abs(low - old))))


@by_symbol
def rank(x):
    """Share of the last 720 known values that are not above the present one; 0.5 below 168."""
    out = []
    for t in range(len(x)):
        last = [v for v in x[max(0, t - 719) : t + 1] if v == v]
        out.append(sum(v <= x[t] for v in last) / len(last) if len(last) >= 168 and x[t] == x[t] else 0.5)
    return out


@by_symbol
def volume_slope(volume):
    out = []
    for t in range(len(volume)):
        points = [(k, volume[k]) for k in range(max(0, t - 6), t + 1) if volume[k] == volume[k]]
        if len(points) < 6 or volume[t] != volume[t]:
            out.append(NAN)
            continue
        mean = sum(v for _, v in points) / len(points)
        out.append(np.polyfit(*zip(*points, strict=True), 1)[0] / mean if mean > 0.0 else 0.0)
    return out


def simple_returns(close):
    return close / before(close, 1) - 1.0


def correlation(close, benchmark):
    returns = simple_returns(close)
    out = np.zeros(close.shape)
    for t, s in np.ndindex(close.shape):
        pair = returns[max(0, t - 166) : t + 1][:, [s, max(benchmark, 0)]]
        a, b = pair[~np.isnan(pair).any(axis=1)].T
        if benchmark >= 0 and len(a) >= 10 and np.ptp(a) > 0.0 and np.ptp(b) > 0.0:
            out[t, s] = pd.Series(a).corr(pd.Series(b))
    if benchmark >= 0:
        out[:, benchmark] = 1.0
    return np.where(np.isnan(close), NAN, out)


def pack(planes, names, valid):
    """Build the model's rows: NaN where not valid."""
    return np.where(valid[..., None], np.stack([planes[name] for name in names], axis=-1), NAN).astype(np.float32)


# ---------------------------------------------------------------- every feature of spec 1.3, 1.6 to 1.9


def advance(bars, params):
    """Every feature by name; also `valid`."""
    high, low, x, v = bars.high, bars.low, bars.close, bars.volume
    hole = np.isnan(x)
    p = {
        **_prices(high, low, x, bars.interval),
        **_averages(high, low, x, params),
        **_volumes(np.where(hole, NAN, v)),
        **_regime(high, low, x),
        **_families(bars),
    }
    p["arbiter_volume_trend"] = p["volume_ratio"]
    units = "" if params["arbiter.macd_units"] == "price" else "_rel"
    p["arbiter_macd"], p["arbiter_macd_signal"] = p[f"macd{units}"], p[f"macd_signal{units}"]
    name = params["features.benchmark"]
    btc = [i for i, symbol in enumerate(bars.symbols) if (symbol == name if name else symbol.upper().startswith("BTC"))]
    benchmark = btc[0] if btc else -1
    p["btc_correlation"] = correlation(x, benchmark)
    p |= _across(p, x, benchmark)
    p = {name: np.where(hole, NAN, plane) for name, plane in p.items()}
    return p | {"valid": (np.cumsum(~hole, axis=0) >= params["features.warmup"] + 1) & ~hole}


def _prices(high, low, x, interval):
    hour = max(1, 3_600_000_000_000 // interval)
    moves = {"price_change": 1, "momentum_10": 10, "momentum_20": 20, "momentum_1h": hour}
    return {name: x / before(x, k) - 1.0 for name, k in moves.items()} | {"high_low_range": (high - low) / x}


def _averages(high, low, x, params):
    is_wilder = params["features.rsi_variant"] == "wilder"
    p = {"rsi": rsi(x, 14, wilder if is_wilder else sma), "rsi_28": rsi(x, 28, wilder if is_wilder else sma)}
    p["rsi_category"] = np.where(np.isnan(p["rsi"]), NAN, np.where(p["rsi"] < 30, 0.0, np.where(p["rsi"] > 70, 2.0, 1.0)))
    p |= {f"ema_{n}": ema_bank(x, 2.0 / (n + 1)) for n in (10, 12, 20, 26, 50)}
    p["macd"] = p["ema_12"] - p["ema_26"]
    p["macd_signal"] = ema_bank(p["macd"], 2.0 / 10.0)
    p["macd_hist"] = p["macd"] - p["macd_signal"]
    p["ema_10_20_cross"] = np.where(p["ema_10"] > p["ema_20"], 1.0, 0.0)
    p["ema_10_50_cross"] = np.where(p["ema_10"] > p["ema_50"], 1.0, 0.0)
    middle, half = sma(x, 20), 2.0 * std(x, 20, params["features.bb_ddof"])
    p["bb_upper"], p["bb_lower"] = middle + half, middle - half
    p["bb_position"] = ratio(x - p["bb_lower"], p["bb_upper"] - p["bb_lower"], 0.5)
    p["close_to_bb_upper"], p["close_to_bb_lower"] = (p["bb_upper"] - x) / x, (x - p["bb_lower"]) / x
    p["bollinger_width"] = (p["bb_upper"] - p["bb_lower"]) / x
    p["volatility_20"] = std(x, 20, 1) / x
    p["sma_50"], p["sma_200"] = sma(x, 50), sma(x, 200)
    p["atr_14"] = sma(true_range(high, low, x), 14)
    p["atr_pct"] = p["atr_14"] / x
    levels = ["ema_10", "ema_12", "ema_20", "ema_26", "ema_50", "bb_upper", "bb_lower", "sma_50", "sma_200"]
    p |= {f"{name}_rel": p[name] / x - 1.0 for name in levels}
    return p | {f"{name}_rel": 100.0 * p[name] / x for name in ("macd", "macd_signal", "macd_hist")}


def _volumes(v):
    mean = {n: sma(v, n) for n in (10, 20, 24, 72, 720)}
    return {
        "volume_change": ratio(v - before(v, 1), before(v, 1), 0.0),
        "volume_ma_ratio": ratio(v, mean[10], 1.0),
        "volume_ratio": ratio(v, mean[20], 1.0),
        "volume_ma_24h": mean[24],
        "volume_ma_72h": mean[72],
        "volume_ma_24h_rel": ratio(mean[24], mean[720], 1.0),
        "volume_ma_72h_rel": ratio(mean[72], mean[720], 1.0),
        "volume_momentum": known(ratio(v, mean[24], 1.0), 1.0),
        "volume_trend": known(ratio(mean[24], mean[72], 1.0), 1.0),
        "volume_slope_7": volume_slope(v),
    }


def _regime(high, low, x):
    log_ret = np.log(x / before(x, 1))
    spread = {n: std(log_ret, n) for n in (24, 72, 168)}
    atr = known(sma(true_range(high, low, x), 14), 0.0)
    slope = ratio(ema_bank(x, 2.0 / 21.0) - ema_bank(x, 2.0 / 51.0), 2.0 * atr, 0.0)
    return {f"volatility_{n}h": known(s, 0.0) for n, s in spread.items()} | {
        "volatility_ratio": known(ratio(spread[24], spread[168], 1.0), 1.0),
        "volatility": rank(spread[24]),
        "trend_strength": np.clip(slope, -1.0, 1.0),
    }


def _families(bars):
    """Volatility, range and flow."""
    o, h, low, x, v = bars.open, bars.high, bars.low, bars.close, np.where(np.isnan(bars.close), NAN, bars.volume)
    r = np.log(x / before(x, 1))
    old = np.vstack([np.full((1, x.shape[1]), NAN), r[:-1]])  # of the row before: a hole there leaves no pair
    realised = {n: np.sqrt(average(r**2, n)) for n in (6, 24, 72, 168, 720)}
    pairs = math.pi / 2.0 * average(abs(r) * abs(old), 24)
    bodies = 0.5 * np.log(h / low) ** 2 - (2.0 * math.log(2.0) - 1.0) * np.log(x / o) ** 2
    edges = np.log(h / o) * np.log(h / x) + np.log(low / o) * np.log(low / x)
    per_quote = np.where(np.isnan(r), NAN, ratio(abs(r), x * v, 0.0))
    sign = np.where(np.isnan(v), NAN, np.sign(np.nan_to_num(r)))
    p = {f"realised_{n}": plane for n, plane in realised.items()}
    alpha = 1.0 / (8.0 * max(1, 3_600_000_000_000 // bars.interval))
    for name, hours in (("day", 24), ("week", 168)):
        angle = turn(bars.close_time, hours) * np.ones(x.shape)
        p[f"{name}_sine"], p[f"{name}_cosine"] = np.sin(angle), np.cos(angle)
    seen = np.where(np.isnan(x), NAN, 1.0)
    for name, is_before in (("session_start", True), ("session_end", False)):
        p[name] = 1.0 - known(hourly(seen, bars.close_time, alpha, is_before), 0.0) if bars.interval <= 3_600_000_000_000 else seen - seen
    p["hour_volatility"] = known(ratio(np.sqrt(hourly(r**2, bars.close_time, alpha)), realised[168], 1.0), 1.0)
    p["hour_volume"] = known(ratio(hourly(v, bars.close_time, alpha), average(v, 168), 1.0), 1.0)
    p |= {f"realised_{n}_{m}": ratio(realised[n], realised[m], 1.0) for n, m in ((6, 24), (24, 168), (168, 720))}
    p |= {"bipower_24": np.sqrt(pairs), "jump_share_24": np.fmax(known(ratio(realised[24] ** 2 - pairs, realised[24] ** 2, 0.0), 0.0), 0.0)}
    p |= {"parkinson_24": np.sqrt(average(np.log(h / low) ** 2, 24) / (4.0 * math.log(2.0)))}
    p |= {
        "garman_klass_24": np.sqrt(average(np.maximum(bodies, 0.0), 24)),
        "rogers_satchell_24": np.sqrt(average(np.maximum(edges, 0.0), 24)),
    }
    for n in (1, 6, 24, 72, 168, 720):
        moved = pd.DataFrame(known(r, 0.0)).rolling(n, min_periods=1).sum().to_numpy()
        p[f"scaled_move_{n}"] = ratio(moved, realised[168] * math.sqrt(n), 0.0)
    for n in (24, 168, 720):
        p[f"from_high_{n}"], p[f"from_low_{n}"] = x / extreme(h, n, max) - 1.0, x / extreme(low, n, min) - 1.0
    p["illiquidity_24_168"] = ratio(average(per_quote, 24), average(per_quote, 168), 1.0)
    return p | {f"signed_volume_{n}": ratio(average(v * sign, n), average(v, n), 0.0) for n in (6, 24, 168)}


def turn(close_time, hours):
    """Angle of a time in a cycle that begins on a Monday."""
    since = [(pd.Timestamp(t) - pd.Timestamp("1970-01-05")) / pd.Timedelta(hours=hours) for t in close_time]
    return 2.0 * math.pi * (np.array(since) % 1.0)[:, None]


def hourly(x, close_time, alpha, is_before=False):
    """Past mean of x in the hour of the week that begins at the close, or in the hour before the one in which the bar ends."""
    out, known = np.full(x.shape, NAN), {}
    hours = [(pd.Timestamp(t).day_of_week * 24 + pd.Timestamp(t).hour, pd.Timestamp(t - 1)) for t in close_time]
    for t, (following, ended) in enumerate(hours):
        for s in range(x.shape[1]):
            slot = ended.day_of_week * 24 + ended.hour, s
            if x[t, s] == x[t, s]:
                count, mean = known.get(slot, (0, 0.0))
                known[slot] = count + 1, mean + max(alpha, 1.0 / (count + 1)) * (x[t, s] - mean)
            hour = (slot[0] - 1) % 168 if is_before else following
            out[t, s] = known.get((hour, s), (0, NAN))[1]
    return out


def across(x, function, neutral=0.0):
    """A function of the values of each row, written to all cells that have one; neutral where fewer than five do."""
    out = np.full(x.shape, neutral)
    for t, row in enumerate(x):
        has = row == row
        if has.sum() >= 5:
            out[t, has] = function(row[has])
    return out


def row_rank(row):
    return pd.Series(row).rank().sub(1.0).div(len(row) - 1.0).sub(0.5) if np.ptp(row) > 1e-12 * abs(row.mean()) else 0.0 * row


def row_distance(row):
    return (row - row.mean()) / row.std(ddof=1) if np.ptp(row) > 1e-12 * abs(row.mean()) else 0.0 * row


def _across(p, x, benchmark):
    """Clock, market and cross-section, of the planes before."""
    r = np.log(x / before(x, 1))
    market = np.array([row[row == row].mean() if (row == row).sum() >= 5 else 0.0 for row in r])[:, None] * np.ones(x.shape)
    beta = known(ratio(average(r * market, 168), average(np.where(np.isnan(r), NAN, market**2), 168), 0.0), 0.0)
    residual = r - np.vstack([np.zeros((1, x.shape[1])), beta[:-1]]) * market
    total = {n: pd.DataFrame(market).rolling(n, min_periods=1).sum().to_numpy() for n in (1, 6, 24, 168)}
    rising = np.where(np.isnan(x), NAN, np.nan_to_num(r) > 0.0)
    out = {f"market_move_{n}": plane for n, plane in total.items()} | {"beta_168": beta}
    out["market_volatility_24"] = np.sqrt(pd.DataFrame(market**2).rolling(24, min_periods=1).sum().to_numpy() / 24.0)
    out["breadth"] = across(rising, lambda row: row.mean())
    scales = {6: 6, 24: 24, 168: pd.DataFrame(~np.isnan(residual)).rolling(168, min_periods=1).sum().to_numpy()}
    out |= {f"residual_{n}": scale * average(residual, n) for n, scale in scales.items()}
    for n in (1, 6, 24):
        own = np.where(np.isnan(x), 0.0, known(p[f"scaled_move_{n}"], 0.0))
        out[f"lead_{n}"] = own[:, [benchmark]] - own if benchmark >= 0 else own - own
    for n in (1, 6, 24, 168):
        moves = np.where(np.isnan(x), NAN, p[f"scaled_move_{n}"])
        out[f"move_rank_{n}"], out[f"move_distance_{n}"] = across(moves, row_rank), across(moves, row_distance)
    out["volatility_rank"] = across(np.where(np.isnan(x), NAN, p["realised_24"]), row_rank)
    out["volume_rank"] = across(np.where(np.isnan(x), NAN, p["volume_ratio"]), row_rank)
    return out


# ---------------------------------------------------------------- twins of the primitives


def elementwise(code, a, b, c, d, k, empty):
    """One operation of `primitives`, cell by cell."""
    from qtcore.features import primitives as op

    rules = {
        op.SCALED: lambda a, b, c, d: k * ((a - b) * c),
        op.RATIO: lambda a, b, c, d: k * ((a - b) / (c - d)) if c != d else empty,
        op.ROOT: lambda a, b, c, d: math.sqrt(a * k) * b,
        op.LOG_RATIO: lambda a, b, c, d: math.log(a / b),
        op.TRUE_RANGE: lambda a, b, c, d: max([v for v in (a - b, abs(a - c), abs(b - c)) if v == v] or [0.0]) if a - b == a - b else 0.0,
        op.ABOVE: lambda a, b, c, d: float(a > b),
        op.CATEGORY: lambda a, b, c, d: NAN if a != a else 0.0 if a < 30 else 2.0 if a > 70 else 1.0,
        op.CLIP: lambda a, b, c, d: min(max(a, -1.0), 1.0) if a == a else 0.0,
        op.DEFAULT: lambda a, b, c, d: a if a == a else k,
    }
    return np.array([rules[code](*(float(v) for v in cell)) for cell in zip(a, b, c, d, strict=True)])


def windowed(code, x, rows):
    """What an operation of `primitives` must give for the last rows of x, from the whole windows."""
    from qtcore.features import primitives as op

    def last(n, f):
        return np.array([f(x[t - n + 1 : t + 1]) for t in range(len(x) - rows, len(x))])

    def moments(n):
        return last(n, lambda w: w.mean(axis=0)), last(n, lambda w: ((w - w.mean(axis=0)) ** 2).sum(axis=0))

    if code in (op.MERGE2, op.MERGE4, op.MERGE5):
        return moments({op.MERGE2: 8, op.MERGE4: 16, op.MERGE5: 20}[code])
    if code == op.BANDS:
        mean, dev = moments(4)
        return mean + np.sqrt(dev), mean - np.sqrt(dev)
    if code == op.INDEX14:
        return (rsi(x, 14, sma)[-rows:],)
    if code == op.RATIOS:
        return x[-rows:] / sma(x, 10)[-rows:], x[-rows:] / sma(x, 20)[-rows:]
    if code == op.MOVES:
        move = np.diff(x, axis=0)[-rows:]
        return np.maximum(move, 0.0), np.minimum(move, 0.0)
    if code == op.MOST4:
        return (last(4, lambda w: w.max(axis=0)),)
    return (last({op.ADD4: 4, op.ADD5: 5}[code], lambda w: w.sum(axis=0)),)
