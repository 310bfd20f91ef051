"""Checked reading: plain files, text, JSON and TOML, believed only when their content has the shape that its kind says."""

import hashlib
import json
import math
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from research.errors import UserError

MAX_BYTES = 1 << 30  # of a file that is read as a whole
MAX_DEPTH = 64  # of lists and tables inside each other
NUMBER = (int, float)


@dataclass(frozen=True)
class Kind:
    """What a file is, in words that end `must be ...`; what helps when it is not so; and the shape of its content, see `misfit`.

    has_large: its JSON may hold whole numbers beyond 64 bits.
    """

    what: str
    remedy: str
    shape: Any = dict
    has_large: bool = False

    def error(self, where: Any, why: object) -> UserError:
        """Return the sentence that refuses `where`; why: what it was, words or an error."""
        return UserError(f"{where} must be {self.what}, was {reason(why)}; {self.remedy}")

    def check(self, value: Any, where: Any) -> Any:
        """Return `value` where it has the shape. Raises UserError."""
        if found := misfit(value, self.shape):
            raise self.error(where, found)
        return value


def reason(error: object) -> str:
    """Say in some words of one line what an error says; its type where it says nothing."""
    if isinstance(error, FileNotFoundError):
        return "not found"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror[0].lower() + error.strerror[1:]
    if isinstance(error, KeyError):
        return f"without {error}"
    if isinstance(error, MemoryError | RecursionError):
        return "larger or deeper than memory allows"
    text = " ".join(str(error).split()).rstrip(".;") or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}..."


def misfit(value: Any, shape: Any, at: str = "") -> str:
    """Say where and how a value departs from a shape, "" where it does not.

    A shape is a type (`float` takes whole numbers too, `int` and `float` no bool), None, a tuple of alternatives, `[shape]` for a list, or
    a table `{"key": shape, "maybe?": shape, ...: shape of every other key}`; without `...` other keys are let be.

    >>> misfit({"version": "2", "history": []}, {"version": int, "history": [dict]})
    "version as '2', not a whole number"
    """
    if isinstance(shape, tuple):
        found = [misfit(value, each, at) for each in shape]
        return "" if "" in found else found[0]
    if isinstance(shape, list):
        if not isinstance(value, list | tuple):
            return _not(at, value, "a list")
        return next((text for i, item in enumerate(value) if (text := misfit(item, shape[0], f"{at}[{i}]"))), "")
    if isinstance(shape, dict):
        return _misfit_table(value, shape, at) if isinstance(value, Mapping) else _not(at, value, "a table of names and values")
    wanted: Any = {float: NUMBER, None: type(None), Any: object, dict: Mapping, list: (list, tuple)}.get(shape, shape)
    is_right = isinstance(value, wanted) and not (isinstance(value, bool) and shape in (int, float))
    if is_right and isinstance(value, float) and not math.isfinite(value):
        return _not(at, value, "a finite number")
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false", None: "null", list: "a list"}
    return "" if is_right else _not(at, value, names.get(shape, "a table of names and values"))


def _misfit_table(value: Mapping, shape: Mapping, at: str) -> str:
    dot = f"{at}." if at else ""
    for key, each in shape.items():
        name = key.removesuffix("?") if isinstance(key, str) else key
        if name is not ... and name not in value:
            if name == key:
                return f"without {dot}{name}"
        elif name is not ... and (text := misfit(value[name], each, f"{dot}{name}")):
            return text
    known = {key.removesuffix("?") for key in shape if isinstance(key, str)}
    others = value.items() if ... in shape else ()
    return next((text for name, item in others if name not in known and (text := misfit(item, shape[...], f"{dot}{name}"))), "")


def _not(at: str, value: Any, rule: str) -> str:
    shown = repr(value)
    return f"{at or 'its content'} as {shown if len(shown) <= 60 else shown[:60] + '...'}, not {rule}"


def check_file(path: Path | str, kind: Kind, limit: int | None = None) -> Path:
    """Return the path of a plain file that can be opened. Raises UserError on a folder, a pipe, a device, and what is not there."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL or half a character in the name
        raise kind.error(repr(str(path)) if isinstance(error, ValueError) else path, error) from None
    if not stat.S_ISREG(found.st_mode):
        raise kind.error(path, "a folder" if stat.S_ISDIR(found.st_mode) else "a pipe or a device, not a file")
    if limit is not None and found.st_size > limit:
        raise kind.error(path, f"{found.st_size:,} bytes long, more than {limit:,}")
    return Path(path)


def read_bytes(path: Path | str, kind: Kind, limit: int = MAX_BYTES) -> bytes:
    """Read a plain file of at most `limit` bytes. Raises UserError."""
    try:
        return check_file(path, kind, limit).read_bytes()
    except (OSError, MemoryError) as error:
        raise kind.error(path, error) from None


def hash_file(path: Path | str, kind: Kind) -> str:
    """Return the sha256 of a plain file of any length, in hexadecimal digits. Raises UserError."""
    try:
        with check_file(path, kind).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise kind.error(path, error) from None


def read_text(path: Path | str, kind: Kind) -> str:
    """Read a plain file of UTF-8 text. Raises UserError."""
    return decode(read_bytes(path, kind), kind, path)


def decode(data: bytes, kind: Kind, where: Any) -> str:
    """Turn bytes into text. Raises UserError where they are not UTF-8."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise kind.error(where, f"not UTF-8 text (byte {error.start:,})") from None


def read_json(path: Path | str, kind: Kind) -> Any:
    """Read strict JSON of the kind's shape. Raises UserError."""
    return parse_json(read_bytes(path, kind), kind, path)


def parse_json(text: bytes | str, kind: Kind, where: Any) -> Any:
    """Parse strict JSON of the kind's shape: no NaN or infinity, no key twice, whole numbers of 64 bits at most. Raises UserError."""
    text = text if isinstance(text, str) else decode(text, kind, where)
    try:
        value = json.loads(
            text, object_pairs_hook=_table, parse_float=_finite, parse_int=int if kind.has_large else _whole, parse_constant=_finite
        )
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()  # half of a pair of surrogates can be escaped, and printed nowhere
    except UnicodeEncodeError:
        raise kind.error(where, "text with half a character") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise kind.error(where, f"no JSON ({reason(error)})") from None
    return kind.check(_not_deep(value, kind, where), where)


def read_toml(path: Path | str, kind: Kind) -> dict[str, Any]:
    """Read a TOML file of the kind's shape. Raises UserError."""
    text = read_text(path, kind)
    try:
        value = tomllib.loads(text, parse_float=_finite)
    except (ValueError, RecursionError, MemoryError) as error:
        raise kind.error(path, f"no TOML ({reason(error)})") from None
    table: dict[str, Any] = kind.check(_not_deep(value, kind, path), path)
    return table


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in made if names.count(name) > 1)!r} stands twice in one table")
    return made


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"numbers must be finite, was {text[:40]}")
    return number


def _whole(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError(f"whole numbers must fit into 64 bits, was {text[:40]}")
    return int(text)


def _not_deep(value: Any, kind: Kind, where: Any) -> Any:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        level = [item for each in level for item in (each.values() if isinstance(each, dict) else each) if isinstance(item, dict | list)]
        if not level:
            return value
    raise kind.error(where, f"nested deeper than {MAX_DEPTH} levels")
