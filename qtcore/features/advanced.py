"""Features that need more than sums: the slope of the last volumes, the correlation with the benchmark (`spec` 1.6).

They are compiled when somebody asks for them. Windows are summed anew for every bar; the rows before the block stand in front of it.
"""

import math

from qtcore.jit import kernel

SLOPE_WINDOW = 7
CORRELATION_WINDOW = 167  # returns, of 168 closes: the original window, which D-19 moves on to the present bar
MIN_PAIRS = 10


@kernel
def volume_slope(volume, before, out):
    """Least-squares slope of the last 7 volumes per bar, over their mean; 0 where the mean is 0.

    volume [before + n, S]: NaN at a hole; out [n, S]: NaN at a hole and where fewer than 6 of the 7 are known.
    """
    need = (4 * SLOPE_WINDOW + 4) // 5
    for t in range(out.shape[0]):
        for s in range(out.shape[1]):
            n, time, total = 0.0, 0.0, 0.0
            for k in range(SLOPE_WINDOW):
                v = volume[t + before - k, s]
                is_known = v == v
                n += 1.0 if is_known else 0.0
                time -= k if is_known else 0.0
                total += v if is_known else 0.0
            middle, mean = time / max(n, 1.0), total / max(n, 1.0)
            above, below = 0.0, 0.0
            for k in range(SLOPE_WINDOW):
                v = volume[t + before - k, s]
                step = -k - middle if v == v else 0.0
                above += step * (v - mean) if v == v else 0.0
                below += step * step
            slope = above / (below * mean) if mean > 0.0 and n >= need else 0.0
            is_known = n >= need and volume[t + before, s] == volume[t + before, s]
            out[t, s] = slope if is_known else math.nan


@kernel
def simple_returns(close, last, out):
    """Write x / (last close) - 1 of every bar into out [n, S]: NaN at a hole and at a symbol's first bar. last [S] is carried on."""
    for t in range(close.shape[0]):
        for s in range(close.shape[1]):
            x, old = close[t, s], last[s]
            out[t, s] = x / old - 1.0 if x == x and old == old else math.nan
            last[s] = x if x == x else old


@kernel
def correlation(returns, close, benchmark, sums, before, out):
    """Pearson correlation of the returns of the last 168 closes with those in column `benchmark`, over the rows where both are known.

    returns [before + n, S]: NaN where unknown; close [n, S]; sums [6, S]: scratch. out [n, S]: NaN at a hole; 1 for the benchmark itself; 0
    below 10 pairs, without variance, and where benchmark is -1.
    """
    n_symbols = out.shape[1]
    for t in range(out.shape[0]):
        for i in range(6):
            for s in range(n_symbols):
                sums[i, s] = 0.0
        for r in range(t + before + 1 - CORRELATION_WINDOW if benchmark >= 0 else t + before + 1, t + before + 1):
            y = returns[r, benchmark]
            for s in range(n_symbols):
                x = returns[r, s]
                both = x == x and y == y
                a, b = x if both else 0.0, y if both else 0.0
                sums[0, s] += 1.0 if both else 0.0
                sums[1, s] += a
                sums[2, s] += b
                sums[3, s] += a * a
                sums[4, s] += b * b
                sums[5, s] += a * b
        for s in range(n_symbols):
            n = max(sums[0, s], 1.0)
            var_x, var_y = sums[3, s] - sums[1, s] * sums[1, s] / n, sums[4, s] - sums[2, s] * sums[2, s] / n
            is_clear = sums[0, s] >= MIN_PAIRS and var_x > 0.0 and var_y > 0.0
            below = math.sqrt(var_x) * math.sqrt(var_y) if is_clear else 1.0
            share = (sums[5, s] - sums[1, s] * sums[2, s] / n) / below if is_clear else 0.0
            share = min(1.0, max(-1.0, share))
            out[t, s] = math.nan if close[t, s] != close[t, s] else (1.0 if s == benchmark else share)
