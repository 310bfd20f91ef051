"""Is a feed of one's own opened by its prefix, with the flags it takes, and traded from like ours?"""

from collections.abc import Iterator

import numpy as np
import pytest

import research
from qtcore import Bars
from research.errors import ConfigError, UserError
from research.live.feeds import registry
from research.live.feeds.feeds import Arrival
from research.live.feeds.registry import open_feed, register_feed
from research.live.start import LiveOptions, start_live
from research.training.walk_forward import train
from tests.conftest import awkward_bars

BARS = awkward_bars(420, seed=0, n_symbols=3)


class ListFeed:
    """Bars of a list as another program might hand them over."""

    def __init__(self, bars: Bars, first: int) -> None:
        self.bars, self.first, self.is_closed = bars, first, False
        self.symbols, self.interval = bars.symbols, bars.interval

    def history(self) -> Bars:
        return self.bars[: self.first]

    def arrivals(self, after: int) -> Iterator[Arrival]:
        bars = self.bars
        table = np.stack([bars.open, bars.high, bars.low, bars.close, bars.volume], axis=1)
        for t in range(self.first, bars.n):
            if bars.close_time[t] > after:
                yield Arrival(int(bars.close_time[t]) + 60_000_000_000, int(bars.open_time[t]), table[t])

    def close(self) -> None:
        self.is_closed = True


@pytest.fixture
def told(monkeypatch):
    """What the opener of `list:` was given."""
    monkeypatch.setattr(registry, "_KINDS", dict(registry._KINDS))
    seen = []

    def opener(name, **given):
        seen.append((name, given))
        return ListFeed(BARS, 400)

    register_feed("list", opener, flags=("symbols", "poll"))
    return seen


def test_the_opener_gets_the_name_and_the_flags_that_were_given(told):
    assert isinstance(open_feed("list:a:b", exchange={"poll": 0.0, "timeframe": None, "patience": 5.0}, symbols=["A"], end=None), ListFeed)
    assert told == [("a:b", {"symbols": ["A"], "poll": 0.0})]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"speed": "2"}, "--speed must go with replay:FILE, was given with 'list:x'; leave it out"),
        ({"exchange": {"timeframe": "1h"}}, "--timeframe must go with ccxt:EXCHANGE, was given with 'list:x'; leave it out"),
        ({"start": "2024-01-01"}, "--from must go with replay:FILE or ccxt:EXCHANGE, was given"),
        ({"time_zone": "UTC"}, "--time-zone must go with replay:FILE, was given"),
    ],
)
def test_a_flag_that_a_feed_does_not_take_is_refused(told, how, sentence):
    with pytest.raises(UserError, match=sentence):
        open_feed("list:x", **how)
    assert told == []


def test_an_unknown_kind_is_told_all_known_ones(told):
    with pytest.raises(ConfigError, match="--feed must be replay:FILE, ccxt:EXCHANGE or list:NAME, was 'lists:x'"):
        open_feed("lists:x")
    for prefix in ("", "My feed", "a:b"):
        with pytest.raises(ConfigError, match="prefix of a feed must be a word"):
            register_feed(prefix, ListFeed)


def test_an_own_feed_is_traded_from(told, tmp_path):
    train(BARS[:400], ("lgbm",), n_folds=2, preset="tiny", processes=1, out=tmp_path / "models")
    wish = LiveOptions("list:x", tmp_path / "journal.db", models=str(tmp_path / "models"), allow_rejected=True, how={"symbols": None})
    runner, close = start_live(wish)
    feed = runner.feed
    try:
        assert runner.run().bars == 20
    finally:
        close()
    assert feed.is_closed
    assert research.register_feed is register_feed
