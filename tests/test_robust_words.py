"""Are odd numbers, missing answers and damaged results of a sweep told in one sentence?"""

import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import research
from research.cli.common import guarded
from research.data import load_bars
from research.data.clock import parse_interval
from research.errors import UserError
from research.runs.config import load_config
from research.sweep.rules import parse_rules
from research.training.splits import retraining_edges, walk_forward
from tests.fuzz import cli

LONG = "1" * 5000
HOURS = np.arange(1, 101) * 3_600_000_000_000
GRID = {"governor.min_confidence": [0.5, 0.6]}


@pytest.mark.parametrize(
    "number", ["1.2.3", "1e999", "-1e999", "nan", "inf", "-Infinity", "", ".", "1e", "0x10", "1_0", "\u0661", "1 2", "x", LONG, "1\0"]
)
def test_a_constraint_holds_one_finite_number(number):
    with pytest.raises(UserError, match=r"^--where must be a figure, .* and a finite number, was .{0,120}; e\.g\. max_drawdown < 0\.15$"):
        parse_rules([f"sharpe < {number}"], ["sharpe"])


@pytest.mark.parametrize(("number", "value"), [("1", 1.0), ("-.5", -0.5), ("+2.", 2.0), ("1e-3", 1e-3), ("0.15 ", 0.15)])
def test_a_constraint_takes_every_way_to_write_one(number, value):
    assert parse_rules([f"sharpe >= {number}"], ["sharpe"])[0].limit == value


@pytest.mark.parametrize("text", ["99999999999999w", f"{LONG}h", "9" * 30, "1.2.3h", "-1h", "nan", "1e999d", "", True, 2**80, -1, 0])
def test_an_interval_that_no_bar_has_is_one_sentence(text):
    with pytest.raises(UserError, match=r"^interval must "):
        parse_interval(text)


@pytest.mark.parametrize("every", ["99999999999999w", LONG, "9" * 30, "0", "-7", "7.5", "nan", "1mo", "\u0661", ""])
def test_a_pace_of_training_that_cannot_be_is_one_sentence(every):
    with pytest.raises(UserError, match=r"^retrain_every must be rows such as 168 or a length of time such as 7d, was .{0,60}$"):
        retraining_edges(HOURS, 0.4, every)


@pytest.mark.parametrize("embargo", ["0" * 12 + "999999999999", LONG, "0" * 5000, "-1", "nan", "1.5", "\u0661", "2147483648"])
def test_an_embargo_beyond_every_file_is_one_sentence(embargo):
    with pytest.raises(UserError, match=r"^run\.embargo must be auto or "):
        load_config(sets=[f"run.embargo={embargo}"])


@pytest.mark.parametrize("asked", [{"embargo": 2**70}, {"n_folds": 10**15}, {"embargo": -1}, {"n_folds": 0}])
def test_folds_beyond_the_rows_are_one_sentence(asked):
    with pytest.raises(UserError, match=r"; load a longer period or use fewer folds$|^splits must have"):
        walk_forward(np.arange(1000) + 5, **asked)


@pytest.mark.parametrize("answer", ["", "\n", "yes\n", "forge"])
def test_a_ledger_is_set_aside_only_for_the_word(tmp_path, monkeypatch, capsys, answer):
    (tmp_path / "in").write_text(answer)
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    with (tmp_path / "in").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert guarded(lambda: cli("trials", "--reset")) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("qt: the word ")
    assert "the ledger is unchanged" in said[0]


def test_a_ledger_is_kept_where_standard_input_is_closed(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    monkeypatch.setattr("sys.stdin", None)
    assert guarded(lambda: cli("trials", "--reset")) == 2
    assert "was no answer; the ledger is unchanged" in capsys.readouterr().err


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    bars = load_bars("simulated:random_walk?n_bars=200&n_symbols=2")
    votes, folder = research.Predictions.random(bars, seed=1), tmp_path_factory.mktemp("swept") / "sweep"
    research.sweep(bars, votes, GRID, out=folder, record=False)
    return bars, votes, folder


def damage_type(path):
    table = pq.read_table(path)
    pq.write_table(table.set_column(table.schema.get_field_index("sharpe"), "sharpe", pa.array(["x"] * table.num_rows)), path)


def damage_bytes(path):
    data = bytearray(path.read_bytes())
    data[40] ^= 255
    path.write_bytes(data)


DAMAGE = {
    "cut": lambda p: p.write_bytes(p.read_bytes()[:-100]),
    "no Parquet": lambda p: p.write_bytes(b"PAR1PAR1"),
    "empty": lambda p: p.write_bytes(b""),
    "a folder": lambda p: (p.unlink(), p.mkdir()),
    "a link to nothing": lambda p: (p.unlink(), p.symlink_to(p.with_name("nothing"))),
    "a page": damage_bytes,
    "text where numbers belong": damage_type,
    "a column gone": lambda p: pd.read_parquet(p).drop(columns="sharpe").to_parquet(p),
    "a column more": lambda p: pd.read_parquet(p).assign(more=1).to_parquet(p),
    "rows gone": lambda p: pd.read_parquet(p)[:1].to_parquet(p),
    "rows out of order": lambda p: pd.read_parquet(p)[::-1].to_parquet(p, index=False),
    "a setting of another sweep": lambda p: pd.read_parquet(p).assign(**{"governor.min_confidence": [0.5, 0.7]}).to_parquet(p),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_part_of_a_sweep_is_refused_before_any_work(swept, tmp_path, how):
    bars, votes, folder = swept
    shutil.copytree(folder, tmp_path / "sweep")
    DAMAGE[how](tmp_path / "sweep" / "trials" / "part-000000000.parquet")
    with pytest.raises(
        UserError, match=r"part-000000000\.parquet must be results as `qt sweep` wrote them, was .*; remove it and use --re"
    ):
        research.sweep(bars, votes, GRID, out=tmp_path / "sweep", resume=True, record=False)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, '{"space": NaN}', "\xff"])
def test_a_damaged_description_of_a_sweep_is_refused(swept, tmp_path, text):
    bars, votes, folder = swept
    shutil.copytree(folder, tmp_path / "sweep")
    (tmp_path / "sweep" / "sweep.json").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"sweep\.json must be a sweep's description as `qt sweep` wrote it, was .*; choose another --out$"):
        research.sweep(bars, votes, GRID, out=tmp_path / "sweep", resume=True, record=False)


def test_what_is_no_part_beside_the_parts_disturbs_nothing(swept, tmp_path):
    bars, votes, folder = swept
    shutil.copytree(folder, tmp_path / "sweep")
    for name in ("part-x.parquet", "part-000000099.parquet", "part-.parquet"):
        (tmp_path / "sweep" / "trials" / name).write_text("x")
    again = research.sweep(bars, votes, GRID, out=tmp_path / "sweep", resume=True, record=False)
    pd.testing.assert_frame_equal(again.table(), pd.read_parquet(folder / "trials" / "part-000000000.parquet"))


def test_a_column_of_lists_where_symbols_belong_is_refused(swept, tmp_path):
    table = pd.DataFrame({"timestamp": pd.date_range("2024", periods=3, freq="h", tz="UTC"), "symbol": [["A"]] * 3, "close": 1.0})
    table.assign(open=1.0, high=1.0, low=1.0, volume=1.0).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match=r"x\.parquet must hold text in its column symbol, was lists or tables"):
        load_bars(tmp_path / "x.parquet")
