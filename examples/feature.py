"""Range position feature: where the close lies between the lowest low and the highest high of the last 20 bars."""

import numpy as np
from numpy.typing import NDArray

import qtcore as qt

WINDOW = 20  # bars, the present one included


def range_position(bars: qt.Bars) -> NDArray[np.float64]:
    """Return 0 at the lowest low, 1 at the highest high, [n, S]; NaN where a bar of the window is missing or nothing moved."""
    out = np.full(bars.close.shape, np.nan)
    for t in range(WINDOW - 1, bars.n):
        low, high = bars.low[t + 1 - WINDOW : t + 1].min(axis=0), bars.high[t + 1 - WINDOW : t + 1].max(axis=0)
        moved = high > low
        out[t, moved] = (bars.close[t, moved] - low[moved]) / (high[moved] - low[moved])
    return out


RANGE_POSITION = qt.Feature("range_position", range_position, lookback=WINDOW - 1)
features = [RANGE_POSITION]  # for --layers
