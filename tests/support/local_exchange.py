"""An exchange on loopback that speaks Binance's public spot protocol (REST and websocket), so that the unmodified ccxt client is tested.

Everything it does is scripted: candles come late, never, twice or in disorder, are revised; requests are refused; connections drop. Its
clock moves by `step` with every request for the time, and with every one that is refused, so that a day passes as fast as the client can
ask and a loaded machine changes nothing.
"""

import asyncio
import json
import threading
from collections import deque
from dataclasses import dataclass, field

from aiohttp import WSMsgType, web

from qtcore.types import Bars

MS = 1_000_000
NAMES = {60_000: "1m", 300_000: "5m", 3_600_000: "1h", 86_400_000: "1d"}
PAGE = 1000

Row = tuple[int, float, float, float, float, float]  # open time in ms, open, high, low, close, volume
Trade = tuple[int, int, float, float]  # id, ms, price, quantity


@dataclass
class Faults:
    """What goes wrong. Candles are named (market id, open ms), times are ms of the exchange's clock.

    answers: what the next requests get instead of data: a status, or `drop`; outages: (from, to, answer). late: ms after the close at which
    a candle appears; revised: (when, the row from then on); ws_cuts: when every websocket is closed. lags: (market id,
    from, to, until): trades of from to to are shown from until on.
    """

    answers: deque = field(default_factory=deque)
    outages: list[tuple[int, int, int | str]] = field(default_factory=list)
    retry_after: float = 0.05
    late: dict[tuple[str, int], int] = field(default_factory=dict)
    missing: set[tuple[str, int]] = field(default_factory=set)
    revised: dict[tuple[str, int], tuple[int, Row]] = field(default_factory=dict)
    doubled: set[tuple[str, int]] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)  # markets that are no more
    ahead: set[tuple[str, int]] = field(default_factory=set)  # shown before they begin
    is_reversed: bool = False
    ws_cuts: list[int] = field(default_factory=list)
    lags: list[tuple[str, int, int, int]] = field(default_factory=list)


class LocalExchange:
    """The server. Use as a context manager; `url` is what QT_EXCHANGE_URL wants.

    bars: the market, symbols such as BTC/USDT; trades: per market id; now: the clock, ms; step: ms. pause: ms at which the clock
    stands still, so that nobody gets further, however late a test looks.
    """

    def __init__(self, bars: Bars, now: int, step: int = 0, trades: dict[str, list[Trade]] | None = None) -> None:
        self.length = bars.interval // MS
        self.symbols = list(bars.symbols)
        self.rows: dict[str, list[Row]] = {}
        for s, name in enumerate(bars.symbols):
            planes = (bars.open, bars.high, bars.low, bars.close, bars.volume)
            here = [t for t in range(bars.n) if bars.close[t, s] == bars.close[t, s]]
            self.rows[market_id(name)] = [(int(bars.open_time[t]) // MS, *(float(p[t, s]) for p in planes)) for t in here]
        self.trades = trades or {}
        self.faults = Faults()
        self.requests: list[tuple[int, str, dict[str, str]]] = []  # (exchange ms, path, query)
        self.connections = 0
        self.now, self.step, self._pushed = now, step, now
        self.pause = 2**62
        self._sockets: dict[web.WebSocketResponse, set[str]] = {}
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "LocalExchange":
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def asked(self, path: str) -> list[dict[str, str]]:
        """Queries of every request for `path`."""
        return [query for _, name, query in self.requests if name == path]

    # what it knows

    def row(self, market: str, row: Row, now: int) -> Row | None:
        """Return a candle as the exchange shows it at `now`, None before it does."""
        key, close = (market, row[0]), row[0] + self.length
        if key in self.faults.ahead:
            return row
        if key in self.faults.missing or now < row[0]:
            return None
        if key in self.faults.late and now < close + self.faults.late[key]:
            return None
        if key in self.faults.revised and now >= self.faults.revised[key][0]:
            return self.faults.revised[key][1]
        if now >= close:
            return row
        done = max((now - row[0]) / self.length, 0.0)  # still forming
        last = row[1] + done * (row[4] - row[1])
        return (row[0], row[1], max(row[1], last), min(row[1], last), last, done * row[5])

    def known(self, market: str, now: int) -> list[Row]:
        """Return every candle of a market that is shown at `now`."""
        return [seen for row in self.rows[market] if (seen := self.row(market, row, now)) is not None]

    def _tick(self) -> None:
        self.now = max(self.now, min(self.now + self.step, self.pause))

    # REST

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, query = request.match_info["path"], dict(request.query)
        if path == "api/v3/time":
            self._tick()
        now = self.now
        self.requests.append((now, path, query))
        wrong = self.faults.answers.popleft() if self.faults.answers else None
        wrong = next((answer for a, b, answer in self.faults.outages if a <= now < b), wrong)
        if wrong is not None:
            if path != "api/v3/time":
                self._tick()
            await self._push()
            if wrong == "drop":
                assert request.transport is not None
                request.transport.abort()
            status = 503 if wrong == "drop" else int(wrong)
            headers = {"Retry-After": str(self.faults.retry_after)} if status in (418, 429, 503) else {}
            return web.json_response({"code": -1003, "msg": "Too many requests."}, status=status, headers=headers)
        await self._push()
        if path == "api/v3/ping":
            return web.json_response({})
        if path == "api/v3/time":
            return web.json_response({"serverTime": now})
        if path.endswith("exchangeInfo"):
            return web.json_response({"serverTime": now, "symbols": [_market(s) for s in self.symbols] if "api/v3" in path else []})
        market = query.get("symbol", "")
        if market not in self.rows or market in self.faults.gone:
            return web.json_response({"code": -1121, "msg": "Invalid symbol."}, status=400)
        if path == "api/v3/klines":
            return self._klines(market, query, now)
        if path == "api/v3/aggTrades":
            return self._agg_trades(market, query, now)
        return web.json_response({"code": -1100, "msg": "Unknown path."}, status=404)

    def _klines(self, market: str, query: dict[str, str], now: int) -> web.StreamResponse:
        if query["interval"] != NAMES[self.length]:
            return web.json_response({"code": -1120, "msg": "Invalid interval."}, status=400)
        rows, limit = self.known(market, now), min(int(query.get("limit", 500)), PAGE)
        if "endTime" in query:
            rows = [row for row in rows if row[0] <= int(query["endTime"])]
        rows = [row for row in rows if row[0] >= int(query["startTime"])][:limit] if "startTime" in query else rows[-limit:]
        rows = [row for row in rows for _ in range(1 + ((market, row[0]) in self.faults.doubled))]
        if self.faults.is_reversed:
            rows.reverse()
        return web.json_response([[r[0], *map(repr, r[1:]), r[0] + self.length - 1, "0", 1, "0", "0", "0"] for r in rows])

    def _agg_trades(self, market: str, query: dict[str, str], now: int) -> web.StreamResponse:
        first, last = int(query.get("startTime", 0)), min(int(query.get("endTime", now)), now)
        hidden = [(a, b) for name, a, b, until in self.faults.lags if name == market and now < until]
        shown = [t for t in self.trades[market] if first <= t[1] <= last and not any(a <= t[1] < b for a, b in hidden)]
        found = shown[: min(int(query.get("limit", 500)), PAGE)]
        keys = ("a", "T", "p", "q")
        return web.json_response([dict(zip(keys, (i, ms, repr(p), repr(q)))) | {"f": i, "l": i, "m": False} for i, ms, p, q in found])

    # websocket

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        now = self.now
        if any(a <= now < b for a, b, _ in self.faults.outages):
            return web.Response(status=503)
        socket = web.WebSocketResponse(heartbeat=5.0)
        await socket.prepare(request)
        self.connections += 1
        self._sockets[socket] = set()
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    asked = json.loads(message.data)
                    if asked["method"] == "SUBSCRIBE":
                        self._sockets[socket] |= set(asked["params"])
                    else:
                        self._sockets[socket] -= set(asked["params"])
                    await socket.send_json({"result": None, "id": asked["id"]})
        finally:
            self._sockets.pop(socket, None)
        return socket

    async def _push(self) -> None:
        """Send what happened since the last time: finished candles, late ones, revisions, the one that is forming; then cut what is due."""
        before, now = self._pushed, self.now
        if now <= before:
            return
        self._pushed = now
        is_out = any(a <= now < b for a, b, _ in self.faults.outages)
        if is_out or any(before < cut <= now for cut in self.faults.ws_cuts):
            for socket in list(self._sockets):
                await socket.close()
            return
        due: list[tuple[int, str, Row]] = []
        for market in self.rows:
            for row in self.rows[market]:
                key, close = (market, row[0]), row[0] + self.length
                if key in self.faults.missing or row[0] > now:
                    continue
                times = [close + self.faults.late.get(key, 0)]
                times += [self.faults.revised[key][0]] if key in self.faults.revised else []
                shown = [t for t in times if before < t <= now]
                if close > now and key not in self.faults.late:
                    shown.append(now)
                due += [(t, market, seen) for t in shown if (seen := self.row(market, row, t)) is not None]
        for t, market, row in sorted(due, key=lambda x: (x[0], x[2][0])):
            await self._send(market, row, t)

    async def _send(self, market: str, row: Row, now: int) -> None:
        name = f"{market.lower()}@kline_{NAMES[self.length]}"
        kline = {"t": row[0], "T": row[0] + self.length - 1, "s": market, "i": NAMES[self.length], "x": now >= row[0] + self.length}
        kline |= dict(zip("ohlcv", map(repr, row[1:])))
        for socket, names in list(self._sockets.items()):
            if name in names and not socket.closed:
                try:
                    await socket.send_json({"e": "kline", "E": now, "s": market, "k": kline})
                except ConnectionError:
                    self._sockets.pop(socket, None)

    # the thread

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/{host}/ws/{number}", self._stream)
        app.router.add_get("/{host}/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        site = web.TCPSite(runner, "127.0.0.1", 0)
        self._loop.run_until_complete(site.start())
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()


def market_id(symbol: str) -> str:
    """BTC/USDT as Binance writes it."""
    return symbol.replace("/", "")


def _market(symbol: str) -> dict[str, object]:
    base, quote = symbol.split("/")
    sizes = {"minPrice": "0.00000001", "maxPrice": "1000000", "tickSize": "0.00000001"}
    return {
        "symbol": market_id(symbol), "status": "TRADING", "baseAsset": base, "baseAssetPrecision": 8, "quoteAsset": quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8, "baseCommissionPrecision": 8, "quoteCommissionPrecision": 8, "orderTypes": ["LIMIT", "MARKET"],
        "icebergAllowed": True, "isSpotTradingAllowed": True, "isMarginTradingAllowed": False, "permissions": ["SPOT"],
        "filters": [
            {"filterType": "PRICE_FILTER", **sizes},
            {"filterType": "LOT_SIZE", "minQty": "0.0001", "maxQty": "9000", "stepSize": "0.0001"}],
    }  # fmt: skip
