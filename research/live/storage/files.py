"""SQLite files of live trading: opened, waited for, held by one runner; what is said when that cannot be."""

import os
import sqlite3
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from research.errors import UserError
from research.live.storage.cells import DamagedError, OtherVersionError, about_of, rows_of
from research.live.storage.place import PRIVATE, Made, numbers

SCHEMA_VERSION = 2
APPLICATION_ID = 0x71746A31  # "qtj1"
BUSY_SECONDS = 600.0  # that a runner waits for a file which another process has locked
COMMAND_SECONDS = 10.0  # that a command waits
SLICE = 0.5  # s between two looks at whether the wait was given up


MAGIC = b"SQLite format 3\0"
HEADS = {
    b"PAR1": "a Parquet file", b"ARROW1": "a Feather file", b"PK\x03\x04": "a zip archive", b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "a gzip archive", b"\xff\xfe": "a text file", b"\xfe\xff": "a text file",
}  # fmt: skip


class Connection(sqlite3.Connection):
    """A connection that waits for others to let go.

    patience: s to wait for one statement. gives_up: asked meanwhile. told: called after a wait, with its seconds.
    """

    patience = 0.0
    gives_up: Callable[[], bool] = staticmethod(lambda: False)
    told: Callable[[float], None] = staticmethod(lambda seconds: None)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Run a statement. Raises sqlite3.OperationalError as SQLite does, a lock of others after `patience` seconds."""
        start = None
        while True:
            try:
                done = super().execute(statement, *values)
            except sqlite3.OperationalError as error:
                start = start or time.monotonic() - SLICE
                is_over = time.monotonic() - start >= self.patience or self.gives_up()
                if self.in_transaction or not is_busy(error) or is_over:  # inside one nothing is left to wait for
                    raise
                continue
            if start is not None:
                self.told(time.monotonic() - start)
            return done


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Say whether another process holds the file."""
    return "locked" in str(error) or "busy" in str(error)


def connect(
    path: Path, *, durable: bool = True, patience: float | None = None, check: Callable[[sqlite3.Connection], None] = lambda db: None
) -> Connection:
    """Open a connection as the journal wants it: WAL, explicit transactions, checkpoints by hand.

    patience: s to wait for others, BUSY_SECONDS by default. check: called before anything is changed, raises UserError on files of others.
    """
    check_kind(path, "choose another --journal")
    patience = BUSY_SECONDS if patience is None else patience
    db = sqlite3.connect(path, timeout=min(SLICE, patience), isolation_level=None, check_same_thread=False, factory=Connection)
    db.patience = patience
    try:
        if has_tables(db):
            check(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        db.execute("PRAGMA wal_autocheckpoint = 0")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn what SQLite says, and what a cell should not hold, into one sentence."""
    try:
        yield
    except sqlite3.ProgrammingError:  # we asked in a way in which nobody can
        raise
    except sqlite3.OperationalError as error:
        text = str(error)
        if "decode to UTF-8" in text:
            raise damaged(path, "text that is no UTF-8") from error
        if is_busy(error):
            raise UserError(f"journal must be free for writing, was held by another process: {path}; end that one or wait") from error
        if "full" in text or "disk I/O" in text:
            raise UserError(
                f"journal must fit on the disk, was {path} on a full one; free space and start again, nothing is lost"
            ) from error
        raise UserError(f"journal must be a writable SQLite file, was {path} ({text}); choose another --journal") from error
    except OtherVersionError as error:
        rule = f"journal must be of this release, was of one with the parameter {error}: {path}"
        raise UserError(f"{rule}; go on with the release that wrote it, or use a new --journal") from error
    except (sqlite3.DatabaseError, DamagedError) as error:
        raise damaged(path, error) from error


def check_kind(path: Path, remedy: str) -> None:
    """Raise UserError on a file that never was SQLite's, saying what it is. What begins as nothing known does may be a damaged one."""
    try:
        with path.open("rb") as file:
            head = file.read(4096)
    except OSError:
        return  # SQLite says more of what cannot be read
    if not head or head.startswith(MAGIC):
        return
    what = next((what for magic, what in HEADS.items() if head.startswith(magic)), None)
    text = head.decode("utf-8-sig", "replace")
    if what is None and "\0" not in text and "\ufffd" not in text[:-1]:  # the last character may be cut
        what = "a JSON file" if text.lstrip()[:1] in ("{", "[") else "a text file"
    if what is not None:
        remedy = f"name its folder, {path.parent}" if (path.parent / "manifest.json").exists() else remedy
        raise UserError(f"journal must be a file that `qt live` wrote, was {what}: {path}; {remedy}")


def has_tables(db: sqlite3.Connection) -> bool:
    """Say whether anything was ever made in the file."""
    return bool(db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()[0] > 0)


def check_version(db: sqlite3.Connection, path: Path) -> None:
    """Raise UserError unless the file is a journal of this version."""
    if db.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise UserError(f"journal must be a file that `qt live` wrote, was another SQLite file: {path}; choose another --journal")
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version != SCHEMA_VERSION:
        raise UserError(f"journal must be of schema {SCHEMA_VERSION}, was {version} in {path}; open it with the version that wrote it")


def check_whole(db: sqlite3.Connection, path: Path) -> None:
    """Raise UserError where pages contradict each other. Reads the whole file: 10,000 bars of 19 symbols in 0.2 s (2026-11)."""
    found = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise damaged(path, " ".join(found.split()))


def damaged(path: Path, what: object) -> UserError:
    """Say that a file cannot be trusted any more."""
    return UserError(f"journal must be intact, was damaged: {path} ({what}); restore a copy or use a new --journal")


def read_about(db: sqlite3.Connection) -> dict[str, Any]:
    """Return the facts that stay. Raises DamagedError."""
    return about_of(rows_of(db.execute("SELECT key, value FROM about")))


class Hold:
    """A journal that this process alone may write, until `close` or the end of the process.

    Two locks: one on the file itself, by whatever name it was found; one on the file `JOURNAL.lock`, for those who ask whether a runner
    works (they must not open the journal beside SQLite: closing it would drop SQLite's own locks).
    """

    def __init__(self, path: Path, made: Made | None = None) -> None:
        """Take both, making files that are not there. Raises UserError where another runner has them, or on a file that is no journal."""
        import fcntl

        made = Made() if made is None else made
        self._numbers: list[int] = []
        made.file(path)
        self._open(path, os.O_RDWR)
        try:
            if sys.platform == "linux":  # elsewhere it would keep SQLite out, too
                fcntl.flock(self._numbers[0], fcntl.LOCK_EX | fcntl.LOCK_NB)
            made.file(lock_of(path))
            self._open(lock_of(path), os.O_RDWR | os.O_NOFOLLOW)
            fcntl.flock(self._numbers[1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._check(path, os.fstat(self._numbers[0]))
        except BlockingIOError as error:
            made.forget()
            self._leave()
            raise UserError(f"journal must be of one runner at a time, was in use: {path}; end the other `qt live` first") from error
        except BaseException:
            self._leave()
            raise

    @staticmethod
    def _check(path: Path, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode):
            raise UserError(f"journal must be a file, was none: {path}; choose another --journal")
        if found.st_nlink > 1:
            raise UserError(
                f"journal must have one name, was a file with {found.st_nlink} (hard links): {path}; its log lies beside one of them, "
                "go on under that one and remove the others (a backup is a copy)"
            )
        if not path.exists() or numbers(path.stat()) != numbers(found):
            raise UserError(f"journal must stay where it is, was removed or replaced at the start: {path}; start again")

    def _leave(self) -> None:
        """Let go of both locks; the journal stays open to the end of the process, as SQLite may have it open too."""
        import fcntl

        fcntl.flock(self._numbers[0], fcntl.LOCK_UN)
        for number in self._numbers[1:]:
            os.close(number)

    def _open(self, path: Path, flags: int) -> None:
        self._numbers.append(os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK, PRIVATE))

    def close(self) -> None:
        """Let others in. Only after SQLite has closed the journal."""
        while self._numbers:
            os.close(self._numbers.pop())


def lock_of(path: Path) -> Path:
    """Name the file whose lock says that a runner works on a journal."""
    return path.with_name(f"{path.name}.lock")


def hold(path: Path, made: Made | None = None) -> Hold:
    """Keep other runners out until this process ends, however it ends. made: notes the files that are new."""
    try:
        return Hold(path, made)
    except OSError as error:
        raise UserError(f"journal must be writable, was {path} ({error.strerror}); choose another --journal") from error


def is_held(path: Path) -> bool | None:
    """Say whether a runner works on the journal; None where that cannot be told.

    It asks for a shared lock, so that two who look do not disturb each other, and lets go at once.
    """
    import fcntl

    try:
        with lock_of(path).open(encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError:
        return None
    return False
