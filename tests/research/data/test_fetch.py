"""Does `qt data fetch` bring what the exchange has, nothing else, and go on where it was killed?"""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtcore.types import NS_PER_HOUR, Bars
from research.cli.common import guarded
from research.cli.data import data_app
from research.data import load, load_bars, quality
from research.data.clock import iso
from research.data.exchange import Exchange, ExchangeError
from research.data.fetch import fetch
from research.errors import UserError
from tests.conftest import START, assert_same_bits, awkward_bars
from tests.support.local_exchange import LocalExchange

MS = 1_000_000
NAMES = ("BTC/USDT", "ETH/USDT", "SOL/USDT")


@pytest.fixture(scope="module")
def bars() -> Bars:
    """A market with a late listing, a delisting, outages and holes; longer than a page."""
    return replace(awkward_bars(2_300, seed=4, n_symbols=3), symbols=NAMES)


@pytest.fixture
def exchange(bars, monkeypatch):
    """An exchange that stands half an hour into the last bar."""
    with LocalExchange(bars, int(bars.open_time[-1] + NS_PER_HOUR // 2) // MS) as made:
        monkeypatch.setenv("QT_EXCHANGE_URL", made.url)
        yield made


@pytest.fixture
def qt(capsys):
    def run(*words):
        code = guarded(lambda: data_app([str(word) for word in words], standalone_mode=False))
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


def bring(out: Path, symbols=NAMES, span=(START, None), **how) -> dict:
    source = Exchange("binance", symbols, "1h")
    try:
        return fetch(source, span, out, **how)
    finally:
        source.close()


def check_file(path: Path, bars: Bars, symbols=NAMES) -> Bars:
    """What the file holds is the market up to the bar that is forming, to the bit."""
    found = load_bars(path)
    n = bars.n - 1
    columns = [bars.symbols.index(name) for name in symbols]
    assert found.symbols == tuple(symbols)
    assert_same_bits(found.open_time, bars.open_time[:n])
    assert_same_bits(found.close_time, bars.close_time[:n])
    for name in ("open", "high", "low", "close", "volume"):
        assert_same_bits(getattr(found, name), np.ascontiguousarray(getattr(bars, name)[:n][:, columns]), name)
    return found


def test_a_history_comes_whole_and_without_the_forming_bar(bars, exchange, tmp_path):
    report = bring(tmp_path / "c.parquet")
    check_file(tmp_path / "c.parquet", bars)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.parquet"]
    for s, name in enumerate(NAMES):
        here = np.flatnonzero(~np.isnan(bars.close[:-1, s]))
        holes = np.diff(here)
        said = report["symbols"][name]
        assert said["rows"] == len(here)
        assert said["missing"] == int((holes - 1).sum())
        assert [(g["from"], g["bars"]) for g in said["gaps"]] == [
            (iso(int(bars.open_time[here[k] + 1])), int(holes[k] - 1)) for k in np.flatnonzero(holes > 1)
        ]
        assert said["late_start"] == here[0]
    asked = exchange.asked("api/v3/klines")
    assert len(asked) < 12
    assert {q["limit"] for q in asked} == {"1000"}


def test_a_span_is_kept_and_the_order_of_symbols(bars, exchange, tmp_path):
    span = (int(bars.open_time[1_000]), int(bars.open_time[1_100]))
    bring(tmp_path / "c.parquet", ("ETHUSDT", "BTC/USDT"), span)
    found = load_bars(tmp_path / "c.parquet")
    assert found.symbols == ("ETHUSDT", "BTC/USDT")
    assert (found.open_time[0], found.close_time[-1]) == span
    assert_same_bits(found.close[:, 1].copy(), bars.close[1_000:1_100, 0].copy())


def test_the_file_is_fit_for_the_other_commands(bars, exchange, tmp_path, qt):
    code, out, _ = qt("fetch", "binance", "--symbols", ",".join(NAMES), "--from", "2024-01-01", "--out", tmp_path / "c.parquet")
    assert code == 0
    assert "ETH/USDT: binance has nothing before 2024-01-24" in out
    assert out.strip().endswith("c.parquet")
    report = quality.quality(tmp_path / "c.parquet")
    assert not report.stops
    assert {i.problem for i in load(tmp_path / "c.parquet").report.issues} == set()
    code, out, _ = qt("fetch", "binance", "--symbols", NAMES[0], "--from", "2024-01-01", "--out", tmp_path / "d.parquet", "--json")
    assert code == 0
    assert json.loads(out)["symbols"][NAMES[0]]["rows"] == int((~np.isnan(bars.close[:-1, 0])).sum())


def test_limits_failures_and_cuts_are_waited_out(bars, exchange, tmp_path):
    exchange.faults.answers.extend([503, 429, "drop", 418, "drop", 502, 429])
    exchange.faults.is_reversed = True
    exchange.faults.doubled = {("BTCUSDT", int(t) // MS) for t in bars.open_time[::50]}
    began = time.monotonic()
    bring(tmp_path / "c.parquet")
    check_file(tmp_path / "c.parquet", bars)
    assert time.monotonic() - began > 1.0, "a failure must be waited for"


def test_what_came_is_kept_when_the_exchange_goes_away(bars, exchange, tmp_path):
    def stop_after(n):
        def progress(done, total, text):
            if len(exchange.asked("api/v3/klines")) >= n:
                raise KeyboardInterrupt

        return progress

    for n in (1, 3):
        with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
            bring(tmp_path / "c.parquet", progress=stop_after(n))
        assert (tmp_path / "c.parquet.part").exists()
    exchange.faults.outages.append((0, 2**62, 503))
    with pytest.raises(UserError, match=r"binance must answer, did not within 0\.5 s"):
        bring(tmp_path / "c.parquet", patience=0.5)
    exchange.faults.outages.clear()
    bring(tmp_path / "c.parquet")
    check_file(tmp_path / "c.parquet", bars)
    starts = [(q["symbol"], q["startTime"]) for q in exchange.asked("api/v3/klines")]
    assert len(set(starts)) == len(starts), "a page must not be fetched twice"


def test_a_ban_is_told(exchange, tmp_path):
    exchange.faults.retry_after = 7_200
    exchange.faults.answers.extend([418])
    with pytest.raises(UserError, match=r"binance must answer, did not within 20 s: binance 418"):
        bring(tmp_path / "c.parquet")


def test_a_killed_fetch_goes_on(bars, tmp_path):
    with LocalExchange(bars, int(bars.open_time[-1] + NS_PER_HOUR // 2) // MS) as exchange:
        words = ["data", "fetch", "binance", "--symbols", ",".join(NAMES), "--from", "2024-01-01", "--out", str(tmp_path / "c.parquet")]
        how = {"env": {**os.environ, "QT_EXCHANGE_URL": exchange.url}, "capture_output": True, "text": True}
        process = subprocess.Popen([sys.executable, "-m", "research", *words], env=how["env"], stderr=subprocess.DEVNULL)
        while len(exchange.asked("api/v3/klines")) < 4:
            time.sleep(0.002)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert not (tmp_path / "c.parquet").exists()
        done = subprocess.run([sys.executable, "-m", "research", *words, "--quiet"], **how)
        assert (done.returncode, done.stderr) == (0, "")
        check_file(tmp_path / "c.parquet", bars)
        assert len(exchange.asked("api/v3/klines")) <= 9 + 1, "at most the page under way is fetched again"


def test_a_part_of_another_fetch_is_refused(bars, exchange, tmp_path):
    exchange.faults.missing = {("BTCUSDT", row[0]) for row in exchange.rows["BTCUSDT"]}
    with pytest.raises(UserError, match="every symbol must have candles in the span, was none of BTC/USDT"):
        bring(tmp_path / "c.parquet")
    with pytest.raises(UserError, match=r"was of another one \(binance 1h from 2024-01-01 00:00\)"):
        bring(tmp_path / "c.parquet", span=(START + NS_PER_HOUR, None))
    bring(tmp_path / "c.parquet", NAMES[1:])
    assert load_bars(tmp_path / "c.parquet").symbols == NAMES[1:]


def test_a_damaged_part_is_one_sentence(exchange, tmp_path):
    (tmp_path / "c.parquet.part").write_bytes(b"x" * 5_000)
    with pytest.raises(UserError, match="must be writable and of this fetch"):
        bring(tmp_path / "c.parquet")


def test_a_mistake_is_one_sentence(exchange, tmp_path, qt, monkeypatch):
    out = ["--out", tmp_path / "c.parquet"]
    often = ["--from", "2024-01-01", *out]
    for words, expected in (
        (["binanc", "--symbols", "BTC/USDT", *often], "was 'binanc'; did you mean binance?"),
        (["binance", *often], "symbols must be named once each, was without any"),
        (["binance", "--symbols", "BTC/USD", *often], "symbols must be markets of binance, was 'BTC/USD'; did you mean BTC/USDT?"),
        (["binance", "--symbols", "BTC/USDT", "--timeframe", "7m", *often], "timeframe (--timeframe) must be one of binance"),
        (["binance", "--symbols", "BTC/USDT", "--timeframe", "1M", *often], "timeframe must have one length"),
        (["binance", "--symbols", "BTC/USDT", *out], "--from must say where to begin"),
        (["binance", "--symbols", "BTC/USDT", "--from", "2030-01-01", *out], "--from must lie before the last closed bar"),
        (["binance", "--symbols", "BTC/USDT", "--timeframe", "5m", *often], "must accept the question, did not: binance"),
        (["binance", "--symbols", "BTC/USDT", "--from", "2024-01-01", "--out", tmp_path / "c.csv"], "must end in .parquet"),
    ):
        code, _, err = qt("fetch", *words)
        assert code == 2, words
        assert expected in err
        assert err.count("\n") == 1
    monkeypatch.setenv("QT_EXCHANGE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("research.data.fetch.FIRST_PATIENCE", 0.5)
    code, _, err = qt("fetch", "binance", "--symbols", "BTC/USDT", *often)
    assert code == 2
    assert "binance must answer, did not within 0.5 s" in err
    assert err.rstrip().endswith("check the network and the exchange's name")


def test_half_an_answer_is_trouble(exchange):
    source = Exchange("binance", NAMES, "1h")
    try:
        source.run(source.open())
        source.ccxt.fetch_ohlcv = lambda *_: _later("<html>no</html>")
        with pytest.raises(ExchangeError, match="cannot be read"):
            source.run(source.candles("BTC/USDT", START, 10))
    finally:
        source.close()


async def _later(value):
    return value


def test_the_part_is_whole_after_every_page(bars, exchange, tmp_path):
    def progress(done, total, text):
        assert 0 <= done <= total == 3 * (bars.n - 1) or total == 1
        if done > 1_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        bring(tmp_path / "c.parquet", progress=progress)
    with sqlite3.connect(tmp_path / "c.parquet.part") as db:
        assert db.execute("SELECT COUNT(*) FROM candles").fetchone()[0] in (1_000, 2_000)
