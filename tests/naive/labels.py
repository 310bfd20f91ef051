"""What should the labels be? Plain loops, written from the specification."""

import math


def make_labels(close, horizon, sell, buy, inclusive):
    """close: list of rows; sell, buy: one threshold per symbol. -1 where a bar or the one exactly `horizon` rows ahead is missing."""
    n, n_symbols = len(close), len(close[0])
    out = [[-1] * n_symbols for _ in range(n)]
    for t in range(n):
        for s in range(n_symbols):
            if t + horizon >= n or math.isnan(close[t][s]) or math.isnan(close[t + horizon][s]) or math.isnan(sell[s]):
                continue
            r = close[t + horizon][s] / close[t][s] - 1.0
            up = r >= buy[s] if inclusive else r > buy[s]
            down = r <= sell[s] if inclusive else r < sell[s]
            out[t][s] = 2 if up and not down else 0 if down and not up else 1
    return out


def percentile(values, share):
    """Linear interpolation between the order statistics."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def fit_thresholds(close, horizon, low, high, rows, enough):
    """Percentiles per symbol of the returns of the training rows; of all symbols together where one has fewer than `enough`."""
    n, n_symbols = len(close), len(close[0])
    per_symbol = []
    for s in range(n_symbols):
        returns = [close[t + horizon][s] / close[t][s] - 1.0 for t in rows if t + horizon < n]
        per_symbol.append([r for r in returns if not math.isnan(r)])
    everyone = [r for returns in per_symbol for r in returns]
    chosen = [returns if len(returns) >= enough else everyone for returns in per_symbol]
    return [percentile(r, low) for r in chosen], [percentile(r, high) for r in chosen]


def uniqueness(labels, end):
    """Mean over a label's bars of one over the number of labels alive on that bar; a label of t and s lives on t+1 .. end[t][s]."""
    n, n_symbols = len(labels), len(labels[0])
    out = [[math.nan] * n_symbols for _ in range(n)]
    for s in range(n_symbols):
        spans = {t: range(t + 1, end[t][s] + 1) for t in range(n) if labels[t][s] >= 0}
        for t, span in spans.items():
            shares = [1.0 / sum(bar in other for other in spans.values()) for bar in span]
            out[t][s] = sum(shares) / len(shares)
    return out


def walk_forward(n, horizon, n_folds, train_share, valid_share, embargo):
    """List of (fit, valid, test) row lists; a row trains only where its label's last bar plus the embargo precedes the next part."""
    first = int(n * train_share)
    folds = []
    for k in range(n_folds):
        start, stop = first + (n - first) * k // n_folds, first + (n - first) * (k + 1) // n_folds
        middle = start - round(start * valid_share)
        fit = [t for t in range(middle) if t + horizon + embargo < middle]
        valid = [t for t in range(middle, start) if t + horizon + embargo < start]
        folds.append((fit, valid, list(range(start, stop))))
    return folds
