"""Is what the maker of predictions knew read in every form, kept everywhere, and never counted as a vote?"""

import dataclasses
from datetime import date, datetime

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from research.data import simulate
from research.errors import UserError
from research.training.import_predictions import import_predictions
from research.training.knowledge import parse_until, until_text
from research.training.models.schedule import ModelSet
from research.training.plan import TrainingPlan
from research.training.predictions import Predictions, aligned
from research.training.walk_forward import train
from tests.conftest import assert_same_bits
from tests.support.own_models import Sides

BARS = simulate("random_walk", n_bars=240, n_symbols=2)  # hours from 2000-01-01 on
TIMES = BARS.close_time.astype("M8[ns]")


def table(**columns) -> pd.DataFrame:
    """Predictions of every bar by one voter, BUY and SELL by turns."""
    n = BARS.n * 2
    said = {"mine_action": np.where(np.arange(n) % 3 == 0, "BUY", "SELL"), "mine_confidence": 0.7}
    return pd.DataFrame({"close_time": np.repeat(TIMES, 2), "symbol": np.tile(BARS.symbols, BARS.n), **said, **columns})


def first_vote(made: Predictions) -> np.datetime64:
    """Close of the first bar with a vote."""
    return TIMES[np.flatnonzero((made.votes().action >= 0).any(axis=(0, 2)))[0]]


# what a time means


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2021-06-30", "2021-07-01T00:00"),  # a date is its whole day, however it is written
        ("30.06.2021", "2021-07-01T00:00"),
        ("20210630", "2021-07-01T00:00"),
        (date(2021, 6, 30), "2021-07-01T00:00"),
        (np.datetime64("2021-06-30"), "2021-07-01T00:00"),
        ("2021-06-30 00:00", "2021-06-30T00:00"),  # a time is itself
        ("2021-06-30T12:30:00Z", "2021-06-30T12:30"),
        ("2021-06-30T14:30:00+02:00", "2021-06-30T12:30"),
        ("2021-06-30T12", "2021-06-30T12:00"),
        (datetime(2021, 6, 30), "2021-06-30T00:00"),
        (pd.Timestamp("2021-06-30"), "2021-06-30T00:00"),
        (np.datetime64("2021-06-30", "ns"), "2021-06-30T00:00"),
        (1_625_011_200, "2021-06-30T00:00"),
        ("1625011200", "2021-06-30T00:00"),
    ],
)
def test_a_date_means_its_whole_day_and_a_time_itself(written, meant):
    moment = parse_until(written)
    assert moment == np.datetime64(meant, "ns").astype(np.int64)
    assert parse_until(until_text(moment)) == moment
    assert TrainingPlan(knows_until=written).knows_until == until_text(moment)


@pytest.mark.parametrize("written", ["", " ", None])
def test_an_empty_one_is_refused(written):
    with pytest.raises(UserError, match=r"knows_until \(--knows-until\) must be a date or a time, was empty; leave it out"):
        parse_until(written)


@pytest.mark.parametrize("written", ["2021-06", "2021", np.datetime64("2021-06"), "soon", True, float("nan"), [1]])
def test_what_is_no_moment_is_refused(written):
    with pytest.raises(UserError, match=r"knows_until \(--knows-until\)"):
        parse_until(written)


def test_nanoseconds_survive_as_text():
    assert parse_until(until_text(1_625_011_200_000_000_001)) == 1_625_011_200_000_000_001


# who votes


def test_bars_that_the_maker_knew_have_no_votes_and_are_counted():
    made = Predictions.import_file(table(), BARS, knows_until="2000-01-04")
    assert made.knows_until == np.datetime64("2000-01-05", "ns").astype(np.int64)
    assert first_vote(made) == np.datetime64("2000-01-05T01:00")
    n = int((np.datetime64("2000-01-05") >= TIMES).sum())
    assert (made.contaminated == (np.arange(BARS.n) < n)[:, None]).all()
    assert f"{2 * n} of {2 * BARS.n} predictions are of bars up to 2000-01-05 00:00, which their maker knew" in made.notes[-1]
    bare = Predictions.import_file(table(), BARS)
    assert_same_bits(made.action[:, n:], bare.action[:, n:])
    assert (bare.knows_until, bare.contaminated, bool(bare.condition), made.condition) == (None, None, True, None)


@pytest.mark.parametrize("until", ["2000-01-04 12:00", "1999-12-31 12:00"])
def test_rewriting_what_the_maker_knew_changes_no_vote(until):
    made = Predictions.import_file(table(), BARS, knows_until=until)
    other = table()
    known = other["close_time"] <= pd.Timestamp(until)
    other.loc[known, "mine_action"] = "HOLD"
    again = Predictions.import_file(other, BARS, knows_until=until)
    for name in ("action", "confidence", "labels", "contaminated"):
        one, two = getattr(made, name), getattr(again, name)
        assert (one is None) == (two is None) == (not known.any() and name == "contaminated")
        if one is not None:
            assert_same_bits(one, two)


@pytest.mark.parametrize("until", ["2000-01-11 00:00", "2000-01-10", "2150-01-01"])
def test_a_maker_who_knew_every_bar_is_refused(until):
    with pytest.raises(UserError, match=r"must lie before the last prediction, 2000-01-11 00:00, was .*none is left as evidence"):
        Predictions.import_file(table(), BARS, knows_until=until)
    made = Predictions.import_file(table(), BARS, knows_until="2000-01-10 23:00")
    assert (made.votes().action >= 0).any(axis=(0, 2)).sum() == 1
    with pytest.raises(UserError, match="must lie before the last prediction, 2000-01-03 02:00, was 2000-01-10 23:00"):
        aligned(made, BARS[:50])


# what a file says


def test_a_column_says_it_of_each_row():
    days = TIMES.astype("M8[D]")
    fitted = np.repeat(days.astype("M8[ns]") - np.timedelta64(1, "h"), 2)  # each day is predicted by what was known at 23:00 before
    made = Predictions.import_file(table(knows_until=fitted), BARS)
    assert made.knows_until == fitted.min().astype("M8[ns]").astype(np.int64)
    assert (made.contaminated is None, first_vote(made)) == (True, TIMES[0])
    late = fitted.copy()
    late[2 * 99] = TIMES[100]  # one row of the hundredth bar knows its own close
    assert first_vote(Predictions.import_file(table(knows_until=late), BARS)) == TIMES[100]


def test_dates_and_times_may_stand_in_one_column():
    """A date is its whole day beside times too."""
    mixed = np.where(np.arange(2 * BARS.n) % 2 == 0, "2000-01-04", "2000-01-04 12:00")
    assert first_vote(Predictions.import_file(table(knows_until=mixed), BARS)) == np.datetime64("2000-01-05T01:00")


@pytest.mark.parametrize("time", ["open_time", "close_time"])
def test_days_named_by_their_open_end_when_they_close(time):
    """Where rows are dated by the open, who knows a date knows its bar; by the close, a date is that close."""
    bars = simulate("random_walk", n_bars=100, n_symbols=1, interval="1d")
    days = getattr(bars, time).astype("M8[ns]").astype("M8[D]").astype(str)
    frame = pd.DataFrame({time: days, "symbol": bars.symbols[0], "mine_action": "BUY", "mine_confidence": 0.7})
    made = Predictions.import_file(frame.assign(knows_until=days[60]), bars)
    assert np.flatnonzero((made.votes().action >= 0).any(axis=(0, 2)))[0] == 61
    with pytest.raises(UserError, match="none is left as evidence"):
        Predictions.import_file(frame.assign(knows_until=days), bars)


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize("name", ["knows_until", "Knows_Until", "mine_knows_until", "knows until", "mine-knows-until", "knowsUntil"])
def test_files_say_it_in_every_form(tmp_path, suffix, name):
    frame, path = table(**{name: "2000-01-04"}), tmp_path / f"mine.{suffix}"
    frame["close_time"] = frame["close_time"].astype(str)
    if suffix == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        getattr(frame, f"to_{suffix}")(path, index=False)
    made = Predictions.import_file(path, BARS)
    assert first_vote(made) == np.datetime64("2000-01-05T01:00")
    assert not [text for text in made.notes if "ignored" in text or "not read" in text]


def test_of_several_declarations_the_latest_counts():
    frame = table(knows_until="2000-01-04", mine_knows_until=np.datetime64("2000-01-06T12:00"))
    frame.loc[:, "knows_until"] = frame["knows_until"].astype(str)
    assert first_vote(Predictions.import_file(frame, BARS)) == np.datetime64("2000-01-06T13:00")
    assert first_vote(Predictions.import_file(frame, BARS, knows_until="2000-01-02")) == np.datetime64("2000-01-06T13:00")
    assert first_vote(Predictions.import_file(frame, BARS, knows_until="2000-01-07")) == np.datetime64("2000-01-08T01:00")


def test_dates_beside_dated_closes_are_read_as_these():
    bars = simulate("random_walk", n_bars=60, n_symbols=1, interval="1d")
    closes = bars.close_time.astype("M8[ns]").astype("M8[D]")
    said = {"mine_action": np.where(np.arange(60) % 2, "BUY", "SELL"), "mine_confidence": 0.7, "symbol": bars.symbols[0]}
    eve = (closes - 1).astype(str)  # a walk-forward that knows the close before
    made = Predictions.import_file(pd.DataFrame({"close_time": closes.astype(str), "knows_until": eve, **said}), bars)
    assert (made.contaminated is None, made.knows_until) == (True, (closes[0] - 1).astype("M8[ns]").astype(np.int64))


def test_an_empty_cell_of_the_column_is_refused():
    frame = table(knows_until="2000-01-04")
    frame.loc[7, "knows_until"] = None
    with pytest.raises(UserError, match="column knows_until of the predictions must have a time in every row, 1 are empty"):
        Predictions.import_file(frame, BARS)


# what is kept


def test_files_slices_and_other_bars_keep_it(tmp_path, monkeypatch):
    made = Predictions.import_file(table(), BARS, knows_until="2000-01-04")
    monkeypatch.setattr("research.training.predictions.CELLS_PER_GROUP", 64)
    path = made.save(tmp_path / "mine.parquet")
    read = Predictions.load(path)
    assert read.knows_until == made.knows_until
    assert_same_bits(read.contaminated, made.contaminated)
    stored = pq.read_table(path)["provenance"].to_pylist()
    assert (stored[0], stored[-1]) == ("contaminated", "imported")
    assert_same_bits(made[90:110].contaminated, made.contaminated[90:110])
    assert_same_bits(made.align(BARS[90:]).contaminated, made.contaminated[90:])
    again = import_predictions(path, BARS)
    assert (again.knows_until, again.condition) == (made.knows_until, None)
    later = Predictions.import_file(path, BARS, knows_until="2000-01-06")
    assert first_vote(later) == np.datetime64("2000-01-07T01:00")
    assert later.contaminated.sum() == 2 * (np.datetime64("2000-01-07") >= TIMES).sum()
    bare = Predictions.import_file(table(), BARS).save(tmp_path / "bare.parquet")
    assert set(pq.read_table(bare)["provenance"].to_pylist()) == {"undeclared"}
    assert Predictions.load(bare).condition


def test_a_stored_file_with_votes_of_known_bars_was_altered(tmp_path):
    made = Predictions.import_file(table(), BARS, knows_until="2000-01-04")
    path = dataclasses.replace(made, knows_until=made.knows_until + 3_600_000_000_000).save(tmp_path / "mine.parquet")
    with pytest.raises(UserError, match="must hold votes of the bars after 2000-01-05 01:00 alone"):
        Predictions.load(path)


def test_random_predictions_know_nothing():
    made = Predictions.random(BARS)
    assert (made.condition, made.contaminated, made.votes().action[0, 0, 0] >= 0) == (None, None, True)


# models that bring what they know


class Brings(Sides):
    """Says that it was fitted elsewhere, on data up to the sixth day."""

    knows_until = "2000-01-06"


def test_a_model_may_say_what_it_brings(tmp_path, monkeypatch):
    from research.training.models.base import register, unregister

    register("brings", "tests.research.training.test_knowledge:Brings")
    register("sides", "tests.support.own_models:Sides")
    asked = {"n_folds": 3, "train_share": 0.3, "processes": 1, "use_store": False, "profile": "published", "maps": True}
    try:
        made = train(BARS, ["sides", "brings"], out=tmp_path / "models", **asked)
        assert made.models.config["plan"]["knows_until"] == "2000-01-07T00:00Z"
        assert first_vote(made) == np.datetime64("2000-01-07T01:00")
        assert made.contaminated.any()
        stored, served = Predictions.load(tmp_path / "models" / "predictions.parquet"), Predictions.from_models(tmp_path / "models", BARS)
        for other in (stored, served):
            assert_same_bits(other.action, made.action)
            assert_same_bits(other.probs, made.probs)
            assert other.knows_until == made.knows_until
        assert served.contaminated[:, 0].any()
        folds = [a.meta["n_scored"] for a in made.models.artefacts if a.slot == "sides"]
        assert (folds[0], folds[-1] > 0) == (0, True)
        with pytest.raises(UserError, match="must be told to the training of models"):
            made.declare("2000-01-08")
        with pytest.raises(UserError, match="must come with --predictions, or with the training"):
            ModelSet.load(tmp_path / "models").check_until("2000-01-08T00:00Z")
        later = train(BARS, ["brings"], knows_until="2000-01-07", **asked)
        assert first_vote(later) == np.datetime64("2000-01-08T01:00")
        plain = train(BARS, ["sides"], **asked)
        assert (plain.knows_until, plain.models.knows_until) == (None, None)
    finally:
        unregister("brings")
        unregister("sides")
