"""How do arriving candles become closed bars? A feed says what came in and when; the assembler decides when a bar is whole.

The rules. A bar is decided when every symbol's candle is there, or `grace` after its close; who is missing then stays a hole (`missing`).
A candle for a decided bar is noted and not used: `late` where the bar has a hole, `duplicate` where it repeats what was used, `revised`
where it says something else. Before the decision a repeated candle replaces the first (`revised` if it differs, else `duplicate`). Candles
may come in any order within the grace time. A bar that nobody traded is a row of holes, so that the grid has no gap. A candle from the
future of the feed's own clock is refused (`skew`), an impossible one too (`bad`).
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from qtcore import Bars
from qtcore.types import F8
from research.errors import UserError
from research.live.codec import one_bar
from research.live.journal import Event

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
    """Where candles come from."""

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
    _open: dict[int, F8] = field(default_factory=dict)
    _used: dict[int, F8] = field(default_factory=dict)
    _gone: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._gone = set(self.symbols)  # not listed yet

    def add(self, arrival: Arrival) -> None:
        """Take what came in; notes go to `events`."""
        if arrival.prices is None:
            return
        open_time, prices = arrival.open_time, arrival.prices
        if open_time + self.interval > arrival.now + SKEW:
            self._note(arrival, "skew", self._named(prices), f"the bar of {_iso(open_time)} has not closed at {_iso(arrival.now)}")
            return
        o, h, low, c, v = prices[:5]
        good = (low > 0.0) & (low <= o) & (low <= c) & (h >= o) & (h >= c) & (v >= 0.0)
        if not good.all() and (bad := ~good & ~np.isnan(prices[:5]).all(axis=0)).any():
            self._note(arrival, "bad", [s for s, b in zip(self.symbols, bad) if b], f"an impossible candle at {_iso(open_time)}, not used")
            prices = np.where(bad, np.nan, prices)
        if self.clock is not None and open_time < self.clock:
            self._too_late(arrival, prices)
            return
        known = self._open.get(open_time)
        if known is None:
            self._open[open_time] = prices.copy()
            return
        fresh = ~np.isnan(prices[3])
        changed = fresh & ~np.isnan(known[3]) & (known[:5] != prices[:5]).any(axis=0)
        if changed.any():
            self._note(
                arrival, "revised", [s for s, c in zip(self.symbols, changed) if c], f"before the decision of {_iso(open_time)}; used"
            )
        if (same := fresh & ~np.isnan(known[3]) & ~changed).any():
            self._note(arrival, "duplicate", [s for s, c in zip(self.symbols, same) if c], f"before the decision of {_iso(open_time)}")
        known[:, fresh] = prices[:, fresh]

    def ready(self, now: int) -> tuple[Bars, list[Event]] | None:
        """Return the next bar if it can be decided at `now`, with what was noticed since the last one."""
        if not self._open:
            return None
        first = min(self._open)
        open_time = first if self.clock is None else min(first, self._next(first))
        prices = self._open.get(open_time)
        is_whole = prices is not None and not np.isnan(prices[3]).any()
        if not is_whole and now < open_time + self.interval + self.grace:
            return None
        if prices is None:
            prices = np.full_like(next(iter(self._open.values())), np.nan)
        self._open.pop(open_time, None)
        close_time = open_time + self.interval
        gone = set() if is_whole else set(compress(self.symbols, np.isnan(prices[3])))
        if begun := sorted(gone - self._gone):
            self.events.append(Event(now, "missing", f"no candle from {_iso(open_time)} on: holes", ",".join(begun)))
        self._gone, self.clock = gone, close_time
        self._used[open_time] = prices
        if len(self._used) > REMEMBERED:
            del self._used[next(iter(self._used))]
        events, self.events = self.events, []
        return one_bar(prices, open_time, close_time, self.symbols, self.interval), events

    def _next(self, first: int) -> int:
        """Open of the bar that comes after the last decided one."""
        assert self.clock is not None
        return self.clock if self.fills_gaps and (first - self.clock) % self.interval == 0 else first

    def _too_late(self, arrival: Arrival, prices: F8) -> None:
        open_time, used = arrival.open_time, self._used.get(arrival.open_time)
        for s, name in enumerate(self.symbols):
            if prices[3, s] != prices[3, s]:
                continue
            kind = "late"
            if used is not None and used[3, s] == used[3, s]:
                kind = "duplicate" if np.array_equal(used[:5, s], prices[:5, s]) else "revised"
            values = " ".join(f"{x!r}" for x in prices[:5, s].tolist())
            self._note(arrival, kind, [name], f"after the decision of {_iso(open_time)}: {values}; not used")

    def _named(self, prices: F8) -> list[str]:
        return [s for s, price in zip(self.symbols, prices[3]) if price == price]

    def _note(self, arrival: Arrival, kind: str, names: list[str], text: str) -> None:
        self.events.append(Event(arrival.now, kind, text, ",".join(names)))


class ReplayFeed:
    """Bars of a file, one at a time. speed: bars a second, None for as fast as they are taken.

    Bars that open before `live_from` (ns UTC) are history.
    """

    def __init__(self, bars: Bars, speed: float | None = None, live_from: int | None = None) -> None:
        self._bars, self._speed = bars, speed
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
        for t in range(max(self._first, int(np.searchsorted(bars.close_time, after, side="right"))), bars.n):
            if self._speed is not None:
                due += 1.0 / self._speed
                time.sleep(max(0.0, due - time.monotonic()))
            yield Arrival(int(bars.close_time[t]) + 10 * bars.interval, int(bars.open_time[t]), table[t])

    def close(self) -> None:
        """Nothing is held."""


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
        raise UserError(f"--speed must be max or bars a second, was {text!r}")
    return speed


def open_feed(text: str, speed: str = "max", live_from: Any = None, exchange: Mapping[str, Any] | None = None, **how: Any) -> Any:
    """Open what `--feed` names. how: flags of `load` (symbols, start, end, calendar, funding, ...); exchange: timeframe and poll.

    Returns a ReplayFeed or an ExchangeFeed. Raises UserError on an unknown kind, and on flags that do not go with it.
    """
    from research.data import load
    from research.data.clock import parse_time

    kind, _, name = text.partition(":")
    if kind == "ccxt" and name:
        from research.live.exchange import open_exchange

        unfit = {"--live-from": live_from, "--to": how.get("end"), "--calendar": how.get("calendar"), "--funding": how.get("funding")}
        unfit |= {"--time-zone": how.get("time_zone"), "--day-start": how.get("day_start"), "--adjusted": how.get("adjusted") or None}
        if given := [flag for flag, value in unfit.items() if value is not None] + ["--speed"] * (speed != "max"):
            raise UserError(f"{given[0]} must go with replay:FILE, was given with {text!r}; leave it out")
        return open_exchange(name, how.get("symbols") or (), how.get("start"), **(exchange or {}))
    if kind != "replay" or not name:
        raise UserError(f"--feed must be replay:FILE or ccxt:EXCHANGE, was {text!r}")
    source = name if name == "sample" or name.startswith("simulated:") else str(Path(name))
    return ReplayFeed(load(source, **how).bars, parse_speed(speed), None if live_from is None else parse_time(live_from))


def _iso(ns: int) -> str:
    return f"{np.datetime64(ns, 's') if ns < 10**12 else np.datetime64(ns, 'ns').astype('M8[s]')}Z"
