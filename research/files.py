"""How does a file appear whole or not at all? Under another name in its folder, on the disk before it is renamed."""

import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


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


def save_text(path: Path, text: str) -> None:
    """Write a file of UTF-8 text, whole or not at all. Raises OSError."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def save_json(path: Path, value: Any) -> None:
    """Write strict JSON, whole or not at all. Raises OSError, and ValueError on NaN and infinity, which JSON does not know."""
    save_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def put_in_place(draft: Path, folder: Path) -> None:
    """Put a finished folder in the place of the one before; what was there leaves in one step."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    draft.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
