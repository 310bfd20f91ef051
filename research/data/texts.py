"""Text file layouts: what is packed is unpacked, what stands before the table is skipped, columns without a name get one.

pyarrow reads the table itself, pandas the one with several header lines.
"""

import csv
import gzip
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pacsv

from research.data.json_tables import JSON, as_csv
from research.data.schema import TIME_NAMES, find_columns, plain
from research.data.stamps import ZONE
from research.data.zones import Reading
from research.errors import DataError
from research.files import reason

TEXT = (".csv", ".txt", ".tsv")
MAX_BYTES = 2**32  # of a file that comes out of a packed one
MAX_RATIO = 200  # of them to a packed byte, beyond `FREE`; candles have 2 to 40
FREE = 2**24
HEAD = 2**16  # bytes that are looked at to find the layout
LOOKED_AT = 200  # rows
MAX_BEFORE = 10  # lines before the header, and after the table
FOOT = 4_096  # bytes at the end in which these are looked for
KLINE = ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume", "count",
         "taker_buy_volume", "taker_buy_quote_volume", "ignore")  # fmt: skip
DELIMITERS = ";\t|,"
PRICES = ("open", "high", "low", "close")
AFTER = {4: (), 5: ("volume",), 6: ("volume", "more"), 7: ("tick_volume", "vol", "spread")}  # what follows the prices, by numbers in a row
NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)*|[.,]\d+)([eE][+-]?\d+)?")
DATE = re.compile(r"(\d{4}[-./]\d{1,2}[-./]\d{1,2}|\d{1,2}[-./](\d{1,2}|[A-Za-z]{3})[-./](\d{4}|\d{2})|(19|20|21)\d{2}[01]\d[0-3]\d)")
HOUR = re.compile(r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?|\d{6}")
EPOCH = re.compile(r"\d{9,20}(\.\d*)?|\d\.\d+[eE]\+?\d{1,2}")
KRAKEN = ("timestamp", *PRICES, "vwap", "volume", "count")
OKX_SPOT = ("timestamp", *PRICES, "volume", "vol_ccy", "vol_ccy_quote", "confirm")
OKX_SWAP = ("timestamp", *PRICES, "contracts", "volume", "vol_ccy_quote", "confirm")
KNOWN = "time, open, high, low, close and volume, candles of Binance (12 columns), OKX, Kraken, MetaTrader, HistData"


@dataclass(frozen=True)
class Layout:
    """Of a text file: names of the columns, the character between them, the byte at which the rows begin, lines of the header."""

    names: list[str]
    delimiter: str
    start: int
    n_header: int = 1


def is_text(name: str) -> bool:
    """Say whether a file name, in small letters, is that of a text file, packed or not."""
    return re.sub(r"\.(gz|zip)$", "", name).endswith((*TEXT, *JSON)) or name.endswith(".zip")


def unpack(path: Path, reading: Reading) -> pa.Buffer:
    """Return the bytes of a text file as UTF-8, out of gzip or a zip of one file, with a character between its columns.

    Raises UserError on what is damaged or no text.
    """
    name = path.name.lower()
    try:
        if name.endswith(".gz"):
            with gzip.open(path) as file:
                data = pa.py_buffer(_read_bounded(file, path))
        elif name.endswith(".zip"):
            data = pa.py_buffer(_from_zip(path))
        else:
            data = pa.py_buffer(path.read_bytes())
    except (gzip.BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path.name} must be a whole packed file, was not ({reason(error)}); unpack it") from None
    if re.sub(r"\.(gz|zip)$", "", name).endswith(JSON):
        data = pa.py_buffer(as_csv(bytes(data), path.name, reading))
    return _cut_at_blanks(_as_utf8(data, path), reading)


def _cut_at_blanks(data: pa.Buffer, reading: Reading) -> pa.Buffer:
    """Put tabs where nothing but blanks stands between the columns, as many in every line; a time of two words becomes two columns."""
    lines = [text for _, _, text in _lines(data)]
    if not lines or _delimiter(lines, DELIMITERS)[1] > 1:
        return data
    head, rows = lines[0].split(), [line.split() for line in lines[1:] or lines]
    is_timed = len(rows[0]) == len(head) + 1 and plain(head[0]) in TIME_NAMES and all(HOUR.fullmatch(row[1]) for row in rows)
    if len(rows[0]) < 5 or {len(row) for row in rows} != {len(head) + is_timed}:
        return data
    reading.note("blanks stand between the columns")
    text = b"\n".join(b"\t".join(line.split()) for line in bytes(data).splitlines() if line.strip())
    return pa.py_buffer((b"date\ttime" + text[len(head[0].encode()) :] if is_timed else text) + b"\n")


def _from_zip(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) != 1:
            some = ", ".join(ascii(member.filename[:40]) for member in members[:3]) + (", ..." if len(members) > 3 else "")
            raise DataError(f"{path.name} must hold one text file, was {len(members)} members ({some}); unpack it into a folder")
        member = members[0]
        name = member.filename
        if re.search(r"[/\\:]|^\.", name) or not name.lower().endswith(TEXT) or not name.isprintable():
            raise DataError(f"{path.name} must hold one {', '.join(TEXT)} file without a path, was {name[:60]!a}; unpack it")
        if member.flag_bits & 1:
            raise DataError(f"{path.name} must not be encrypted, was; unpack it")
        with archive.open(member) as file:
            return _read_bounded(file, path)


def _read_bounded(file: IO[bytes] | gzip.GzipFile, path: Path) -> bytes:
    """Read what is packed, no more than candles can be. Raises UserError."""
    limit = min(MAX_BYTES, max(FREE, MAX_RATIO * path.stat().st_size))
    out = io.BytesIO()
    while chunk := file.read(2**20):
        out.write(chunk)
        if out.tell() > limit:
            raise DataError(f"{path.name} must unpack to {limit:,} bytes at most, was more; unpack it and see what is in it")
    return out.getvalue()


def _as_utf8(data: pa.Buffer, path: Path) -> pa.Buffer:
    head = bytes(data[:4])
    encoding = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}.get(head[:2])
    if encoding is None and len(head) == 4 and b"\0" in head:
        encoding = "utf-16-le" if head[1] == head[3] == 0 else "utf-16-be" if head[0] == head[2] == 0 else None
    if encoding is not None:
        try:
            data = pa.py_buffer(bytes(data).decode(encoding).encode())
        except UnicodeDecodeError:
            raise DataError(f"{path.name} must be text, was not (broken UTF-16); save it as UTF-8") from None
    elif head[:3] == b"\xef\xbb\xbf":
        data = data.slice(3)
    if b"\0" in bytes(data[:HEAD]):
        raise DataError(f"{path.name} must be text, was not (it has zero bytes); save it as CSV in UTF-8")
    return data


def find_layout(data: pa.Buffer, name: str, reading: Reading) -> Layout:
    """Find the header, or the names that a file without one means. Raises UserError where they are not clear."""
    lines = list(_lines(data))
    if not lines:
        raise DataError(f"{name} must hold candles, was without a line of text")
    said = re.fullmatch(r'"?sep=(.)"?', lines[0][2])
    before = [line for line in lines if re.match(r"(#|//|sep=|\"?sep=)", line[2])]
    rest = [line for line in lines if line not in before]
    if not rest:
        raise DataError(f"{name} must hold candles, was without a line of a table")
    delimiter, width = _delimiter([line[2] for line in rest], said[1] if said else DELIMITERS)
    while len(rest) > 1 and width > 1 and len(_split(rest[0][2], delimiter)) == 1 and len(before) < MAX_BEFORE:
        before.append(rest.pop(0))
    if width == 1 and len(rest[0][2].split()) > 4:
        shown = ascii(rest[0][2].strip()[:40])
        raise DataError(
            f"{name} must have commas, semicolons, tabs, | or in every line as many blanks between its columns, was {shown}; save it as CSV"
        )
    if before:
        reading.note(f"{len(before)} line{'s' * (len(before) > 1)} before the table skipped ({before[0][2][:60]!r})")
    start, stop, text = rest[0]
    fields = _split(text, delimiter)
    data_fields = [field for field in fields if _is_datum(field)]
    if len(data_fields) < 2:
        following = _split(rest[1][2], delimiter) if len(rest) > 1 else []
        is_several = len(following) == len(fields) > 2 and not any(_is_datum(field) for field in following) and "" not in following[1:]
        if is_several and plain(following[0]) in ("", "ticker", "symbol", "price"):
            return Layout(fields, delimiter, start, 2)
        if following and len(following) == len(fields) + 1 and following[-1] == "":
            fields = [*fields, "more"]  # a delimiter ends every row
        return Layout(fields, delimiter, stop)
    if [field.strip() for field in fields] == [str(i) for i in range(len(fields))] and len(rest) > 1:
        reading.note("the header line numbers the columns; skipped")
        rest = rest[1:]
        start, fields = rest[0][0], _split(rest[0][2], delimiter)
    rows = [_split(line[2], delimiter) for line in rest[:LOOKED_AT]]
    names = _of_exchange(rows) or _names(fields, name)
    _check_order(rows, names, name)
    reading.note(f"no header line; the columns are read as {', '.join(n for n in names if n != 'more')}")
    if reading.zone is None and not EPOCH.fullmatch(fields[0].strip()) and not re.search(ZONE, fields[0].strip()):
        reading.note("its times are read as UTC; where they are of a broker's or an exchange's clock say so with --time-zone")
    return Layout(names, delimiter, start)


def _lines(data: pa.Buffer) -> Iterator[tuple[int, int, str]]:
    """Yield the first lines that are not blank: begin and end in bytes, text; a line that the look cuts off is left out."""
    head = bytes(data[:HEAD])
    for match in re.finditer(rb"([^\r\n]*)(\r\n|\n|\r|$)", head):
        if match.start() == len(head) or (match.end() == len(head) < data.size and not match[2] and match.start() > 0):
            return
        if match[1].strip():
            yield match.start(), match.end(), match[1].decode(errors="replace")


def _split(line: str, delimiter: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]


def _delimiter(lines: list[str], choice: str) -> tuple[str, int]:
    """Return the character that cuts most lines into one number of fields, the more the better, and that number."""
    best = (",", 1)
    for delimiter in choice:
        widths = [len(_split(line, delimiter)) for line in lines[1:] or lines]
        width = max(set(widths), key=widths.count)
        if widths.count(width) * 2 > len(widths) and width > best[1]:
            best = (delimiter, width)
    return best


def _is_datum(field: str) -> bool:
    return bool(NUMBER.fullmatch(field) or DATE.match(field))


def _of_exchange(rows: list[list[str]]) -> list[str] | None:
    """Name the columns of rows that only one exchange answers with; None where they are not of one."""
    if len({len(row) for row in rows}) > 1 or not all(EPOCH.fullmatch(row[0]) for row in rows):
        return None
    if not all(NUMBER.fullmatch(field) and field.count(".") < 2 and "," not in field for row in rows for field in row):
        return None
    table = [[float(field) for field in row] for row in rows]
    if len(rows[0]) == len(KRAKEN) and all(row[7] == int(row[7]) and (row[3] <= row[5] <= row[2] or row[7] == 0.0) for row in table):
        return list(KRAKEN)
    if len(rows[0]) == len(OKX_SPOT) and {row[8] for row in table} <= {0.0, 1.0}:
        is_spot = all(row[6] == row[7] for row in table)  # the second volume counts quote units, as the third does
        return list(OKX_SPOT if is_spot else OKX_SWAP)
    return None


def _names(fields: list[str], source: str) -> list[str]:
    """Name the columns of a file without a header by what stands in its first row. Raises UserError where that is not known."""
    if len(fields) == len(KLINE) and EPOCH.fullmatch(fields[0]) and EPOCH.fullmatch(fields[6]) and fields[0] < fields[6]:
        return list(KLINE)
    rest, names = list(fields), list[str]()
    if rest and re.match(r"[A-Za-z]", rest[0]):
        names.append("symbol")
        rest = rest[1:]
        if len(rest) > 6 and DATE.fullmatch(rest[1]):
            names.append("more")  # the length of the bars
            rest = rest[1:]
    has_hours = len(rest) > 5 and DATE.fullmatch(rest[0]) and HOUR.fullmatch(rest[1])
    names += ["date", "time"] if has_hours else ["timestamp"]
    numbers = rest[len(names) - names.count("symbol") - names.count("more") :]
    is_time = bool(DATE.match(rest[0]) or EPOCH.fullmatch(rest[0])) if rest else False
    after = AFTER.get(len(numbers))
    if after is None or not is_time or not all(NUMBER.fullmatch(field) for field in numbers) or (len(numbers) == 7 and not has_hours):
        shown = ", ".join(ascii(field[:20]) for field in fields[:8])
        raise DataError(
            f"{source} must have a header line or columns that are known without one ({KNOWN}), was {len(fields)} columns ({shown}); "
            "put a line timestamp,symbol,open,high,low,close,volume above them, in the order of the columns"
        )
    return [*names, *PRICES, *after]


def _check_order(rows: list[list[str]], names: list[str], source: str) -> None:
    """Refuse rows without a header in which the second price is not the highest and the third the lowest. Raises UserError."""
    first, wrong = names.index("open"), list[list[str]]()
    for row in rows:
        try:
            open_, high, low, close = (float(field.replace(",", ".")) for field in row[first : first + 4])
        except ValueError:
            continue
        if max(open_, low, close) > high or min(open_, high, close) < low:
            wrong.append(row)
    if 2 * len(wrong) > len(rows):
        prices = ", ".join(ascii(field[:15]) for field in wrong[0][first : first + 4])
        raise DataError(
            f"{source} must have open, high, low, close in this order where no header names them, was {prices}; add a header line"
        )


def read_text(path: Path, wanted: tuple[str, ...], reading: Reading) -> pa.Table:
    """Read the columns of `wanted`, time and symbol from a text file. Raises UserError."""
    data = unpack(path, reading)
    layout = find_layout(data, path.name, reading)
    data = _without_footer(data, layout, reading)
    if layout.n_header > 1:
        return pa.Table.from_pandas(_several_headers(data, layout, path), preserve_index=False)
    found = find_columns(layout.names, wanted, path.name, reading)
    if reading.zone is None and any(name.strip().startswith("<") for name in layout.names):
        reading.note("its times are read as UTC; where they are of a broker's or an exchange's clock say so with --time-zone")
    at = {layout.names.index(name): role for role, name in found.items()}
    if "symbol" not in found:  # what may name it under another name is looked at
        at |= dict.fromkeys((i for i in _text_columns(data, layout) if i not in at), "symbol")
    rows = data.slice(layout.start)
    if not rows.size:
        return pa.table({layout.names[i]: pa.array([], pa.string() if role in TEXTS else pa.float64()) for i, role in at.items()})
    try:
        return _table(rows, layout, {i: pa.string() if role in TEXTS else pa.float64() for i, role in at.items()})
    except pa.ArrowInvalid:  # numbers that pyarrow does not know are looked at as texts
        pass
    try:
        return _table(rows, layout, dict.fromkeys(at, pa.string()))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path.name} must be a table of numbers, was not: {reason(error)}; correct that row") from None


def _text_columns(data: pa.Buffer, layout: Layout) -> list[int]:
    """Return the columns in whose first rows stand texts that are neither numbers nor dates."""
    rows = [_split(line[2], layout.delimiter) for _, line in zip(range(LOOKED_AT), _lines(data.slice(layout.start)))]
    rows = [row for row in rows if len(row) == len(layout.names)]
    once = [i for i, name in enumerate(layout.names) if layout.names.count(name) == 1 and name not in ("more", "ignore")]
    return [i for i in once if any(row[i] and not _is_datum(row[i]) for row in rows)]


def _without_footer(data: pa.Buffer, layout: Layout, reading: Reading) -> pa.Buffer:
    """Cut what follows the table: lines without a value, and a sentence of the source."""
    tail = bytes(data[max(layout.start, data.size - FOOT) :])
    lines, after = list(re.finditer(rb"[^\r\n]+", tail)), list[str]()
    while len(lines) > 1 and len(after) < MAX_BEFORE:
        text = lines[-1][0].decode(errors="replace")
        fields = _split(text, layout.delimiter)
        if any(fields) and (len(fields) > 1 or len(layout.names) < 4 or _is_datum(fields[0])):
            break
        after.insert(0, text)
        lines.pop()
    if not after:
        return data
    reading.note(f"{len(after)} line{'s' * (len(after) > 1)} after the table skipped ({after[-1][:60]!r})")
    return data.slice(0, data.size - len(tail) + lines[-1].end())


TEXTS = ("time", "close_time", "hours", "symbol", "closed")


def _table(rows: pa.Buffer, layout: Layout, types: dict[int, pa.DataType]) -> pa.Table:
    table = pacsv.read_csv(
        pa.BufferReader(rows),
        read_options=pacsv.ReadOptions(column_names=[f"c{i}" for i in range(len(layout.names))]),
        parse_options=pacsv.ParseOptions(delimiter=layout.delimiter),
        convert_options=pacsv.ConvertOptions(
            column_types={f"c{i}": kind for i, kind in types.items()}, include_columns=[f"c{i}" for i in types], strings_can_be_null=False
        ),
    )
    return table.rename_columns([layout.names[i] for i in types])


def _several_headers(data: pa.Buffer, layout: Layout, path: Path) -> pd.DataFrame:
    """Read prices and tickers in two header lines, as yfinance writes them, one row per time and symbol. Raises UserError."""
    try:
        frame = pd.read_csv(pa.BufferReader(data.slice(layout.start)), sep=layout.delimiter, header=[0, 1], index_col=0, dtype=str)
    except (ValueError, pd.errors.ParserError) as error:
        raise DataError(f"{path.name} must be a table, was not: {reason(error)}; write one header line") from None
    if len(frame) and frame.iloc[0].isna().all():  # the line that names the index
        frame = frame.iloc[1:]
    return stacked(frame)


def stacked(frame: pd.DataFrame) -> pd.DataFrame:
    """Turn a frame whose columns are prices and symbols into one row per time and symbol, empty ones left out. Raises UserError."""
    levels = [{plain(str(name)) for name in frame.columns.get_level_values(i)} for i in range(frame.columns.nlevels)]
    prices = [i for i, names in enumerate(levels) if {"open", "high", "low", "close"} <= names]
    if len(levels) != 2 or len(prices) != 1:
        raise DataError(
            "columns of two levels must be prices and symbols, was otherwise; use frame.stack() to get one row per time and symbol"
        )
    frame = frame.rename_axis(index="timestamp", columns=["symbol" if i != prices[0] else None for i in range(2)])
    return frame.stack(level=1 - prices[0], future_stack=True).dropna(how="all").reset_index()
