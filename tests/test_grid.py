"""Do candles of every habit stand on the rows that they mean?"""

import numpy as np
import pytest

from qtcore.types import NS_PER_HOUR
from research.data import closes_of

TICKS = (1, 1_000, 1_000_000, 1_000_000_000)


@pytest.mark.parametrize("tick", (0, *TICKS))
def test_a_stamp_just_before_a_close_means_it(tick):
    closes = np.array([1, 2, 3, 5, 6]) * NS_PER_HOUR
    assert (closes_of(closes - tick, closes, NS_PER_HOUR) == closes).all()


def test_other_stamps_mean_themselves():
    closes = np.array([1, 2, 3, 5, 6]) * NS_PER_HOUR
    stamps = np.array([4 * NS_PER_HOUR, 2 * NS_PER_HOUR + 1, 2 * NS_PER_HOUR - 2, 7 * NS_PER_HOUR, np.iinfo(np.int64).min])
    assert (closes_of(stamps, closes, NS_PER_HOUR) == stamps).all()
    assert (closes_of(stamps, closes[:0], NS_PER_HOUR) == stamps).all()
    seconds = closes // 3_600  # bars of a second: a second earlier is another bar
    assert (closes_of(seconds - 10**9, seconds, 10**9) == seconds - 10**9).all()
    assert (closes_of(seconds - 10**6, seconds, 10**9) == seconds).all()
