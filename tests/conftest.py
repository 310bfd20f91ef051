"""What the tests share: one set of awkward bars, the real candles where they are present."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from qtcore.types import NS_PER_HOUR, Bars

# `make test` draws the same cases every time; `make test-all` looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True)
hypothesis.settings.register_profile("new", print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# Longest first, so that no process is left alone with one at the end. The first compiles every kernel while the second needs none.
LONG = ["sweep_research", "mutants", "notebooks", "null_worlds", "live", "report", "cli", "features", "reproduce", "engines", "fits"]

START = 1_704_067_200_000_000_000  # 2024-01-01 UTC
SCENARIOS = Path(__file__).parent / "data" / "scenarios.json"  # cases of docs/specification.md, section 15


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files of LONG first, in its order; the others stay as they are."""
    place = {f"test_{name}.py": i for i, name in enumerate(LONG)}
    items.sort(key=lambda item: place.get(item.path.name, len(LONG)))


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep what fixtures of modules and sessions write out of the user's folder."""
    os.environ["QT_HOME"] = str(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="session", autouse=True)
def fits_here() -> Iterator[None]:
    """Fit in the test's own process, unless it asks for more: two workers cost 5 s to start, a fit on a test's data 0.2 s (2026-11)."""
    from research.training import walk_forward

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walk_forward, "n_processors", lambda: 1)
        yield


@pytest.fixture(autouse=True)
def own_ledger(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Count the tests' trials in a ledger of their own."""
    monkeypatch.setenv("QT_HOME", str(tmp_path_factory.mktemp("home")))


def scenario_cases(component: str) -> list[dict[str, Any]]:
    """Cases of one component in the scenario file."""
    return [case for case in json.loads(SCENARIOS.read_text(encoding="utf-8"))["cases"] if case["component"] == component]


def shared_data(name: str) -> Path:
    """Path of a real candle file, or a skip that says what is missing."""
    folder = Path(os.environ.get("QT_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    path = folder / name
    if not path.exists():
        pytest.skip(f"{name} is not in {folder}; set QT_DATA to the folder with the development candles")
    return path


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, or a skip that says what is missing; per module, as its event loop would be in the way of others."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as p:
        flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        shown = p.chromium.launch(executable_path=chromium, args=flags)
        yield shown
        shown.close()


def awkward_bars(n: int = 600, seed: int = 0, n_symbols: int = 6) -> Bars:
    """Seeded hourly bars with everything that hurts: gaps, late listing, delisting, constant price, 10x jump, zero volume, NaN rows."""
    rng = np.random.default_rng(seed)
    step = rng.normal(0.0, 0.01, (n, n_symbols)) * (1.0 + rng.random((n, 1)))
    close = 100.0 * np.exp(np.cumsum(step, axis=0)) * 10.0 ** rng.integers(-3, 3, n_symbols)
    open_ = np.vstack([close[:1], close[:-1]]) * np.exp(rng.normal(0.0, 0.001, (n, n_symbols)))
    high = np.maximum(open_, close) * np.exp(np.abs(rng.normal(0.0, 0.004, (n, n_symbols))))
    low = np.minimum(open_, close) * np.exp(-np.abs(rng.normal(0.0, 0.004, (n, n_symbols))))
    volume = rng.lognormal(8.0, 1.0, (n, n_symbols))
    planes = [open_, high, low, close, volume]
    volume[n // 3 : n // 3 + 30, 0] = 0.0
    if n_symbols > 1:
        for plane in planes:
            plane[: n // 4, 1] = np.nan  # late listing
    if n_symbols > 2:
        for plane in planes:
            plane[n - n // 4 :, 2] = np.nan  # delisting
    if n_symbols > 3:
        for plane in planes[:4]:
            plane[n // 2 : n // 2 + 40, 3] = plane[n // 2, 3]  # constant price
    if n_symbols > 4:
        for plane in planes[:4]:
            plane[n // 2 :, 4] *= 10.0  # jump
    for plane in planes:
        plane[n // 5 : n // 5 + 3] = np.nan  # an outage of every symbol
    holes = rng.random((n, n_symbols)) < 0.01
    for plane in planes:
        plane[holes] = np.nan
    open_time = START + NS_PER_HOUR * np.arange(n, dtype=np.int64)
    symbols = tuple(["BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT", "LTCUSDT", "ADAUSDT", "DOTUSDT"][:n_symbols])
    return Bars(open_time, open_time + NS_PER_HOUR, *(np.ascontiguousarray(p) for p in planes), symbols=symbols, interval=NS_PER_HOUR)


def assert_same_bits(a: object, b: object, name: str = "") -> None:
    """Demand equal dtype, shape and bytes, NaN payloads included; say where the first difference is."""
    x, y = np.asarray(a), np.asarray(b)
    assert x.dtype == y.dtype, (name, x.dtype, y.dtype)
    assert x.shape == y.shape, (name, x.shape, y.shape)
    if x.tobytes() != y.tobytes():
        width = x.dtype.itemsize
        left, right = (np.ascontiguousarray(z).view(np.uint8).reshape(-1, width) for z in (x, y))
        at = int(np.argmax((left != right).any(axis=1)))
        where = np.unravel_index(at, x.shape) if x.shape else ()
        raise AssertionError(f"{name} differs first at {where}: {x.reshape(-1)[at]!r} against {y.reshape(-1)[at]!r}")
