"""Columns beside the candles: rows that had not closed, and columns that are not read but tell series apart."""

import re
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qtcore.types import I8
from research.data.clock import iso
from research.data.zones import Reading
from research.errors import DataError

# of a column that is read as the symbol and told: they may name something else
NAMES = ("product_id", "productid", "sym", "symbol_id", "symbol_name", "raw_symbol", "trading_symbol", "tradingsymbol", "trading_pair",
         "currency_pair", "currencypair", "instrument_id", "contract_code", "stock", "stock_code", "security", "security_id", "secid",
         "ric", "isin", "figi", "code", "market_name", "market", "coin_id", "asset_id", "underlying", "base_asset", "base_currency",
         "base", "s")  # fmt: skip
CLOSED = ("confirm", "confirmed", "is_confirmed", "isconfirmed", "complete", "completed", "is_complete", "iscomplete", "closed",
          "is_closed", "isclosed", "bar_closed", "candle_closed", "final", "is_final", "isfinal", "finished", "is_finished",
          "x")  # fmt: skip
FORMING = ("forming", "is_forming", "unclosed", "incomplete", "partial", "is_partial", "provisional", "is_open", "isopen")
YES, NO = ("true", "1", "1.0", "yes", "y", "t"), ("false", "0", "0.0", "no", "n", "f")
NO_NAME = re.compile(r"[-+$(]*[\d.,]+([eE][-+]?\d+)? ?[%KMBk)]?|\d{1,4}[-./]\d.*|\d{1,2}:\d\d.*|\d+ ?(s|sec|m|min|h|hour|d|day|w|mo|M)")
EMPTY = ("", "none", "nan", "null", "n/a", "-", "--")
SHOWN = 3  # values of a column


def is_text(kind: pa.DataType) -> bool:
    """Say whether a column of this type holds text."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def names_nothing(column: pa.ChunkedArray, name: str) -> bool:
    """Say whether a column of a name in `NAMES` holds no names: nothing at all, numbers with a fraction, or numbers where none are codes.

    >>> names_nothing(pa.chunked_array([["600519", "000001"]]), "code"), names_nothing(pa.chunked_array([[12.5, 3.0]]), "base")
    (False, True)
    """
    if name not in NAMES or pa.types.is_nested(column.type):
        return False
    flat = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    texts = [str(value).strip() for value in flat.unique().to_pylist() if value is not None]
    texts = [text for text in texts if text not in ("", "None", "nan")]
    if not all(re.fullmatch(r"[-+]?[\d.,]+([eE][-+]?\d+)?", text) for text in texts):
        return False
    return not texts or name in ("s", "base", "market") or any("." in text for text in texts)


def closed_rows(column: pa.ChunkedArray, name: str, is_forming: bool, source: str, reading: Reading) -> NDArray[np.bool_]:
    """Return which rows the flag `name` lets pass; others are told. All where it is no flag of yes and no, and where it is empty.

    is_forming: yes means that the bar had not closed. Raises UserError where no row had.
    """
    every = np.ones(len(column), bool)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_nested(column.type):
        return every
    coded = column.combine_chunks().dictionary_encode()
    codes = coded.indices.fill_null(len(coded.dictionary)).to_numpy(zero_copy_only=False)
    words = [*("" if value is None else str(value).strip().lower() for value in coded.dictionary.to_pylist()), ""]
    flags = np.array(words, dtype=object)[codes]
    yes, no = (np.array([word in group for word in words])[codes] for group in (YES, NO))
    if not np.all(yes | no | (flags == "")):
        return every
    open_ = yes if is_forming else no
    n = int(open_.sum())
    if n and n == len(flags) and reading.forms is None:
        raise DataError(
            f"{source} must have candles that have closed, was column {name} of {flags[0]} alone; drop it where it means something else"
        )
    if n:
        had = "candle had" if n == 1 else "candles had"
        reading.note(f"{n:,} {had} not closed when the data was made ({name} {flags[open_][0]}); left out")
    return ~open_


def check_unread(table: pa.Table, names: Iterable[str], time: I8, lone: str, source: str, reading: Reading) -> None:
    """Tell what texts stand in columns that are not read, where no column names the symbol.

    Raises UserError where rows of one time differ in one: they are of several series.
    """
    names = list(names)
    for name in names:
        if names.count(name) > 1 or not is_text(table.schema.field(name).type):
            continue
        flat = table[name].combine_chunks()
        coded = flat if pa.types.is_dictionary(flat.type) else pc.dictionary_encode(flat)
        codes = coded.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        texts = [str(text).strip() for text in coded.dictionary.to_pylist()]
        blank = np.array([*(text.lower() in EMPTY for text in texts), True])
        codes = np.where(blank[codes], -1, codes)
        seen = [texts[i] for i in np.unique(codes[codes >= 0])]
        if not seen or all(NO_NAME.fullmatch(text) for text in seen):
            continue
        order = np.lexsort((codes, time))
        same = (np.diff(time[order]) == 0) & (np.diff(codes[order]) != 0) & (codes[order][:-1] >= 0)
        if np.any(same):
            i = order[int(np.argmax(same))]
            j = order[int(np.argmax(same)) + 1]
            raise DataError(
                f"{source} must have one row a time where no column is called symbol, was {texts[codes[i]]!r} and {texts[codes[j]]!r} "
                f"in column {name} at {iso(int(time[i]))}; call that column symbol, or keep the rows of one"
            )
        if len(seen) == 1 and bare(seen[0]) != bare(lone):
            reading.note(f"column {name} holds {seen[0][:40]!r} alone and is not read; where that is the symbol, call the column symbol")
        elif 1 < len(seen) <= len(codes) // 2:
            some = ", ".join(repr(text[:40]) for text in seen[:SHOWN]) + (", ..." if len(seen) > SHOWN else "")
            reading.note(f"column {name} holds {some} and is not read; where these are symbols, call the column symbol")


def bare(name: str) -> str:
    """Return the letters and digits of a name, as names are compared."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
