"""Openings of held-back data: an append-only list of who looked at which part of which candles.

What was looked at once is no longer unseen, whatever was learned: a second look at it is one of many tries.
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from qtcore.types import Bars
from research.data.sketch import sketch
from research.errors import UserError
from research.files import home


def path() -> Path:
    """Return where the list lies: `QT_HOME/openings.jsonl`, one JSON object a line."""
    return home() / "openings.jsonl"


def note_opening(bars: Bars, since: int, setting: Sequence[str], net_return: float) -> None:
    """Append an opening. since: row of the first bar that was held back; setting: what was tried there, and what it earned."""
    note = _held(bars, since) | {"time": int(time.time()), "setting": list(setting), "net_return": net_return}
    path().parent.mkdir(parents=True, exist_ok=True)
    with path().open("a", encoding="utf-8") as file:
        file.write(json.dumps(note) + "\n")


def openings(bars: Bars, since: int) -> int:
    """Count how often bars from the row `since` on were opened. Raises UserError where the list is damaged."""
    own = _held(bars, since)
    return sum(own.items() <= note.items() for note in _notes())


def _held(bars: Bars, since: int) -> dict[str, Any]:
    return {"data": sketch(bars).digest, "from": int(bars.open_time[since])}


def _notes() -> Iterator[Mapping[str, Any]]:
    for line in path().read_text(encoding="utf-8").splitlines() if path().exists() else ():
        try:
            note = json.loads(line)
        except ValueError:
            note = None
        if not isinstance(note, dict):
            raise UserError(f"{path()} must hold one JSON object a line, did not; put the file aside")
        yield note
