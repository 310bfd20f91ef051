"""Does every parser read a changed file, or refuse it in one sentence? The long campaign is `python -m tests.fuzz`."""

import contextlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from research.data import load
from tests import fuzz_coverage
from tests.fuzz import COMMANDS, TARGETS, WORLD, StoppedError, attempt, campaign, cli, make_seeds, naive_check, naive_votes

TRAINED = {"models", "meta", "registry", "fits", "sweep"}  # need a training, which takes half a minute
SLOW = {
    "verify",
    "report",
    "compare",
    "explain",
    "governor",
    "arguments",
    "validate run",
    "validate journal",
}  # run the chain, or draw pages
QUICK = tuple(target for target in TARGETS if target.name not in TRAINED | SLOW)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    make_seeds(folder, is_trained=False)
    return folder


@pytest.mark.parametrize("target", QUICK, ids=lambda target: target.name)
@settings(max_examples=8, deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(number=st.integers(0, 2**32 - 1))
def test_a_changed_file_is_read_or_refused_in_one_sentence(seeds, target, number):
    done = attempt(target, seeds, 7, number)
    assert done["faults"] == [], done


@pytest.mark.parametrize(
    "target", [target for target in TARGETS if target.name not in TRAINED | {"arguments"}], ids=lambda target: target.name
)
def test_unchanged_files_are_accepted(seeds, target, tmp_path, monkeypatch):
    target.copy(seeds, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    with contextlib.suppress(StoppedError) if target.name == "verify" else contextlib.nullcontext():
        target.work(tmp_path)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:40])
def test_unchanged_commands_are_accepted(seeds, command, tmp_path, monkeypatch):
    arguments_ = next(target for target in TARGETS if target.name == "arguments")
    arguments_.copy(seeds, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    cli(*command)


@pytest.mark.slow
def test_a_long_campaign_in_children_finds_nothing():
    assert campaign(1_500, seed=3, minutes=20.0) == {}


@pytest.mark.slow
def test_fuzzing_by_branches_finds_nothing():
    pytest.importorskip("atheris", reason="needs atheris (extra fuzz), of which there is a wheel for some Pythons on Linux")
    assert fuzz_coverage.campaign(seconds=30) == []


LINES = ["timestamp,symbol,open,high,low,close,volume", "2024-01-01T00:00:00Z,A,1,2,0.5,1.5,9", "2024-01-01T01:00:00Z,A,1.5,2.5,1,2,8"]


def naive(tmp_path: Path, lines: list[str]) -> None:
    """Load the good lines, and compare what was loaded with what a naive reader finds in `lines`."""
    (tmp_path / "good.csv").write_text("\n".join(LINES))
    (tmp_path / "said.csv").write_text("\n".join(lines))
    loaded = load(str(tmp_path / "good.csv"))
    assert naive_check(tmp_path / "said.csv", SimpleNamespace(bars=loaded.bars, report=SimpleNamespace(issues=(), notes=())))


def test_the_naive_reader_agrees_with_a_right_reading(tmp_path):
    naive(tmp_path, LINES)


@pytest.mark.parametrize(
    "lines",
    [
        [LINES[0], LINES[1], LINES[2].replace(",2,8", ",2.0000001,8")],
        [LINES[0], LINES[1], LINES[2].replace("01:00", "01:01")],
        [LINES[0], LINES[1], LINES[2].replace(",A,", ",B,")],
        [LINES[0], LINES[1]],
        [*LINES, LINES[2].replace("T01", "T02")],
        [LINES[0], LINES[1], LINES[2].replace(",8", ",80")],
        ["timestamp,symbol,open,high,low,volume,close", *LINES[1:]],
        [LINES[0], LINES[1], LINES[2].replace("1.5,", "x,")],
    ],
    ids=["a price", "a time", "a symbol", "a row that is not there", "a row that nobody told of", "a volume", "two columns", "no number"],
)
def test_the_naive_reader_notices_a_wrong_reading(tmp_path, lines):
    with pytest.raises((AssertionError, ValueError)):
        naive(tmp_path, lines)


def test_the_naive_reader_of_votes_notices_a_wrong_vote(seeds):
    from research.data import load_bars
    from research.training.predictions import Predictions

    for name in ("votes.jsonl", "stored.parquet"):
        read = Predictions.import_file(seeds / name, load_bars(WORLD))
        naive_votes(seeds / name, read)
        t = int((read.action[0, :, 1] >= 0).nonzero()[0][0])
        other, absent, sure = read.action.copy(), read.action.copy(), read.confidence.copy()
        other[0, t, 1], absent[0, t, 1], sure[0, t, 1] = (other[0, t, 1] + 1) % 3, -1, 0.123
        for wrong in ({"action": other}, {"action": absent}, {"confidence": sure}):
            with pytest.raises(AssertionError, match=r"votes \(|votes are missing"):
                naive_votes(seeds / name, replace(read, **wrong, notes=()))
