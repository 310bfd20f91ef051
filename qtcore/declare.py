"""Parameter declarations: how a parameter is declared, and when a value is refused.

One line of a `ParamSet` carries default, bounds and meaning; this module reads them. It knows no layer. Plans of trainings and searches are
declared in the same way (`research.training.plan`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import Enum, IntEnum
from typing import Any

import numpy as np

from qtcore.types import InputError


class Lane(Enum):
    """Ways in which settings that run side by side in SIMD lanes take a parameter (`qtcore.sweep`)."""

    PLAIN = 0  # not at all: with another value than in `published` the plain driver runs the setting
    ROW = 1  # every lane has its own value
    SWITCH = 2  # chooses a branch: on or off for all lanes of a chunk
    NUMBER = 3  # one number for all lanes of a chunk
    OPINION = 4  # part of the opinion that a chunk shares: decided before lanes begin
    MARKET = 5  # in the planes that votes and opinion read: made before any setting is run


@dataclass(frozen=True)
class InLanes:
    """How lanes take one parameter. row: name of the row that holds it, its own where empty. values: those of a switch that lanes know."""

    kind: Lane = Lane.PLAIN
    row: str = ""
    values: tuple[Any, ...] = ()

    def known(self, off: Any) -> tuple[Any, ...] | None:
        """List the values with which lanes run a setting, None for all; off: the value in `published`."""
        if self.kind == Lane.PLAIN:
            return (off,)
        return self.values if self.kind == Lane.SWITCH else None


PLAIN, ROW, NUMBER, OPINION, MARKET = (InLanes(kind) for kind in (Lane.PLAIN, Lane.ROW, Lane.NUMBER, Lane.OPINION, Lane.MARKET))


def row_of(name: str) -> InLanes:
    """Take a parameter as a part of the row `name`."""
    return InLanes(Lane.ROW, name)


def one_of(*values: Any) -> InLanes:
    """Take a parameter as a switch of a chunk, with one of these values; any other goes to the plain driver."""
    return InLanes(Lane.SWITCH, "", values)


# When a parameter is read: alternatives, each the values that others must have by `layer.name`; none: always. It is about choices and
# switches, which say what code is reached; a limit that happens to bind nowhere is read all the same.
When = Sequence[Mapping[str, Sequence[Any]]]


def bounded(default: float, low: float, high: float, meaning: str, lanes: InLanes = PLAIN, when: When = ()) -> Any:
    """Declare a number in [low, high]; an int default declares an int."""
    return field(default=default, metadata={"low": low, "high": high, "meaning": meaning, "lanes": lanes, "when": when})


def choice(default: IntEnum, meaning: str, lanes: InLanes = PLAIN, when: When = ()) -> Any:
    """Declare one of the names of an enum, written in lower case by users."""
    return field(default=default, metadata={"enum": type(default), "meaning": meaning, "lanes": lanes, "when": when})


def switch(default: bool, meaning: str, lanes: InLanes = PLAIN, when: When = ()) -> Any:
    """Declare an on/off parameter."""
    return field(default=default, metadata={"meaning": meaning, "lanes": lanes, "when": when})


def vector(default: tuple[float, ...], low: float, high: float, meaning: str, lanes: InLanes = PLAIN, when: When = ()) -> Any:
    """Declare a fixed number of floats, each in [low, high]."""
    about = {"low": low, "high": high, "length": len(default), "meaning": meaning, "lanes": lanes, "when": when}
    return field(default=default, metadata=about)


def text(default: str, meaning: str, lanes: InLanes = PLAIN) -> Any:
    """Declare a text; it stays outside the kernels' record."""
    return field(default=default, metadata={"text": True, "meaning": meaning, "lanes": lanes})


def word(default: str, allowed: Sequence[str], meaning: str) -> Any:
    """Declare one of some words."""
    return field(default=default, metadata={"words": tuple(allowed), "meaning": meaning})


def names(default: tuple[str, ...], meaning: str, lanes: InLanes = PLAIN) -> Any:
    """Declare any number of names; they stay outside the kernels' record."""
    return field(default=default, metadata={"names": True, "meaning": meaning, "lanes": lanes})


def optional(declared: Any, absent: str | int) -> Any:
    """Let a declared value be None, which is the default; users write `absent` for it."""
    return field(default=None, metadata={**declared.metadata, "absent": absent, "usual": declared.default})


class ParamSet:
    """A layer's parameters; every instance is valid."""

    def __post_init__(self) -> None:
        layer = type(self).__name__.lower()
        for spec in fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, spec.name, checked(f"{layer}.{spec.name}", getattr(self, spec.name), spec))


def checked(name: str, value: Any, spec: Any) -> Any:
    """Convert and check the value of a declared field; InputError names the field, the rule and the value."""
    meta = spec.metadata
    if "absent" in meta and (value is None or (type(value) in (str, int) and str(value) == str(meta["absent"]))):
        return None
    default, either = meta.get("usual", spec.default), f"{meta['absent']} or " if meta.get("absent") else ""
    if "enum" in meta:
        return _as_enum(name, value, meta["enum"])
    if "words" in meta:
        if value not in meta["words"]:
            raise InputError(f"{name} must be one of {', '.join(meta['words'])}, was {value!r}")
        return value
    if meta.get("names"):
        return _as_names(name, value)
    if meta.get("text"):
        return _as_text(name, value)
    if isinstance(default, bool):
        return as_bool(name, value)
    rule = f"in [{meta['low']}, {meta['high']}]"
    if "length" in meta:
        return _as_vector(name, value, meta, rule)
    kind = "an int" if isinstance(default, int) else "a number"
    number = _as_number(value)
    if number is None or not meta["low"] <= number <= meta["high"] or (isinstance(default, int) and number != int(number)):
        raise InputError(f"{name} must be {either}{kind} {rule}, was {value!r}")
    return int(number) if isinstance(default, int) else number


def described(name: str, spec: Any) -> dict[str, Any]:
    """Return name, default, what is allowed, meaning, and when it is read (empty: always) of a declared field, as tables show them."""
    meta = spec.metadata
    choices = meta.get("words") or [member.name.lower() for member in meta.get("enum", ())]
    if isinstance(spec.default, bool):
        choices = ["on", "off"]
    bounds = f"[{meta['low']:.15g}, {meta['high']:.15g}]" if "low" in meta else "names, comma-separated" if "names" in meta else "text"
    out = {"name": name, "default": shown(meta, spec.default), "allowed": " | ".join(choices) or bounds, "meaning": meta["meaning"]}
    return out | {"read": ", or ".join(_condition_text(each) for each in meta.get("when", ()))}


def _condition_text(alternative: Mapping[str, Sequence[Any]]) -> str:
    told = [
        f"{name} is {f'{values[0]} or more' if isinstance(values, range) else ' or '.join(map(value_text, values))}"
        for name, values in alternative.items()
    ]
    return " and ".join(told)


def value_text(value: Any) -> str:
    """Write a checked value of a choice, a switch or a number as users do."""
    return ("off", "on")[value] if isinstance(value, bool) else str(plain(value))


def shown(meta: Mapping[str, Any], value: Any) -> Any:
    """Return a checked value as users write it, in what JSON holds. meta: of the declaration."""
    return meta["absent"] if value is None else ",".join(value) if "names" in meta else plain(value)


def _as_enum(name: str, value: Any, enum: type[IntEnum]) -> IntEnum:
    names = {member.name.lower(): member for member in enum}
    if isinstance(value, enum):
        return value
    if isinstance(value, str) and value.lower() in names:
        return names[value.lower()]
    raise InputError(f"{name} must be one of {', '.join(names)}, was {value!r}")


def _as_names(name: str, value: Any) -> tuple[str, ...]:
    found = value.replace(",", " ").split() if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise InputError(f"{name} must be names, comma-separated, was {value!r}")
    return tuple(found)


def _as_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InputError(f"{name} must be text, was {value!r}")
    return value


def as_bool(name: str, value: Any) -> bool:
    """Read on/off in any of its spellings. Raises InputError naming it."""
    words = {"true": True, "on": True, "1": True, "yes": True, "false": False, "off": False, "0": False, "no": False}
    if isinstance(value, str) and value.lower() in words:
        return words[value.lower()]
    if isinstance(value, bool | np.bool_) or (isinstance(value, int) and value in (0, 1)):
        return bool(value)
    raise InputError(f"{name} must be on or off, was {value!r}")


def _as_vector(name: str, value: Any, meta: Mapping[str, Any], rule: str) -> tuple[float, ...]:
    words = value.replace(",", " ").split() if isinstance(value, str) else value
    items = list(words) if isinstance(words, list | tuple | np.ndarray) else []
    numbers = [_as_number(item) for item in items]
    if len(numbers) != meta["length"] or any(x is None or not meta["low"] <= x <= meta["high"] for x in numbers):
        raise InputError(f"{name} must be {meta['length']} numbers {rule}, was {value!r}")
    return tuple(float(x) for x in numbers if x is not None)


LONGEST = 60  # letters of a number


def _as_number(value: Any) -> float | None:
    if isinstance(value, bool) or (isinstance(value, str) and (len(value) > LONGEST or not value.isascii())):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if np.isfinite(number) else None


def plain(value: Any) -> Any:
    """Turn a checked value into what JSON, TOML and a table can hold."""
    if isinstance(value, IntEnum):
        return value.name.lower()
    return list(value) if isinstance(value, tuple) else value


def time_ns(name: str, value: Any) -> int:
    """Turn an ISO time into ns UTC. Raises InputError naming it, also on another zone than UTC.

    >>> time_ns("time", "1970-01-01T00:01:00Z")
    60000000000
    """
    text = str(value).removesuffix("Z").removesuffix("+00:00").replace(" ", "T")
    try:
        if text.count("-") != 2 or not set(text) <= set("0123456789-:.T"):  # an offset, NaT, "today"
            raise ValueError
        if not "1678" <= text[:4] <= "2261":  # 64 bits of ns hold no more, and NumPy wraps around in silence
            raise ValueError
        return int(np.datetime64(text, "ns").astype(np.int64))
    except ValueError:
        raise InputError(f"{name} must be an ISO time in UTC such as 2024-03-01 or 2024-03-01T12:00, was {value!r}") from None


def time_text(ns: int) -> str:
    """Write ns UTC as an ISO time without zone, as short as it is exact.

    >>> time_text(60_000_000_000)
    '1970-01-01T00:01'
    """
    return str(np.datetime_as_string(np.datetime64(ns, "ns"), unit="auto"))
