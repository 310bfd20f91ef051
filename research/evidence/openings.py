"""Openings of held-back data: an append-only list of who looked at which part of which candles.

What was looked at once is no longer unseen, whatever was learned: a second look at it is one of many tries.
"""

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from qtcore.types import Bars
from research.data.sketch import Sketch, shared, sketch
from research.files import Kind, home, parse_json

KEPT = 512  # hashes of candles that an opening leaves
OPENING = Kind(
    "the list of what was held back and opened",
    "put it aside; who does so forgets what was opened",
    {"hashes": [int], "level": int, "candles": int},
    has_large=True,
)


def path() -> Path:
    """Return where the list lies: `QT_HOME/openings.jsonl`, one JSON object a line."""
    return home() / "openings.jsonl"


def note_opening(held: Bars, setting: Sequence[str], net_return: float) -> None:
    """Append an opening. held: the bars that were held back; setting: what was tried there, and what it earned."""
    seen = sketch(held, KEPT)
    note = {"time": int(time.time()), "setting": list(setting), "net_return": net_return}
    note |= {"hashes": seen.hashes.tolist(), "level": seen.level, "candles": seen.candles}
    path().parent.mkdir(parents=True, exist_ok=True)
    with path().open("a", encoding="utf-8") as file:
        file.write(json.dumps(note) + "\n")


def openings(held: Bars) -> int:
    """Count the openings of any of these bars, whatever the file or the date was called. Raises UserError where the list is damaged."""
    own = sketch(held, KEPT)
    return sum(shared(own, other) > 0.0 for other in _seen())


def _seen() -> Iterator[Sketch]:
    for line in path().read_text(encoding="utf-8").splitlines() if path().exists() else ():
        note = parse_json(line, OPENING, path())
        yield Sketch(np.array(note["hashes"], np.uint64), note["level"], note["candles"])
