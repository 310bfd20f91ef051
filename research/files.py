"""File input and output: our files are checked before they are believed, and written to the disk whole or not at all.

Every reader takes a `Kind`, which says what the file is, how its content looks and what helps when it is not so. Whatever is wrong (no
file, a folder or a pipe in its place, cut, not UTF-8, too large, too deep, a key missing or double, text where a number belongs) is one
UserError: `<path> must be <kind>, was <what it was>; <remedy>`.
"""

import hashlib
import io
import json
import math
import os
import shutil
import stat
import tomllib
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from research.errors import ConfigError, UserError

if TYPE_CHECKING:
    import pyarrow as pa

MAX_BYTES = 1 << 30  # of a file that is read as a whole
MAX_DEPTH = 64  # of lists and tables inside each other
NUMBER = (int, float)
TIME, TEXT = "a time", "text"  # of a Parquet column; the other kinds are int and float


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


def unpack_arrays(data: bytes, kind: Kind, where: Any, limit: int = MAX_BYTES) -> dict[str, NDArray]:
    """Read an npz archive by name; kind.shape is None or {name: (dtype, dimensions)}. Raises UserError.

    What each array claims to be is compared with what the archive holds before any memory is asked for.
    """
    check_archive(data, kind, where, limit)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for info in archive.infolist():
                _check_array(archive, info)
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # zipfile, zlib, tokenize and NumPy have errors of their own; whatever it is, the bytes are no archive
        raise kind.error(where, error) from None
    for name, (dtype, n_axes) in ({} if kind.shape in (None, dict) else kind.shape).items():
        found = arrays.get(name)
        if found is None or found.dtype != np.dtype(dtype) or found.ndim != n_axes:
            had = "without it" if found is None else f"{found.dtype} of {found.ndim} dimensions"
            raise kind.error(where, f"{name} as {had}, not {np.dtype(dtype)} of {n_axes}")
    return arrays


def check_archive(data: bytes, kind: Kind, where: Any, limit: int = MAX_BYTES) -> None:
    """Raise UserError unless `data` is a zip archive of at most `limit` bytes unpacked, every member whole by its checksum."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = [info.filename.removesuffix(".npy") for info in archive.infolist()]
            if len(set(names)) < len(names) or sum(info.file_size for info in archive.infolist()) > limit:
                raise ValueError(f"an archive with a name twice, or of more than {limit:,} bytes")
            if (bad := archive.testzip()) is not None:
                raise ValueError(f"damaged in {bad}")
    except Exception as error:  # zipfile and zlib have errors of their own; whatever it is, the bytes are no archive
        raise kind.error(where, error) from None


def _check_array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ValueError(f"an array of format {version}")
        shape, _, dtype = read(file)
        if dtype.hasobject or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != info.file_size - file.tell():
            raise ValueError(f"{info.filename} as {dtype} {list(shape)} in {info.file_size:,} bytes")


def read_table(path: Path | str, kind: Kind, columns: list[str] | None = None) -> "pa.Table":
    """Read a Parquet file, or some of its columns.

    kind.shape is `{column: int, float, TIME, TEXT or Arrow's name of a type}`; a column `name?` may be absent. Raises UserError
    where it is cut, damaged (pages that were written with a checksum), or a column is missing or of another type.
    """
    import pyarrow.parquet as pq

    def read() -> "pa.Table":
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            check_columns(file.schema_arrow, kind, path, columns)
            return file.read(columns)

    return parquet_guarded(read, path, kind)


def count_rows(path: Path | str, kind: Kind) -> int:
    """Count the rows of a Parquet file and check its columns. Raises UserError as `read_table` does."""
    import pyarrow.parquet as pq

    def read() -> int:
        with pq.ParquetFile(path) as file:
            check_columns(file.schema_arrow, kind, path)
            return int(file.metadata.num_rows)

    return int(parquet_guarded(read, path, kind))


def parquet_guarded(read: Callable[[], Any], path: Path | str, kind: Kind) -> Any:
    """Return what `read` returns of a Parquet file. Raises UserError where there is no plain file, or it is damaged."""
    check_file(path, kind)
    try:
        return read()
    except UserError:
        raise
    except Exception as error:  # Arrow's errors are ValueErrors, KeyErrors, MemoryErrors and so on
        raise kind.error(path, f"damaged or no Parquet file ({reason(error)})") from None


def check_columns(schema: Any, kind: Kind, where: Any, columns: list[str] | None = None) -> None:
    """Raise UserError unless an Arrow schema has the columns of `kind.shape`, and `columns` beside, by name and type."""
    import pyarrow as pa

    asked: Mapping[str, Any] = {} if kind.shape in (None, dict) else kind.shape
    shape = {name.removesuffix("?"): wanted for name, wanted in asked.items() if not name.endswith("?") or name[:-1] in schema.names}
    for name in columns if columns is not None else shape:
        if schema.names.count(name) != 1:
            raise kind.error(where, f"without the column {name}" if name not in schema.names else f"with the column {name} twice")
        found, wanted = schema.field(name).type, shape.get(name)
        found = found.value_type if pa.types.is_dictionary(found) else found
        is_right = {
            int: pa.types.is_integer(found),
            float: pa.types.is_integer(found) or pa.types.is_floating(found),
            TIME: pa.types.is_timestamp(found),
            TEXT: pa.types.is_string(found) or pa.types.is_large_string(found),
        }.get(wanted, wanted is None or str(found) == wanted)
        if not is_right:
            raise kind.error(where, f"{name} as {found}, not {'numbers' if wanted in (int, float) else wanted}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to: it takes the place of `path` when the block ends well and is gone when not.

    Two writers do not meet, the later one stays. Raises OSError as the file system does.

    >>> import tempfile
    >>> page = Path(tempfile.mkdtemp()) / "page.html"
    >>> with replacing(page) as draft:
    ...     _ = draft.write_text("all of it")
    >>> page.read_text(), [path.name for path in page.parent.iterdir()]
    ('all of it', ['page.html'])
    """
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield draft
        with draft.open("rb+") as file:
            os.fsync(file)  # a rename may reach the disk before what it names: after a power cut the file would be empty
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def save_text(path: Path, text: str, *, is_private: bool = False) -> None:
    """Write a file of UTF-8 text, whole or not at all; is_private: for nobody else to read. Raises OSError."""
    with replacing(path) as draft:
        if is_private:
            draft.touch(0o600)
        draft.write_text(text, encoding="utf-8")


def save_json(path: Path, value: Any, *, is_private: bool = False) -> None:
    """Write strict JSON, whole or not at all; is_private: for nobody else to read.

    Raises OSError, and ValueError on NaN and infinity, which JSON does not know.
    """
    save_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n", is_private=is_private)


def check_target(path: Path) -> None:
    """Raise UserError where the file of `--out` cannot be written, before the work whose figures it is to hold."""
    folder = path.absolute().parent
    found = (
        "a folder" if path.is_dir() else "in a folder that is not there" if not folder.is_dir() else "in a folder without leave to write"
    )
    if path.is_dir() or not os.access(folder, os.W_OK):
        raise ConfigError(f"--out must be a file that can be written, was {path}, {found}; choose another")


@contextmanager
def writable(what: str, path: Path, remedy: str = "free space or choose another place") -> Iterator[None]:
    """Turn what the file system says against writing `path` into one UserError; what: of the file, as in `<what> must be writable`."""
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        raise UserError(f"{what} must be writable, was not: {path} ({reason(error)}); {remedy}") from error


def put_in_place(draft: Path, folder: Path) -> None:
    """Put a finished folder in the place of the one before; what was there leaves in one step."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def home() -> Path:
    """Folder of what outlives a run: `QT_HOME`, else `~/.qt`."""
    return Path(os.environ.get("QT_HOME") or Path.home() / ".qt")


def plain(value: Any) -> Any:
    """Turn NumPy values into Python's, NaN and infinities into None."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
