"""Is a feed of one's own opened by its prefix, with the flags it takes, and traded from like ours?"""

import sys
from collections.abc import Iterator

import numpy as np
import pytest

import research
from qtcore import Bars
from research.errors import ConfigError, UserError
from research.live.feeds import registry
from research.live.feeds.feeds import Arrival
from research.live.feeds.registry import open_feed, register_feed
from research.live.monitoring.journal_source import JournalSource
from research.live.start import LiveOptions, start_live
from research.training.models.layers import FEEDS
from research.training.walk_forward import train
from tests.conftest import awkward_bars
from tests.support.as_published import CONFIG

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
        ({"speed": "2"}, "--speed must be an argument speed of the function that opens list:, was given with 'list:x', which takes none"),
        ({"exchange": {"timeframe": "1h"}}, "--timeframe must be an argument timeframe of the function that opens list:"),
        ({"start": "2024-01-01"}, "--from must be an argument start of the function that opens list:"),
        ({"time_zone": "UTC"}, "--time-zone must be an argument time_zone of the function that opens list:"),
    ],
)
def test_a_flag_that_a_feed_does_not_take_is_refused(told, how, sentence):
    with pytest.raises(UserError, match=sentence):
        open_feed("list:x", **how)
    assert told == []


def test_a_flag_goes_with_the_feeds_of_ours_that_take_it():
    with pytest.raises(UserError, match="--speed must go with replay:FILE, was given with 'ccxt:x'; leave it out"):
        open_feed("ccxt:x", speed="2")


def test_a_file_of_layers_knows_the_prefixes_of_ours():
    assert tuple(registry._KINDS)[:2] == FEEDS


@pytest.mark.parametrize(
    ("opener", "says"),
    [
        (lambda name: 5, "what opens the own feed bad:x must return a Feed, was 5 without symbols, interval, history, arrivals, close"),
        (lambda name: None, "what opens the own feed bad:x must return a Feed, was None without"),
        (lambda name: 1 / 0, "the own feed bad:x must run without errors, raised ZeroDivisionError: division by zero; correct it"),
        (lambda name: sys.exit(0), "the own feed bad:x must run without errors, raised SystemExit: 0; correct it"),
        (lambda: 1, "the own feed bad:x must run without errors, raised TypeError: .*takes 0 positional arguments"),
    ],
)
def test_an_opener_that_cannot_open_is_named(told, opener, says):
    register_feed("bad", opener)
    with pytest.raises(ConfigError, match=says):
        open_feed("bad:x")


class BrokenFeed(ListFeed):
    """Raises where its name says."""

    where, what = "", SystemExit(0)

    def history(self):
        if self.where == "history":
            raise self.what
        return super().history()

    def arrivals(self, after):
        yield from list(super().arrivals(after))[:3]
        if self.where == "arrivals":
            raise self.what
        if self.where == "kind":
            yield 5

    def close(self):
        if self.where == "close":
            raise self.what


@pytest.mark.parametrize("where", ["history", "arrivals", "kind", "close"])
def test_an_own_feed_that_raises_is_named(told, tmp_path, where):
    train(BARS[:400], ("lgbm",), n_folds=2, preset="tiny", processes=1, out=tmp_path / "models", profile="published")
    feed = BrokenFeed(BARS, 400)
    feed.where = where
    register_feed("bad", lambda name: feed)
    runner, close = start_live(LiveOptions("bad:x", tmp_path / "journal.db", CONFIG, models=str(tmp_path / "models"), allow_rejected=True))

    def live():
        try:
            runner.run()
        finally:
            close()

    with pytest.raises(ConfigError, match=r"the own feed bad:x must run without errors, raised (SystemExit: 0|TypeError: .* was int)"):
        live()


def test_an_unknown_kind_is_told_all_known_ones(told):
    says = "--feed must be replay:FILE, ccxt:EXCHANGE or list:NAME, was 'lists:x'; a feed of your own comes with --layers"
    with pytest.raises(ConfigError, match=says):
        open_feed("lists:x")
    for prefix in ("", "My feed", "a:b"):
        with pytest.raises(ConfigError, match="prefix of a feed must be a word"):
            register_feed(prefix, ListFeed)


@pytest.mark.parametrize("is_replay", [False, True])
def test_an_own_feed_is_traded_from(told, tmp_path, is_replay):
    train(BARS[:400], ("lgbm",), n_folds=2, preset="tiny", processes=1, out=tmp_path / "models", profile="published")
    feed = ListFeed(BARS, 400)
    if is_replay:
        feed.is_replay = True
    register_feed("list", lambda name: feed)
    wish = LiveOptions("list:x", tmp_path / "journal.db", CONFIG, models=str(tmp_path / "models"), allow_rejected=True)
    runner, close = start_live(wish)
    try:
        assert runner.run().bars == 20
        synced = runner.journal.db.execute("PRAGMA synchronous").fetchone()[0]
    finally:
        close()
    assert feed.is_closed
    seen = JournalSource(tmp_path / "journal.db").runner()
    assert (seen["is_replay"], seen["late_seconds"] == 0.0, synced == 1) == (is_replay,) * 3, "candles of years ago are late live alone"
    assert research.register_feed is register_feed


def test_a_feed_says_with_a_truth_value_whether_it_replays(told):
    feed = ListFeed(BARS, 400)
    feed.is_replay = "no"
    register_feed("bad", lambda name: feed)
    with pytest.raises(ConfigError, match="is_replay of the own feed bad:x must be True or False, was 'no'; correct it"):
        open_feed("bad:x")
