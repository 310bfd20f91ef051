"""Is every try counted, once, in the right lineage, whoever writes at the same time?"""

import math
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtcore.types import NS_PER_DAY, NS_PER_HOUR, Bars, Votes
from research.data.sketch import SKETCH_SIZE, shared, sketch
from research.errors import UserError
from research.evidence.ledger import Ledger, Result
from research.evidence.trials import Trial, daily_returns, effective_trials, hash_params, trial_of
from research.training.predictions import hash_votes
from tests.support.fake_run import fake_run, walk


def candles(n=400, n_symbols=3, seed=0) -> Bars:
    return walk(np.random.default_rng(seed), n, n_symbols)


def trial(bars: Bars, params="p", predictions="v", sharpe=0.01, seed=0) -> Trial:
    returns = np.random.default_rng(seed).normal(0.0, 0.01, 90).astype(np.float32)
    return Trial(sketch(bars), params, predictions, sharpe, 19_700, returns)


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "home" / "trials.sqlite")


# lineage


def test_names_times_and_order_do_not_matter():
    bars = candles()
    renamed = replace(bars, symbols=("A", "B", "C"), open_time=bars.open_time + NS_PER_HOUR, close_time=bars.close_time + NS_PER_HOUR)
    turned = replace(bars, **{name: getattr(bars, name)[:, ::-1] for name in ("open", "high", "low", "close", "volume")})
    assert sketch(bars).digest == sketch(renamed).digest == sketch(turned).digest
    assert sketch(candles(seed=1)).digest != sketch(bars).digest


def test_single_precision_is_the_same_candle():
    bars = candles()
    names = ("open", "high", "low", "close", "volume")
    quoted = replace(bars, **{name: np.round(getattr(bars, name), 2) for name in names})
    stored = replace(quoted, **{name: getattr(quoted, name).astype(np.float32).astype(float) for name in names})
    assert shared(sketch(quoted), sketch(stored)) > 0.95


@pytest.mark.parametrize(("overlap", "expected"), [(0, 0.0), (150, 0.375), (300, 0.75), (400, 1.0)])
def test_the_share_of_common_candles(overlap, expected):
    bars = candles(800)
    a, b = bars[: 400 + 0], bars[400 - overlap : 800 - overlap]
    held = lambda x: np.count_nonzero(~np.isnan(x.close))  # noqa: E731
    common = np.count_nonzero(~np.isnan(bars.close[400 - overlap : 400]))
    assert shared(sketch(a), sketch(b)) == pytest.approx(common / min(held(a), held(b)), abs=0.02)
    assert expected == pytest.approx(overlap / 400)


def test_a_large_set_keeps_a_sample_and_still_finds_its_part():
    bars = candles(30_000, 4)
    whole, part = sketch(bars), sketch(bars[10_000:14_000])
    assert whole.level == 3
    assert len(whole.hashes) <= SKETCH_SIZE < 2 * len(whole.hashes)
    assert shared(whole, part) == pytest.approx(1.0)
    assert shared(whole, sketch(candles(4_000, 4, seed=9))) == 0.0


# counting


def test_an_identical_rerun_is_no_trial(ledger):
    bars = candles()
    assert ledger.record(trial(bars)).trials == 1
    assert ledger.record(trial(bars)).trials == 1
    assert ledger.record(trial(bars, params="q")).trials == 2
    assert ledger.record(trial(bars, predictions="w")).trials == 3
    assert ledger.count() == 3


def test_renamed_data_is_the_same_lineage_and_other_data_another(ledger):
    bars = candles()
    ledger.record(trial(bars))
    assert ledger.record(trial(replace(bars, symbols=("A", "B", "C")), params="q")).trials == 2
    assert ledger.record(trial(candles(seed=5))).trials == 1
    assert {row["lineage"] for row in ledger.table()} == {1, 2}


def test_half_of_the_candles_makes_a_lineage(ledger):
    bars = candles(800)
    ledger.record(trial(bars[:400]))
    assert ledger.record(trial(bars[100:500], params="q")).trials == 2  # three quarters
    assert ledger.record(trial(bars[450:800], params="r")).trials == 1  # linked to neither


def test_a_third_data_set_joins_two_lineages(ledger):
    bars = candles(800)
    ledger.record(trial(bars[:400]))
    assert ledger.record(trial(bars[400:], params="q")).trials == 1
    assert ledger.record(trial(bars, params="r")).trials == 3
    assert ledger.record(trial(bars[:400], params="s")).trials == 4


def test_looking_writes_nothing_and_says_what_recording_would(ledger):
    bars = candles()
    assert ledger.look(trial(bars)).trials == 1
    assert not ledger.path.exists()
    ledger.record(trial(bars, sharpe=0.02))
    other = trial(bars, params="q", sharpe=0.06)
    seen = ledger.look(other)
    assert ledger.count() == 1
    assert seen == ledger.record(other)
    assert seen == ledger.look(other)
    assert seen.trials == 2
    assert seen.variance == pytest.approx(np.var([0.02, 0.06], ddof=1))


def test_a_trial_without_a_ratio_counts_but_has_no_variance(ledger):
    bars = candles()
    ledger.record(trial(bars, sharpe=math.nan))
    tried = ledger.record(trial(bars, params="q", sharpe=0.05))
    assert (tried.trials, tried.variance) == (2, 0.0)
    assert ledger.table()[0]["sharpe"] is None


def test_equal_trials_are_worth_one_and_unlike_ones_all():
    bars = candles()
    same = [trial(bars, params=str(i), seed=0) for i in range(10)]
    unlike = [trial(bars, params=str(i), seed=i) for i in range(10)]
    assert effective_trials(same) == pytest.approx(1.0, abs=1e-6)
    assert effective_trials(unlike) > 8.0
    short = [replace(t, returns=t.returns[:20]) for t in same]
    assert effective_trials(short) == 10.0  # fewer than 30 common days say nothing
    assert effective_trials(same[:1]) == 1.0


def test_returns_are_gathered_by_day():
    close_time = 19_700 * NS_PER_DAY + NS_PER_HOUR * np.array([12, 24, 30, 80])  # two bars of day 0, one of day 1, one of day 3
    first, returns = daily_returns(close_time, np.array([100.0, 110.0, 99.0, 99.0]))
    assert first == 19_700
    assert returns == pytest.approx([0.1, -0.1, 0.0, 0.0])
    assert len(daily_returns(close_time[:0], np.empty(0))[1]) == 0


def test_a_run_is_a_trial_of_its_params_votes_and_candles():
    run = fake_run(n=200)
    first = trial_of(run, {"per_bar": 0.1, "n_bars": 200, "skew": 0.0, "kurtosis": 3.0, "bars_per_year": 8_760.0})
    assert first.params == hash_params(run.params.flat())
    assert first.predictions == hash_votes(run.result.votes)
    assert math.isnan(trial_of(run, {"per_bar": None}).sharpe)
    changed = Votes(run.result.votes.action, run.result.votes.confidence.copy(), run.result.votes.probs)
    changed.confidence[0, -10, 0] = np.nextafter(changed.confidence[0, -10, 0], 2.0)
    assert hash_votes(changed) != first.predictions


# files


WRITER = """
import sys
from pathlib import Path
import numpy as np
from research.evidence.ledger import Ledger, Trial
from research.data.sketch import Sketch
ledger, name = Ledger(Path(sys.argv[1])), sys.argv[2]
sketch = Sketch(np.arange(1, 50, dtype=np.uint64), 0, 49)
for i in range(25):
    ledger.record(Trial(sketch, f"{name}-{i}", "v", 0.01, 0, np.zeros(3, np.float32)))
"""


def test_writers_at_the_same_time_lose_nothing(ledger):
    root = Path(__file__).resolve().parents[3]
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(ledger.path), str(i)], cwd=root) for i in range(3)]
    assert [w.wait(timeout=120) for w in writers] == [0, 0, 0]
    assert ledger.count() == 75
    assert len({row["lineage"] for row in ledger.table()}) == 1


def test_a_ledger_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(UserError, match=r"trial ledger must be writable, was .*; set QT_HOME"):
        Ledger(tmp_path / "file" / "trials.sqlite").record(trial(candles()))
    (tmp_path / "trials.sqlite").write_text("no database at all, however long this text may be")
    with pytest.raises(UserError, match="trial ledger must be readable"):
        Ledger(tmp_path / "trials.sqlite").look(trial(candles()))


def test_the_ledger_lives_in_qt_home(monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    assert Ledger().path == tmp_path / "trials.sqlite"
    monkeypatch.delenv("QT_HOME")
    assert Ledger().path == Path.home() / ".qt" / "trials.sqlite"


# a sweep's rows


def rows(bars: Bars, n: int, kept=0, seed=0) -> list[Trial]:
    """Trials of a sweep: n ratios, daily returns of the first `kept` only."""
    rng, mark = np.random.default_rng(seed), sketch(bars)
    none = np.empty(0, np.float32)
    series = [rng.normal(0.0, 0.01, 90).astype(np.float32) if i < kept else none for i in range(n)]
    return [
        Trial(mark, f"{seed}-{i}", "v", float(rng.normal(0.0, 0.02)), 19_700, series[i], "sweep", 500, 0.1, 3.2, 8_766.0) for i in range(n)
    ]


def test_many_trials_are_counted_as_they_would_be_one_by_one(tmp_path):
    bars = candles()
    one, many = Ledger(tmp_path / "one" / "trials.sqlite"), Ledger(tmp_path / "many" / "trials.sqlite")
    batch = rows(bars, 50, kept=10)
    for t in batch:
        last = one.record(t)
    assert many.record_many(batch) == last
    assert many.record_many(batch) == last  # again is none
    assert many.tried(sketch(bars)) == last
    assert last.trials == 50
    assert last.variance == pytest.approx(np.var([t.sharpe for t in batch], ddof=1))
    assert last.effective == pytest.approx(effective_trials(batch[:10], 50))
    third = Ledger(many.path.with_name("third.sqlite"))
    for start in (0, 20, 40):
        third.add(batch[start : start + 20])
    assert third.tried(sketch(bars)) == last
    with pytest.raises(UserError, match="must be of one data set, was 2"):
        many.record_many([*rows(bars, 2), *rows(candles(seed=3), 2)])


def test_ten_thousand_rows_take_a_moment(ledger):
    import time

    bars = candles()
    batch = rows(bars, 10_000, kept=200)
    start = time.process_time()
    assert ledger.record_many(batch).trials == 10_000
    assert ledger.look(trial(bars, params="one more")).trials == 10_001
    assert time.process_time() - start < 5.0  # 0.3 s measured


def test_rows_of_two_data_sets_of_a_lineage_count_once(ledger):
    bars = candles()
    ledger.record_many(rows(bars, 30, kept=5))
    assert ledger.record_many(rows(bars[1:], 30, kept=5)).trials == 30  # one row of data removed: the same parameters are no new tries
    assert ledger.record_many(rows(bars[1:], 30, seed=1)).trials == 60


def test_the_best_of_a_lineage_is_deflated(ledger):
    from research.evidence import sharpe as sr
    from research.evidence.tried import tried_table

    bars = candles()
    batch = rows(bars, 100, kept=20)
    tried = ledger.record_many(batch)
    ledger.record(trial(candles(seed=8)))
    table = tried_table(ledger)
    assert table["trials"].tolist() == [100, 1]
    best = max(batch, key=lambda t: t.sharpe)
    m = sr.Moments(best.sharpe, best.skew, best.kurtosis, best.n_bars)
    row = tried_table(ledger, sketch(bars)).iloc[0]
    assert row["deflated"] == pytest.approx(sr.deflated_sharpe(m, 100, tried.variance), abs=1e-12)
    assert row["sharpe"] == pytest.approx(best.sharpe * math.sqrt(8_766.0))
    assert row["expected_best"] == pytest.approx(sr.expected_best(100, tried.variance) * math.sqrt(8_766.0))
    assert len(tried_table(ledger, sketch(candles(seed=77)))) == 0


# nothing is forgotten silently


def test_a_missing_ledger_is_said_and_reset_remembers_it(ledger):
    bars = candles()
    ledger.record_many(rows(bars, 7))
    for ending in ("", "-wal", "-shm"):
        Path(f"{ledger.path}{ending}").unlink(missing_ok=True)
    for work in (lambda: ledger.record(trial(bars)), lambda: ledger.look(trial(bars)), ledger.count, ledger.lineages):
        with pytest.raises(UserError, match=r"the 7 trials it once held, was gone at .*; put the file back, or `qt trials --reset`"):
            work()
    assert ledger.reset() is None
    assert ledger.resets()[0]["trials"] == 7
    assert ledger.record(trial(bars)).set_aside == 7


def test_an_older_copy_is_noticed(ledger):
    import shutil
    import sqlite3

    bars = candles()
    ledger.record_many(rows(bars, 3))
    copy = ledger.path.with_name("copy.sqlite")
    db = sqlite3.connect(ledger.path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    shutil.copy(ledger.path, copy)
    ledger.record_many(rows(bars, 3, seed=1))
    for ending in ("-wal", "-shm"):
        Path(f"{ledger.path}{ending}").unlink(missing_ok=True)
    shutil.copy(copy, ledger.path)
    with pytest.raises(UserError, match="the 6 trials it once held, was a shorter or another one"):
        ledger.look(trial(bars))


def test_a_damaged_ledger_is_said_and_can_be_set_aside(ledger):
    ledger.record_many(rows(candles(), 3))
    ledger.path.write_bytes(b"damaged" * 1_000)
    with pytest.raises(UserError, match=r"must be writable, was damaged at .*`qt trials --reset`"):
        ledger.record(trial(candles()))
    aside = ledger.reset()
    assert aside is not None
    assert aside.read_bytes() == b"damaged" * 1_000
    assert ledger.record(trial(candles())).set_aside == 3


@pytest.mark.parametrize("column", ["name", "params", "time", "sharpe", "n_bars", "votes"])
def test_a_cell_of_another_type_is_damage(ledger, column):
    ledger.record(trial(candles()))
    with closing(sqlite3.connect(ledger.path)) as db:
        db.executescript(f"DROP TRIGGER unchanged; UPDATE trials SET {column} = x'7878'")
    with pytest.raises(UserError, match=r"must be readable, was damaged at .*put a copy back"):
        ledger.lineages()


def test_a_reset_keeps_the_file_and_says_so_for_ever(ledger):
    bars = candles()
    ledger.record_many(rows(bars, 4))
    first = ledger.reset()
    assert Ledger(first).count() == 4
    ledger.record_many(rows(bars, 2))
    second = ledger.path.with_name("later.sqlite")
    ledger.reset().rename(second)
    assert [r["trials"] for r in ledger.resets()] == [4, 2]
    assert ledger.look(trial(bars)).set_aside == 6


def test_the_database_refuses_to_delete_or_change_a_trial(ledger):
    import sqlite3

    ledger.record_many(rows(candles(), 2))
    with sqlite3.connect(ledger.path) as db:
        for statement in ("DELETE FROM trials", "UPDATE trials SET sharpe = 0"):
            with pytest.raises(sqlite3.IntegrityError, match="a trial is never"):
                db.execute(statement)


def test_a_ledger_of_the_first_version_is_brought_up_to_date(ledger):
    import sqlite3

    from research.evidence.ledger import SCHEMA

    ledger.path.parent.mkdir(parents=True)
    bars = candles()
    with sqlite3.connect(ledger.path) as db:
        for statement in SCHEMA[0]:
            db.execute(statement)
        mark = sketch(bars)
        db.execute("INSERT INTO data VALUES (1, ?, 1, ?, ?, ?)", (mark.digest, mark.level, mark.candles, mark.hashes.tobytes()))
        db.execute("INSERT INTO trials VALUES (1, 1, 'p', 'v', 0, 'old', 0.02, 0, x'')")
        db.execute("PRAGMA user_version = 1")
    assert ledger.record(trial(bars, params="q")).trials == 2
    assert [row["n_bars"] for row in ledger.table()] == [None, 0]


BATCH_WRITER = (
    WRITER.split("for i")[0]
    + """
for i in range(5):
    ledger.record_many([Trial(sketch, f"{name}-{i}-{k}", "v", 0.01, 0, np.empty(0, np.float32)) for k in range(200)])
"""
)


def test_batches_of_several_processes_lose_nothing(ledger):
    root = Path(__file__).resolve().parents[3]
    writers = [subprocess.Popen([sys.executable, "-c", BATCH_WRITER, str(ledger.path), str(i)], cwd=root) for i in range(3)]
    assert [w.wait(timeout=120) for w in writers] == [0, 0, 0]
    assert ledger.count() == 3_000
    assert ledger.look(Trial(sketch(candles()), "p", "v", 0.0, 0, np.empty(0, np.float32))).trials == 1


# the command


def test_the_command_lists_markets_and_asks_for_a_word(ledger, monkeypatch):
    import json

    from typer.testing import CliRunner

    from research.cli import app

    monkeypatch.setenv("QT_HOME", str(ledger.path.parent))
    runner = CliRunner()
    assert "no trials yet" in runner.invoke(app, ["trials"]).output
    ledger.record_many(rows(candles(), 12, kept=3))
    shown = json.loads(runner.invoke(app, ["trials", "--json"]).output)
    assert shown["lineages"][0]["trials"] == 12
    assert 0.0 < shown["lineages"][0]["deflated"] < 1.0
    assert "12" in runner.invoke(app, ["trials"]).output
    assert "no trials on these candles yet" in runner.invoke(app, ["trials", "simulated:constant?n_bars=100"]).output
    refused = runner.invoke(app, ["trials", "--reset"], input="yes\n")
    assert isinstance(refused.exception, UserError)
    assert ledger.count() == 12
    assert runner.invoke(app, ["trials", "--reset"], input="forget\n").exit_code == 0
    assert ledger.count() == 0
    assert "12 earlier trials set aside in trials-" in runner.invoke(app, ["trials"]).output


# what became of a run


def run_rows(bars: Bars, n: int, votes="v") -> list[Trial]:
    return [replace(t, predictions=f"{votes}+meta", votes=votes) for t in rows(bars, n, kept=n, seed=len(votes))]


def test_a_spoilt_trial_counts_as_a_try_and_for_nothing_else(ledger):
    bars = candles()
    honest, (leak,) = run_rows(bars, 3), run_rows(bars, 1, "leak")
    for t in honest:
        ledger.record(t, Result())
    before = ledger.tried(sketch(bars))
    assert (before.trials, before.pending, before.invalid) == (3, 3, 0)
    assert ledger.look(honest[0]).pending == 2  # of the others
    assert ledger.record(replace(leak, sharpe=9.0), Result()).variance > before.variance
    for outcome in ("invalid", "implausible"):
        assert ledger.settle(leak, Result(outcome, detail="leak"))
        after = ledger.tried(sketch(bars))
        assert (after.trials, after.variance, getattr(after, outcome), after.pending) == (4, before.variance, 1, 3)
        assert after.effective == pytest.approx(effective_trials(honest, 4))
        assert ledger.lineages()[0]["best"]["params"] == max(honest, key=lambda t: t.sharpe).params
    assert ledger.settle(leak, Result("proven"))
    assert ledger.tried(sketch(bars)).variance > before.variance
    assert ledger.lineages()[0]["best"]["standing"] == "proven"
    ledger.record(leak, Result())  # run again: what is known of it stays known
    assert [row["outcome"] for row in ledger.results()] == ["pending"] * 4 + ["invalid", "implausible", "proven"]


def test_what_is_found_of_predictions_holds_for_whatever_was_made_of_them(ledger):
    bars = candles()
    leak, other, third = run_rows(bars, 3, "leak")
    bare = replace(third, predictions="leak")  # without the meta layer
    ledger.record(leak, Result())
    ledger.record_many([other, bare, *run_rows(bars, 2)])
    ledger.settle(leak, Result("invalid"))
    assert ledger.tried(sketch(bars)).invalid == 1
    ledger.settle(leak, Result("invalid", of_predictions=True))
    assert (ledger.tried(sketch(bars)).trials, ledger.tried(sketch(bars)).invalid) == (5, 3)
    assert ledger.look(replace(other, params="new", sharpe=7.0)).variance == ledger.tried(sketch(bars)).variance
    ledger.settle(other, Result("proven"))
    assert ledger.tried(sketch(bars)).invalid == 1  # these predictions passed the newer proof; that run itself is still as it was found


def test_a_trial_that_nobody_counted_is_not_settled(ledger):
    assert not ledger.settle(trial(candles()), Result("proven"))
    assert not ledger.path.exists()
    ledger.record(trial(candles()))
    assert not ledger.settle(trial(candles(), params="q"), Result("invalid"))
    assert ledger.results() == []


def test_the_database_refuses_to_delete_or_change_a_result(ledger):
    import sqlite3

    ledger.record(trial(candles()), Result("invalid"))
    with sqlite3.connect(ledger.path) as db:
        for statement in ("DELETE FROM results", "UPDATE results SET outcome = 'proven'"):
            with pytest.raises(sqlite3.IntegrityError, match="a result is never"):
                db.execute(statement)
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO results (trial, time, outcome, of_predictions, detail, source) VALUES (1, 0, 'edge', 0, '', '')")


def test_a_ledger_without_its_latest_results_is_noticed(ledger):
    import shutil

    ledger.record(trial(candles()), Result())
    with ledger._open() as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = shutil.copy(ledger.path, ledger.path.with_name("copy.sqlite"))
    ledger.settle(trial(candles()), Result("invalid"))
    for ending in ("-wal", "-shm"):
        Path(f"{ledger.path}{ending}").unlink(missing_ok=True)
    shutil.copy(copy, ledger.path)
    with pytest.raises(UserError, match="was a shorter or another one"):
        ledger.look(trial(candles()))


def test_a_ledger_of_the_second_version_is_brought_up_to_date_and_counts_as_before(ledger):
    import json
    import sqlite3

    from research.evidence.ledger import SCHEMA

    ledger.path.parent.mkdir(parents=True)
    bars = candles()
    with sqlite3.connect(ledger.path) as db:
        for statement in (*SCHEMA[0], *SCHEMA[1]):
            db.execute(statement)
        mark = sketch(bars)
        db.execute("INSERT INTO facts VALUES ('name', 'mine')")
        db.execute("INSERT INTO data VALUES (1, ?, 1, ?, ?, ?)", (mark.digest, mark.level, mark.candles, mark.hashes.tobytes()))
        for i, sharpe in enumerate((0.02, 0.06)):
            values = (i + 1, f"p{i}", "v", sharpe, 500, 0.0, 3.0, 8_766.0)
            db.execute("INSERT INTO trials VALUES (?, 1, ?, ?, 0, 'old', ?, 0, x'', ?, ?, ?, ?)", values)
        db.execute("PRAGMA user_version = 2")
    (ledger.path.with_suffix(".witness")).write_text(json.dumps({"ledger": "mine", "trials": 2}))
    tried = ledger.tried(sketch(bars))
    assert (tried.trials, tried.pending, tried.invalid) == (2, 0, 0)
    assert tried.variance == pytest.approx(np.var([0.02, 0.06], ddof=1))
    old = trial(bars, params="p0")
    assert ledger.record(old, Result()).trials == 2
    assert ledger.settle(old, Result("invalid", of_predictions=True))
    assert ledger.tried(sketch(bars)).invalid == 2  # the other one has the same predictions, and nobody proved it


SETTLER = (
    WRITER.split("for i")[0]
    + """
from research.evidence.ledger import Result
for i in range(8):
    trial = Trial(sketch, f"{name}-{i}", f"v{name}", 0.01, 0, np.zeros(3, np.float32))
    ledger.record(trial, Result())
    if i == 7:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    ledger.settle(trial, Result("invalid" if i % 2 else "proven"))
"""
)


def test_runs_that_are_settled_and_killed_at_the_same_time_lose_nothing(ledger):
    root = Path(__file__).resolve().parents[3]
    writers = [subprocess.Popen([sys.executable, "-c", SETTLER, str(ledger.path), str(i)], cwd=root) for i in range(3)]
    assert [w.wait(timeout=120) for w in writers] == [-9, -9, -9]
    tried = ledger.lineages()[0]["tried"]
    assert (tried.trials, tried.invalid, tried.pending) == (24, 9, 3)
    assert len(ledger.results()) == 24 + 21
