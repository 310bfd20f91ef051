"""What should the figures of a report be? Plain loops over cells, written from the definitions."""

import itertools
import math


def reliability(confidence, hit, n_bins=15):
    """Cells, mean confidence and accuracy of each bin, and the expected calibration error."""
    rows, gap = [], 0.0
    for b in range(n_bins):
        inside = [i for i, c in enumerate(confidence) if min(int(c * n_bins), n_bins - 1) == b]
        if not inside:
            rows.append((0, math.nan, math.nan))
            continue
        said = sum(confidence[i] for i in inside) / len(inside)
        right = sum(hit[i] for i in inside) / len(inside)
        rows.append((len(inside), said, right))
        gap += len(inside) / len(confidence) * abs(said - right)
    return rows, gap


def vote_counts(n_voters):
    """Head counts SELL, HOLD, BUY of all 3^n votes."""
    return [(v.count(0), v.count(1), v.count(2)) for v in itertools.product((0, 1, 2), repeat=n_voters)]


def policy_reason(sell, hold, buy, is_low, consensus=0.75, disagreement=0.50):
    """First trigger that fires (`spec` 7.3), by name; nothing of it is shared with the kernels."""
    n, most = sell + hold + buy, max(sell, hold, buy)
    if n == 1:
        return "TOO_FEW_VOTERS"
    if most / n >= consensus:
        return "STRONG_CONSENSUS_" + ("SELL", "HOLD", "BUY")[[sell, hold, buy].index(most)]
    if buy == 2 and sell == 2:
        return "SPLIT_VOTE"
    if 1.0 - most / n >= disagreement:
        return "HIGH_DISAGREEMENT"
    return "LOW_ENSEMBLE_CONFIDENCE" if is_low else "CLEAR_ENSEMBLE_NO_MODEL"


def wave_interval(hits, cells, quantile, n_waves=6):
    """95 % interval of sum(hits) / sum(cells) over bars: the deviations of the bars through cosines in the time of cells, on log odds."""
    n, share = sum(cells), sum(hits) / sum(cells)
    variance = 0.0
    for k in range(1, n_waves + 1):
        passed, read = 0.0, 0.0
        for hit, own in zip(hits, cells):
            read += math.sqrt(2.0) * math.cos(math.pi * k * (passed + own / 2) / n) * (hit - share * own) / n
            passed += own
        variance += read**2 / n_waves
    odds, reach = math.log(share / (1.0 - share)), quantile * math.sqrt(variance) / (share * (1.0 - share))
    return [1.0 / (1.0 + math.exp(-(odds + side * reach))) for side in (-1, 1)]


def baseline_shares(volatility, move, labels, edges):
    """Class shares by third of volatility and sign of the last move, and of all cells last; one cell of the latter is added to each bin."""
    every = [sum(label == c for label in labels) / sum(label >= 0 for label in labels) for c in range(3)]
    out = []
    for third, sign in itertools.product(range(3), (-1, 0, 1)):
        inside = [
            label
            for v, m, label in zip(volatility, move, labels)
            if label >= 0 and v == v and int(v >= edges[0]) + int(v >= edges[1]) == third and int(m > 0) - int(m < 0) == sign
        ]
        out.append([(sum(label == c for label in inside) + every[c]) / (len(inside) + 1) for c in range(3)])
    return [*out, every]


def stop_prices(candles, level, is_long):
    """Every price at which a stop may be filled: the first tick at or beyond it, over all paths of ticks that give these candles.

    candles: (open, high, low, close) in whole ticks, in the order of time; level: a whole tick. Longer paths add no first tick.
    """
    for first, high, low, last in candles:
        found = set()
        for middle in itertools.product(range(low, high + 1), repeat=3):
            path = (first, *middle, last)
            if (max(path), min(path)) == (high, low):
                found |= set(next(([tick] for tick in path if (tick <= level if is_long else tick >= level)), []))
        if found:
            return found
    return set()


def replayed(ticks, row, qty, price, fee, level, slippage_rate, fee_rate):
    """Net PnL of a position bought (qty above 0) or sold at row, whose stop takes the first tick at or beyond its level, and that row."""
    while ticks[row] > level if qty > 0 else ticks[row] < level:
        row += 1
    left = ticks[row] * (1.0 - slippage_rate if qty > 0 else 1.0 + slippage_rate)
    return (qty * (left - price) - abs(qty) * left * fee_rate) - fee, row
