"""Exchange client: ccxt's asynchronous client, called from plain code, one request at a time or a few at once.

The client keeps the exchange's own rate limit (ccxt's throttle). What goes wrong on the way is `ExchangeError`: it says how long the
exchange wants to be left alone, where it says so. The clock is the exchange's: its time as of its last answer, plus what has passed since.
"""

import asyncio
import difflib
import importlib
import os
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from qtcore.types import NS_PER_DAY
from research.data.clock import parse_interval
from research.data.stamps import NS_PER_SECOND
from research.errors import ConfigError, DataError, need, visible

URL = "QT_EXCHANGE_URL"  # where requests go instead, for tests and recording proxies; the original host becomes the first part of the path
MS = 1_000_000
PAGE = 500  # candles asked for at once where the exchange does not say what it gives
MONDAY = 4 * NS_PER_DAY  # the epoch began on a Thursday

Candle = Sequence[Any]  # open time in ms, open, high, low, close, volume


class ExchangeError(Exception):
    """The exchange did not answer as it should. wait: s it asked for, None where it said nothing; is_final: asking again is no use."""

    def __init__(self, text: str, wait: float | None = None, is_final: bool = False) -> None:
        super().__init__(visible(text))
        self.wait, self.is_final = wait, is_final

    def pause(self, attempt: int) -> float:
        """Seconds to wait before the next attempt; attempt: 1 after the first failure. Doubles from a quarter of a second to a minute."""
        return self.wait if self.wait is not None else min(0.25 * 2.0 ** min(attempt - 1, 8), 60.0)


class Exchange:
    """One exchange, its markets and its clock.

    name: as ccxt spells it; symbols: such as BTC/USDT, or as the exchange writes them; timeframe: such as 1h. is_stream: websocket too.
    Raises UserError for an unknown name. Nothing is asked before `open`.
    """

    def __init__(self, name: str, symbols: Sequence[str], timeframe: str, is_stream: bool = False) -> None:
        need("ccxt", f"exchange {name}")
        ccxt = importlib.import_module("ccxt.pro" if is_stream else "ccxt.async_support")
        known = ccxt.exchanges
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            what = "that ccxt streams" if is_stream else "that ccxt knows"
            raise DataError(
                f"exchange must be one {what}, was {name!r}" + (f"; did you mean {near[0]}?" if near else "; see docs.ccxt.com")
            )
        self.name, self.symbols, self.timeframe = name, tuple(symbols), timeframe
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda loop, context: None)  # ccxt's own tasks fail with their connection: its callers are told
        self.ccxt = getattr(ccxt, name)({"enableRateLimit": True, "asyncio_loop": self.loop})
        if base := os.environ.get(URL):
            self.ccxt.urls["api"] = _redirected(self.ccxt.urls["api"], base.rstrip("/"))
        self.ccxt.timeout_on_exit = 0
        if not self.ccxt.timeframes or timeframe not in self.ccxt.timeframes:
            some = ", ".join(self.ccxt.timeframes or ()) or "none"
            raise ConfigError(f"timeframe (--timeframe) must be one of {name} ({some}), was {timeframe!r}")
        if timeframe[-1] in "My":
            raise DataError(f"timeframe must have one length, was {timeframe!r}; take a shorter one")
        if len(set(self.symbols)) < len(self.symbols) or not self.symbols:
            raise DataError(
                f"symbols must be named once each, was {', '.join(self.symbols) or 'without any'}; use --symbols BTC/USDT,ETH/USDT"
            )
        self.interval = parse_interval(timeframe)
        self.phase = MONDAY if self.interval % (7 * NS_PER_DAY) == 0 else 0  # ns from the epoch to the beginning of a bar
        self._time, self._measured = 0, 0.0

    @property
    def page(self) -> int:
        """Candles that one request gives."""
        limit = self.ccxt.feature_value(self.symbols[0], "fetchOHLCV", "limit")
        return int(limit) if limit else PAGE

    async def open(self) -> None:
        """Load the markets and set the clock. Raises Trouble, and UserError for symbols that the exchange does not have."""
        await self.ask(self.ccxt.load_markets())
        for name in self.symbols:
            if name not in self.ccxt.markets and name not in self.ccxt.markets_by_id:
                near = difflib.get_close_matches(name.upper(), [*self.ccxt.markets, *self.ccxt.markets_by_id], 1, 0.7)
                raise DataError(f"symbols must be markets of {self.name}, was {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
        await self.sync()

    def close(self) -> None:
        """Close every connection."""
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(self.ccxt.close())
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    async def sync(self) -> int:
        """Read the exchange's clock, ns UTC; this machine's where the exchange does not tell."""
        if self.ccxt.has.get("fetchTime"):
            self._time = int(await self.ask(self.ccxt.fetch_time())) * MS
        else:
            self._time = time.time_ns()
        self._measured = time.monotonic()
        return self._time

    def clock(self) -> int:
        """Return the exchange's time, ns UTC, as of the last `sync` and what has passed since; never ahead of it."""
        return self._time + int((time.monotonic() - self._measured) * NS_PER_SECOND)

    def closed(self, now: int) -> int:
        """Return the open time of the last bar that has closed at `now`, ns UTC."""
        return (now - self.phase) // self.interval * self.interval + self.phase - self.interval

    async def candles(self, symbol: str, since: int, limit: int) -> list[Candle]:
        """Return up to `limit` candles that open at or after `since`, ns UTC; the last may still be forming. Raises Trouble."""
        found = await self.ask(self.ccxt.fetch_ohlcv(symbol, self.timeframe, since // MS, limit))
        if not isinstance(found, list) or not all(isinstance(row, list) and len(row) >= 6 and isinstance(row[0], int) for row in found):
            raise ExchangeError(f"{self.name} gave candles of {symbol} that cannot be read")
        return found

    async def ask(self, question: Coroutine[Any, Any, Any]) -> Any:
        """Wait for an answer. Raises Trouble whatever goes wrong."""
        import ccxt

        self.ccxt.last_response_headers = {}
        try:
            answer = await question
        except ccxt.OperationFailed as error:
            wait = str((self.ccxt.last_response_headers or {}).get("Retry-After", ""))
            raise ExchangeError(_text(error), float(wait) if wait.replace(".", "", 1).isdigit() else None) from None
        except (ccxt.BadRequest, ccxt.NotSupported, ccxt.AuthenticationError) as error:
            raise ExchangeError(_text(error), is_final=True) from None
        except Exception as error:  # half an answer, a page of a proxy: what comes over a network may be anything
            raise ExchangeError(_text(error)) from None
        return answer

    def run(self, question: Coroutine[Any, Any, Any]) -> Any:
        """Run to the end."""
        return self.loop.run_until_complete(question)


def _redirected(urls: Any, base: str) -> Any:
    """Send every address to `base`, the original host first in the path."""
    if isinstance(urls, dict):
        return {name: _redirected(part, base) for name, part in urls.items()}
    scheme, _, rest = str(urls).partition("://")
    if not scheme.startswith("ws"):
        return f"{base}/{rest}"
    return f"ws{base.removeprefix('http')}/{rest}"


def _text(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 160 else f"{line[:157]}..."
