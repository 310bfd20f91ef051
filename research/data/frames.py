"""Export of Bars: pandas and polars frames, and Parquet files in our own schema."""

import json
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qtcore.types import Bars
from research.data.facts import calendar_of
from research.data.schema import VALUES
from research.errors import DataError
from research.files import replacing

if TYPE_CHECKING:
    import polars as pl

TIME = pa.timestamp("ns", tz="UTC")


def to_arrow(bars: Bars) -> pa.Table:
    """Return one row per bar and symbol, by time, then symbol in the order of `bars`; holes are rows of NaN.

    Columns: open_time, close_time (ns, UTC), symbol, open, high, low, close, volume, and funding_rate where there is one.
    """
    n_symbols = len(bars.symbols)
    codes = pa.array(np.tile(np.arange(n_symbols, dtype=np.int32), bars.n))
    columns: dict[str, Any] = {name: pa.array(np.repeat(getattr(bars, name), n_symbols)).cast(TIME) for name in ("open_time", "close_time")}
    columns["symbol"] = pa.DictionaryArray.from_arrays(codes, pa.array(bars.symbols, pa.string()))
    for name in VALUES:
        columns[name] = pa.array(np.ascontiguousarray(getattr(bars, name)).ravel())
    if bars.funding is not None:
        columns["funding_rate"] = pa.array(np.ascontiguousarray(bars.funding).ravel())
    return pa.table(columns)


def to_pandas(bars: Bars) -> pd.DataFrame:
    """Return the rows of `to_arrow` as a frame indexed by open_time (UTC).

    >>> from research.data import simulate
    >>> to_pandas(simulate("random_walk", n_bars=2, n_symbols=1)).index.name
    'open_time'
    """
    frame: pd.DataFrame = to_arrow(bars).to_pandas()
    return frame.astype({"symbol": str}).set_index("open_time")


def to_polars(bars: Bars) -> "pl.DataFrame":
    """Return the rows of `to_arrow` as a polars frame."""
    import polars as pl

    frame = pl.from_arrow(to_arrow(bars))
    assert isinstance(frame, pl.DataFrame)
    return frame.with_columns(pl.col("symbol").cast(pl.String))


def save_bars(bars: Bars | Iterable[Bars], path: str | Path) -> Path:
    """Write bars, or an iterator of their blocks, as Parquet that `load_bars` reads back to the bit: order and grid included.

    The file appears whole or not at all. Raises UserError when it cannot be written.
    """
    path = Path(path)
    if path.suffix != ".parquet":
        raise DataError(f"output must end in .parquet, was {path.name!r}")
    blocks = iter((bars,) if isinstance(bars, Bars) else bars)
    first = next(blocks, None)
    if first is None:
        raise DataError("bars must have blocks, was none")
    own = {"symbols": list(first.symbols), "interval": first.interval, "calendar": calendar_of(first)}
    own |= {"origin": first.origin} if first.origin else {}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            replacing(path) as draft,
            pq.ParquetWriter(draft, to_arrow(first).schema, compression="zstd", use_dictionary=["symbol"]) as writer,
        ):
            last = first.open_time[0] - first.interval
            for block in chain((first,), blocks):
                writer.write_table(to_arrow(block))
                if calendar_of(block) == "sessions" or block.open_time[0] - last != block.interval:
                    own["calendar"] = "sessions"
                last = block.open_time[-1]
            writer.add_key_value_metadata({"qtcore": json.dumps(own)})
    except OSError as error:
        raise DataError(f"{path} must be writable, was not ({error.strerror or error}); free space or choose another place") from None
    return path
