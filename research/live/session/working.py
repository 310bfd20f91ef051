"""Working orders: what the engine wants at the next open, as the orders that the broker holds; at most one entry and one exit a symbol."""

from collections.abc import Iterable, Iterator

from qtcore import Result
from qtcore.rules import Reason
from research.live.broker.orders import order_id
from research.live.journal.journal import Entry
from research.live.records import Order

ANSWERS = {int(Reason.REDUCED): (int(Reason.REDUCED), int(Reason.EXIT_SIGNAL))}  # a part may turn out to be all that is left


class WorkingOrders:
    """Orders that are sent and neither filled nor cancelled."""

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self.symbols = symbols
        self._held: dict[tuple[str, str], Order] = {}

    def all(self) -> list[Order]:
        """Return them in the order in which they were made."""
        return list(self._held.values())

    def restore(self, orders: Iterable[Order]) -> None:
        """Hold what a journal ends with."""
        self._held = {(order.symbol, order.kind): order for order in orders}

    def settle(self, entry: Entry) -> None:
        """Match fills with orders, drop what was cancelled, name what is new."""
        result, names = entry.result, self.symbols
        for fill in result.fills:
            name, kind = names[int(fill["symbol"])], "entry" if fill["is_entry"] else "exit"
            order = self._held.get((name, kind))
            is_ordered = order is not None and (kind == "entry" or fill["reason"] in ANSWERS.get(order.reason, (order.reason,)))
            entry.fill_orders.append(order.id if order is not None and is_ordered else "")
            if order is not None:  # an exit that a stop or a delisting came before is superseded
                entry.done.append((order.id, "filled" if is_ordered else "superseded"))
                del self._held[name, kind]
        pending = {(name, kind): (notional, reason) for name, kind, notional, reason in _pending(result)}
        for key in [key for key in self._held if key not in pending or (key[1] == "entry" and self._held[key].id != _id(key, result))]:
            entry.done.append((self._held.pop(key).id, "cancelled"))
        for key, (notional, reason) in pending.items():
            if key not in self._held:
                order = Order(_id(key, result), key[0], key[1], notional, reason)
                self._held[key] = order
                entry.orders.append(order)


def _id(key: tuple[str, str], result: Result) -> str:
    return order_id(key[0], int(result.close_time[0]), key[1])


def _pending(result: Result) -> Iterator[tuple[str, str, float, int]]:
    """Split what the engine wants at the next open into exits and entries; a symbol may have both, but where a part is closed."""
    for name, notional, code in result.orders:
        if code:
            yield name, "exit", notional if code == Reason.REDUCED else 0.0, code
        if notional and code != Reason.REDUCED:
            yield name, "entry", notional, int(Reason.APPROVED)
