"""Exchange feed: polls when a bar has closed by the exchange's own clock, and fetches the candles that are not there yet.

Each look reads the exchange's time first, then the candles: a candle counts as closed only if it had closed at that time, so the one that
is forming is never used. A look also reads back `LOOKBACK` bars, so that late candles and revisions are noticed. While nobody answers no
bar is decided; afterwards everything that was missed comes in order, all symbols of a bar together. With a stream, finished candles come
from the websocket and the looks fetch only what it did not bring.
"""

import asyncio
import time
from collections.abc import Coroutine, Generator, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import numpy as np

from qtcore import Bars
from qtcore.types import F8
from research.data.clock import parse_time
from research.data.exchange import MS, Candle, Exchange, ExchangeError
from research.data.fetch import FIRST_PATIENCE, PATIENCE, RetryingClient
from research.data.rows import Rows, bars_of
from research.data.rules import PROBLEMS, drop_rows, mask_rows, sort_rows
from research.data.stamps import NS_PER_SECOND
from research.errors import ConfigError, UserError
from research.live.feeds.doubts import KINDS
from research.live.feeds.feeds import GRACE, SKEW, Arrival
from research.live.feeds.stream import Stream
from research.live.feeds.trades import TradeSource
from research.live.records import Event

SETTLE = NS_PER_SECOND  # after its close a candle is left this long to become final
STREAM_PATIENCE = 3 * NS_PER_SECOND  # how long the stream may take before a look fetches the candle
LOOKBACK = 30  # bars that a look reads again
WARM_UP = 2_000  # bars of history where none are asked for: more than any feature looks back
SLICE = 0.25  # s between two signs of life to the runner
RETRY = 2.0  # s between looks while a candle is missing that should be there
KEPT = 64  # bars of which is remembered what was passed on


class Source(Protocol):
    """Who gives candles."""

    async def candles(self, symbol: str, since: int, limit: int) -> Sequence[Candle]:
        """Return candles that open at or after `since`, ns UTC. Raises Trouble."""
        ...


class ExchangeFeed:
    """Closed candles of an exchange, history first.

    start: first bar of the history, ns UTC; None for `WARM_UP` bars. poll: s between looks, at most; None: by the length of a bar. source:
    where candles come from, the exchange itself by default. stream: finished candles by websocket. drops_empty: a candle without volume is
    a hole.
    """

    def __init__(
        self,
        exchange: Exchange,
        start: int | None = None,
        poll: float | None = None,
        source: Source | None = None,
        stream: Stream | None = None,
        drops_empty: bool = False,
    ) -> None:
        self.exchange, self.symbols, self.interval = exchange, exchange.symbols, exchange.interval
        self._start, self._source, self._stream, self._drops_empty = start, source or exchange, stream, drops_empty
        self._poll = min(max(self.interval / 60 / NS_PER_SECOND, 1.0), 10.0) if poll is None else poll
        self._first = 0  # open of the first live bar
        self._next: list[int] = []  # per symbol, the open of the first bar that is not brought yet
        self._passed: dict[int, list[set[bytes]]] = {}  # what was passed on, by open time and symbol
        self._events: list[Event] = []
        self._attempt, self._lost_at, self._partial_since = 0, 0, -1
        self._paused: dict[int, tuple[int, float]] = {}  # symbols that failed: attempts, and when they are asked again (monotonic)
        self._is_skewed = False

    def close(self) -> None:
        """Hang up."""
        self.exchange.close()

    def history(self) -> Bars | None:
        """Fetch the bars before the first live one. Raises UserError where the exchange does not answer for long."""
        exchange, length = self.exchange, self.interval
        talk = RetryingClient(exchange, lambda done, total, text: None, PATIENCE, "check the network")
        last = exchange.closed(talk.request(exchange.sync) - SETTLE)
        first = last - (WARM_UP - 1) * length if self._start is None else self._start
        table: list[tuple[int, int, tuple[float, ...]]] = []  # open time, symbol, values
        for s, name in enumerate(self.symbols):
            since = first
            while since <= last:
                rows = talk.request(partial(exchange.candles, name, since, exchange.page))
                found = [(int(row[0]) * MS, s, _values(row)) for row in rows if since <= row[0] * MS <= last]
                table += [row for row in found if not self._is_hole(row[2])]
                is_over = any(row[0] * MS > last for row in rows)
                since = last + 1 if is_over else max((row[0] for row in found), default=since + (exchange.page - 1) * length) + length
        return self._judged(table, last) if table else None

    def _judged(self, table: list[tuple[int, int, tuple[float, ...]]], last: int) -> Bars:
        """Put history (open time, symbol, values) on its grid by the rules of a backtest; of two rows of one time the first counts."""
        length, n_symbols = self.interval, len(self.symbols)
        time, code = np.array([row[0] for row in table]), np.array([row[1] for row in table], np.int32)
        rows = Rows(time, code, np.array([row[2] for row in table]).T, self.symbols)
        counts = np.bincount(code, minlength=n_symbols)
        phases, votes = np.unique(time % length, return_counts=True)
        self.exchange.phase = phase = int(phases[votes.argmax()])
        rows, issues = sort_rows(rows, counts)
        rows, off = drop_rows(rows, counts, "off_grid", (rows.time - phase) % length != 0)
        rows, masked = mask_rows(rows, counts)
        now = self.exchange.clock()
        for issue in issues + off + masked:
            if issue.problem in KINDS:
                said = replace(issue, action="the first counts" if issue.problem == "conflict" else PROBLEMS[issue.problem][1])
                self._events.append(Event(now, KINDS[issue.problem], said.text, issue.symbol))
        begin = int(rows.time.min())
        open_time = np.arange(begin, last + 1, length, dtype=np.int64)
        planes = np.full((5, len(open_time), n_symbols), np.nan)
        planes[:, (rows.time - begin) // length, rows.code] = rows.values
        return bars_of((open_time, open_time + length), list(planes), self.symbols, length)

    def arrivals(self, after: int) -> Iterator[Arrival]:
        """Yield closed candles and, at least every `SLICE` seconds, the time; never ends."""
        self._first = after or self.exchange.closed(self.exchange.clock()) + self.interval
        self._next = [self._first] * len(self.symbols)
        if self._stream is not None:
            self._stream.start()
        while True:
            try:
                yield from self._look()
            except ExchangeError as trouble:
                yield from self._lost(trouble)
            else:
                yield from self._rest()

    def _look(self) -> Generator[Arrival, None, None]:
        now = yield from self._during(self.exchange.sync())
        self._note_skew(now)
        settled = SETTLE
        if self._stream is not None:
            yield from self._streamed(now)
            settled += STREAM_PATIENCE
        last = self.exchange.closed(now - settled)
        while low := min((self._next[s] for s in self._behind(last)), default=0):
            high = min(last, low + (self.exchange.page - LOOKBACK - 2) * self.interval)
            if not (yield from self._fetched(now, high)) or high == last:
                break
        self._back(now)
        yield self._told(now)

    def _behind(self, high: int) -> list[int]:
        """Return the symbols that lack bars up to `high` and may be asked for now."""
        return [s for s, t in enumerate(self._next) if t <= high and (s not in self._paused or self._paused[s][1] <= time.monotonic())]

    def _fetched(self, now: int, high: int) -> Generator[Arrival, None, bool]:
        """Fetch the symbols that are behind, up to the bar that opens at `high`; say whether all of them answered."""
        behind = self._behind(high)
        answers = yield from self._during(self._ask_all(behind, high))
        failed = [a for a in answers if isinstance(a, Exception)]
        is_over = now >= high + self.interval + GRACE  # else the runner waits for who is missing
        if len(failed) == len(self.symbols):
            raise failed[0]
        if failed and is_over and len(failed) < len(answers):  # a row would be decided with a hole at once: try for as long as live waits
            self._partial_since = now if self._partial_since < 0 else self._partial_since
            if now < self._partial_since + GRACE:
                raise failed[0]
        elif not failed:
            self._partial_since = -1
        fresh: dict[int, F8] = {}
        again: list[tuple[int, int, tuple[float, ...]]] = []
        for s, rows in zip(behind, answers):
            if isinstance(rows, Exception):
                self._pause(s, rows, now)
                continue
            if s in self._paused:
                del self._paused[s]
                self._events.append(Event(now, "back", f"{self.exchange.name} gives candles again", self.symbols[s]))
            seen: set[int] = set()
            new: set[int] = set()
            for row in rows:
                t, values = int(row[0]) * MS, _values(row)
                if not self._is_due(t, now) or self._is_hole(values):
                    continue
                is_new = self._put(fresh, t, s, values)
                if (t - self._first) % self.interval:
                    continue  # passed on, for the assembler to note
                if t in seen and (is_new or t in new):  # twice in one answer: both are passed on, once
                    again.append((t, s, values))
                elif is_new:
                    new.add(t)
                seen.add(t)
            newest = max((t for t in seen if t <= high), default=-1)
            self._next[s] = high + self.interval if is_over or newest == high else max(self._next[s], newest + self.interval)
        yield from self._given(now, fresh)
        for t, s, values in again:
            prices = np.full((5, len(self.symbols)), np.nan)
            prices[:, s] = values
            yield Arrival(now, t, prices)
        return not failed

    def _pause(self, s: int, error: Exception, now: int) -> None:
        """Leave a symbol alone for a while, the others go on."""
        if not isinstance(error, ExchangeError):
            raise error
        if s not in self._paused:
            self._events.append(Event(now, "lost", f"{self.exchange.name} gives no candles: {error}", self.symbols[s]))
        attempt = self._paused.get(s, (0, 0.0))[0] + 1
        self._paused[s] = (attempt, time.monotonic() + error.pause(attempt))

    async def _ask_all(self, symbols: Sequence[int], high: int) -> list[Any]:
        return await asyncio.gather(*(self._ask(s, high) for s in symbols), return_exceptions=True)

    async def _ask(self, s: int, high: int) -> Sequence[Candle]:
        since = max(self._first, self._next[s] - LOOKBACK * self.interval)
        return await self._source.candles(self.symbols[s], since, (high - since) // self.interval + 2)

    def _streamed(self, now: int) -> Iterator[Arrival]:
        """Pass on the candles that the stream has finished: the next one of each symbol, and revisions."""
        assert self._stream is not None
        fresh: dict[int, F8] = {}
        self._events += self._stream.take_events(now)
        for s, finished in enumerate(self._stream.finished):
            for t, values in sorted(finished.items()):
                if t <= self._next[s] and self._is_due(t, now) and not self._is_hole(values):
                    self._put(fresh, t, s, values)
                    if (t - self._first) % self.interval == 0:
                        self._next[s] = max(self._next[s], t + self.interval)
        yield from self._given(now, fresh)

    def _is_due(self, t: int, now: int) -> bool:
        """Say whether a candle is passed on: it has closed, or lies so far ahead that the assembler must refuse and note it."""
        return t >= self._first and (t + self.interval <= now or t > now + self.interval + SKEW)

    def _is_hole(self, values: tuple[float, ...]) -> bool:
        return all(x != x for x in values) or (self._drops_empty and values[4] == 0.0)

    def _put(self, fresh: dict[int, F8], t: int, s: int, values: tuple[float, ...]) -> bool:
        """Say whether a candle was not passed on with these values yet, and keep it for that unless there is an earlier one of its time."""
        passed = self._passed.setdefault(t, [set() for _ in self.symbols])[s]
        if (name := np.array(values).tobytes()) in passed:  # as bytes, NaN is NaN
            return False
        passed.add(name)
        prices = fresh.setdefault(t, np.full((5, len(self.symbols)), np.nan))
        if np.isnan(prices[:, s]).all():
            prices[:, s] = values
        return True

    def _given(self, now: int, fresh: dict[int, F8]) -> Iterator[Arrival]:
        for t in sorted(fresh):
            yield Arrival(now, t, fresh[t])
        for t in sorted(self._passed)[:-KEPT]:
            del self._passed[t]

    def _during(self, question: Coroutine[Any, Any, Any]) -> Generator[Arrival, None, Any]:
        """Yield the time until the answer is there; return it."""
        loop = self.exchange.loop
        task = loop.create_task(question)
        while not task.done():
            loop.run_until_complete(asyncio.wait({task}, timeout=SLICE))
            if not task.done():
                yield self._told(self.exchange.clock())
        return task.result()

    def _rest(self) -> Iterator[Arrival]:
        """Wait for the next look: the next close, the stream, or `poll` seconds."""
        now = self.exchange.clock()
        last = self.exchange.closed(now - SETTLE)
        due = (last + 2 * self.interval + SETTLE - now) / NS_PER_SECOND
        is_behind = min(self._next) <= last
        yield from self._sleep(min(self._poll, RETRY if is_behind else max(due, 0.0)))

    def _sleep(self, seconds: float) -> Iterator[Arrival]:
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0.0:
            self.exchange.run(asyncio.sleep(min(left, SLICE)))
            yield self._told(self.exchange.clock())
            if self._stream is not None and self._stream.has_news:
                return

    def _lost(self, trouble: ExchangeError) -> Iterator[Arrival]:
        """Note that nobody answers, and wait."""
        now = self.exchange.clock()
        self._attempt += 1
        if self._attempt == 1:
            self._lost_at = now
            self._events.append(Event(now, "lost", f"{self.exchange.name} does not answer: {trouble}"))
        yield from self._sleep(trouble.pause(self._attempt))

    def _back(self, now: int) -> None:
        if self._attempt:
            seconds = (now - self._lost_at) // NS_PER_SECOND
            self._events.append(Event(now, "back", f"{self.exchange.name} answers again after {seconds} s"))
            self._attempt = 0

    def _note_skew(self, now: int) -> None:
        """Note once that this machine's clock and the exchange's differ; the exchange's counts."""
        ahead = time.time_ns() - now
        if abs(ahead) > SKEW and not self._is_skewed:
            text = f"this machine's clock is {ahead / NS_PER_SECOND:+.1f} s from the exchange's, which counts"
            self._events.append(Event(now, "skew", text))
        self._is_skewed = abs(ahead) > SKEW

    def _told(self, now: int) -> Arrival:
        events, self._events = tuple(self._events), []
        return Arrival(now, events=events)


def open_exchange(
    text: str,
    symbols: Sequence[str],
    start: Any = None,
    timeframe: str | None = None,
    poll: float | None = None,
    patience: float | None = None,
) -> ExchangeFeed:
    """Open `EXCHANGE`, `EXCHANGE,ws` or `EXCHANGE,trades`, as `--feed ccxt:` names it. patience: s to wait for the first answer.

    Raises UserError, also when there is no answer.
    """
    name, *kinds = text.split(",")
    if kinds not in ([], ["ws"], ["trades"]):
        raise ConfigError(f"--feed must be ccxt:EXCHANGE, ccxt:EXCHANGE,ws or ccxt:EXCHANGE,trades, was {'ccxt:' + text!r}")
    first = parse_time(start, "--from")
    exchange = Exchange(name, symbols, timeframe or "1h", is_stream="ws" in kinds)
    try:
        patience = FIRST_PATIENCE if patience is None else patience
        talk = RetryingClient(exchange, lambda done, total, text: None, patience, "check the network and the exchange's name")
        talk.request(exchange.open)
        needed = {"ws": "watchOHLCV", "trades": "fetchTrades"}
        for what in ("fetchOHLCV", *(needed[kind] for kind in kinds)):
            if not exchange.ccxt.has.get(what):
                raise UserError(f"{name} must offer {what} for this feed, does not; choose another kind or exchange")
        if "trades" in kinds:
            return ExchangeFeed(exchange, first, poll, source=TradeSource(exchange), drops_empty=True)
        return ExchangeFeed(exchange, first, poll, stream=Stream(exchange) if kinds else None)
    except BaseException:
        exchange.close()
        raise


def _values(row: Candle) -> tuple[float, ...]:
    """Return open, high, low, close, volume; NaN where the exchange says nothing."""
    return tuple(float("nan") if x is None else float(x) for x in row[1:6])
