"""A crash left a bar half done: the broker let it pass, the journal does not know it. What was said or revised since must not change it."""

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from research.data import load_bars, save_bars
from research.errors import UserError
from research.live.session import controls
from research.live.session.runner import Runner
from research.live.start import start_live
from research.training.predictions import Predictions
from tests.support.live_market import content, events_of, make_market, paper_content, replay_of, run_live

N = 160
STOP, LIFT = {"do": "stop", "now": False}, {"do": "lift"}


class CrashError(Exception):
    """The process ends here."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("market")
    make_market(folder, N)
    run_live(replay_of(folder, folder / "whole"))
    return folder


def crash(folder: Path, journal: Path, point: str, bar: int, before: Callable[[Runner], None] = lambda runner: None) -> None:
    """Trade until a point of a bar and end there without a word; `before` is done when the bar before it is in the journal."""
    runner, close = start_live(replay_of(folder, journal))

    def passed(name: str) -> None:
        if name == point and runner._bar + 1 == bar:
            raise CrashError

    def advance(*bar: Any) -> Any:
        passed("dropped")  # pending entries, where the kill switch is on
        return let_pass(*bar)

    let_pass, runner.broker.advance = runner.broker.advance, advance
    runner.passed = passed
    runner.watchers = (lambda entry: before(runner) if entry.bar + 1 == bar else None,)
    with pytest.raises(CrashError):
        runner.run()
    close()


def entry_bars(journal: Path) -> list[int]:
    """Bars at which the market filled entries."""
    with sqlite3.connect(journal) as db:
        of_time = dict(db.execute("SELECT open_time, bar FROM bars"))
        return [of_time[t] for (t,) in db.execute("SELECT time FROM fills WHERE is_entry = 1 ORDER BY seq")]


def test_a_stop_given_while_nothing_ran_comes_after_what_the_market_did(folder, tmp_path):
    bar = next(b for b in entry_bars(folder / "whole") if b > 100)
    crash(folder, tmp_path / "j", "filled", bar)
    controls.command(tmp_path / "j", STOP)
    run_live(replay_of(folder, tmp_path / "j"))
    assert events_of(tmp_path / "j", "mismatch") == 0
    assert max(entry_bars(tmp_path / "j")) == bar, "filled before the stop, and nothing after it"


@pytest.mark.parametrize("lift", ["command", "file"])
def test_entries_that_the_kill_switch_dropped_stay_dropped(folder, tmp_path, lift):
    bar, journal = next(b for b in entry_bars(folder / "whole") if b > 100), tmp_path / "j"
    kill = controls.kill_file_of(journal)
    crash(folder, journal, "dropped", bar, lambda runner: controls.command(journal, STOP) if lift == "command" else kill.touch())
    with sqlite3.connect(f"{journal}.paper") as db:
        assert db.execute("SELECT COUNT(*) FROM orders WHERE state = 'cancelled'").fetchone()[0] > 0
    if lift == "command":
        controls.command(journal, LIFT)
    else:
        kill.unlink()
    run_live(replay_of(folder, journal))
    assert events_of(journal, "mismatch") == 0
    filled = entry_bars(journal)
    assert bar not in filled
    assert max(filled) > bar


def test_a_bar_is_decided_from_the_candles_that_the_broker_saw(folder, tmp_path):
    """In the meantime the source says something else: a candle is revised, another that was a hole has come."""
    bars = load_bars(folder / "bars.parquet")
    bar = next(b for b in entry_bars(folder / "whole") if b > 100)
    crash(folder, tmp_path / "j", "filled", bar)
    planes = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    for name in ("open", "high", "low", "close"):
        planes[name][bar] *= 1.01
        planes[name][bar, np.isnan(planes[name][bar])] = 100.0
    save_bars(replace(bars, **planes), folder / "revised.parquet")
    asked = replace(replay_of(folder, tmp_path / "j"), feed=f"replay:{folder / 'revised.parquet'}")
    outcome, _ = run_live(asked)
    assert (outcome.resumed, outcome.bars) == (bar, N - bar)
    assert events_of(tmp_path / "j", "mismatch") == 0
    assert content(tmp_path / "j") == content(folder / "whole")
    assert paper_content(tmp_path / "j") == paper_content(folder / "whole")


def test_a_change_before_a_crash_is_told_once(folder, tmp_path):
    crash(folder, tmp_path / "j", "changed", 90, lambda runner: controls.command(tmp_path / "j", STOP))
    run_live(replay_of(folder, tmp_path / "j"), 100)
    with sqlite3.connect(tmp_path / "j") as db:
        assert db.execute("SELECT bar, text FROM events WHERE kind = 'params'").fetchall() == [(90, "command: stop False")]
        assert db.execute("SELECT applied_bar FROM control").fetchall() == [(90,)]
        assert db.execute("SELECT COUNT(*) FROM versions").fetchone() == (2,)


def test_a_stop_distance_that_was_commanded_is_the_broker_s_too(folder, tmp_path):
    run_live(replay_of(folder, tmp_path / "j"), 40)
    controls.command(tmp_path / "j", controls.command_set(["governor.stop_loss=0.004"]))
    run_live(replay_of(folder, tmp_path / "j"), 120)
    for path in tmp_path.glob("j.paper*"):  # a broker that lost its file is told of both distances
        path.unlink()
    run_live(replay_of(folder, tmp_path / "j"))
    assert events_of(tmp_path / "j", "mismatch") == 0
    with sqlite3.connect(tmp_path / "j") as db:
        exits = db.execute("SELECT COUNT(*) FROM fills WHERE is_entry = 0 AND order_id = ''").fetchone()[0]
    assert exits > 5, "stops must have been reached"


def test_a_file_of_other_candles_does_not_go_on(folder, tmp_path):
    """Another market under the same symbols, or a revised file: the journal decided on other prices."""
    journal = tmp_path / "j"
    run_live(replay_of(folder, journal))
    before = content(journal)
    bars = load_bars(folder / "bars.parquet")
    save_bars(replace(bars, **{name: getattr(bars, name) * 1.001 for name in ("open", "high", "low", "close")}), tmp_path / "bars.parquet")
    with pytest.raises(
        UserError, match=r"--feed must go on with the journal's candles, was .* with a close of .* instead of .*; use a new"
    ):
        start_live(replace(replay_of(folder, journal), feed=f"replay:{tmp_path / 'bars.parquet'}"))
    assert content(journal) == before


def test_other_predictions_do_not_go_on_and_the_same_under_another_name_do(folder, tmp_path):
    """The name of the file says nothing: what it says of the bars that were decided does."""
    journal, asked = tmp_path / "j", replay_of(folder, tmp_path / "j")
    run_live(asked, 100)
    before, own = content(journal), Predictions.load(asked.predictions)
    other = tmp_path / asked.predictions.name
    Predictions.random(load_bars(folder / "bars.parquet"), seed=77).save(other)
    with pytest.raises(
        UserError, match=r"--predictions must go on with those of the journal, was .* with another vote of \w+ for .*new --journal"
    ):
        start_live(replace(asked, predictions=other))
    assert content(journal) == before
    own.save(tmp_path / "same.parquet")
    outcome, _ = run_live(replace(asked, predictions=tmp_path / "same.parquet"))
    assert (outcome.resumed, outcome.bars) == (100, N - 100)
    assert events_of(journal, "mismatch") == 0
