"""Whole writing: a file is on the disk whole or not at all, and what the file system says against it is one sentence."""

import json
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from research.errors import ConfigError, UserError
from research.files.checked import reason


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


def takes_files(folder: Path) -> bool:
    """Say whether a file can be made in a folder, by making one: leave to write is not room, nor a file system that holds files."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def check_target(path: Path) -> None:
    """Raise UserError where the file of `--out` cannot be written, before the work whose figures it is to hold."""
    folder = path.absolute().parent
    found = "a folder" if path.is_dir() else "in a folder that is not there" if not folder.is_dir() else "in a folder that takes no files"
    if path.is_dir() or not takes_files(folder):
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
