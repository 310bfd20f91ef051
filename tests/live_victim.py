"""A paper-trading process that is killed: `python -m tests.live_victim FOLDER POINT COUNT`. Ends itself by SIGKILL at the COUNT-th POINT.

A POINT with a trailing `+` kills from a second thread a moment after it, so that the next step is caught half-way. FOLDER holds
`bars.parquet` and `predictions.parquet`; the journal is made there. Prints `done` when the feed has ended.
"""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from research.live.start import Wish, start_live


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_soon(seconds: float) -> None:
    time.sleep(seconds)
    die()


def main(folder: Path, point: str, count: int) -> None:
    wish = Wish(f"replay:{folder / 'bars.parquet'}", folder / "journal.sqlite", predictions=folder / "predictions.parquet")
    runner, close = start_live(wish)
    seen = 0

    def passed(name: str) -> None:
        nonlocal seen
        seen += name == point.rstrip("+")
        if name != point.rstrip("+") or seen != count:
            return
        if point.endswith("+"):
            threading.Thread(target=die_soon, args=(random.Random(count).random() * 2e-3,), daemon=True).start()
        else:
            die()

    runner.passed = passed
    runner.options.snapshot_bars = runner.options.checkpoint_bars = 5
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    runner.run()
    close()
    sys.stdout.write("done\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
