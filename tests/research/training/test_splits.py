"""Do the folds keep the future out of the training?"""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import TimeSeriesSplit

from research.errors import UserError
from research.training.splits import FIT, TEST, UNUSED, VALID, combinatorial, paths, retraining_edges, single_split, walk_forward
from tests.naive import labels as naive


def ends(n: int, horizon: int) -> np.ndarray:
    return np.arange(n, dtype=np.int64) + horizon


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(400, 900),
    horizon=st.integers(1, 8),
    n_folds=st.integers(1, 8),
    embargo=st.integers(0, 8),
    train_share=st.floats(0.3, 0.7),
)
def test_folds_equal_the_plain_definition(n, horizon, n_folds, embargo, train_share):
    folds = walk_forward(ends(n, horizon), n_folds=n_folds, train_share=train_share, embargo=embargo)
    want = naive.walk_forward(n, horizon, n_folds, train_share, 0.15, embargo)
    for fold, (fit, valid, test) in zip(folds, want):
        assert (fold.fit.tolist(), fold.valid.tolist(), fold.test.tolist()) == (fit, valid, test)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(250, 700), n_folds=st.integers(1, 7), embargo=st.integers(0, 10), is_rolling=st.booleans())
def test_no_training_label_touches_a_later_part_whatever_its_length(data, n, n_folds, embargo, is_rolling):
    """Label ends of any length and order, as trades have them: purging goes by the end, not by a number of rows."""
    lengths = data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n))
    end = np.arange(n) + np.array(lengths)
    folds = walk_forward(end, n_folds=n_folds, embargo=embargo, is_rolling=is_rolling)
    tested = np.concatenate([fold.test for fold in folds])
    assert tested.tolist() == list(range(int(n * 0.4), n))  # every scored row exactly once
    for fold in folds:
        assert end[fold.fit].max() + embargo < fold.valid.min()
        assert end[fold.train].max() + embargo < fold.boundary
        assert fold.train.max() < fold.boundary == fold.test.min()
        unpurged = np.arange(fold.start, fold.boundary)
        lost = np.setdiff1d(unpurged, fold.train)
        middle = fold.boundary - round((fold.boundary - fold.start) * 0.15)
        assert all(end[t] + embargo >= (middle if t < middle else fold.boundary) for t in lost)  # nothing is lost without need
        assert fold.sizes()["purged"] == len(lost)
        if is_rolling:
            assert fold.boundary - fold.start == int(n * 0.4)


def test_purged_folds_equal_scikit_learn_with_a_gap():
    n, horizon, n_folds = 1000, 5, 6
    folds = walk_forward(ends(n, horizon), n_folds=n_folds, train_share=0.4)
    oracle = TimeSeriesSplit(n_splits=n_folds, test_size=100, gap=horizon).split(np.zeros(n))
    for fold, (train, test) in zip(folds, oracle):
        assert fold.test.tolist() == test.tolist()
        inner = fold.boundary - round(fold.boundary * 0.15)  # the validation slice takes a purge of its own
        assert fold.train.tolist() == [t for t in train if not inner - horizon <= t < inner]


def test_single_split_gives_each_row_its_role():
    (fold,) = single_split(ends(1000, 5), embargo=5)
    assert (fold.test[0], fold.valid[0], fold.fit[0]) == (850, 700, 0)
    assert (fold.fit[-1], fold.valid[-1], fold.test[-1]) == (700 - 11, 850 - 11, 999)
    roles = fold.roles(1000)
    assert [int((roles == role).sum()) for role in (UNUSED, FIT, VALID, TEST)] == [20, 690, 140, 150]


@settings(max_examples=60, deadline=None)
@given(data=st.data(), n=st.integers(400, 900), n_folds=st.integers(1, 6), embargo=st.integers(0, 10), is_rolling=st.booleans())
def test_held_rows_begin_where_no_label_of_the_fold_ends_any_more(data, n, n_folds, embargo, is_rolling):
    end = np.arange(n) + np.array(data.draw(st.lists(st.integers(0, 12), min_size=n, max_size=n)))
    told = {"n_folds": n_folds, "embargo": embargo, "is_rolling": is_rolling}
    for fold, usual in zip(walk_forward(end, held_share=0.5, **told), walk_forward(end, **told), strict=True):
        assert fold.test.tolist() == usual.test.tolist()
        assert fold.fit.tolist() == usual.fit.tolist(), "held rows come out of the validation slice alone"
        if len(fold.held):
            assert fold.held.tolist() == list(range(fold.held[0], fold.boundary))
            assert end[fold.train].max() + embargo < fold.held[0]
        else:
            assert fold.valid.tolist() == usual.valid.tolist()
        assert sum(size for name, size in fold.sizes().items() if name != "test") == fold.boundary - fold.start
    assert len(walk_forward(ends(n, 5), held_share=0.5, n_folds=1)[0].held) == round(round(int(n * 0.4) * 0.15) * 0.5)


def test_shuffling_is_refused():
    with pytest.raises(UserError, match="must keep the order of time, was shuffle=True"):
        walk_forward(ends(500, 5), shuffle=True)


@pytest.mark.parametrize("wrong", [{"n_folds": 0}, {"embargo": -1}, {"train_share": 1.0}, {"valid_share": 0.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(UserError, match="shares inside"):
        walk_forward(ends(500, 5), **wrong)


def test_too_few_bars_are_refused_with_the_remedy():
    with pytest.raises(UserError, match=r"was 40 rows with labels of 5 rows .* load a longer period or use fewer folds"):
        walk_forward(ends(40, 5), embargo=5)
    with pytest.raises(UserError, match="was 0 rows"):
        walk_forward(ends(0, 5))


def test_retraining_on_a_schedule_sets_the_folds():
    hours = np.arange(1000, dtype=np.int64) * 3_600_000_000_000
    assert retraining_edges(hours, 0.4, 250) == [400, 650, 900, 1000]
    assert retraining_edges(hours, 0.4, "10d") == [400, 640, 880, 1000]
    days = np.cumsum(np.where(np.arange(1000) % 5 == 0, 3, 1)).astype(np.int64) * 86_400_000_000_000  # five sessions a week
    assert retraining_edges(days, 0.4, "4w")[:3] == [400, 420, 440]
    folds = walk_forward(np.arange(1000) + 5, edges=retraining_edges(hours, 0.4, "10d"), embargo=5, is_rolling=True)
    assert [(fold.start, fold.boundary, len(fold.test)) for fold in folds] == [(0, 400, 240), (240, 640, 240), (480, 880, 120)]
    with pytest.raises(UserError, match="retrain_every must be rows such as 168 or a length of time such as 7d, was '0'"):
        retraining_edges(hours, 0.4, 0)


@settings(max_examples=30, deadline=None)
@given(n=st.integers(40, 120), horizon=st.integers(0, 9), n_groups=st.integers(2, 7), embargo=st.integers(0, 4), seed=st.integers(0, 99))
def test_no_training_label_touches_a_tested_one(n, horizon, n_groups, embargo, seed):
    end = np.minimum(np.arange(n) + np.random.default_rng(seed).integers(0, horizon + 1, n), n - 1)
    try:
        splits = combinatorial(end, n_groups, 1 + seed % (n_groups - 1), embargo)
    except UserError:
        return  # labels longer than a group leave nothing
    for split in splits:
        edges = [n * g // n_groups for g in range(n_groups + 1)]
        spans = [(edges[g], max(end[edges[g] : edges[g + 1]])) for g in split.groups]
        expected = [r for r in range(n) if all(end[r] < a or r > max(b + embargo, a + n // n_groups - 1) for a, b in spans)]
        assert set(split.train) <= set(range(n)) - set(split.test)
        slow = [r for r in expected if r not in set(split.test)]
        assert split.train.tolist() == slow


def test_two_of_ten_groups_give_45_splits_and_nine_paths():
    splits = combinatorial(ends(1_000, 5), 10, 2, embargo=3)
    assert len(splits) == 45
    assert splits[0].groups == (0, 1)
    assert splits[0].train[0] == 208  # 200 rows tested, whose labels read up to row 204, then 3 of embargo
    middle = next(s for s in splits if s.groups == (3, 7))
    assert 294 in middle.train
    assert 295 not in middle.train  # its label reads row 300
    assert 407 not in middle.train
    assert 408 in middle.train
    assert len(middle.train) == 1_000 - 200 - 2 * (5 + 8)
    table = paths()
    assert table.shape == (9, 10)
    assert all(g in splits[table[p, g]].groups for p in range(9) for g in range(10))
    assert np.array_equal(np.sort(table[:, 4]), [s.number for s in splits if 4 in s.groups])  # each split of a group serves one path
    with pytest.raises(UserError, match=r"must have 1 <= n_test \(--tested\) < n_groups"):
        combinatorial(ends(100, 5), 4, 4)
    with pytest.raises(UserError, match="must leave rows to train"):
        combinatorial(ends(100, 90), 4, 2)
