"""A paper-trading process that is killed, and the one that gives birth to it: `python -m tests.support.live_victim FOLDER`.

The mother imports and compiles once, then forks a child for every line `POINT COUNT SEED` on its standard input: a process of its own
that goes on with the journal in FOLDER (next to its market, `live_market.replay_of`) until SIGKILL ends it, at the COUNT-th passing
of POINT. Points between two statements kill themselves exactly there; in a checkpoint a second thread does while SQLite works; at
`random` the mother does, some time after COUNT bars. The answer is `STATUS INSIDE`: minus the signal, or 0 where the feed ended first;
and whether death came inside POINT, not just after it.
"""

import mmap
import os
import random
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from qtcore import Engine
from research.data import load_bars
from tests.support import PUBLISHED
from tests.support.live_market import start_market

CHECKPOINT = "before PRAGMA wal_checkpoint(PASSIVE)"
POINTS = {  # what the runner or one of the two files passes
    "change": "after INSERT versions",
    "changed": "changed",
    "filled": "filled",
    "broker": "broker before COMMIT",
    "snapshot": "after UPDATE snapshots",
    "commit": "before COMMIT",
    "committed": "committed",
    "submitted": "submitted",
    "checkpoint": CHECKPOINT,
    "random": "",
}
BARS, INSIDE = 0, 1  # places in the memory that mother and child share


class Tapped:
    """A database connection that tells which statement it is about to run, and which it has run."""

    def __init__(self, db: Any, told: Callable[[str], None], prefix: str = "") -> None:
        self._db, self._told, self._prefix = db, told, prefix

    def execute(self, statement: str, *values: Any) -> Any:
        name = " ".join([word for word in statement.split() if word != "INTO"][:2])
        self._told(f"{self._prefix}before {name}")
        done = self._db.execute(statement, *values)
        self._told(f"{self._prefix}after {name}")
        return done

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def live(folder: Path, point: str, count: int, seed: int, shared: mmap.mmap) -> None:
    """Trade on until killed, or until the feed ends."""
    runner, close = start_market(folder, folder / "journal.sqlite")
    wanted, seen = POINTS[point], 0

    def die_soon() -> None:
        time.sleep(random.Random(seed).random() * 1e-3)
        die()

    def passed(name: str) -> None:
        nonlocal seen
        if name == CHECKPOINT.replace("before", "after"):
            shared[INSIDE] = 0
        seen += name == wanted
        if name == wanted and seen == count:
            shared[INSIDE] = 1
            if point != "checkpoint":
                die()
            threading.Thread(target=die_soon, daemon=True).start()

    def watch(_: Any) -> None:
        shared[BARS] = min(shared[BARS] + 1, 255)

    runner.journal.db, runner.broker.db = Tapped(runner.journal.db, passed), Tapped(runner.broker.db, passed, "broker ")
    runner.passed, runner.watchers = passed, (*runner.watchers, watch)
    runner.options.snapshot_bars = runner.options.checkpoint_bars = 5
    runner.run()
    close()


def raise_child(folder: Path, point: str, count: int, seed: int, shared: mmap.mmap) -> int:
    """Fork, kill where the mother has to, wait. Returns minus the signal, or the exit code."""
    shared[BARS] = shared[INSIDE] = 0
    child = os.fork()
    if child == 0:
        try:
            live(folder, point, count, seed, shared)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    while point == "random":
        if shared[BARS] >= count:
            time.sleep(random.Random(seed).random() * 4e-3)
            shared[INSIDE] = 1
            os.kill(child, signal.SIGKILL)
            break
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            break
        time.sleep(2e-4)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    Engine(PUBLISHED).run(load_bars("simulated:random_walk?n_bars=60&n_symbols=2"))  # compiled code is inherited
    if (folder / "models").exists():
        import lightgbm  # noqa: F401
        import xgboost  # noqa: F401
    shared = mmap.mmap(-1, 2)
    for line in sys.stdin:
        point, count, seed = line.split()
        status = raise_child(folder, point, int(count), int(seed), shared)
        sys.stdout.write(f"{status} {shared[INSIDE]}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
