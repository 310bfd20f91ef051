"""Bar aggregation from trades: first, highest, lowest, last price and the sum of sizes in [open, close), nothing else.

The sum is the exactly rounded one (`math.fsum`), so it does not depend on how the trades came in pages. A bar without a trade is no candle.
"""

import math
from collections.abc import Iterable, Sequence

from research.data.exchange import MS, Candle, Exchange, ExchangeError

Trade = tuple[str, int, float, float]  # id, ms, price, size
HOUR = 3_600_000  # ms; some exchanges answer no wider question
PAGE = 1_000
OVERLAP = 60_000  # ms asked for again: a trade may show up a little late
KEPT = 256  # bars that are remembered


class TradeBars:
    """Bars of one symbol from its trades, in the order in which they happened. length: of a bar; phase: of its beginning; both ms.

    reached: time of the last trade, ms; one before it is skipped. asked: up to where trades were asked for, ms.
    """

    def __init__(self, length: int, since: int, phase: int = 0) -> None:
        self.length, self.since, self.phase, self.reached, self.asked = length, since, phase, since, since
        self._bars: dict[int, tuple[float, ...]] = {}
        self._ids: set[str] = set()  # of the trades at `reached`, which are asked for again
        self._sizes: list[float] = []  # of the trades of the newest bar

    def add(self, trades: Iterable[Trade]) -> int:
        """Take trades; known ones are skipped. Returns how many were new."""
        n = 0
        for id_, ms, price, size in trades:
            if ms < self.reached or id_ in self._ids:
                continue
            if ms > self.reached:
                self.reached, self._ids = ms, set()
            self._ids.add(id_)
            n += 1
            start = (ms - self.phase) // self.length * self.length + self.phase
            if start not in self._bars:
                self._sum_up()
                self._bars[start], self._sizes = (price,) * 4 + (0.0,), []
            self._sizes.append(size)
            o, h, low, _, _ = self._bars[start]
            self._bars[start] = (o, max(h, price), min(low, price), price, 0.0)
        self._sum_up()
        return n

    def _sum_up(self) -> None:
        if self._bars:
            newest = next(reversed(self._bars))
            self._bars[newest] = (*self._bars[newest][:4], math.fsum(self._sizes))
            for start in list(self._bars)[:-KEPT]:
                del self._bars[start]

    def candles(self, since: int) -> list[Candle]:
        """Return the bars that open at or after `since`, ms; the last may still be forming."""
        return [(t, *bar) for t, bar in self._bars.items() if t >= since]


class TradeSource:
    """Candles made of an exchange's trades; stands in for its own."""

    def __init__(self, exchange: Exchange) -> None:
        self.exchange = exchange
        self._books: dict[str, TradeBars] = {}

    async def candles(self, symbol: str, since: int, limit: int) -> Sequence[Candle]:
        """Fetch the trades up to now that are not known yet and return the bars that open at or after `since`, ns UTC. Raises Trouble."""
        exchange = self.exchange
        book = self._books.get(symbol)
        if book is None or since // MS < book.since:
            book = self._books[symbol] = TradeBars(exchange.interval // MS, since // MS, exchange.phase // MS)
        now, at = exchange.clock() // MS, max(book.reached, book.asked - OVERLAP)
        while at <= now:
            found = await exchange.ask(exchange.ccxt.fetch_trades(symbol, at, PAGE))
            try:
                trades = [(str(t["id"]), int(t["timestamp"]), float(t["price"]), float(t["amount"])) for t in found if t["id"] is not None]
            except (KeyError, TypeError, ValueError):
                trades = []
            if len(trades) < len(found):
                raise ExchangeError(f"{exchange.name} gave trades of {symbol} that cannot be counted")
            if book.add(trades):
                at = book.reached
            else:  # nothing new in what one answer covers
                at += 1 if len(found) >= PAGE else HOUR
        book.asked = now
        return book.candles(since // MS)
