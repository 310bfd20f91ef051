"""One simulated market, traded on paper and as a backtest: what the tests of watching look at."""

import threading
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

from research import backtest
from research.data import load_bars
from research.live.dashboard.server import Dashboard
from research.live.start import LiveOptions, start_live
from research.runs.config import Config
from research.training.predictions import Predictions
from research.workflow.run import Run
from tests.support import PUBLISHED
from tests.support.as_published import CONFIG

WORLD = "simulated:random_walk?n_bars=300&n_symbols=4"


def traded(folder: Path) -> tuple[Path, Path, Run]:
    """Make a journal, the folder of the same run, and the run; the journal's log is `live.log`, the votes are `predictions.parquet`."""
    bars = load_bars(WORLD)
    predictions = Predictions.random(bars, seed=4)
    predictions.save(folder / "predictions.parquet")
    run = backtest(bars, predictions, PUBLISHED)
    run.save(folder / "run", record=False)
    replay(folder, folder / "journal.sqlite", log=folder / "live.log")
    return folder / "journal.sqlite", folder / "run", run


def replay(folder: Path, journal: Path, until: int | None = None, feed: str = WORLD, config: Config = CONFIG, **how) -> None:
    """Trade, or trade on, until a bar or the end."""
    runner, close = start_live(LiveOptions(f"replay:{feed}", journal, config, predictions=folder / "predictions.parquet", **how))
    if until is not None:
        runner.watchers = (*runner.watchers, lambda entry: runner.stop() if entry.bar + 1 >= until else None)
    runner.run()
    close()


@contextmanager
def served(source, token: str = "secret"):
    """Serve a source on a free port."""
    server = Dashboard(source, 0, token=token)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def ask(url: str, data: bytes | None = None, method: str | None = None, **headers: str) -> tuple[int, str, dict]:
    """Send one request; `_` in a header's name stands for `-`."""
    request = urllib.request.Request(url, data=data, method=method, headers={k.replace("_", "-"): v for k, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(), dict(error.headers)
