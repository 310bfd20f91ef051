"""Are the codes of foreign predictions and outcomes read where they mean one thing, told, and refused with the accepted forms elsewhere?"""

import dataclasses
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from qtcore.types import MODELS
from research.data import simulate
from research.errors import UserError
from research.training.foreign_codes import read_outcomes
from research.training.predictions import Predictions
from tests.conftest import assert_same_bits
from tests.research.training.test_predictions import BARS, TIMES, frame, imported

SIDES = [-1, 0, 1]
WANTED = [0, 1, 2]  # what SIDES mean, over and over


def cycle(values, n=BARS.n) -> list:
    return (list(values) * n)[:n]


def said(made, slot="xgb") -> list:
    return made.action[MODELS.index(slot), :, 0].tolist()


SPELLINGS = {
    "sides": SIDES,
    "sides as text": ["-1", "0", "1"],
    "sides as floats": [-1.0, 0.0, 1.0],
    "sides with signs": ["-1", "0", "+1"],
    "long and short": ["short", "flat", "long"],
    "in capitals": ["SHORT", "FLAT", "LONG"],
    "buy and sell": ["Sell", "hold", "BUY"],
    "ratings": ["strong_sell", "neutral", "strong_buy"],
    "ratings with spaces": ["Strong Sell", " Neutral ", "Strong-Buy"],
    "buy and sell of an enum": ["Action.SELL", "Action.HOLD", "Action.BUY"],
    "codes": [0, 1, 2],
    "codes as text": ["0", "1", "2"],
    "codes as floats": [0.0, 1.0, 2.0],
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_actions_are_read_where_the_column_shows_their_meaning(spelling, tmp_path):
    made = imported(frame(xgb_action=cycle(SPELLINGS[spelling]), xgb_confidence=0.7), tmp_path)
    assert said(made) == cycle(WANTED)
    assert (made.confidence[0, :, 0] == 0.7).all()
    is_told = not spelling.startswith(("codes", "buy"))
    assert len(made.notes) == is_told
    assert all("read as" in note for note in made.notes)


def test_two_sides_without_a_hold_are_read():
    made = Predictions.import_file(frame(xgb_action=cycle([-1, 1]), xgb_confidence=0.7), BARS)
    assert said(made) == cycle([0, 2])
    assert made.notes == ("xgb_action holds -1, 1: read as -1 SELL, 0 HOLD, 1 BUY",)


def test_an_absent_vote_stays_absent_in_our_codes():
    made = Predictions.import_file(frame(xgb_action=cycle([-1, 0, 1, 2]), xgb_confidence=0.7), BARS)
    assert said(made) == cycle([-1, 0, 1, 2])
    silent = frame(xgb_action=-1, xgb_confidence=np.nan, lgbm_action=cycle([0, 1, 2]), lgbm_confidence=0.6)
    assert Predictions.import_file(silent, BARS).slots == ("lgbm",)


REFUSED = {
    "0 and 1": ([0, 1], r"xgb_action must say which number is which action, was 0, 1 alone"),
    "1 alone": ([1], r"was 1 alone, which may mean several"),
    "0 alone": ([0], r"was 0 alone"),
    "-1 alone": ([-1], r"was -1 alone"),
    "-1 and 0": ([-1, 0], r"was -1, 0 alone"),
    "truth": ([True, False], r"must hold actions, was 'TRUE', 'FALSE'; write buy, hold, sell"),
    "five steps": ([-2, -1, 0, 1, 2], r"must hold the numbers of one coding, was with -2"),
    "scores": ([0.1, 0.7, 2.0], r"was with 0.1"),
    "258": ([0, 1, 2, 258], r"was with 258"),
    "a billion": ([0, 1, 2, 10**9], r"was with 1e\+09"),
    "one and a half": ([0, 1, 2, 1.5], r"was with 1.5"),
    "infinite": ([0.0, 1.0, 2.0, np.inf], r"was with inf"),
    "unknown words": (
        ["up", "down"],
        r"must hold actions, was 'UP', 'DOWN'; write buy, hold, sell \(or long, flat, short\), or the numbers",
    ),
    "words and numbers": (["BUY", "0", "1"], r"must hold words or numbers, was a mix"),
    "lists": ([["BUY"], ["SELL"]], r"must hold words or numbers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_may_mean_several_things_is_refused_with_the_forms(case):
    values, match = REFUSED[case]
    with pytest.raises(UserError, match=match) as told:
        Predictions.import_file(frame(xgb_action=cycle(values), xgb_confidence=0.7), BARS)
    assert "\n" not in str(told.value)


def probable(actions, n=BARS.n) -> dict:
    """Probabilities whose largest is the class of each row."""
    rows = np.full((n, 3), 0.2)
    rows[np.arange(n), cycle(actions, n)] = 0.6
    return dict(zip(("xgb_p_sell", "xgb_p_hold", "xgb_p_buy"), rows.T))


@pytest.mark.parametrize(("held", "meant"), [([0, 1], [0, 1]), ([0, 1], [1, 2]), ([1], [2]), ([1], [1]), ([-1, 0], [0, 1]), ([-1], [0])])
def test_probabilities_of_the_row_prove_the_coding(held, meant):
    made = Predictions.import_file(frame(xgb_action=cycle(held), xgb_confidence=0.6, **probable(meant)), BARS)
    assert said(made) == cycle(meant)


def test_probabilities_that_prove_nothing_refuse():
    with pytest.raises(UserError, match="was 0, 1 alone"):
        Predictions.import_file(frame(xgb_action=cycle([0, 1]), xgb_confidence=0.6, **probable([0, 1, 2])), BARS)


@pytest.mark.parametrize("sure", [True, False])
def test_actions_that_differ_from_the_largest_probability_are_counted(sure):
    own = ["HOLD"] * 8 + ["BUY"] * (BARS.n - 8)
    made = Predictions.import_file(frame(xgb_action=own, **({"xgb_confidence": 0.6} if sure else {}), **probable([2])), BARS)
    assert said(made) == ([1] * 8 + [2] * (BARS.n - 8) if sure else [2] * BARS.n)
    counted = "actions" if sure else "probabilities"
    assert made.notes == (f"8 of 80 actions of xgb differ from the largest probability; the {counted} count",)


@pytest.mark.parametrize("more", [{}, {"xgb_confidence": 0.6}])
def test_actions_that_are_the_opposite_of_the_probabilities_are_refused(more):
    with pytest.raises(
        UserError, match=r"xgb_action must agree with xgb_p_sell, .* opposite of the largest probability in 40 of 80 rows; leave"
    ):
        Predictions.import_file(frame(xgb_action=cycle(["BUY", "HOLD"]), **probable([0, 1]), **more), BARS)


def test_a_confidence_beside_probabilities_without_an_action_is_told():
    made = Predictions.import_file(frame(xgb_confidence=0.9, **probable([0, 1, 2])), BARS)
    assert made.notes == ("xgb_confidence is not read without xgb_action; the probabilities count",)


def test_the_other_models_of_a_file_show_the_coding_unless_they_differ():
    rest = {"xgb_action": cycle([0, 1]), "xgb_confidence": 0.6, "lgbm_confidence": 0.6, "nhits_confidence": 0.6}
    made = Predictions.import_file(frame(**rest, lgbm_action=cycle([0, 1, 2]), nhits_action=1), BARS)
    assert (said(made), said(made, "nhits")) == (cycle([0, 1]), cycle([1]))
    made = Predictions.import_file(frame(**rest, lgbm_action=cycle(SIDES), nhits_action=1), BARS)
    assert (said(made), said(made, "nhits")) == (cycle([1, 2]), cycle([2]))
    with pytest.raises(UserError, match="was 0, 1 alone"):
        Predictions.import_file(frame(**rest, lgbm_action=cycle(SIDES), nhits_action=cycle([0, 1, 2])), BARS)


def test_the_meaning_does_not_depend_on_which_rows_match():
    table = frame(xgb_action=[*cycle([0, 1], BARS.n - 1), 2], xgb_confidence=0.7)
    made = Predictions.import_file(table, BARS[:20])
    assert said(made) == cycle([0, 1], 20)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([70.0, 55.5, 100.0], [0.7, 0.555, 1.0]), ([0, 60], [0.0, 0.6]),
     (["70%", "55.5 %", "0.5%"], [0.7, 0.555, 0.005]), ([0.7, 1.0], [0.7, 1.0])],
)  # fmt: skip
def test_confidences_in_per_cent_are_read_and_told(values, wanted):
    made = Predictions.import_file(frame(xgb_action="BUY", xgb_confidence=cycle(values)), BARS)
    np.testing.assert_allclose(made.confidence[0, :, 0], cycle(wanted))
    assert made.notes == (() if values == [0.7, 1.0] else ("xgb_confidence is read as per cent",))


@pytest.mark.parametrize("values", [[0.7, 55.0, 60.0], [70.0, 101.0], [-50.0, 50.0, 60.0], [730, 810], [1, 55, 60]])
def test_confidences_of_no_scale_are_refused(values):
    with pytest.raises(UserError, match=r"xgb_confidence must be fractions in \[0, 1\], or per cent above 1 up to 100, was from"):
        Predictions.import_file(frame(xgb_action="BUY", xgb_confidence=cycle(values)), BARS)


def test_probabilities_in_per_cent_are_read_and_those_without_a_sum_refused():
    table = frame(xgb_p_sell=20.0, xgb_p_hold=cycle([30.0, 50.0]), xgb_p_buy=cycle([50.0, 30.0]))
    made = Predictions.import_file(table, BARS)
    assert said(made) == cycle([2, 1])
    assert made.probs[0, 0, 0].tolist() == [0.2, 0.3, 0.5]
    assert made.notes == ("xgb_p_sell, _p_hold and _p_buy are read as per cent",)
    with pytest.raises(UserError, match=r"that sum to 1, or per cent that sum to 100, was with a sum of 1\.5 in row 1"):
        Predictions.import_file(frame(xgb_p_sell=0.5, xgb_p_hold=0.5, xgb_p_buy=0.5), BARS)


def test_a_value_off_the_scale_of_the_others_is_named_with_its_row():
    values = [60.0] * 7 + [250.0] + [60.0] * (BARS.n - 8)
    with pytest.raises(UserError, match=r"xgb_confidence must be fractions .*, was from 60 to 250, 250 in row 8; write fractions"):
        Predictions.import_file(frame(xgb_action="BUY", xgb_confidence=values), BARS)


def test_probabilities_with_per_cent_signs_are_read_and_told(tmp_path):
    made = imported(frame(xgb_p_sell="12.34%", xgb_p_hold="37.66 %", xgb_p_buy="50%"), tmp_path)
    np.testing.assert_allclose(made.probs[0, :, 0], np.tile([0.1234, 0.3766, 0.5], (BARS.n, 1)))
    assert made.notes == ("xgb_p_sell, _p_hold and _p_buy are read as per cent",)
    with pytest.raises(UserError, match="xgb_p_sell, _p_hold and _p_buy must all be written with a per cent sign, or none of them"):
        imported(frame(xgb_p_sell="20%", xgb_p_hold=0.3, xgb_p_buy=0.5), tmp_path)
    with pytest.raises(UserError, match=r"was with a sum of 0\.01 in row 1"):
        imported(frame(xgb_p_sell="0.2%", xgb_p_hold="0.3%", xgb_p_buy="0.5%"), tmp_path)


@pytest.mark.parametrize(("column", "value"), [("xgb_p_hold", "0,3"), ("xgb_p_hold", "a third"), ("lgbm_confidence", "high")])
def test_words_in_a_column_of_numbers_are_refused_with_column_row_and_value(column, value):
    table = frame(xgb_p_sell=0.2, xgb_p_hold=0.3, xgb_p_buy=0.5, lgbm_action="BUY", lgbm_confidence=0.6).astype({column: object})
    table.loc[3:, column] = value
    with pytest.raises(
        UserError, match=f"{column} must hold numbers such as 0.7, or 70% in every row, was '{value}' in row 4 and others in 76 rows"
    ):
        Predictions.import_file(table, BARS)


def test_a_file_without_any_vote_is_refused_with_the_reason():
    with pytest.raises(UserError, match="must hold a vote, was without: 80 predictions of xgb without a vote: status error"):
        Predictions.import_file(frame(xgb_action="BUY", xgb_confidence=0.7, xgb_status="running"), BARS)
    with pytest.raises(UserError, match="must hold a vote, was without: every action is absent"):
        Predictions.import_file(frame(xgb_action=None, xgb_confidence=0.7), BARS)


# ---------------------------------------------------------------- times and symbols


def actions(times, **more) -> pd.DataFrame:
    return pd.DataFrame({"timestamp": times, "symbol": BARS.symbols[0], "xgb_action": "BUY", "xgb_confidence": 0.7} | more)


@pytest.mark.parametrize("tick", [1, 1_000, 1_000_000, 1_000_000_000])
def test_a_close_just_before_the_full_bar_means_that_bar(tick):
    made = Predictions.import_file(actions(BARS.close_time - tick), BARS)
    assert (made.action[0, :, 0] == 2).all()
    assert made.notes == ("80 values of timestamp lie just before a close, as exchanges write it, and mean that close",)
    early = Predictions.random(BARS, seed=1)
    stamped = dataclasses.replace(early, close_time=early.close_time - tick)
    assert_same_bits(stamped.align(BARS).action, early.action)


def test_open_times_are_noticed_and_read_by_their_name(tmp_path):
    for table in (
        actions(BARS.open_time),
        actions(BARS.open_time).rename(columns={"timestamp": "close_time"}),
        actions(BARS.open_time, open_time=BARS.open_time),
        actions(BARS.open_time).iloc[:20],
        actions(BARS.close_time).assign(open_time=BARS.close_time),
    ):
        with pytest.raises(UserError, match=r"of the predictions must be the close of each bar, was its open.*; add the bar's length"):
            Predictions.import_file(table, BARS)
    made = Predictions.import_file(actions(BARS.open_time).rename(columns={"timestamp": "open_time"}), BARS)
    assert (made.action[0, :, 0] == 2).all()
    assert made.notes == ("rows are placed by open_time: each predicts at the close of the bar that opens then",)


def test_closes_of_a_longer_history_are_no_open_times():
    bars = simulate("random_walk", n_bars=200, n_symbols=1)
    table = pd.DataFrame({"timestamp": bars.close_time, "symbol": bars.symbols[0], "xgb_action": "BUY", "xgb_confidence": 0.7})
    made = Predictions.import_file(table.iloc[:150], bars[50:])
    assert (made.action[0, :100, 0] == 2).all()
    assert made.notes == ("50 of 150 rows match no bar and were ignored",)


def test_rows_without_a_time_are_counted_and_unreadable_times_refused():
    times = TIMES.strftime("%Y-%m-%dT%H:%M:%SZ").to_numpy(object)
    made = Predictions.import_file(actions(np.where(np.arange(BARS.n) == 7, None, times)), BARS)
    assert made.action[0, 6:9, 0].tolist() == [2, -1, 2]
    assert made.notes == ("1 of 80 rows match no bar and were ignored",)
    for bad in ("2024-13-45T00:00:00Z", "soon"):
        with pytest.raises(UserError, match="column timestamp of the predictions must"):
            Predictions.import_file(actions(np.where(np.arange(BARS.n) == 7, bad, times)), BARS)
    with pytest.raises(UserError, match="must have a time in timestamp, was empty in every row"):
        Predictions.import_file(actions(pd.Series([None] * BARS.n)), BARS)
    with pytest.raises(UserError, match="must have times of one kind in timestamp"):
        Predictions.import_file(actions(pd.Series([1, "2024-01-01"] * 40)), BARS)


@pytest.mark.parametrize("name", ["btc/usdt", "BTC-USDT", "BTC/USDT:USDT", "BTCUSDT_PERP", "BTCUSDT"])
def test_symbols_are_matched_by_the_stated_spelling_rules(name):
    made = Predictions.import_file(actions(TIMES).assign(symbol=name), BARS)
    assert (made.action[0, :, 0] == 2).all()
    assert made.notes == (() if name == "BTCUSDT" else (f"a prediction was matched by spelling: {name} is BTCUSDT",))


def test_dates_in_digits_are_dates_and_told():
    bars = simulate("random_walk", n_bars=60, n_symbols=1, interval="1d")
    days = pd.to_datetime(bars.close_time).strftime("%Y%m%d").astype(int)
    table = pd.DataFrame({"timestamp": days, "symbol": bars.symbols[0], "xgb_action": "BUY", "xgb_confidence": 0.7})
    made = Predictions.import_file(table, bars)
    assert (made.action[0, :, 0] == 2).all()
    assert "is read as dates" in made.notes[0]


def test_a_frame_that_keeps_its_keys_in_the_index_is_read(tmp_path):
    table = frame(xgb_action="BUY", xgb_confidence=0.7).set_index(["close_time", "symbol"])
    table.to_parquet(tmp_path / "p.parquet")
    for source in (table, tmp_path / "p.parquet"):
        assert (Predictions.import_file(source, BARS).action[0, :, 0] == 2).all()


def test_our_own_table_without_its_metadata_is_a_foreign_file(tmp_path):
    made = Predictions.random(BARS, seed=1)
    table = pq.read_table(made.save(tmp_path / "p.parquet"))
    pq.write_table(table.replace_schema_metadata(None).sort_by("symbol"), tmp_path / "q.parquet")
    again = Predictions.import_file(tmp_path / "q.parquet", BARS)
    assert_same_bits(again.action, made.action)
    assert_same_bits(again.confidence, made.confidence)
    assert again.imported


def test_rows_of_our_own_file_that_match_no_bar_are_noted(tmp_path):
    path = Predictions.random(BARS, seed=1).save(tmp_path / "p.parquet")
    assert Predictions.import_file(path, BARS[:20]).notes == ("random predictions", "180 of 240 rows match no bar and were ignored")


def test_a_deep_line_is_skipped_and_counted(tmp_path):
    line = {"timestamp": TIMES[0].isoformat(), "symbol": BARS.symbols[0], "xgb_action": "long", "xgb_confidence": 0.7}
    (tmp_path / "p.jsonl").write_text(f"{json.dumps(line)}\n{'[' * 100_000}\n")
    made = Predictions.import_file(tmp_path / "p.jsonl", BARS)
    assert made.notes == ("1 lines are no JSON objects and were skipped", "xgb_action: LONG is read as BUY")


# ---------------------------------------------------------------- outcomes


@pytest.mark.parametrize(
    "values",
    [["win", "loss"], ["WIN", "LOSS"], ["Won", "Lost"], [True, False], ["True", "False"], ["yes", "no"], ["Y", "N"], [1, 0], [1.0, -1.0],
     ["1", "0"]],
)  # fmt: skip
def test_outcomes_in_common_spellings(values):
    assert read_outcomes(np.array(values, object), "outcome").tolist() == ["win", "loss"]


def test_outcomes_of_no_meaning_are_refused_and_single_ones_left_empty():
    assert read_outcomes(np.array(["win", "pending", "Break Even", None], object), "outcome").tolist() == ["win", "", "breakeven", ""]
    with pytest.raises(
        UserError, match=r"outcome must be win, loss or breakeven \(or true and false, yes and no, 1 and 0\), was '2.5', '7.0'"
    ):
        read_outcomes(np.array([2.5, 7]), "outcome")


@pytest.mark.parametrize("words", [["exit", "hold", "buy"], ["sell", "hold", "enter"], ["down", "neutral", "up"]])
def test_one_side_under_an_unknown_word_is_refused(words):
    """It would not vote in a third of the rows, and the other side would."""
    with pytest.raises(UserError, match=r"must hold actions, was '(EXIT|ENTER|DOWN', 'UP)' in \d+ of \d+ rows; write buy, hold, sell"):
        Predictions.import_file(frame(xgb_action=cycle(words), xgb_confidence=0.7), BARS)


def test_shares_with_the_sign_of_the_side_are_refused():
    with pytest.raises(UserError, match=r"must be fractions in .*, was from -0.7 to 0.7"):
        Predictions.import_file(frame(xgb_action=cycle(["sell", "hold", "buy"]), xgb_confidence=cycle([-0.7, 0.5, 0.7])), BARS)


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize("places", [2, 3])
def test_rounded_probabilities_are_all_read_and_told(scale, places):
    exact = np.random.default_rng(places).dirichlet([4.0, 4.0, 4.0], BARS.n)
    probs = exact.round(places) * scale
    columns = {f"xgb_p_{side}": probs[:, i] for i, side in enumerate(("sell", "hold", "buy"))}
    made = Predictions.import_file(frame(**columns), BARS)
    assert said(made) == probs.argmax(axis=1).tolist()
    assert np.allclose(made.probs[0, :, 0].sum(axis=-1), 1.0, rtol=0.0, atol=1e-12)
    assert np.allclose(made.probs[0, :, 0], exact, rtol=0.0, atol=2.0 * 10.0**-places)
    assert any("are rounded (sums of 0.9" in note and "divided by them" in note for note in made.notes)


NAMED = frame(xgb_action=cycle(["sell", "hold", "buy"]), xgb_confidence=0.7)


@pytest.mark.parametrize("time", ["Close Time", "closeTime", "close_time", "timestamp", "Date", "datetime", None])
@pytest.mark.parametrize("symbol", ["symbol", "Ticker", "pair"])
def test_names_of_the_time_and_the_symbol_are_read_and_told(time, symbol, tmp_path):
    rows = NAMED.rename(columns={"close_time": "time", "timestamp": "time"})
    rows = rows.rename(columns={"symbol": symbol})
    rows = rows.set_index("time").rename_axis(None) if time is None else rows.rename(columns={"time": time})
    rows.to_csv(tmp_path / "p.csv", index=time is None)
    for source in (rows, tmp_path / "p.csv"):
        made = Predictions.import_file(source, BARS)
        assert said(made) == cycle(WANTED)
        is_close = time is not None and time.lower().startswith(("close", "timestamp"))
        assert any("is read as the close of each bar" in note for note in made.notes) == (not is_close)


def test_an_index_of_numbers_is_no_time(tmp_path):
    counted = NAMED[NAMED["xgb_action"] != "hold"]
    opened = counted.assign(close_time=BARS.open_time[counted.index]).rename(columns={"close_time": "open_time"})
    wanted = [action if action != 1 else -1 for action in cycle(WANTED)]
    for rows in (counted, opened):
        rows.to_csv(tmp_path / "p.csv")
        for source in (rows, tmp_path / "p.csv"):
            made = Predictions.import_file(source, BARS)
            assert said(made) == wanted
            assert not any("column index" in note or "unnamed" in note for note in made.notes)
    bare = counted.drop(columns="close_time")
    bare.to_csv(tmp_path / "p.csv")
    for source in (bare, tmp_path / "p.csv"):
        with pytest.raises(
            UserError, match=r"must have the columns close_time .*, was (index|one without a name), .*; name them, an index too"
        ):
            Predictions.import_file(source, BARS)


def test_rows_without_a_symbol_are_of_the_only_one():
    alone = simulate("random_walk", n_bars=BARS.n, n_symbols=1)
    rows = pd.DataFrame({"close_time": alone.close_time, "xgb_action": cycle(["sell", "hold", "buy"]), "xgb_confidence": 0.7})
    made = Predictions.import_file(rows, alone, "L1")
    assert said(made) == cycle(WANTED)
    assert made.notes == (f"no column of symbols; every row is of {alone.symbols[0]}",)
    with pytest.raises(UserError, match="must have the columns close_time"):
        Predictions.import_file(rows, BARS)


@pytest.mark.parametrize("form", ["csv", "csv.gz", "json"])
def test_csv_and_one_list_of_json_are_read(form, tmp_path):
    path = tmp_path / f"p.{form}"
    NAMED.to_json(path, orient="records", date_format="iso") if form == "json" else NAMED.to_csv(path, index=False)
    assert said(Predictions.import_file(path, BARS)) == cycle(WANTED)
    path.write_bytes(path.read_bytes()[:-9])  # cut
    if form == "json":  # one line, which is no object
        with pytest.raises(UserError, match="must have at least one row"):
            Predictions.import_file(path, BARS)
    elif form == "csv.gz":
        with pytest.raises(UserError, match="must be a readable file"):
            Predictions.import_file(path, BARS)


@pytest.mark.parametrize("words", [["win", "stopped"], ["tp", "loss", "loss"], ["WIN", "LOSS", "tie"]])
def test_one_outcome_under_an_unknown_word_is_refused(words):
    with pytest.raises(UserError, match=r"outcome must be win, loss or breakeven .*, was '(STOPPED|TP|TIE)' in \d+ of \d+ rows"):
        read_outcomes(np.array(cycle(words), object), "outcome")
    assert read_outcomes(np.array(["win", "", None, "open", "loss"], object), "outcome").tolist() == ["win", "", "", "", "loss"]
