"""Cells of a journal or paper account, and what they may hold. Rows are looked at where they leave SQLite, by the names of their columns.

A file of ours holds what our own statements wrote. A cell of another type, a code that stands for nothing, JSON of another form or bytes of
another length were written by nobody: `DamagedError` says so, and `files.guarded` turns it into the user's sentence. Whatever else goes
wrong with rows that were looked at is a fault of this program.
"""

import json
import re
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from enum import IntEnum
from typing import Any

from qtcore import Params
from qtcore.rules import Reason
from qtcore.types import DECISION_COLUMNS, MODELS, MONEY_COLUMNS, Action, Consensus, InputError, Source, Verdict
from qtcore.voters import slots_of
from research.files import misfit, reason

Row = tuple[Any, ...]
Field = tuple[frozenset[type], Collection[int] | None]  # types that a column may hold, and which numbers; None for any


class DamagedError(Exception):
    """A cell holds what nobody wrote; the text says which."""


class OtherVersionError(Exception):
    """A version's parameters have a name that this release does not know; the text is the name."""


def _field(*types: type, within: Collection[int] | None = None) -> Field:
    return frozenset(types), within


def _code(kind: type[IntEnum]) -> Field:
    return _field(int, within=frozenset(map(int, kind)))


NONE = type(None)
REAL, MONEY, TEXT, BLOB, TIME = _field(float, NONE), _field(float), _field(str), _field(bytes), _field(int)  # in REAL, NULL is NaN
NUMBER = _field(int, within=range(-1, 2**40))  # of a bar, an order, a version; a count
NUMBER_OR_NONE = _field(int, NONE, within=range(-1, 2**40))
CODES = {"consensus": Consensus, "verdict": Verdict, "source": Source, "final_source": Source, "governor_reason": Reason} | {
    name: Action if name.endswith("_action") else Reason for name in DECISION_COLUMNS if name.endswith(("_action", "_reason"))
}
FIELDS: dict[str, Field] = {
    **{name: NUMBER if dtype != "f8" else REAL for name, dtype in DECISION_COLUMNS.items()},
    **{name: _code(kind) for name, kind in CODES.items()},
    **dict.fromkeys((*MONEY_COLUMNS, "final_confidence", "size", "volatility", "trend_strength"), REAL),
    "final_action": _code(Action),
    **dict.fromkeys(("bar", "id", "version", "slot", "seq", "n", "is_entry", "first_fill", "fills", "code"), NUMBER),
    **dict.fromkeys(("done_bar", "first_bar", "last_bar", "last_cell"), NUMBER_OR_NONE),
    **dict.fromkeys(("cell", "latency"), _field(int, within=range(2**62))),
    **dict.fromkeys(("open_time", "close_time", "received", "time", "clock"), TIME),
    **dict.fromkeys(("entered", "left"), _field(int, NONE)),
    **dict.fromkeys(
        ("equity", "balance", "peak", "exposure", "notional", "qty", "price", "entry_price", "exit_price", "fee", "funding"), MONEY
    ),
    **dict.fromkeys(("pnl", "reference_price", "stop_price"), REAL),
    "earned": MONEY,  # `pnl` of an exit
    **dict.fromkeys(("key", "value", "name", "symbol", "kind", "state", "cause", "params", "models", "command", "text", "hash"), TEXT),
    "order_id": _field(str, NONE),
    **dict.fromkeys(("account", "positions", "candles", "digest", "snapshot", "seal"), BLOB),
    "probs": _field(bytes, NONE),
    "reason": _code(Reason),
}
VOTE = {"action": _code(Action), "confidence": REAL}  # a voter's columns, whatever its name
FILLS: dict[str, Field] = FIELDS | {"symbol": NUMBER}  # where a symbol is the number of its column


def rows_of(cursor: sqlite3.Cursor, fields: Mapping[str, Field] = FIELDS) -> list[Row]:
    """Fetch all rows of a query, every column of which has a name in `fields` or is a voter's. Raises DamagedError."""
    rows = cursor.fetchall()
    check([column[0] for column in cursor.description], rows, fields)
    return rows


def check(names: Iterable[str], rows: list[Row], fields: Mapping[str, Field] = FIELDS) -> None:
    """Raise DamagedError naming a cell that nobody wrote."""
    for name, column in zip([*names], zip(*rows), strict=bool(rows)):
        types, within = field_of(name, fields)
        if not types.issuperset(map(type, column)):
            raise DamagedError(f"{name} as {_shown(next(x for x in column if type(x) not in types))}")
        for value in set(column) - {None} if within is not None else ():
            if value not in within:  # type: ignore[operator]
                raise DamagedError(f"{name} as {_shown(value)}")


def field_of(name: str, fields: Mapping[str, Field] = FIELDS) -> Field:
    """Return what a column may hold."""
    return fields[name] if name in fields else VOTE[name.rpartition("_")[2]]


def _shown(value: Any) -> str:
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def parsed(text: str, shape: Any, name: str) -> Any:
    """Read JSON of a shape (`research.files.misfit`). Raises DamagedError."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"{name} are no JSON, {reason(error)}") from error
    if found := misfit(value, shape):
        raise DamagedError(f"{name} with {found}")
    return value


def params_of(text: str) -> Params:
    """Read the parameters of a version. Raises DamagedError, OtherVersionError where another release of ours named them."""
    values = parsed(text, dict, "parameters")
    if strange := [name for name in values if PARAMETER.fullmatch(name) and name not in (*Params().flat(), "stages")]:
        raise OtherVersionError(strange[0])
    try:
        return Params.stored(values)
    except InputError as error:
        raise DamagedError(str(error)) from error


ABOUT = {
    **{name: [str] for name in ("symbols", "voters?", "voting?")},
    **dict.fromkeys(("profile?", "version?"), str),
    "interval": int,
    "feed?": (str, None),
    "is_replay?": bool,
    "is_priced?": bool,
}
PARAMETER = re.compile(r"[a-z_]+\.[a-z_0-9]+")
COMMAND = {"do": str, "values?": dict, "now?": bool, "cell?": int, "refused?": bool}
NEEDED = {"set": "values", "stop": "now", "reset_stats": "cell"}


def about_of(rows: list[Row]) -> dict[str, Any]:
    """Read the facts that stay. Raises DamagedError."""
    about: dict[str, Any] = {key: parsed(value, object, "facts") for key, value in rows}
    if found := misfit(about, ABOUT):
        raise DamagedError(f"facts with {found}")
    if about["interval"] <= 0 or not about["symbols"] or len(set(about["symbols"])) < len(about["symbols"]):
        raise DamagedError(f"facts with the symbols {_shown(about['symbols'])} every {about['interval']} ns")
    try:
        is_sound = slots_of(voters_of(about)) == voters_of(about) and set(voting_of(about)) <= set(voters_of(about))
    except InputError:
        is_sound = False
    if not is_sound:
        raise DamagedError(f"facts with the voters {_shown(voters_of(about))}, of whom {_shown(voting_of(about))} vote")
    return about


def is_replay_of(about: Mapping[str, Any]) -> bool:
    """Whether a journal's candles are a replay's; in one of an earlier version, by the name of its feed."""
    return bool(about.get("is_replay", str(about.get("feed")).startswith("replay:")))


def is_priced_of(about: Mapping[str, Any]) -> bool:
    """Whether a journal's opinions have a price; those of an earlier version have none."""
    return bool(about.get("is_priced", False))


def voters_of(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the five slots of a journal; the known voters in one of an earlier version."""
    return tuple(about.get("voters", MODELS))


def voting_of(about: Mapping[str, Any]) -> tuple[str, ...]:
    """Return who of the voters took part when a journal was begun; all in one of an earlier version, where nobody knows."""
    return tuple(about.get("voting", voters_of(about)))


def command_of(text: str) -> dict[str, Any]:
    """Read what was commanded. Raises DamagedError."""
    command: dict[str, Any] = parsed(text, COMMAND, "commands")
    if (name := NEEDED.get(command["do"])) is not None and name not in command:
        raise DamagedError(f"commands with {command['do']!r} without {name}")
    return command
