"""95 % intervals of accuracies, losses and their differences. How far off may a figure be by luck, where spells of volatility last?

What bars add to a figure is read through six slow waves, sqrt(2) cos(pi k u) for k = 1 to 6, u the share of the counted cells that have
passed. Each of the six sums has the variance of the figure, whatever the dependence of neighbouring bars, as long as it dies out within a
twelfth of the cells; the mean of their squares is that variance, and the figure over its root follows Student's t with six degrees of
freedom (Muller 2004; Lazarus, Lewis, Stock & Watson 2018). What models of one fold share counts too: folds are slow. As u counts cells, a
figure whose cells lie in a few storms is judged by these.

Measured 2026-11: a block bootstrap of Politis and White's length covers less the longer volatility lasts, for its blocks are too short and
its percentiles know nothing of how few they are; blocks of three times that length with Student's t still cover 90 % under GARCH. The waves
cover what they state and cost less (docs/specification.md, chapter 17, has the table).
"""

import numpy as np
from numpy.typing import NDArray

from qtcore.types import F8

N_WAVES = 6  # 8 cover 1 point less where volatility lasts, 16 cover 3 points less
QUANTILE = 2.4469118511449697  # 97.5 % of Student's t with 6 degrees of freedom


def tilted(sums: NDArray, clock: NDArray) -> F8:
    """Sum over bars with half of each wave added to their weights, and with it taken off: [2, 6, m].

    sums [n, m]: what each bar adds. clock [n]: its cells, by which the waves keep time. The two values of a figure are apart by what the
    bars add to it, read through the wave.
    """
    at = np.flatnonzero(clock)
    sums, clock = sums[at].astype(float), clock[at].astype(float)
    passed = np.cumsum(clock) - 0.5 * clock
    waves = np.sqrt(2.0) * np.cos(np.pi / max(clock.sum(), 1.0) * np.outer(np.arange(1, N_WAVES + 1), passed))
    half = 0.5 * (waves @ sums)
    return np.asarray(sums.sum(axis=0) + np.stack([half, -half]))


def error(figure: F8) -> F8:
    """Return the standard error of a figure from its values on `tilted` sums, [2, 6, ...] -> [...]."""
    return np.asarray(np.sqrt(np.square(figure[0] - figure[1]).mean(axis=0)))


def limits(value: float, figure: F8) -> list[float]:
    """Return the 95 % interval of a figure. figure [2, 6]: its values on `tilted` sums; NaN where there is none."""
    reach = QUANTILE * float(error(figure))
    return [value - reach, value + reach]


def share_limits(value: float, figure: F8) -> list[float]:
    """Return the 95 % interval of a share: that of its log odds, which stays between 0 and 1. The arguments are those of `limits`."""
    if not 0.0 < value < 1.0:
        return [value, value]
    odds, reach = np.log(value / (1.0 - value)), QUANTILE * float(error(figure)) / (value * (1.0 - value))
    low, high = 1.0 / (1.0 + np.exp(-(odds - reach))), 1.0 / (1.0 + np.exp(-(odds + reach)))
    return [float(low), float(high)]
