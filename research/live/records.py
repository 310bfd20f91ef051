"""Records that every part of live trading passes on: events and orders."""

from dataclasses import dataclass

import numpy as np

from research.errors import visible


@dataclass(frozen=True)
class Event:
    """Something worth knowing later, safe to show. time: ns UTC; kind: one word, such as `late`, `stop`; symbol: empty for all."""

    time: int
    kind: str
    text: str
    symbol: str = ""

    def __post_init__(self) -> None:
        """Keep what exchanges and files say as it is shown."""
        object.__setattr__(self, "text", visible(self.text))
        object.__setattr__(self, "symbol", visible(self.symbol))


@dataclass(frozen=True)
class Order:
    """A wish for the next open.

    id: made of symbol, decision time and kind, so that deciding a bar again gives the same one. kind: `entry` or `exit`. notional: quote to
    open or add, signed; of an exit 0.0, which closes all, or with the reason REDUCED what is closed of it. reason: `Reason`
    code.
    """

    id: str
    symbol: str
    kind: str
    notional: float
    reason: int


def iso(ns: int) -> str:
    """Print ns UTC to the second."""
    return f"{np.datetime64(int(ns), 'ns').astype('M8[s]')}Z"
