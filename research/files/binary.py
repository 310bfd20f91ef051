"""Checked archives and tables: npz and Parquet, read only when what they claim to hold is what they hold."""

import io
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from research.errors import UserError
from research.files.checked import MAX_BYTES, Kind, check_file, reason

if TYPE_CHECKING:
    import pyarrow as pa

TIME, TEXT = "a time", "text"  # of a Parquet column; the other kinds are int and float


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
