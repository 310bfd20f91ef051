"""Orders and their reports: what is sent to a broker and what comes back. A repeated bar repeats its ids, so that none is doubled."""

from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from qtcore import Bars, Params
from research.live.records import Order
from research.live.storage.cells import DamagedError


def order_id(symbol: str, close_time: int, kind: str) -> str:
    """Name the order of a decision.

    >>> order_id("BTCUSDT", 1_704_067_200_000_000_000, "entry")
    'BTCUSDT-1704067200-entry'
    """
    return f"{symbol}-{close_time // 1_000_000_000}-{kind}"


def order_of(row: Sequence[Any], symbols: tuple[str, ...]) -> Order:
    """Read an order of the columns of `Order`. Raises DamagedError on one of another market or kind."""
    order = Order(*row)
    if order.symbol not in symbols or order.kind not in ("entry", "exit"):
        raise DamagedError(f"an order of the kind {order.kind!r} for {order.symbol!r}")
    return order


class Broker(Protocol):
    """Who fills orders. Every call may be repeated after a crash and must then change nothing."""

    @property
    def clock(self) -> int:
        """Close time of the last bar it has seen, ns UTC."""
        ...

    def submit(self, orders: list[Order]) -> None:
        """Take orders for the next open; one whose id is known is ignored."""
        ...

    def cancel(self, ids: list[str]) -> None:
        """Drop orders that are not filled yet."""
        ...

    def last_bar(self) -> Bars | None:
        """Return the last bar as it passed, None before the first."""
        ...

    def advance(self, bar: Bars, params: Params) -> NDArray:
        """Let a closed bar pass and return its fills, `FILL` records; a bar that has passed before returns what it returned then.

        params: in force at this bar; an entry gets its stop `governor.stop_loss` away.
        """
        ...

    def checkpoint(self) -> None:
        """Tidy files; called now and then between bars."""
        ...

    def close(self) -> None:
        """Let go of files."""
        ...
