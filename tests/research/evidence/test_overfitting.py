"""Do the statistics of a search say what published code says, call noise noise, and find what is there, in seconds for 10,000 trials?"""

import time

import numpy as np
import pandas as pd
import pytest

from research.errors import UserError
from research.evidence.overfitting import (
    confidence_set,
    discoveries,
    judge_search,
    overfitting,
    overfitting_of_blocks,
    search_words,
    superiority,
)
from tests.support.fake_run import fake_run


def noise(n: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, 0.01, (n, k))


# probability of backtest overfitting


@pytest.mark.parametrize(("n", "k", "blocks"), [(200, 7, 6), (123, 30, 8), (64, 2, 6)])
def test_pbo_equals_ffn(n, k, blocks):
    ffn = pytest.importorskip("ffn")
    returns = noise(n, k, seed=n)
    returns[:, 0] = np.round(returns[:, 0], 2)
    returns[:, 1] = returns[:, 0]  # equal trials share a rank
    theirs = ffn.calc_prob_backtest_overfitting(pd.DataFrame(returns), n_blocks=blocks, full_output=True)
    ours = overfitting(returns, blocks)
    assert ours.probability == pytest.approx(theirs["pbo"], abs=1e-12)
    assert ours.mean_rank == pytest.approx(theirs["mean_oos_rank"], abs=1e-12)
    logits = np.sort(np.log(ours.ranks / (1.0 - ours.ranks)))
    np.testing.assert_allclose(logits, np.sort(theirs["logits"]), rtol=1e-9)


def test_pbo_of_noise_is_one_half():
    """The figure of the literature's control: 30 tables of 800 days x 20 trials, 10 blocks, 0.50 (0.508 +- 0.18)."""
    found = [overfitting(noise(800, 20, seed), 10).probability for seed in range(30)]
    assert np.mean(found) == pytest.approx(0.50, abs=0.08)
    assert 0.10 < np.std(found) < 0.26


def test_pbo_of_a_real_difference_is_small():
    returns = noise(800, 20)
    returns[:, 3] += 0.003
    assert overfitting(returns, 10).probability < 0.02


def test_pbo_from_block_sums_is_the_same():
    returns = noise(320, 12, seed=3)
    cut = returns.reshape(8, 40, 12)
    assert (
        overfitting_of_blocks(np.full(8, 40), cut.sum(axis=1), (cut**2).sum(axis=1)).ranks.tolist()
        == overfitting(returns, 8).ranks.tolist()
    )


def test_a_trial_that_never_trades_has_a_ratio_of_zero():
    returns = np.abs(noise(160, 5))
    returns[:, 2] = 0.0
    assert overfitting(returns, 8).probability < 1.0
    lazy = overfitting(np.column_stack([np.zeros(160), -np.abs(noise(160, 4))]), 8)
    assert lazy.ranks == pytest.approx(5 / 6)  # it wins every time: the others only lose


# superior predictive ability


def test_spa_calls_noise_noise_and_finds_the_real_one():
    """200 strategies x 1,000 days, as in the literature's control; the real one earns 0.15 % a day."""
    returns = noise(1_000, 200, seed=1)
    found = superiority(returns, block=10)
    assert found.consistent > 0.05
    assert found.lower <= found.consistent <= found.upper
    assert len(found.better) == 0
    returns[:, 17] += 0.0015
    real = superiority(returns, block=10)
    assert real.consistent < 0.01
    assert real.best == 17
    assert real.better.tolist() == [17]


@pytest.mark.parametrize("lift", [0.0, 0.0008])
def test_spa_without_studentising_agrees_with_arch(lift):
    bootstrap = pytest.importorskip("arch.bootstrap")
    returns, benchmark = noise(400, 12, seed=5), noise(400, 1, seed=6)[:, 0]
    returns[:, 4] += lift
    returns[:, 5] -= 0.004  # far below: not recentred by the consistent version
    theirs = bootstrap.SPA(-benchmark, -returns, block_size=8, reps=1_000, seed=1)
    theirs.compute()
    ours = superiority(returns, benchmark, block=8, is_studentised=False)
    for name in ("lower", "consistent", "upper"):
        assert getattr(ours, name) == pytest.approx(float(theirs.pvalues[name]), abs=0.05)  # two draws of 1,000 resamples


def test_stepm_agrees_with_arch():
    bootstrap = pytest.importorskip("arch.bootstrap")
    returns = noise(500, 15, seed=9)
    returns[:, [2, 11]] += 0.003
    theirs = bootstrap.StepM(np.zeros(500), -returns, block_size=5, reps=500, seed=1)
    theirs.compute()
    assert theirs.superior_models == [2, 11]
    for is_studentised in (True, False):
        assert superiority(returns, block=5, n_resamples=500, is_studentised=is_studentised).better.tolist() == [2, 11]


def test_under_the_null_spa_is_no_more_often_significant_than_it_says():
    p = [superiority(noise(250, 10, seed), block=5, n_resamples=200).consistent for seed in range(60)]
    assert np.mean(np.array(p) < 0.05) <= 0.12
    assert 0.3 < np.mean(p) < 0.7


def test_a_trial_that_never_moves_cannot_win():
    returns = np.column_stack([np.zeros(200), noise(200, 3) - 0.005])
    found = superiority(returns, block=5)
    assert found.consistent > 0.5
    assert found.t[0] == 0.0
    assert len(found.better) == 0


def test_the_confidence_set_leaves_out_what_is_surely_worse():
    returns = noise(400, 6, seed=2)
    returns[:, 1] -= 0.004
    returns[:, 5] += 0.004
    assert confidence_set(returns, n_resamples=300).tolist() == [5]
    assert len(confidence_set(noise(400, 5, seed=2), n_resamples=300)) >= 3
    with pytest.raises(UserError, match="at most 200 trials, was 201"):
        confidence_set(noise(50, 201))


def test_discoveries_are_those_of_benjamini_and_hochberg():
    p = np.array([0.001, 0.04, 0.03, 0.9, np.nan, 0.5])  # sorted 0.001, 0.03, 0.04: limits 0.02, 0.04, 0.06
    assert discoveries(p, 0.10).tolist() == [True, True, True, False, False, False]
    assert discoveries(p, 0.02).tolist() == [True, False, False, False, False, False]
    assert discoveries(np.array([np.nan])).tolist() == [False]


@pytest.mark.parametrize(
    ("work", "words"),
    [
        (lambda: overfitting(noise(20, 3), 16), "two rows or more and two trials"),
        (lambda: overfitting(noise(100, 1), 8), "two trials"),
        (lambda: overfitting(noise(100, 5), 7), "even number of blocks"),
        (lambda: superiority(noise(20, 3)), "30 rows"),
        (lambda: superiority(np.full((50, 2), np.nan)), "without NaN"),
    ],
)
def test_bad_tables_are_one_sentence(work, words):
    with pytest.raises(UserError, match=words):
        work()


def test_a_search_is_judged_by_its_best_run_and_its_trials():
    run = fake_run(seed=2, skill=0.5)
    alone = judge_search(run.summary["evidence"])
    assert alone["verdict"] == run.summary["evidence"]["verdict"]
    assert alone["pbo"] is None
    beside = judge_search(run.summary["evidence"], noise(300, 8))
    assert 0.0 <= beside["pbo"] <= 1.0
    assert 0.0 <= beside["spa"] <= 1.0
    assert beside["sentence"] == alone["sentence"]


def test_what_was_found_is_said_by_rules():
    found = judge_search(fake_run(seed=2, skill=0.5).summary["evidence"], noise(300, 8))
    rows = {what: (figure, judgement) for what, figure, judgement, _ in search_words(found)}
    assert len(rows) == 6
    assert rows["picking the best fails"][0] == f"{100 * found['pbo']:.1f} %"
    judged = {p: {w: j for w, _, j, _ in search_words(found | {"pbo": p, "spa": p})} for p in (0.0, 0.049, 0.05, 0.49, 0.5)}
    assert [judged[p]["picking the best fails"] for p in (0.49, 0.5)] == ["noise gives 50 %", "no better than noise"]
    chance = [judged[p]["chance of such a best without skill"] for p in (0.049, 0.05)]
    assert chance == ["more than luck", "luck explains the best"]
    none = search_words(judge_search(fake_run(seed=2).summary["evidence"]))
    assert "picking the best fails" not in {row[0] for row in none}


@pytest.mark.slow
def test_ten_thousand_trials_take_seconds():
    returns = noise(1_000, 10_000)
    start = time.process_time()
    assert overfitting(returns, 16).probability > 0.1
    assert superiority(returns, block=10).consistent > 0.01
    assert time.process_time() - start < 60.0
