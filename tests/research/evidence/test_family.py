"""Is a run judged against everything that was ever tried on its market, in whatever order, process and session?"""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from typer.testing import CliRunner

from research.cli.app import app
from research.data import simulate
from research.data.sketch import sketch
from research.errors import ConfigError, UserError
from research.evidence.family import KEPT, Drawn, swept
from research.evidence.ledger import SCHEMA, Ledger
from research.evidence.ledger_tallies import MOST, tallies
from research.evidence.sign_test import critical, independent, judge, maxima
from research.evidence.standing import PROVEN, Result, Standings
from research.evidence.trials import Trial
from research.evidence.tried import tried_table
from research.runs.verdict import IMPLAUSIBLE, INVALID
from tests.conftest import assert_same_bits
from tests.research.evidence.test_sign_test import outcome

MINE = sketch(simulate("random_walk", n_bars=400, seed=1))
OTHER = sketch(simulate("random_walk", n_bars=400, seed=2))


@pytest.fixture
def ledger(tmp_path):
    return Ledger(tmp_path / "trials.sqlite")


def rows(n, first=0, data=MINE):
    return [Trial(data, f"p{first + i}", "votes", 0.01, 0, np.empty(0, np.float32)) for i in range(n)]


def run(found, number=0, data=MINE):
    return Trial(data, f"run{number}", "votes", 0.02, 0, np.empty(0, np.float32), outcome=found)


def family(ledger, data=MINE):
    """Return the maxima of everything that was swept, kept or not."""
    name = ledger.lineage_name(data)
    with sqlite3.connect(ledger.path) as db:
        kept, highest = swept(db, [row[0] for row in db.execute("SELECT id FROM data")])
    for each in kept:
        highest = maxima(name, each.keys, each.units, highest)
    return highest, sum(len(each.units) for each in kept)


def enter(ledger, found, pieces, first=0):
    """Enter the accounts of an outcome as rows of a sweep, some at a time."""
    name = ledger.lineage_name(MINE)
    for part in pieces:
        trials = [Trial(MINE, f"p{first + i}", "votes", 0.01, 0, np.empty(0, np.float32)) for i in part]
        ledger.add(trials, Drawn.of(name, found.rows(np.asarray(part))))


def test_the_running_maximum_is_that_of_all_series(ledger):
    """5,000 rows in parts, many more than are kept; entered twice, and in another order in another ledger."""
    found = outcome(1, 5_000, shift=0.1)
    parts = np.array_split(np.arange(5_000), 7)
    enter(ledger, found, parts)
    highest, n_kept = family(ledger)
    assert n_kept == KEPT
    assert_same_bits(highest, maxima(ledger.lineage_name(MINE), found.keys, found.units))
    enter(ledger, found, parts[2:4])
    assert_same_bits(family(ledger)[0], highest)
    other = Ledger(ledger.path.with_name("other.sqlite"))
    enter(other, found, np.array_split(np.random.default_rng(0).permutation(5_000), 3))
    assert_same_bits(family(other)[0], highest)
    mine = run(outcome(2, 1, shift=0.4))
    assert ledger.look(mine) == other.look(mine)


@pytest.mark.parametrize("seed", range(8))
def test_tallies_say_what_reading_every_row_would(ledger, seed):
    """Trials of three predictions, some of them proven, invalid or too good; swept or not, and in any order."""
    rng = np.random.default_rng(seed)
    made = [
        Trial(
            data,
            f"p{i}",
            f"m{i % 3}",
            rng.choice([np.nan, -0.3, 0.002, 0.00201, 1e9, -np.inf]),
            0,
            np.empty(0, np.float32),
            votes=f"v{i % 3}",
        )
        for data in (MINE, OTHER)
        for i in range(20)
    ]
    results = [Result(), Result(PROVEN), Result(INVALID), Result(INVALID, of_predictions=True), Result(IMPLAUSIBLE, of_predictions=True)]
    for i in rng.permutation(len(made)):
        kind = rng.integers(0, 8)
        if kind == 7:
            ledger.add([made[i]], Drawn.of(ledger.lineage_name(made[i].sketch), outcome(int(i), 1)))
            continue
        ledger.record(made[i], Result() if kind < 5 else None)
        if kind < 5:
            ledger.settle(made[i], results[kind])
    with closing(sqlite3.connect(ledger.path)) as db:
        data = [db.execute("SELECT id FROM data WHERE digest = ?", (MINE.digest,)).fetchone()[0]]
        standings = Standings(db, data)
        read = db.execute("SELECT sharpe, params, predictions, votes, id FROM trials WHERE data = ?", data).fetchall()
        entered = {row[0] for row in db.execute("SELECT trial FROM entered WHERE data = ?", data)}
    counted = [
        min(max(row[0], -MOST), MOST) for row in read if row[0] is not None and standings.of(*row[1:4]) not in (INVALID, IMPLAUSIBLE)
    ]
    told = ledger.tried(MINE)
    assert told.variance == pytest.approx(np.var(counted, ddof=1), rel=1e-9, abs=1e-12)
    assert told.trials == len(read)
    assert told.independent == sum(row[4] not in entered for row in read)  # no run of these has returns


@pytest.mark.parametrize("change", ["DELETE FROM tallies", "UPDATE tallies SET n = n - 1", "DROP TRIGGER tallied"])
def test_tallies_that_are_not_those_of_the_trials_are_said(ledger, change):
    ledger.record_many(rows(3))
    with closing(sqlite3.connect(ledger.path)) as db, db:
        db.execute(change)
    if change.startswith("DROP"):
        with pytest.raises(UserError, match="3 of 4 trials in the tallies"):
            ledger.record_many(rows(1, first=3))
    else:
        with pytest.raises(UserError, match="of 3 trials in the tallies"):
            ledger.tried(MINE)


def test_a_million_ratios_as_large_as_any_are_summed_exactly():
    """A sum of squares beyond int64 would become a rounded one, which depends on the order."""
    with closing(sqlite3.connect(":memory:")) as db:
        for version in SCHEMA:
            for statement in version:
                db.execute(statement)
        insert = (
            "INSERT INTO trials (data, params, predictions, time, name, sharpe, first_day, returns) VALUES (1, ?, 'v', 0, '', ?, 0, x'')"
        )
        db.executemany(insert, ((str(i), 32.0 - i * 2.0**-26) for i in range(10_000)))
        (tally,) = tallies(db, [1])
        units = [(32 << 26) - i for i in range(10_000)]
        assert tally.ratios == (10_000, sum(units), sum(x * x for x in units))


def test_a_run_is_judged_among_rows_of_other_spans(ledger):
    early, late, mine = outcome(3, 50), outcome(4, 50, first=160), outcome(5, 1, first=180, shift=0.3)
    enter(ledger, early, [range(50)])
    enter(ledger, late, [range(50)], first=50)
    found = ledger.look(run(mine))
    expected = judge(ledger.lineage_name(MINE), mine, [early, late])
    assert (found.trials, found.independent) == (101, 0)
    assert (found.critical, found.p) == (expected.critical, expected.p)


def test_a_run_counts_by_its_own_series_once_it_is_proven(ledger):
    luck, mine = [outcome(seed, 1) for seed in range(10, 30)], outcome(6, 1, shift=0.3)
    for number, each in enumerate(luck):
        ledger.record(run(each, number), Result())
    pending = ledger.look(run(mine, 99))
    assert (pending.trials, pending.independent, pending.pending) == (21, 20, 20)
    for number, each in enumerate(luck[:15]):
        ledger.settle(name(run(each, number)), Result("proven"))
    ledger.settle(name(run(luck[15], 15)), Result(INVALID))
    found = ledger.look(run(mine, 99))
    assert (found.trials, found.independent) == (21, 5)
    expected = judge(ledger.lineage_name(MINE), mine, luck[:15], independent(ledger.lineage_name(MINE), 5))
    assert (found.critical, found.p) == (expected.critical, expected.p)


def name(trial):
    from research.evidence.trials import TrialName

    return TrialName(trial.sketch, trial.params, trial.predictions, trial.votes)


def test_a_run_that_asks_for_its_own_verdict_is_not_counted_twice(ledger):
    mine = run(outcome(7, 1, shift=0.2))
    before = ledger.look(mine)
    recorded = ledger.record(mine, Result())
    assert (before.trials, before.independent, before.critical) == (recorded.trials, recorded.independent, recorded.critical) == (
        1, 0, before.critical,
    )  # fmt: skip
    ledger.settle(name(mine), Result("proven"))
    assert ledger.look(mine).critical == before.critical
    assert before.critical == judge(MINE.digest, mine.outcome).critical


def test_trials_without_returns_count_as_independent_ones(ledger):
    ledger.record_many(rows(99))
    found = ledger.look(run(outcome(8, 1)))
    assert (found.trials, found.independent) == (100, 99)
    assert found.critical >= critical(independent(ledger.lineage_name(MINE), 99))
    enter(ledger, outcome(9, 99), [range(99)])  # the same settings, swept
    assert ledger.look(run(outcome(8, 1))).independent == 0


def test_other_markets_do_not_count(ledger):
    ledger.record_many(rows(500, data=OTHER))
    assert ledger.look(run(outcome(8, 1))).critical == judge(MINE.digest, outcome(8, 1)).critical


def test_declared_trials_count_before_they_are_made(ledger):
    ledger.declare(MINE, 50)
    ledger.declare(MINE, 50)
    mine = run(outcome(8, 1))
    found = ledger.look(mine)
    assert (found.trials, found.declared, found.independent) == (1, 50, 49)
    ledger.record_many(rows(10))
    assert ledger.look(mine).independent == 49  # 10 without returns, 39 to come
    enter(ledger, outcome(9, 10), [range(10)])
    assert ledger.look(mine).independent == 39
    with pytest.raises(ConfigError, match="--declare must be 50, as declared on these candles before, was 60"):
        ledger.declare(MINE, 60)
    ledger.record_many(rows(3, data=OTHER))
    with pytest.raises(ConfigError, match="--declare must come before the first trial on these candles, was after 3"):
        ledger.declare(OTHER, 5)
    assert ledger.look(run(outcome(8, 1), data=OTHER)).declared == 0


def test_a_row_that_was_taken_away_is_said(ledger):
    enter(ledger, outcome(9, 10), [range(10)])
    with sqlite3.connect(ledger.path) as db:
        db.execute("DROP TRIGGER entered_kept")
        db.execute("DELETE FROM entered WHERE trial = 4")
    with pytest.raises(UserError, match="rows of sweeps without their maxima"):
        ledger.look(run(outcome(8, 1)))


def test_a_sweep_that_was_killed_leaves_no_half_part(ledger, monkeypatch):
    found = outcome(10, 300)
    enter(ledger, found, [range(100)])
    before = family(ledger)[0], ledger.count()
    with monkeypatch.context() as patch:
        patch.setattr("research.evidence.ledger.holdings", lambda db: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            enter(ledger, found, [range(100, 200)])
    assert ledger.count() == before[1]
    assert_same_bits(family(ledger)[0], before[0])
    enter(ledger, found, [range(100, 200), range(200, 300)])
    assert_same_bits(family(ledger)[0], maxima(ledger.lineage_name(MINE), found.keys, found.units))


def test_two_ledgers_that_are_merged_are_one(tmp_path):
    """Runs, rows, proofs and a reset of two machines, merged either way and twice, and what one ledger that saw all of it says."""
    found, mine = outcome(1, 3_000, shift=0.05), outcome(7, 1, shift=2.0)
    one, two, every = (Ledger(tmp_path / name / "trials.sqlite") for name in ("one", "two", "every"))
    for ledger, parts in ((one, [range(1_800)]), (two, [range(1_500, 3_000)]), (every, [range(1_800), range(1_500, 3_000)])):
        for part in parts:
            enter(ledger, found, [part])
    for ledger in (two, every):
        ledger.record(run(outcome(9, 1, shift=1.0)), Result())
        ledger.settle(run(None), Result(PROVEN))
    asks = run(mine, 1)
    assert one.merge(two.path).trials == 1_201
    seen = one.look(asks)
    assert one.merge(two.path) == (0, 0)
    assert one.look(asks) == seen == every.look(asks)
    assert_same_bits(family(one)[0], family(every)[0])
    assert len(one.results()) == len(every.results())
    two.merge(one.path)
    assert two.look(asks) == seen


def test_a_merge_says_where_a_declaration_no_longer_holds(tmp_path, monkeypatch):
    """What was tried elsewhere before the declaration was not declared."""
    older, mine = Ledger(tmp_path / "older" / "trials.sqlite"), Ledger(tmp_path / "mine" / "trials.sqlite")
    enter(older, outcome(1, 20), [range(20)])
    mine.declare(MINE, 50)
    monkeypatch.setenv("QT_HOME", str(mine.path.parent))
    said = " ".join(CliRunner().invoke(app, ["trials", "--merge", str(older.path)]).stdout.split())
    assert "20 trials added" in said
    assert "50 trials were declared before the first, but trials were added that are older: it counts as not declared" in said
    assert "declared" not in CliRunner().invoke(app, ["trials", "--merge", str(older.path)]).stdout


def test_a_merge_says_what_other_first_candles_change_and_takes_nothing_back(tmp_path):
    bars = simulate("random_walk", n_bars=400, seed=1)
    longer = sketch(simulate("random_walk", n_bars=500, seed=1))
    one, two = (Ledger(tmp_path / name / "trials.sqlite") for name in ("one", "two"))
    one.record_many(rows(3, data=sketch(bars)))
    two.record_many(rows(2, first=10, data=longer))
    two.add(rows(1, first=20, data=longer), Drawn.of(two.lineage_name(longer), outcome(1, 1)))
    assert one.merge(two.path) == (3, 1)
    assert one.tried(longer).trials == 6
    assert one.tried(longer).independent == 5


def test_a_declaration_that_joins_older_trials_is_none(tmp_path):
    one, two = (Ledger(tmp_path / name / "trials.sqlite") for name in ("one", "two"))
    one.record_many(rows(3))
    two.declare(MINE, 100)
    two.record_many(rows(2, first=10))
    assert two.tried(MINE).declared == 100
    one.merge(two.path)
    assert one.tried(MINE).declared == 0
    assert one.tried(MINE).independent == 5


@pytest.mark.parametrize("content", [None, b"", b"no ledger", b"SQLite format 3\0" + bytes(100)])
def test_a_file_that_is_no_ledger_is_refused(ledger, tmp_path, content):
    ledger.record_many(rows(3))
    if content is not None:
        (tmp_path / "other").write_bytes(content)
    with pytest.raises(ConfigError, match="--merge must name a trial ledger"):
        ledger.merge(tmp_path / "other")
    assert ledger.count() == 3


@pytest.mark.parametrize("table", ["trials", "results"])
def test_a_trial_that_was_taken_away_is_said(ledger, table):
    for i in range(3):
        ledger.record(run(outcome(i, 1), i), Result())
    with sqlite3.connect(ledger.path) as db:
        db.executescript(f"DROP TRIGGER kept; DROP TRIGGER results_kept; DELETE FROM {table} WHERE id = 2")
    with pytest.raises(UserError, match=f"1 of 3 {table} missing"):
        ledger.tried(MINE)
    assert ledger.reset() is not None


def test_the_highest_t_value_of_a_market_and_what_it_needs(ledger):
    found = outcome(1, 50, shift=0.1)
    enter(ledger, found, [range(50)])
    ledger.record(run(outcome(3, 1, shift=5.0)), Result())
    t, limit = ledger.lineages(MINE)[0]["highest"]
    assert t == found.t.max()
    rest = np.maximum(family(ledger)[0], independent(ledger.lineage_name(MINE), 1))  # the run is not proven
    assert limit == critical(rest)


# what a ledger refuses


def full(ledger):
    enter(ledger, outcome(1, 50, shift=0.1), [range(50)])
    ledger.record(run(outcome(3, 1, shift=5.0)), Result(PROVEN))
    return ledger


@pytest.mark.parametrize(
    "change",
    [
        "DELETE FROM data", "UPDATE data SET digest = 'q'", "DELETE FROM spans", "DELETE FROM swept_sums", "UPDATE swept_sums SET t = 0.1",
        "UPDATE maxima SET draws = zeroblob(8000)", "DELETE FROM maxima", "INSERT INTO entered VALUES (1, 99)", "DELETE FROM entered",
        "DELETE FROM run_sums", "DELETE FROM trials", "DELETE FROM results",
    ],
)  # fmt: skip
def test_no_statement_takes_away_what_was_tried(ledger, change):
    full(ledger)
    with sqlite3.connect(ledger.path) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute(change)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE trials SET sharpe = 'x' WHERE id = 2",
        "UPDATE trials SET name = x'ff'",
        "UPDATE trials SET name = CAST(x'ff' AS TEXT)",
        "UPDATE maxima SET n = 5",
        "UPDATE swept_sums SET units = zeroblob(7)",
        "UPDATE data SET sketch = zeroblob(3)",
        "UPDATE data SET level = 64",
        "DELETE FROM data",
        "DELETE FROM spans",
        "DROP TABLE maxima",
        "INSERT INTO run_sums SELECT 99, span, t, units FROM run_sums",
        "INSERT INTO facts VALUES ('resets', '{')",
        """INSERT INTO facts VALUES ('resets', '[{"file": "a"}]')""",
        "INSERT INTO declared VALUES (1, -10, 0)",
        "PRAGMA user_version = 99",
    ],
)
def test_a_damaged_ledger_is_not_merged(ledger, tmp_path, change):
    """It is named as the one that is damaged, and the own one stays as it was."""
    full(ledger)
    other = full(Ledger(tmp_path / "other" / "trials.sqlite"))
    with sqlite3.connect(other.path) as db:
        triggers = db.execute("SELECT name FROM sqlite_master WHERE type = 'trigger' AND name != 'tallied'").fetchall()
        db.executescript("; ".join([*(f"DROP TRIGGER {name}" for (name,) in triggers), change]))
    before = ledger.lineages()
    with pytest.raises(ConfigError, match=r"--merge must name a trial ledger, .*other"):
        ledger.merge(other.path)
    assert ledger.lineages() == before


def test_a_ledger_of_the_first_version_is_merged(ledger, tmp_path):
    ledger.record_many(rows(3))
    with sqlite3.connect(tmp_path / "old") as db:
        db.executescript("; ".join([*SCHEMA[0], "PRAGMA user_version = 1"]))
    assert ledger.merge(tmp_path / "old") == (0, 0)


def test_a_declaration_before_the_first_trial_is_listed(ledger):
    ledger.declare(MINE, 20)
    (row,) = ledger.lineages()
    assert (row["tried"].trials, row["tried"].declared, row["best"], row["highest"]) == (0, 20, None, None)
    assert tried_table(ledger)["declared"].tolist() == [20]


@pytest.mark.parametrize("n", [-1, 0, 10**9 + 1, 10**16, 10**20])
def test_a_number_of_trials_that_nobody_makes_is_refused(ledger, n):
    with pytest.raises(ConfigError, match=r"--declare must be in \[1, 1,000,000,000\]"):
        ledger.declare(MINE, n)
    assert not ledger.path.exists()


def test_a_file_in_the_place_of_the_folder_is_said(tmp_path):
    (tmp_path / "home").write_text("")
    with pytest.raises(UserError, match="QT_HOME must be a folder"):
        Ledger(tmp_path / "home" / "trials.sqlite").resets()


def test_a_ledger_of_a_newer_version_is_said(ledger):
    ledger.record_many(rows(3))
    with sqlite3.connect(ledger.path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(UserError, match="must be of version"):
        ledger.count()
