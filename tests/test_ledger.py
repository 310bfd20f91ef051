"""Is every try counted, once, in the right lineage, whoever writes at the same time?"""

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qtcore.types import NS_PER_DAY, NS_PER_HOUR, Bars, Votes
from research.errors import UserError
from research.ledger import (
    SKETCH_SIZE,
    Ledger,
    Trial,
    daily_returns,
    effective_trials,
    hash_params,
    hash_votes,
    shared,
    sketch,
    trial_of,
)
from tests.fake_run import fake_run, walk


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
    first = trial_of(run, 0.1)
    assert first.params == hash_params(run.params.flat())
    assert first.predictions == hash_votes(run.result.votes)
    assert math.isnan(trial_of(run, None).sharpe)
    changed = Votes(run.result.votes.action, run.result.votes.confidence.copy(), run.result.votes.probs)
    changed.confidence[0, -10, 0] = np.nextafter(changed.confidence[0, -10, 0], 2.0)
    assert hash_votes(changed) != first.predictions


# files


WRITER = """
import sys
from pathlib import Path
import numpy as np
from research.ledger import Ledger, Sketch, Trial
ledger, name = Ledger(Path(sys.argv[1])), sys.argv[2]
sketch = Sketch(np.arange(1, 50, dtype=np.uint64), 0, 49)
for i in range(25):
    ledger.record(Trial(sketch, f"{name}-{i}", "v", 0.01, 0, np.zeros(3, np.float32)))
"""


def test_writers_at_the_same_time_lose_nothing(ledger):
    root = Path(__file__).resolve().parents[1]
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
