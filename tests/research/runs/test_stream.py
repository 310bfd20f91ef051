from collections.abc import Iterator

import numpy as np
import pytest

from qtcore.types import Bars, Votes
from research import backtest
from research.runs.streaming import backtest_stream, paired
from research.training.predictions import Predictions
from tests.conftest import assert_same_bits, awkward_bars
from tests.support import PUBLISHED

BARS = awkward_bars(500)
PREDICTIONS = Predictions.random(BARS, seed=5)


def cut(thing: Bars | Predictions, rows: int) -> Iterator:
    for start in range(0, thing.n, rows):
        yield thing[start : start + rows]


@pytest.mark.parametrize(("bar_rows", "prediction_rows"), [(128, 128), (77, 200), (500, 50), (31, 499)])
def test_streaming_gives_the_bits_of_the_whole(bar_rows: int, prediction_rows: int) -> None:
    run = backtest(BARS, PREDICTIONS, PUBLISHED)
    streamed = backtest_stream(paired(cut(BARS, bar_rows), cut(PREDICTIONS, prediction_rows)), run.params)
    for name in ("open_time", "equity", "balance", "exposure", "fills"):
        assert_same_bits(getattr(run.result, name), getattr(streamed, name), name)


def test_bars_without_a_prediction_have_no_voters() -> None:
    blocks: list[tuple[Bars, Votes]] = list(paired(cut(BARS, 100), cut(PREDICTIONS[200:300], 40)))
    voted = np.concatenate([(votes.action >= 0).any(axis=(0, 2)) for _, votes in blocks])
    assert not voted[:200].any()
    assert not voted[300:].any()
    assert voted[200:300].sum() > 90


def test_nothing_to_stream_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one block"):
        backtest_stream([])
