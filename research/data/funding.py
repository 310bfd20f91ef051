"""Funding rates of perpetuals, whatever their exchange calls them, on the bars of their symbol.

Names are matched as they are written, else by spelling: upper and lower case, the separators `/ - _ . :` and blanks are one; what follows a
colon (the settlement of `BTC/USDT:USDT`) and the words SWAP, PERP, PERPETUAL and P at the end (`BTC-USDT-SWAP`, `BTCUSDT_PERP`,
`BTCUSDT.P`) are no part of it. A rate is never guessed: two names of one symbol, or none that matches, are refused.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from qtcore.types import F8, I8, Bars
from research.data.clock import iso, utc_ns
from research.data.grid import closes_of
from research.data.owed import missing_rates
from research.data.rows import numbers, symbol_codes
from research.data.schema import find_columns, plain
from research.data.sources import arrow_table, candle_files, read_table, symbol_of
from research.data.stamps import NS_PER_SECOND
from research.data.unread import bare, check_unread, names_nothing
from research.data.zones import Reading
from research.errors import DataError

WANTED = ("funding_rate",)
SUSPECT = 0.005  # a usual rate of eight hours is 0.0001; half a per cent is more likely a rate in per cent
Rates = tuple[I8, NDArray[np.int32], F8, tuple[str, ...]]  # ns UTC, index into the names, fraction; the names


def spelling(name: str) -> str:
    """Return what is left of a symbol's name when its way of writing is taken away.

    >>> [spelling(name) for name in ("BTC/USDT:USDT", "btc-usdt-swap", "BTCUSDT_PERP", "BTCUSDT.P", "BTC_USDT")]
    ['BTCUSDT', 'BTCUSDT', 'BTCUSDT', 'BTCUSDT', 'BTCUSDT']
    """
    text = re.sub(r":[A-Z]+$", "", str(name).strip().upper())
    text = re.sub(r"([-_./ ](SWAP|PERP|PERPETUAL|P))+$", "", text)
    return re.sub(r"[-_./: ]", "", text)


def add_funding(bars: Bars, source: Any, notes: list[str] | None = None, zone: str | None = None) -> Bars:
    """Return `bars` with the funding rates of `source` (timestamp, symbol, funding_rate) in their plane.

    A rate counts in the bar in whose (open_time, close_time] it is due; one that stands twice counts once. notes: gets a sentence on
    everything that was matched by spelling, left out or absent. zone: of naive times, UTC without one. Raises UserError where nothing
    matches, or two rates contradict.
    """
    reading = Reading(zone)
    time, code, rate, names = _read(source, bars.symbols[0] if len(bars.symbols) == 1 else "", reading)
    time = closes_of(time, bars.close_time, bars.interval)
    time -= time % NS_PER_SECOND  # exchanges stamp 08:00:00.003 what is due at 08:00
    column, told = match(names, bars.symbols)
    ours = column[code] >= 0
    told = [*(f"funding: {note}" for note in reading.notes), *told, *_left_out(names, column, code)]
    time, own, rate, n_twice = _once(time[ours], column[code[ours]], rate[ours], bars.symbols)
    told += [f"{n_twice:,} funding rates repeat another; counted once"] if n_twice else []
    if len(rate) and float(np.median(np.abs(rate))) >= SUSPECT:
        told.append(
            f"half of the funding rates are {np.median(np.abs(rate)):.2%} or more a time; they were read as fractions, not per cent"
        )
    row = np.minimum(np.searchsorted(bars.close_time, time, side="left"), bars.n - 1)
    within = (time > bars.open_time[0]) & (time <= bars.close_time[-1])
    inside = within & (time > bars.open_time[row])
    funding = np.zeros((bars.n, len(bars.symbols)))
    np.add.at(funding, (row[inside], own[inside]), rate[inside])
    if not np.any(inside):
        span = (
            f"{iso(int(time.min()))} to {iso(int(time.max()))}, the bars {iso(int(bars.open_time[0]))} to {iso(int(bars.close_time[-1]))}"
        )
        raise DataError(f"funding must be due in the bars, was none of {len(time):,} rates; they span {span}")
    if n := int(np.sum(~within)):
        told.append(f"{n:,} of {len(time):,} funding rates are due before the first bar or after the last; left out")
    if n := int(np.sum(within & ~inside)):
        told.append(f"{n:,} of {len(time):,} funding rates fall between two bars; left out")
    if absent := [name for s, name in enumerate(bars.symbols) if s not in own[inside]]:
        told.append(f"{', '.join(absent)}: no funding rates; counted as 0")
    told += missing_rates(time, own, bars)
    if notes is not None:
        notes += told
    return Bars(**{**vars(bars), "funding": funding})


def _read(source: Any, only: str, reading: Reading) -> Rates:
    """Read rates from a file, a folder of them, a frame or a dict.

    Without a column of symbols they are of the one in the file's name, or of `only`, the one symbol of the bars.
    """
    if isinstance(source, str | Path):
        files = candle_files(Path(source).expanduser(), "funding")
        parts = [_of_file(f, only, reading) for f in files]
    else:
        parts = [_rates(arrow_table(source), "funding", only, reading)]
    names = tuple(dict.fromkeys(name for part in parts for name in part[3]))
    codes = [np.array([names.index(name) for name in part[3]], np.int32)[part[1]] for part in parts]
    time, rate = (np.concatenate([part[i] for part in parts]) for i in (0, 2))
    if not len(time):
        where = f" in {Path(source).name}" if isinstance(source, str | Path) else ""
        raise DataError(f"funding must have rows, was an empty table{where}")
    if not np.all(np.isfinite(rate)):
        raise DataError(f"funding_rate must be finite, was not in {int(np.sum(~np.isfinite(rate))):,} rows; drop them")
    return time, np.concatenate(codes), rate, names


def lone_symbol(path: Path) -> str:
    """Read the symbol from the name of a file of rates, empty where there is none.

    >>> lone_symbol(Path("BTCUSDT-fundingRate-2024-01.csv")), lone_symbol(Path("funding.csv"))
    ('BTCUSDT', '')
    """
    rest = re.sub(r"(^|[-_.])funding([-_ ]?rates?)?(?=[-_.])", "", path.name, flags=re.IGNORECASE)
    return "" if rest.startswith(".") else symbol_of(path.with_name(rest.lstrip("-_")))


def _of_file(file: Path, only: str, reading: Reading) -> Rates:
    own = replace(reading)  # with the same notes
    table, named = read_table(file, WANTED, own), lone_symbol(file) or only
    return _rates(table, file.name, named if bare(own.symbol) in ("", bare(named)) else own.symbol, own)


def _rates(table: Any, source: str, lone: str, reading: Reading) -> Rates:
    found = find_columns(table.column_names, WANTED, source, reading)
    if "symbol" in found and names_nothing(table[found["symbol"]], plain(found["symbol"])):
        reading.note(f"column {found.pop('symbol')} names no symbol and is not read")
    if "time" not in found or ("symbol" not in found and not lone):
        raise DataError(f"{source} must have the columns timestamp, symbol, funding_rate, was {', '.join(table.column_names)}")
    time = utc_ns(table[found["time"]], f"column {found['time']} of {source}", reading)
    rate = _fractions(table[found["funding_rate"]], found["funding_rate"], source, reading)
    if plain(found["funding_rate"]).startswith("real"):  # OKX has it beside the one that was predicted
        reading.note(f"rates are those of {found['funding_rate']}")
    if "symbol" not in found:
        unread = [name for name in table.column_names if name not in found.values()]
        check_unread(table, unread, time, lone, source, reading)
        return time, np.zeros(len(time), np.int32), rate, (lone,)
    code, names = symbol_codes(table[found["symbol"]], source)
    return time, code, rate, names


def _fractions(column: pa.ChunkedArray, name: str, source: str, reading: Reading) -> F8:
    """Return rates as fractions; those written with a per cent sign are divided by 100."""
    is_text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    if not is_text or not len(column) or not pc.all(pc.match_substring_regex(column, r"%\s*$")).as_py():
        return numbers(column, name, source)
    reading.note(f"{name} is read as per cent")
    return numbers(pc.replace_substring_regex(column, r"\s*%\s*$", ""), name, source) / 100.0


def match(names: Sequence[str], symbols: Sequence[str], what: str = "funding") -> tuple[I8, list[str]]:
    """Return the column of each name, -1 for none, and what was assumed. Raises UserError where none matches or one is ambiguous."""
    exact = {name: s for s, name in enumerate(symbols)}
    column = np.array([exact.get(name, -1) for name in names], np.int64)
    spelled: dict[str, list[int]] = {}
    for s, name in enumerate(symbols):
        spelled.setdefault(spelling(name), []).append(s)
    taken: dict[int, str] = {int(s): names[i] for i, s in enumerate(column) if s >= 0}
    assumed = []
    for i in np.flatnonzero(column < 0).tolist():
        fits = [s for s in spelled.get(spelling(names[i]), []) if taken.get(s) != symbols[s]]
        if not fits:
            continue
        if len(fits) > 1:
            raise DataError(f"{what} of {names[i]} must be of one symbol, was of {' or '.join(symbols[s] for s in fits)}; rename it")
        if fits[0] in taken:
            raise DataError(
                f"{what} of {symbols[fits[0]]} must come under one name, was {taken[fits[0]]} and {names[i]}; drop or rename one"
            )
        column[i], taken[fits[0]] = fits[0], names[i]
        assumed.append(f"{names[i]} is {symbols[fits[0]]}")
    if np.all(column < 0):
        raise DataError(f"{what} must be of the symbols of the bars, was of {_some(names)}; the bars have {_some(symbols)}; rename them")
    return column, [f"{what} was matched by spelling: {_some(assumed)}"] if assumed else []


def _left_out(names: Sequence[str], column: I8, code: NDArray[np.int32]) -> list[str]:
    unused = [name for name, s in zip(names, column) if s < 0]
    n = int(np.sum(column[code] < 0))
    return [f"{n:,} funding rates of {_some(unused)} are of no symbol of the bars; left out"] if unused else []


def _once(time: I8, column: I8, rate: F8, symbols: Sequence[str]) -> tuple[I8, I8, F8, int]:
    """Sort by symbol and time and keep one of equal rates; also how many were dropped. Raises UserError on different rates of one time."""
    order = np.lexsort((time, column))
    time, column, rate = time[order], column[order], rate[order]
    again = np.flatnonzero((np.diff(time) == 0) & (np.diff(column) == 0)) + 1
    if len(differing := again[rate[again] != rate[again - 1]]):
        i = int(differing[0])
        text = f"{symbols[column[i]]} at {iso(int(time[i]))}: {rate[i - 1]:g} and {rate[i]:g} ({len(differing):,} times)"
        raise DataError(f"funding must have one rate a symbol and time, was two for {text}; keep one")
    keep = np.ones(len(time), bool)
    keep[again] = False
    return time[keep], column[keep], rate[keep], len(again)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
