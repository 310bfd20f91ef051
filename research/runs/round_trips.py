"""Round trips: which fills open a trade, make it larger or smaller, and close it. A trade goes from flat to flat.

Only a cross-sectional book resizes: elsewhere a trade is one entry and one exit.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from qtcore.rules import Reason


def opens(fills: NDArray) -> NDArray[np.bool_]:
    """Say which of the FILL records [K] begin a trade."""
    return np.asarray((fills["is_entry"] == 1) & (fills["reason"] != Reason.ADDED))


def closes(fills: NDArray) -> NDArray[np.bool_]:
    """Say which of the FILL records [K] end a trade."""
    return np.asarray((fills["is_entry"] == 0) & (fills["reason"] != Reason.REDUCED))


def resized(fills: NDArray) -> Iterator[NDArray]:
    """Return the FILL records of every trade that was made larger or smaller, in the order they were booked."""
    ids = np.unique(fills["trade_id"][~(opens(fills) | closes(fills))])
    some = fills[np.isin(fills["trade_id"], ids)]
    some = some[np.argsort(some["trade_id"], kind="stable")]
    return iter(np.split(some, np.searchsorted(some["trade_id"], ids[1:])) if len(ids) else ())


def held_last(rows: NDArray) -> NDArray:
    """Return what a trade held before its last part left, as the FILL record of one entry: quantity, mean price, fee, notional and stop.

    rows: its FILL records. What closed parts brought is taken off the fee. Of a trade that is still open: what it holds.
    """
    out = rows[0].copy()
    for row in rows[1:]:
        qty, change = out["qty"], row["qty"]
        if row["is_entry"] == 1:
            out["price"] = (qty * out["price"] + change * row["price"]) / (qty + change)
            out["fee"], out["notional"], out["stop_price"] = out["fee"] + row["fee"], out["notional"] + row["notional"], row["stop_price"]
        elif row["reason"] == Reason.REDUCED:
            out["fee"] = (out["fee"] + row["fee"]) + change * (row["price"] - out["price"])
            out["notional"] *= (qty + change) / qty
        else:
            break
        out["qty"] = qty + change
    return np.asarray(out)
