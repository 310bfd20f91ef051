"""How fast is the page with a month of hourly bars of 19 real symbols behind it: first paint, refresh, the server's part?

Run with `pytest tests/bench/bench_watch.py --benchmark-enable`. That the page is right is checked in tests/research/live/test_page.py.
Without `--benchmark-enable` a day of bars is enough, and only the ratio of a month to a day is asserted when measured.
"""

import time

import pandas as pd
import pytest

from research.data import load_bars
from research.live.dashboard.server import page
from research.live.monitoring.sources import open_source
from research.training.predictions import Predictions
from tests.conftest import shared_data
from tests.support.live_world import replay, served

S, MONTH, DAY = 19, 720, 24


@pytest.fixture(scope="module")
def journals(tmp_path_factory):
    """Folder with a journal of a month (a day where nothing is measured), and one of a day."""
    folder = tmp_path_factory.mktemp("month")
    frame = pd.read_parquet(shared_data("crypto_spot_1h_wide.parquet"))
    names = sorted(frame["symbol"].unique())[:S]
    times = sorted(frame["timestamp"].unique())[:MONTH]
    frame[frame["symbol"].isin(names) & frame["timestamp"].isin(times)].to_parquet(folder / "bars.parquet")
    Predictions.random(load_bars(folder / "bars.parquet"), seed=3).save(folder / "predictions.parquet")
    return folder


def journal_of(folder, n: int):
    path = folder / f"{n}.sqlite"
    if not path.exists():
        replay(folder, path, until=n, feed=str(folder / "bars.parquet"))
    return path


def test_the_servers_part(benchmark, journals):
    source = open_source(journal_of(journals, MONTH if benchmark.enabled else DAY))
    page(source)  # counted once, at the start of the server
    assert benchmark.pedantic(page, (source,), rounds=20 if benchmark.enabled else 1)["status"]["decisions"] > 0


@pytest.mark.browser
def test_the_page(benchmark, journals, browser):
    def seen(n: int) -> dict[str, float]:
        with served(open_source(journal_of(journals, n))) as server:
            tab = browser.new_page(viewport={"width": 1280, "height": 800})
            tab.goto(server.url)
            tab.wait_for_function("() => performance.getEntriesByName('refresh').length >= 3", timeout=40_000)
            paint = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            refresh = tab.evaluate("performance.getEntriesByName('refresh').map(e => e.duration)")
            tab.close()
        return {"first paint ms": paint, "first refresh ms": refresh[0], "refresh ms": min(refresh[1:])}

    start = time.perf_counter()
    if not benchmark.enabled:
        benchmark.pedantic(seen, (DAY,), rounds=1)
        return
    month = benchmark.pedantic(seen, (MONTH,), rounds=1)
    benchmark.extra_info |= month | {"seconds": time.perf_counter() - start}
    assert month["refresh ms"] < 4.0 * seen(DAY)["refresh ms"]
