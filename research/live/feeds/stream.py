"""Websocket stream of candles: one is final when a newer one of its symbol came after it on the same connection.

What was seen before a connection broke is forgotten: the last update of its candle may have been missed. Connections are made again with
growing pauses; what fell into the break is fetched by the looks of the feed.
"""

import asyncio
import math

from research.data.exchange import MS, Exchange
from research.live.records import Event

CACHED = 64  # candles of a symbol that the client keeps


class Stream:
    """Candles of every symbol of an exchange over `watch_ohlcv`; runs while the exchange's loop does.

    finished: per symbol the final candles by open time, ns UTC: open, high, low, close, volume.
    """

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self.finished: list[dict[int, tuple[float, ...]]] = [{} for _ in exchange.symbols]
        self.has_news = False
        exchange.ccxt.newUpdates = False  # every candle of the cache, revised ones too
        exchange.ccxt.options["OHLCVLimit"] = CACHED
        self._failures, self._told = 0, ""
        self._events: list[tuple[str, str]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch."""
        self._tasks = [self.exchange.loop.create_task(self._watch(s)) for s in range(len(self.exchange.symbols))]

    def take_events(self, now: int) -> list[Event]:
        """Return what happened to the connection since the last time."""
        events, self._events, self.has_news = self._events, [], False
        return [Event(now, kind, text) for kind, text in events]

    async def _watch(self, s: int) -> None:
        name, ccxt, timeframe = self.exchange.symbols[s], self.exchange.ccxt, self.exchange.timeframe
        while True:
            try:
                rows = await ccxt.watch_ohlcv(name, timeframe)
                newest = max(row[0] for row in rows)
                found: dict[int, tuple[float, ...]] = {}
                for row in rows:
                    if row[0] < newest:  # the first of two counts
                        found.setdefault(row[0] * MS, tuple(math.nan if x is None else float(x) for x in row[1:6]))
            except asyncio.CancelledError:
                raise
            except Exception as error:  # what comes over a network may be anything
                await self._broken(" ".join(str(error).split())[:160] or type(error).__name__)
                continue
            if self._failures:
                self._events.append(("back", f"the websocket of {self.exchange.name} is up again"))
                self._failures = 0
            if found != self.finished[s]:
                self.finished[s], self.has_news = found, True

    async def _broken(self, text: str) -> None:
        """Forget what the connection told; note the first failure; pause."""
        self.exchange.ccxt.ohlcvs = self.exchange.ccxt.create_safe_dictionary()
        if not self._failures:
            self._events.append(("lost", f"the websocket of {self.exchange.name} broke: {text}"))
            self.has_news = True
        self._failures += 1
        per_symbol = math.ceil(self._failures / len(self.exchange.symbols))
        await asyncio.sleep(min(0.25 * 2.0 ** (per_symbol - 1), 60.0))
