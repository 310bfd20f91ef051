"""Read-only views of SQLite files: of a journal that is being written, of one at rest, and of one on a disk that cannot be written.

SQLite needs to write beside a file to read its log. Where that is not allowed, a file whose log is empty is read as it is, and one with a
log is copied with it into a folder of our own: what the log holds is never left out. What is read is never older than the files: they are
looked at before every query, and opened again where they changed.
"""

import os
import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.files import Kind, check_file
from research.live.storage.cells import FIELDS, Field, Row, rows_of
from research.live.storage.files import check_kind, guarded
from research.live.storage.place import numbers, resolved

SECONDS = 10.0  # to wait for a lock of others
TRIES = 5  # copies of files that change while they are copied
JOURNAL = Kind("a journal of `qt live`", "name another")
REMEDY = "name a journal or a run's folder; `qt data check` looks at candles"
Signature = tuple[tuple[int, ...], ...]


class Reading:
    """A view of the SQLite file that `path` leads to, one query at a time. Raises UserError where it cannot be read."""

    def __init__(self, path: str | Path) -> None:
        self.path = resolved(path)
        self._lock = threading.RLock()
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        with guarded(self.path):
            self._open()

    @property
    def db(self) -> sqlite3.Connection:
        """The connection, to the files as they are now. Raises UserError where they are gone, or others."""
        if self._is_alone:
            if self._signature() != self._seen:
                self.close()
                self._open()
        elif self._signature()[0][:2] != self._seen[0][:2]:
            raise UserError(f"journal must stay while it is looked at, was replaced by another file: {self.path}; look again")
        return self._db

    def rows(self, query: str, *values: Any, fields: Mapping[str, Field] = FIELDS) -> list[Row]:
        """Run a query; several threads may. fields: what its columns may hold."""
        with self._lock, guarded(self.path):
            return rows_of(self.db.execute(query, values), fields)

    def raw(self, query: str, *values: Any) -> list[Row]:
        """Run a query whose cells are hashed as they are."""
        with self._lock, guarded(self.path):
            return self.db.execute(query, values).fetchall()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None

    def _open(self) -> None:
        self._seen, self._is_alone = self._signature(), False
        check_file(self.path, JOURNAL)  # SQLite would wait for a pipe
        check_kind(self.path, REMEDY)
        if self._seen[0][2] == 0 and not self._seen[1]:
            raise UserError(f"journal must be a file that `qt live` wrote, was empty: {self.path}; {REMEDY}")
        try:
            self._db = _connect(self.path, "mode=ro")
        except sqlite3.OperationalError:
            if os.access(self.path.parent, os.W_OK) or not os.access(self.path, os.R_OK):
                raise
            self._is_alone = True
            if not self._seen[1] or self._seen[1][2] == 0:  # no log, or an empty one: everything is in the file
                self._db = _connect(self.path, "immutable=1")
            else:
                self._copy()

    def _copy(self) -> None:
        """Read a copy of the file and its log."""
        for _ in range(TRIES):
            self._seen = self._signature()
            self._folder = tempfile.TemporaryDirectory(prefix="qt_journal_")
            copy = Path(self._folder.name) / "copy"
            for suffix in ("", "-wal"):
                shutil.copyfile(f"{self.path}{suffix}", f"{copy}{suffix}")
            if self._signature() == self._seen:
                self._db = _connect(copy, "mode=rw")
                return
            self._folder.cleanup()
        raise UserError(f"journal must be left alone while it is copied, was written again and again: {self.path}; try again")

    def _signature(self) -> Signature:
        """Return numbers, size and time of the file and its log, which change with what they hold."""
        found: list[tuple[int, ...]] = []
        for suffix in ("", "-wal"):
            try:
                one = os.stat(f"{self.path}{suffix}")
                found.append((*numbers(one), one.st_size, one.st_mtime_ns))
            except FileNotFoundError:
                found.append(())
        if not found[0]:
            raise UserError(f"SRC must be a journal of `qt live` or a run's folder, was missing: {self.path}; look at its path")
        return tuple(found)


def _connect(path: Path, how: str) -> sqlite3.Connection:
    """Open a file by its address, in which no character of its name means anything else, and look into it once."""
    db = sqlite3.connect(f"{path.as_uri()}?{how}", uri=True, timeout=SECONDS, check_same_thread=False, isolation_level=None)
    try:
        db.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchone()
    except BaseException:
        db.close()
        raise
    return db
