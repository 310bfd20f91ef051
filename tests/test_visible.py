"""Does anything that a terminal obeys, or that makes text look like another, reach a terminal, a log, an alert or a page as it is?"""

import io
import json
import os
import re
import subprocess
import sys
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qtcore import Bars
from research import backtest
from research.cli.app import app
from research.cli.common import guarded
from research.cli.terminal import Terminal
from research.data import load_bars
from research.data.exchange import ExchangeError
from research.data.load import warn
from research.errors import UserError, visible
from research.live.dashboard.monitor import screen
from research.live.monitoring.bar_log import LogFile
from research.live.monitoring.sources import open_source
from research.live.records import Event
from research.live.start import LiveOptions, start_live
from research.live.storage.files import connect
from research.report import build
from research.training.predictions import Predictions
from tests.support import PUBLISHED
from tests.support.as_published import CONFIG
from tests.support.live_world import replay, traded

ESC = "\x1b[31mEVIL\x1b[0m"
EVIL = (ESC, "A\u202eB", "A\u2066B\u2069", "A\u200fB", "A\x9b31mB", "A\rB", "A\nB", "A\x00B", "A\u2028B", "A\u061cB", "A\x7fB", "A\ufeffB")
ODD = ("[red]A[/]", "B[/]", ":x:", "C$^$D", "<b>&amp;", "E'F\"", "-G", "H I", "\u4fa1\u683c", "[bold")
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


def qt(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["qt", *words])
    return guarded(lambda: app(standalone_mode=False))


def candles(names: tuple[str, ...], n: int = 200) -> Bars:
    made = load_bars(f"simulated:random_walk?n_bars={n}&n_symbols={len(names)}")
    return Bars(
        *(getattr(made, name) for name in ("open_time", "close_time", "open", "high", "low", "close", "volume")), names, made.interval
    )


def csv_of(bars: Bars, path: Path) -> Path:
    """Write candles as a user has them, whatever the symbols are called."""
    rows = [
        {"timestamp": int(bars.open_time[t]) // 10**6, "symbol": name, "open": bars.open[t, s], "high": bars.high[t, s]}
        | {"low": bars.low[t, s], "close": bars.close[t, s], "volume": bars.volume[t, s]}
        for t in range(bars.n)
        for s, name in enumerate(bars.symbols)
    ]
    pd.DataFrame(rows).to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    return traded(tmp_path_factory.mktemp("watched"))


def test_every_character_is_shown_as_it_is_or_as_python_writes_it():
    for number in range(0x110000):
        c = chr(number)
        is_plain = unicodedata.category(c)[0] in "LMNPS" or unicodedata.category(c) == "Zs"
        assert visible(c) == (c if is_plain else c.encode("unicode_escape").decode())
    assert visible("a\nb\x1b", "\n") == "a\nb\\x1b"
    assert visible(visible(ESC)) == visible(ESC)


@pytest.mark.parametrize("name", EVIL)
def test_an_error_and_an_event_say_it_as_it_is_shown(name):
    assert str(UserError(f"symbols must be known, was {name}")) == f"symbols must be known, was {visible(name)}"
    event = Event(0, "late", f"it said {name}", name)
    assert (event.text, event.symbol) == (f"it said {visible(name)}", visible(name))
    assert str(ExchangeError(name)) == visible(name)


@pytest.mark.parametrize("name", EVIL)
def test_a_symbol_that_cannot_be_shown_is_refused(name, tmp_path, monkeypatch, capsys):
    path = tmp_path / "candles.parquet"
    pd.read_csv(csv_of(candles(("BTC", "other")), tmp_path / "candles.csv")).replace("other", name).to_parquet(path)
    for command in (("data", "info"), ("data", "check"), ("backtest",)):
        assert qt(*command, str(path), monkeypatch=monkeypatch) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith(f"qt: symbols must have names of letters, digits and signs alone, was '{visible(name)}' in ")
        assert not RAW.search(told.err)
        assert told.err.count("\n") == 1


def test_a_symbol_with_signs_is_shown_as_it_is_spelled(tmp_path, monkeypatch, capsys):
    bars = candles(ODD)
    path = csv_of(bars, tmp_path / "candles.csv")
    predictions = Predictions.random(load_bars(str(path), symbols=ODD), seed=1)
    run = backtest(load_bars(str(path), symbols=ODD), predictions, PUBLISHED)
    run.save(tmp_path / "run", record=False)
    html = build(tmp_path / "run").read_text()
    assert "<b>&amp;" not in html
    capsys.readouterr()
    for name in ODD:
        moment = str(np.datetime64(int(bars.close_time[150]), "ns"))
        assert qt("explain", "--", str(tmp_path / "run"), name, moment, monkeypatch=monkeypatch) == 0
        assert f"\n{name} decided at " in capsys.readouterr().out
    assert qt("data", "check", str(path), monkeypatch=monkeypatch) in (0, 1)
    capsys.readouterr()
    assert qt("monitor", str(tmp_path / "run"), "--once", monkeypatch=monkeypatch) == 0
    shown = capsys.readouterr().out
    held = [p["symbol"] for p in open_source(tmp_path / "run").book().positions]
    assert held
    assert all(name in shown for name in held)


@pytest.mark.parametrize(
    "words",
    [
        ("data", "info", f"{ESC}.csv"),
        ("verify", f"no\n{ESC}"),
        (ESC,),
        ("backtest", f"--{ESC}"),
        ("backtest", "simulated:random_walk", "--set", f"{ESC}=1"),
        ("backtest", "simulated:random_walk", "--config", f"{ESC}.toml"),
        ("backtest", "simulated:random_walk", "--symbols", "A\u202eB"),
        ("live", "--feed", ESC, "--journal", "j"),
        ("live", "--feed", "ccxt:binance", "--journal", "j", "--symbols", ESC, "--alert", ESC),
        ("status", f"{ESC}.sqlite"),
        ("scenarios", f"{ESC}.json"),
        ("data", "info", os.fsdecode(b"\xff\xfe.csv")),
        ("status", os.fsdecode(b"\xff.sqlite")),
    ],
)
def test_what_a_user_typed_comes_back_harmless(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert qt(*words, monkeypatch=monkeypatch) == 2
    told = capsys.readouterr()
    assert not RAW.search(told.out + told.err)
    assert told.err.count("\n") == 1
    told.err.encode()  # no half of a pair is left


def test_a_console_shows_no_markup_no_emoji_and_no_control_but_its_own():
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    out = io.StringIO()
    console = Terminal(file=out, force_terminal=True, width=60, color_system="standard")
    table = Table("a", "b")
    table.add_row(f"[red]{ESC}[/]:x:", Text(f"x{ESC}", "green"))
    console.print(table, Panel(Text("p\u202eq")), f"{ESC}[/]", Text(ESC, "bold"))
    shown = out.getvalue()
    assert "\x1b[31m" not in shown
    assert "\x1b[32m" in shown  # its own colour
    assert "\u202e" not in shown
    assert "[red]" in shown
    assert "[/]" in shown
    assert ":x:" in shown
    assert "\\x1b[31mEVIL\\x1b[0m" in shown


def test_a_tampered_journal_is_harmless_in_monitor_and_log(watched, tmp_path):
    replay(watched[0].parent, tmp_path / "j", until=60)
    db = connect(tmp_path / "j")
    names = json.loads(db.execute("SELECT value FROM about WHERE key = 'symbols'").fetchone()[0])
    evil = [f"{ESC}\u202e{name}" for name in names]
    db.execute("UPDATE about SET value = ? WHERE key = 'symbols'", (json.dumps(evil),))
    db.executemany("UPDATE decisions SET symbol = ? WHERE symbol = ?", zip(evil, names))
    db.executemany("UPDATE orders SET symbol = ? WHERE symbol = ?", zip(evil, names))
    db.close()
    source = open_source(tmp_path / "j")
    for width in (80, 140):
        out = io.StringIO()
        Terminal(file=out, width=width).print(screen(source))
        assert not RAW.search(out.getvalue())
        assert "\\x1b" in out.getvalue()


@pytest.mark.parametrize("is_json", [True, False])
def test_a_log_has_one_harmless_line_an_event(watched, tmp_path, is_json):
    folder = watched[0].parent
    entries = []
    runner, close = start_live(
        LiveOptions(
            "replay:simulated:random_walk?n_bars=300&n_symbols=4", tmp_path / "j", CONFIG, predictions=folder / "predictions.parquet"
        )
    )
    runner.watchers = (lambda entry: entries.append(entry) if entry.bar > 250 else None,)
    runner.run()
    close()
    log = LogFile(tmp_path / "log", is_json=is_json)
    for entry in entries:
        object.__setattr__(entry.result.bars, "symbols", tuple(f"{ESC}\n{name}" for name in entry.result.symbols))
        log.write(entry, runner.params)
    log.close()
    text = (tmp_path / "log").read_text()
    assert "EVIL" in text
    assert not RAW.search(text)
    assert all(line.startswith('{"time"' if is_json else "20") for line in text.splitlines())


def test_a_warning_is_harmless():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn([f"{ESC} was left out", "a\nb"], "x\u202e.csv")
    assert str(caught[0].message) == f"x\\u202e.csv:\n{visible(ESC)} was left out\na\\nb"


def test_a_page_shows_a_change_of_direction_as_an_escape(watched, tmp_path):
    import shutil

    shutil.copytree(watched[1], tmp_path / "run")
    path = tmp_path / "run" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["notes"] = ["a note \u202e and \x1b[31m"]
    manifest["command"] = "qt backtest \u2066x.csv"
    path.write_text(json.dumps(manifest))
    html = build(tmp_path / "run").read_text()
    assert not RAW.search(html)
    assert "qt backtest \\u2066x.csv" in html


def test_a_terminal_without_letters_gets_their_numbers(tmp_path):
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "QT_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-m", "research", "verify", "Z\u00fcrich\u4fa1"], capture_output=True, env=env)
    assert done.returncode == 2
    assert b"Z\\xfcrich\\u4fa1" in done.stderr


def test_our_fault_is_kept_in_a_new_file_of_ones_own(tmp_path, monkeypatch, capsys):
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def fail() -> None:
        raise RuntimeError(f"a fault {ESC}")

    assert guarded(fail) == guarded(fail) == 3
    told = capsys.readouterr().err
    assert not RAW.search(told)
    first, second = sorted(tmp_path.iterdir())  # two in one second
    for path in (first, second):
        assert str(path) in told
        assert path.stat().st_mode & 0o777 == 0o600
        assert "a fault \\x1b[31mEVIL" in path.read_text()


def test_everything_printed_passes_there():
    """Only the terminal makes a console, only `say`, JSON and the log's handler write to a stream."""
    root = Path(__file__).resolve().parents[1] / "research"
    found = {
        (path.relative_to(root).as_posix(), match)
        for path in root.rglob("*.py")
        for match in re.findall(
            r"\bConsole\(|std(?:err|out)\.write|\bprint\((?!\w*\))", re.sub(r"console\.print\(|>>> .*|\.print\(", "", path.read_text())
        )
    }
    assert found == {
        ("cli/common.py", "stdout.write"),
        ("cli/common.py", "stderr.write"),
        ("live/monitoring/bar_log.py", "stderr.write"),
        ("live/dashboard/server.py", "stderr.write"),  # of `visible` alone
    }
