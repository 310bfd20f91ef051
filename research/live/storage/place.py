"""Files of a journal on disk: where they lie, what a start made of them, and whether they are still the ones that were opened.

A journal that is a symbolic link stands for the file that the link leads to: log, lock, account and kill switch lie beside that file, so
that every way to it finds the same ones. A file with several names (hard links) is refused, as its log would lie beside one of them.
Files are made for their user alone (0600), never through a link, and never in the place of another file.
"""

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from research.errors import UserError

PRIVATE = 0o600
COMPANIONS = ("-wal", "-shm")  # what SQLite keeps beside an open file


def resolved(path: str | Path) -> Path:
    """Return the file that a path leads to, absolute and without links."""
    return Path(os.path.realpath(path))


def private(name: str, flags: int) -> int:
    """Open a file that others cannot read where it is new; an `opener` of `open`."""
    return os.open(name, flags, PRIVATE)


@dataclass
class Made:
    """What a start makes. `undo` takes it away again: a start that is refused leaves no new file and no new folder, and empty what was."""

    _paths: list[Path] = field(default_factory=list)
    _empty: list[Path] = field(default_factory=list)

    def file(self, path: Path) -> bool:
        """Make an empty file with the folders above it; say whether there was none. Raises OSError where it cannot be made."""
        self._folder(path.parent)
        try:
            number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, PRIVATE)
        except FileExistsError:
            if path.is_file() and path.stat().st_size == 0:
                self._empty.append(path)
            return False
        os.close(number)
        self._paths.append(path)
        return True

    def _folder(self, path: Path) -> None:
        if not path.exists():
            self._folder(path.parent)
            path.mkdir(exist_ok=True)
            self._paths.append(path)

    def forget(self) -> None:
        """Leave what was made where it is: others use it."""
        self._paths.clear()
        self._empty.clear()

    def undo(self) -> None:
        """Take away what was made, and what SQLite keeps beside it."""
        for path in self._empty:
            with suppress(OSError):
                os.truncate(path, 0)
        for path in reversed(self._paths):
            with suppress(OSError):  # somebody else uses it by now
                if path.is_dir():
                    path.rmdir()
                    continue
                for suffix in ("", *COMPANIONS):
                    path.with_name(path.name + suffix).unlink(missing_ok=True)
        self.forget()


@dataclass
class Place:
    """The files of an open SQLite database, by their numbers on the disk. what: how an error names it; remedy: how it goes on."""

    path: Path
    what: str
    remedy: str
    _known: dict[str, tuple[int, int]] = field(default_factory=dict)

    def check(self) -> None:
        """Raise UserError where one is gone or another took its name: what is written would be in no file that has a name."""
        for suffix in ("", *COMPANIONS):
            name = f"{self.path}{suffix}"
            try:
                found = os.stat(name)
            except FileNotFoundError:
                if suffix not in self._known:
                    continue
                raise UserError(f"{self.what} must stay while it is in use, was removed: {name}; {self.remedy}") from None
            if self._known.setdefault(suffix, numbers(found)) != numbers(found):
                raise UserError(f"{self.what} must stay while it is in use, was replaced by another file: {name}; {self.remedy}")


def numbers(found: os.stat_result) -> tuple[int, int]:
    """Return what makes a file the same file."""
    return found.st_dev, found.st_ino


def check_apart(what: str, path: Path, others: dict[str, Any]) -> None:
    """Raise UserError where a file to write to is one that is used for something else. others: what it is used for, and where it lies."""
    for name, other in others.items():
        if other is None:
            continue
        if resolved(path) == resolved(other) or (os.path.exists(path) and os.path.exists(other) and os.path.samefile(path, other)):
            raise UserError(f"{what} must be a file of its own, was {name}: {path}; choose another")
