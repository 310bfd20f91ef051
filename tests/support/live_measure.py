"""A paper-trading process that is watched: `python -m tests.support.live_measure WISH`, a JSON object of `LiveOptions` and what to measure.

Prints one JSON object: `ready`, seconds from the start of the process to the first bar's commit, and `ready_cpu`, of processor time; `own`,
MiB of resident memory at the bars of `marks`, without what the rest of the machine decides: pages of library files come and go, and the
kernel joins pages of old arrays to huge ones when it has some (2 MiB a step, 8 once, with no more memory in use than before); `ms`,
latencies from the closed bar to the journal; `ms_cpu`, of processor time from bar to bar, whatever is done after the decision included;
`rate`, bars a second, and `rate_cpu`; `bars`, `resumed`.
is_live: the disk is synced and a full state is written at every bar. dies: SIGKILL instead of an end.
"""

import ctypes
import json
import os
import signal
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from research.live.session.fast_start import quiet_heap
from research.live.start import LiveOptions, start_live
from tests.support.as_published import CONFIG

PR_SET_THP_DISABLE = 41


class Asked(NamedTuple):
    """What to measure."""

    until: int | None = None
    marks: tuple[int, ...] = ()
    is_live: bool = False
    dies: bool = False


def refuse_huge_pages() -> None:
    """Let this process have small pages only, where that can be asked for."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0)


def measure(said: dict[str, Any]) -> dict[str, Any]:
    """Run what was asked for, as `qt live` does."""
    asked = Asked(**{name: said.pop(name) for name in Asked._fields if name in said})
    if asked.marks:
        refuse_huge_pages()
    paths = {name: Path(said[name]) for name in ("journal", "predictions") if name in said}
    with quiet_heap() as settle:
        runner, close = start_live(LiveOptions(config=CONFIG, **said | paths, allow_rejected=True, allow_synthetic=True, is_alone=True))
        runner.ready = settle
        told = watched(runner, asked)
        close()
    return told


def watched(runner: Any, asked: Asked) -> dict[str, Any]:
    """Run to the end, or until it dies."""
    if asked.is_live:
        runner.options.snapshot_bars = runner.options.checkpoint_bars = 1
        runner.journal.db.execute("PRAGMA synchronous = FULL")
    me, own, begun, spent = psutil.Process(), {}, list[float](), list[float]()

    def watch(entry: Any) -> None:
        spent.append(time.process_time())
        if not begun:
            begun.extend((time.time() - me.create_time(), spent[0]))
        if entry.bar in asked.marks:
            memory = me.memory_info()
            own[entry.bar] = (memory.rss - getattr(memory, "shared", 0)) / 2**20
        if asked.until is not None and entry.bar + 1 >= asked.until:
            runner.stop()

    runner.watchers = (*runner.watchers, watch)
    start, worked = time.perf_counter(), time.process_time()
    outcome = runner.run()
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    told: dict[str, Any] = dict(zip(("ready", "ready_cpu"), begun))
    told |= {"own": own, "ms": [ns / 1e6 for ns in outcome.latency], "rate": outcome.bars / seconds, "rate_cpu": outcome.bars / worked}
    told |= {"ms_cpu": [1e3 * (b - a) for a, b in pairwise(spent)], "bars": outcome.bars, "resumed": outcome.resumed}
    if asked.dies:
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)
    return told


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure(json.loads(sys.argv[1]))) + "\n")
