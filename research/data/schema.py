"""Column schema: the names by which columns are known, and which column of a table holds what."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from research.data.unread import CLOSED, FORMING, NAMES
from research.data.zones import Reading
from research.errors import DataError, UserError

VALUES = ("open", "high", "low", "close", "volume")
TIME_NAMES = ("open_time", "opentime", "timeopen", "time_period_start", "window_start", "start_time", "starttime", "time_open", "ts_event",
              "timestamp", "unix", "unix_timestamp", "unix_time", "datetime", "date_time", "date", "dtyyyymmdd", "date_ymd",
              "trade_date", "time", "ts", "t",
              "gmt_time", "utc_time", "local_time", "time_utc", "time_gmt", "time_eet", "date_utc", "date_gmt", "datetime_utc",
              "timestamp_utc", "open_time_utc", "start", "begin", "mts")  # fmt: skip
DAYS = ("date", "dtyyyymmdd", "date_ymd")  # may have the time of day beside them, in a column `time`
NAMELESS = ("", "index", "unnamed_0", "index_level_0", "level_0")  # where an index without a name was saved
FUNDING_TIMES = (
    "calc_time",
    "funding_time",
    "fundingtime",
    "fundingratetimestamp",
    "timepoint",
    "effectiveat",
)  # of tables of funding rates alone
ALIASES = {
    "close_time": ("close_time", "closetime", "timeclose", "time_period_end"),
    "symbol": ("symbol", "ticker", "pair", "instrument", "asset", "instid", "inst_id", "contract",
               "instrument_name", "ts_code", "coin", "name", *NAMES),
    "closed": (*CLOSED, *FORMING),
    "open": ("open", "price_open", "open_price", "openprice", "o"),
    "high": ("high", "price_high", "high_price", "highprice", "h"),
    "low": ("low", "price_low", "low_price", "lowprice", "l"),
    "close": ("close", "price_close", "close_price", "closeprice", "close_last", "last", "latest", "c", "price"),
    "volume": ("volume", "vol", "real_volume", "base_volume", "basevolume", "volume_base", "volumefrom", "volume_traded",
               "total_traded_quantity", "tick_volume", "tickvol", "tickvolume", "v"),
    "ticks": ("tick_volume", "tickvol", "tickvolume"),
    "adjusted": ("adj_close", "adjclose", "adjusted_close", "adjustedclose", "close_adj"),
    "price": ("price",),
    "size": ("size", "qty", "quantity", "amount"),
    "funding_rate": ("realized_rate", "realizedrate", "real_funding_rate", "funding_rate", "fundingrate",
                     "last_funding_rate", "lastfundingrate", "rate"),
}  # fmt: skip
VOLUME = re.compile("vol|amount|quantity|qty|turnover|size|contracts")  # in the name of a column that may be a volume
QUOTES = ("currency", "quote", "to", "usd", "usdt", "usdc", "busd", "fdusd", "tusd", "dai", "eur", "gbp", "jpy", "krw", "try")
NOT_CLEAR = {
    "close": ("last", "latest", "price"),
    "symbol": NAMES,
    "volume": (*ALIASES["ticks"], "total_traded_quantity"),
}  # read, and told
TRADES = "`qt data resample DATA --interval 5m --out bars.parquet` makes bars of them"


def plain(name: str) -> str:
    """Return the name of a column as it is compared: small letters, words joined by `_`, without brackets, stars and a leading number.

    >>> plain("<OPEN>"), plain("Adj Close**"), plain("1. open"), plain("Volume (BTC)")
    ('open', 'adj_close', 'open', 'volume_btc')
    """
    words = re.sub(r"[\s<>*()\[\]/.:_#-]+", "_", name.strip().lower()).strip("_")
    return re.sub(r"^\d+_(?=[a-z])", "", words)


def find_columns(names: Iterable[str], wanted: Sequence[str], source: str, reading: Reading | None = None) -> dict[str, str]:
    """Map each role of `wanted`, and what else is there of the known ones, to the column that holds it.

    Beside `wanted` these are `time`, `hours` (the time of day beside a date), `close_time`, `symbol`, and of candles `closed` (a flag),
    `funding_rate`, `ticks` and `adjusted`. Candles may lack a volume. reading: its notes say which column was taken where another could
    be meant. Raises UserError that names every column that is missing or there twice.
    """
    names = [str(name) for name in names]
    by_name: dict[str, list[str]] = {}
    for name in names:
        if len(name) == 1 and name.isupper() and name.lower() in names:  # candles of exchanges: t and T, l and L
            by_name.setdefault({"T": "close_time"}.get(name, name), []).append(name)
        else:
            by_name.setdefault(plain(name), []).append(name)
    is_candles = "close" in wanted
    times = (*TIME_NAMES, *FUNDING_TIMES) if "funding_rate" in wanted else TIME_NAMES
    aliases = {**ALIASES, "time": times}
    if not any(name in by_name for name in (*times, *ALIASES["close_time"])):
        aliases["time"] = NAMELESS
    optional = ("time", "close_time", "symbol") + (("funding_rate", "ticks", "adjusted") if is_candles else ())
    optional += ("closed",) if is_candles or not wanted else ()
    chosen = {role: next((a for a in aliases[role] if a in by_name), None) for role in dict.fromkeys((*optional, *wanted))}
    if chosen.get("closed") == "x" and not {"o", "h", "l", "c"} <= by_name.keys():  # a flag in exchanges' streams, anything elsewhere
        chosen["closed"] = None
    unclear: list[str] = []
    if is_candles and chosen["close"] == "price" and not (chosen["open"] or chosen["high"] or chosen["low"]):
        for size in (alias for alias in ALIASES["size"] if alias in by_name):
            raise DataError(f"{source} must hold candles, was trades (columns price and {shown(by_name[size][0])}); {TRADES}")
    if is_candles and chosen["volume"] is None:
        with noting(unclear):
            chosen["volume"] = _base_volume(by_name, source)
    if chosen["time"] in DAYS and "time" in by_name:
        chosen["hours"] = "time"
    kept = {role: alias for role, alias in chosen.items() if alias is not None}
    twice = [alias for alias in dict.fromkeys(kept.values()) if len(by_name[alias]) > 1]
    missing = [role for role in wanted if role not in kept and not (is_candles and role == "volume")]
    if "time" not in kept and "close_time" not in kept:
        missing.insert(0, "timestamp")
    again = "; ".join(f"{source} must have one column {alias}, was {' and '.join(map(shown, by_name[alias]))}" for alias in twice)
    if missing:
        need = ", ".join(["timestamp", "symbol", *wanted])
        seen = ", ".join(shown(name) for name in names[:12]) or "none"
        seen += ", ..." if len(names) > 12 else ""
        text = f"{source} must have the columns {need}; missing: {', '.join(missing)}; found: {seen}"
        raise DataError("; ".join([text, *([again] if again else []), *unclear]))
    if again or unclear:
        raise DataError("; also: ".join([*([f"{again}; rename or drop one"] if again else []), *unclear]))
    if reading is not None:
        _tell_choices(kept, aliases, by_name, reading)
    return {role: by_name[alias][0] for role, alias in kept.items()}


def _tell_choices(kept: dict[str, str], aliases: Mapping[str, Sequence[str]], by_name: dict[str, list[str]], reading: Reading) -> None:
    """Note which column was read where its name does not say so by itself, or where others of the file could be meant too."""
    for role, alias in kept.items():
        if role in ("hours", "ticks", "adjusted"):  # told where they are read
            continue
        known = [name for name in aliases[role] if name not in NAMES or alias in NAMES]  # `market` beside `symbol` is no second one
        others = [name for name in by_name if name in known and name not in kept.values()]
        if role == "volume" and alias not in aliases[role]:
            others = [name for name in by_name if re.fullmatch(r"volume_[a-z0-9]{2,10}", name) and name != alias]
        if others or alias in NOT_CLEAR.get(role, ()):
            left = " and ".join(shown(by_name[name][0]) for name in others)
            rest = f"; {left} {'is' if len(others) == 1 else 'are'} not read" if others else ""
            text = f"{role.replace('_', ' ')} is column {shown(by_name[alias][0])}"
            if not any(note.startswith(text) for note in reading.notes):  # of a file whose other columns are gone by now
                reading.note(text + rest)


def shown(name: str) -> str:
    """Return the name of a column as a sentence shows it."""
    return name if name.isprintable() and name else repr(name)[:20]


def _base_volume(by_name: Mapping[str, list[str]], source: str) -> str | None:
    """Return the one of `Volume BTC`, `Volume USDT` that counts base units, None without any. Raises UserError where it is not clear."""
    named = [name for name in by_name if re.fullmatch(r"volume_[a-z0-9]{2,10}", name)]
    base = [name for name in named if name.removeprefix("volume_") not in QUOTES]
    if len(base) > 1:
        written = " and ".join(shown(by_name[name][0]) for name in named)
        raise DataError(f"{source} must have one volume in base units, was {written}; rename that one to volume")
    if base:
        return base[0]
    known = {alias for role, names in ALIASES.items() if role != "size" for alias in names} | {*TIME_NAMES, *NAMELESS}
    near = [name for name in by_name if name not in known and (VOLUME.search(name) or difflib.get_close_matches(name, ["volume"], 1, 0.6))]
    near += [name for name in ("up", "down") if {"up", "down"} <= set(by_name)]  # TradeStation: volume is their sum
    if near:  # 0 would be wrong where a volume stands under another name
        written = " or ".join(shown(by_name[name][0]) for name in near)
        raise DataError(f"{source} must have a column volume, was {written}; rename the volume, or drop what is none")
    return None


def header_zone(name: str) -> str | None:
    """Return the zone that the name of a time column says: `Gmt time`, `Time (EET)`."""
    words = plain(name).split("_")
    return "UTC" if "utc" in words or "gmt" in words else "EET" if "eet" in words else None


@contextmanager
def noting(problems: list[str]) -> Iterator[None]:
    """Keep the sentence of a UserError, so that others can be told with it."""
    try:
        yield
    except UserError as error:
        problems.append(str(error))
