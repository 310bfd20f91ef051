"""Feeds and bar assembler: a feed says what came in and when; the assembler decides when a bar is whole.

The rules. A bar is decided when every symbol's candle is there, or `grace` after its close; who is missing then stays a hole (`missing`).
Of every symbol the first closed candle of a bar counts, before the decision and after it: one that repeats it is noted (`duplicate`), one
that says something else too (`revised`), and one that comes after the decision to a hole (`late`). Candles may come in any order within the
grace time. A bar that nobody traded is a row of holes, so that the grid has no gap. A candle from the future of the feed's own clock is
refused (`skew`); one that is impossible is a hole, and one off the grid is dropped, by the rules and in the words of a backtest (`bad`). A
close that jumps is used and noted (`jump`).
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qtcore import Bars
from qtcore.types import F8, NEVER
from research.data.jumps import Moves
from research.data.rules import Issue
from research.errors import ConfigError
from research.live.feeds.doubts import KINDS, Doubts
from research.live.records import Event
from research.live.storage.codec import one_bar

SKEW = 2_000_000_000  # ns that a candle may be ahead of the feed's clock
GRACE = 30_000_000_000  # ns after its close that a bar waits for symbols that are missing
REMEMBERED = 48  # decided bars that a repeated candle is compared with


@dataclass(frozen=True)
class Arrival:
    """Closed candles of one bar as they came in. now: the feed's clock, ns UTC; prices [5, S], or [6, S] with funding; NaN: nothing came.

    An arrival without prices (`open_time` -1) only moves the clock. events: what happened to the feed itself.
    """

    now: int
    open_time: int = -1
    prices: F8 | None = None
    events: tuple[Event, ...] = ()


class Feed(Protocol):
    """Where candles come from.

    A feed of stored candles also says `is_replay = True`; without it a feed is a market that goes on by itself. No bar of a replay is
    overdue, the disk is synced at checkpoints only, promoted models are waited for, and its rows are taken as they come: a bar that it
    leaves out is no row of holes.
    """

    @property
    def symbols(self) -> tuple[str, ...]:
        """Columns, in the order they are governed."""
        ...

    @property
    def interval(self) -> int:
        """Length of a bar, ns."""
        ...

    def history(self) -> Bars | None:
        """Bars before the first live one, for features and regime; None without."""
        ...

    def arrivals(self, after: int) -> Iterator[Arrival]:
        """Yield what comes in for bars that close after `after`, ns UTC, until the feed ends."""
        ...

    def close(self) -> None:
        """Let go of files and connections."""
        ...


@dataclass
class _Bar:
    """One bar on its way. raw: the first closed candle of each symbol as it came; prices: what can be used of them; came [S]."""

    raw: F8
    prices: F8
    came: NDArray[np.bool_]

    @classmethod
    def empty(cls, like: F8) -> "_Bar":
        """Begin a bar of which nothing came."""
        return cls(np.full_like(like, np.nan), np.full_like(like, np.nan), np.zeros(like.shape[1], bool))


@dataclass(frozen=True)
class _Doubt:
    """Something wrong with candles of a bar, told with the bar: what comes again after a crash is then counted once.

    rows [S]: candles that are counted with it, beside the first of each bar.
    """

    now: int
    open_time: int
    problem: str
    symbols: NDArray
    rows: NDArray[np.bool_]
    end: str = ""


@dataclass
class Assembler:
    """Turn arrivals into closed bars, one after the other.

    clock: close of the last decided bar, ns UTC; None before the first. fills_gaps: a bar that nobody sent becomes a row of holes; False
    where the feed sends the rows of its grid itself.
    """

    symbols: tuple[str, ...]
    interval: int
    grace: int
    clock: int | None = None
    fills_gaps: bool = True
    events: list[Event] = field(default_factory=list)
    _open: dict[int, _Bar] = field(default_factory=dict)
    _used: dict[int, _Bar] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)
    _doubted: list[_Doubt] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._gone = set(self.symbols)  # not listed yet
        self.doubts, self._moves = Doubts(self.symbols), Moves(len(self.symbols))

    def remember(self, bars: Bars) -> None:
        """Take bars that were decided before, in order: what a jump and a share of bad candles are measured against."""
        self.doubts.rows += (~np.isnan(bars.close)).sum(axis=0)
        for close in bars.close:
            self._moves.step(close)

    def add(self, arrival: Arrival) -> None:
        """Take what came in; notes go to `events`."""
        if arrival.prices is None:
            return
        open_time, prices = arrival.open_time, arrival.prices
        came: NDArray[np.bool_] = np.asarray(~np.isnan(prices[:5]).all(axis=0))
        if open_time + self.interval > arrival.now + SKEW:
            self._note(arrival, "skew", self._named(came), f"the bar of {_iso(open_time)} has not closed at {_iso(arrival.now)}")
            return
        if self.fills_gaps and self.clock is not None and (open_time - self.clock) % self.interval:
            self._doubt(arrival, "off_grid", came, came)
            return
        bar = self._open.get(open_time)
        if self.clock is not None and open_time < self.clock:
            bar = self._used.get(open_time)
            late = came if bar is None else np.asarray(came & ~bar.came)
            if late.any():
                values = "; ".join(" ".join(f"{x!r}" for x in prices[:5, s].tolist()) for s in np.flatnonzero(late))
                self._note(arrival, "late", self._named(late), f"after the decision of {_iso(open_time)}: {values}; not used")
            came = came & ~late
        elif bar is None:
            bar = self._open[open_time] = _Bar.empty(prices)
        if bar is not None:
            self._repeated(arrival, bar, came & bar.came)
            self._first(arrival, bar, came & ~bar.came)

    def _first(self, arrival: Arrival, bar: _Bar, new: NDArray[np.bool_]) -> None:
        """Keep first candles; one that is impossible is a hole, as in a backtest."""
        assert arrival.prices is not None
        prices, wrong = self.doubts.mask(np.where(new, arrival.prices, np.nan))
        bar.raw[:, new], bar.prices[:, new] = arrival.prices[:, new], prices[:, new]
        bar.came |= new
        for s, problem in wrong:
            self._doubt(arrival, problem, np.arange(len(new)) == s, np.zeros(len(new), bool))

    def _repeated(self, arrival: Arrival, bar: _Bar, again: NDArray[np.bool_]) -> None:
        """Note candles that came before: the first counts."""
        if not again.any():
            return
        assert arrival.prices is not None
        raw, now = bar.raw[:5], arrival.prices[:5]
        same = again & ((raw == now) | (np.isnan(raw) & np.isnan(now))).all(axis=0)
        self._doubt(arrival, "duplicate", same, same)
        for s in np.flatnonzero(again & ~same).tolist():
            values = " ".join(f"{x!r}" for x in now[:, s].tolist())
            one = np.arange(len(again)) == s
            self._doubt(arrival, "conflict", one, one, f"the first counts, {values} is not used")

    def _doubt(self, arrival: Arrival, problem: str, which: NDArray[np.bool_], rows: NDArray[np.bool_], end: str = "") -> None:
        if which.any():
            self._doubted.append(_Doubt(arrival.now, arrival.open_time, problem, np.flatnonzero(which), rows, end))

    def settle(self) -> list[Event]:
        """Count what is wrong with candles up to the last decided bar, and return what is to be told."""
        clock = NEVER if self.clock is None else self.clock
        due = [doubt for doubt in self._doubted if doubt.open_time < clock]
        self._doubted = [doubt for doubt in self._doubted if doubt.open_time >= clock]
        for doubt in due:
            self.doubts.rows += doubt.rows
        for doubt in due:
            self.events += self.doubts.say(doubt.now, doubt.problem, doubt.symbols, doubt.open_time, doubt.end)
        events, self.events = self.events, []
        return events

    def ready(self, now: int) -> tuple[Bars, list[Event]] | None:
        """Return the next bar if it can be decided at `now`, with what was noticed since the last one."""
        if not self._open:
            return None
        first = min(self._open)
        open_time = first if self.clock is None else min(first, self._next(first))
        bar = self._open.get(open_time)
        is_whole = bar is not None and bool(bar.came.all())
        if not is_whole and now < open_time + self.interval + self.grace:
            return None
        if bar is None:
            bar = _Bar.empty(self._open[first].raw)
        self._open.pop(open_time, None)
        close_time = open_time + self.interval
        gone = set() if is_whole else set(compress(self.symbols, ~bar.came))
        if begun := sorted(gone - self._gone):
            self.events.append(Event(now, "missing", f"no candle from {_iso(open_time)} on: holes", ",".join(begun)))
        self._gone, self.clock = gone, close_time
        self._used[open_time] = bar
        if len(self._used) > REMEMBERED:
            del self._used[next(iter(self._used))]
        self.doubts.rows += bar.came
        if (jumps := self._moves.step(bar.prices[3])).any():
            self._doubted.append(_Doubt(now, open_time, "jump", np.flatnonzero(jumps), np.zeros(len(jumps), bool)))
        return one_bar(bar.prices, open_time, close_time, self.symbols, self.interval), self.settle()

    def _next(self, first: int) -> int:
        """Open of the bar that comes after the last decided one."""
        assert self.clock is not None
        return self.clock if self.fills_gaps and (first - self.clock) % self.interval == 0 else first

    def _named(self, which: NDArray[np.bool_]) -> list[str]:
        return list(compress(self.symbols, which))

    def _note(self, arrival: Arrival, kind: str, names: list[str], text: str) -> None:
        self.events.append(Event(arrival.now, kind, text, ",".join(names)))


class ReplayFeed:
    """Bars of a file, one at a time. speed: bars a second, None for as fast as they are taken.

    Bars that open before `live_from` (ns UTC) are history. issues: what was not clean in the file, noted before the first live bar.
    notes: how the file was read, and later how what is served with it was, noted there too. lacked: what they lack, in a backtest's words.
    """

    is_replay = True

    def __init__(self, bars: Bars, speed: float | None = None, live_from: int | None = None, issues: Sequence[Issue] = ()) -> None:
        self._bars, self._speed, self._issues = bars, speed, issues
        self.notes: list[str] = []
        self.lacked: list[str] = []
        self.symbols, self.interval = bars.symbols, bars.interval
        self._first = 0 if live_from is None else int(np.searchsorted(bars.open_time, live_from))

    @property
    def bars(self) -> Bars:
        """Everything that is replayed, history included."""
        return self._bars

    def history(self) -> Bars | None:
        """Return the bars before the first live one."""
        return self._bars[: self._first] if self._first else None

    def arrivals(self, after: int) -> Iterator[Arrival]:
        """Yield whole bars; the clock stands late enough that holes are holes."""
        bars = self._bars
        names = ("open", "high", "low", "close", "volume") + (("funding",) if bars.funding is not None else ())
        table = np.stack([getattr(bars, name) for name in names], axis=1)  # [n, 5, S]
        due = time.monotonic()
        begin = max(self._first, int(np.searchsorted(bars.close_time, after, side="right")))
        events = [
            (KINDS.get(i.problem, "data"), i.text, i.symbol) for i in self._issues if i.problem != "jump"
        ]  # jumps are noted as they come
        events += [("note", text, "") for text in self.notes]
        if events and begin == self._first < bars.n:  # a new journal
            now = int(bars.open_time[begin])
            yield Arrival(now, events=tuple(Event(now, *event) for event in events))
        for t in range(begin, bars.n):
            if self._speed is not None:
                due += 1.0 / self._speed
                time.sleep(max(0.0, due - time.monotonic()))
            yield Arrival(int(bars.close_time[t]) + 10 * bars.interval, int(bars.open_time[t]), table[t])

    def close(self) -> None:
        """Nothing is held."""


def replays(feed: Feed) -> bool:
    """Whether a feed says that it gives stored candles again."""
    return bool(getattr(feed, "is_replay", False))


def parse_speed(text: str) -> float | None:
    """Read `--speed`: `max`, or bars a second.

    >>> parse_speed("max"), parse_speed("2.5")
    (None, 2.5)
    """
    if text == "max":
        return None
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.0 < speed < 1e9:
        raise ConfigError(f"--speed must be max, or bars a second above 0, was {text!r}; e.g. 2.5")
    return speed


def _iso(ns: int) -> str:
    return f"{np.datetime64(ns, 's') if ns < 10**12 else np.datetime64(ns, 'ns').astype('M8[s]')}Z"
