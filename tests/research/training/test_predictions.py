"""Do predictions survive the disk, the import and the alignment, and is every mismatch told in a sentence?"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest

import research
from qtcore.check import as_votes
from qtcore.types import MODELS
from research.data import simulate
from research.data.frames import to_pandas
from research.errors import UserError
from research.training.labels import LABELS
from research.training.predictions import Predictions
from research.training.predictions_file import stream_predictions
from tests.conftest import assert_same_bits, awkward_bars
from tests.research.cli.test_cli import qt
from tests.support import FLAG, PUBLISHED

BARS = awkward_bars(80, seed=4, n_symbols=3)
TIMES = pd.to_datetime(BARS.close_time, utc=True)
ARRAYS = ("open_time", "close_time", "probs", "action", "confidence", "fold", "labels")


def same(a: Predictions, b: Predictions) -> None:
    for name in ARRAYS:
        if getattr(a, name) is None:
            assert getattr(b, name) is None
        else:
            assert_same_bits(getattr(a, name), getattr(b, name), name)
    assert (a.symbols, a.label, a.imported, a.notes) == (b.symbols, b.label, b.imported, b.notes)


def frame(**columns) -> pd.DataFrame:
    """One row per bar of the first symbol."""
    return pd.DataFrame({"close_time": TIMES, "symbol": BARS.symbols[0], **columns})


def imported(table, tmp_path, **options) -> Predictions:
    path = tmp_path / "mine.parquet"
    table.to_parquet(path)
    return Predictions.import_file(path, BARS, **options)


def test_action_is_the_first_largest_probability_and_confidence_its_value():
    probs = np.full((5, 3, 1, 3), np.nan)
    probs[0, :, 0] = [[0.2, 0.5, 0.3], [0.4, 0.2, 0.4], [np.nan, 0.5, 0.5]]
    bars = awkward_bars(3, n_symbols=1)
    made = Predictions.from_probs(bars, probs, np.zeros(3, np.int16), np.zeros((3, 1), np.int8), LABELS["L3"])
    assert made.action[0, :, 0].tolist() == [1, 0, -1]
    assert made.confidence[0, :2, 0].tolist() == [0.5, 0.4]
    assert np.isnan(made.confidence[0, 2, 0])
    assert made.seed is None


def test_what_is_stored_is_read_back_to_the_bit(tmp_path, monkeypatch):
    made = Predictions.random(BARS, seed=1)
    path = made.save(tmp_path / "deep" / "p.parquet")
    same(made, Predictions.load(path))
    assert not list(tmp_path.rglob("*.tmp"))
    monkeypatch.setattr("research.training.predictions.CELLS_PER_GROUP", 30)  # ten bars a row group
    path = made.save(tmp_path / "blocks.parquet")
    blocks = list(stream_predictions(path))
    assert [block.n for block in blocks] == [10] * 8
    same(made, Predictions.load(path))
    same(made[10:20], blocks[1])
    actions_only = dataclasses.replace(made, probs=None)
    same(actions_only, Predictions.load(actions_only.save(tmp_path / "a.parquet")))


def test_the_stored_table_has_the_documented_columns():
    made = Predictions.random(BARS, seed=1)
    table = made.to_polars()
    per_model = [f"{m}_{part}" for m in MODELS for part in ("p_sell", "p_hold", "p_buy", "action", "confidence")]
    assert table.columns == ["close_time", "open_time", "symbol", "fold", "provenance", "label", *per_model]
    pandas = made.to_pandas()
    assert pandas.index.names == ["open_time", "symbol"]
    assert str(pandas.index.levels[0].tz) == "UTC"
    cell = pandas.loc[(pd.Timestamp(BARS.open_time[7], tz="UTC"), BARS.symbols[2])]
    assert cell["nhits_p_buy"] == made.probs[2, 7, 2, 2]
    assert cell["provenance"] == "imported"


def test_votes_fit_the_engine():
    made = Predictions.random(BARS, seed=1)
    votes = as_votes(made.votes(), BARS.n, len(BARS.symbols))
    assert (votes.action[:, np.isnan(BARS.close)] == -1).all()
    assert made.slots == MODELS[:4]
    assert "4 symbols" not in repr(made)
    assert "80 bars, 3 symbols" in repr(made)


def test_alignment_moves_cells_to_other_bars_and_keeps_their_labels():
    made = Predictions.random(BARS, seed=1, label="L5")
    same(made, made.align(BARS))
    part = awkward_bars(80, seed=4, n_symbols=3)[30:60]
    cut = made.align(part)
    assert_same_bits(cut.probs, np.ascontiguousarray(made.probs[:, 30:60]))
    assert_same_bits(cut.labels, np.ascontiguousarray(made.labels[30:60]))
    planes = {name: np.ascontiguousarray(getattr(BARS, name)[:, [2, 0]]) for name in ("open", "high", "low", "close", "volume")}
    swapped = dataclasses.replace(BARS, symbols=(BARS.symbols[2], BARS.symbols[0]), **planes)
    assert_same_bits(made.align(swapped).action, np.ascontiguousarray(made.action[:, :, [2, 0]]))
    back = cut.align(BARS)
    assert (back.action[:, 30:60] == made.action[:, 30:60]).all()
    assert (back.action[:, :30] == -1).all()
    assert (back.labels[60:] == -1).all()


def test_predictions_of_other_bars_are_refused_with_the_number_that_matched():
    made = Predictions.random(BARS, seed=1)
    with pytest.raises(UserError, match=r"0 of 240 rows did: they cover 2024-01-01 01:00 to .* the bars 2033"):
        made.align(dataclasses.replace(BARS, open_time=BARS.open_time + 3 * 10**17, close_time=BARS.close_time + 3 * 10**17))
    late = dataclasses.replace(made, open_time=made.open_time + 10**9, close_time=made.close_time + 10**9)
    with pytest.raises(UserError, match=r"they cover 2024-01-01 01:00:01 to .*:01, the bars 2024-01-01 01:00 to .*:00 \(UTC\)"):
        late.align(BARS)
    with pytest.raises(UserError, match=r"0 of 240 rows did: their symbols are BTCUSDT, ETHUSDT, SOLUSDT, those of the bars A, B, C"):
        made.align(dataclasses.replace(BARS, symbols=("A", "B", "C")))


def test_a_file_that_is_not_ours_is_refused(tmp_path):
    frame(xgb_action="BUY", xgb_confidence=0.7).to_parquet(tmp_path / "x.parquet")
    with pytest.raises(UserError, match="must be predictions that this program stored"):
        Predictions.load(tmp_path / "x.parquet")
    (tmp_path / "y.parquet").write_text("nothing")
    with pytest.raises(UserError, match="must be a Parquet file of predictions"):
        Predictions.load(tmp_path / "y.parquet")
    with pytest.raises(UserError, match="must be a Parquet file of predictions"):
        Predictions.load(tmp_path / "z.parquet")


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    import pyarrow.parquet as pq

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    with pytest.raises(UserError, match="No space left on device"):
        Predictions.random(BARS).save(tmp_path / "p.parquet")
    assert list(tmp_path.iterdir()) == []


def test_import_of_actions_and_confidences(tmp_path):
    table = frame(
        xgb_action=["buy", "SELL", "Hold", None] * 20, XGB_Confidence=0.7, lightgbm_action=[2, 0, 1, -1] * 20, lightgbm_confidence=0.6
    )
    made = imported(table, tmp_path, label="L3")
    assert made.imported
    assert made.probs is None
    assert made.label == LABELS["L3"]
    assert made.action[0, :4, 0].tolist() == [2, 0, 1, -1]
    assert made.action[1, :4, 0].tolist() == [2, 0, 1, -1]
    assert made.confidence[0, :3, 0].tolist() == [0.7] * 3
    assert np.isnan(made.confidence[0, 3, 0])
    assert (made.action[:, :, 1:] == -1).all()
    assert made.notes == ()
    as_votes(made.votes(), BARS.n, 3)


def test_import_of_probabilities(tmp_path):
    table = frame(patch_p_sell=0.2, patch_p_hold=[0.3, 0.5] * 40, patch_p_buy=[0.5, 0.3] * 40)
    made = imported(table, tmp_path)
    assert made.slots == ("patchtst",)
    assert made.action[3, :2, 0].tolist() == [2, 1]
    assert made.probs[3, 0, 0].tolist() == [0.2, 0.3, 0.5]
    assert np.isnan(made.probs[0]).all()


def test_what_may_not_vote_is_counted(tmp_path):
    n = BARS.n
    table = frame(
        xgb_action=["BUY", "MOON", "SELL", "BUY", "BUY", "SELL"] + ["HOLD"] * (n - 6),
        xgb_confidence=[0.7, 0.7, 1.2, np.nan, -0.1, 0.9] + [0.6] * (n - 6),
        lgbm_action="BUY",
        lgbm_confidence=0.8,
        lgbm_status=["active", "shadow", "fallback", "insufficient", "error", "odd"] + [None] * (n - 6),
        nhits_action="BUY",
        nhits_confidence=0.8,
        nhits_version=["v1", "insufficient_history"] + ["v1"] * (n - 2),
        tft_p_sell=[0.2, 0.9] + [0.2] * (n - 2),
        tft_p_hold=[0.2, 0.9] + [0.2] * (n - 2),
        tft_p_buy=[0.6, 0.9] + [0.6] * (n - 2),
    )
    made = imported(table, tmp_path)
    assert made.action[0, :6, 0].tolist() == [2, -1, -1, -1, -1, 0]
    assert made.action[1, :6, 0].tolist() == [2, -1, -1, -1, -1, -1]
    assert made.action[2, :3, 0].tolist() == [2, -1, 2]
    assert made.action[4, :3, 0].tolist() == [2, -1, 2]
    text = " | ".join(made.notes)
    for part in (
        "4 predictions of xgb without a vote: status error",
        "1 prediction of lgbm without a vote: status shadow",
        "2 predictions of lgbm without a vote: status error",
    ):
        assert part in text
    assert "1 prediction of nhits without a vote: status insufficient" in text
    assert "1 prediction of tft without a vote: status error" in text


def test_import_of_json_lines_as_the_chain_logs_them(tmp_path):
    lines = [
        json.dumps(
            {
                "timestamp": TIMES[t].isoformat().replace("+00:00", "Z"),
                "symbol": BARS.symbols[1],
                "base_predictions": {"xgb": {"action": "BUY", "confidence": 0.6}, "patch": {"action": "SELL", "confidence": 0.7}},
                "ensemble_action": "HOLD",
                "ensemble_confidence": 0.5,
                "regime": {"volatility": 0.5},
            }
        )
        for t in range(20)
    ]
    lines[3] = "{broken"
    lines[4] = "[1, 2]"
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines) + "\n\n")
    made = Predictions.import_file(path, BARS)
    assert made.action[0, :6, 1].tolist() == [2, 2, 2, -1, -1, 2]
    assert made.action[3, 0, 1] == 0
    assert made.notes == ("2 lines are no JSON objects and were skipped",)


@pytest.mark.parametrize("form", ["naive", "zoned", "ms", "s", "ns", "parquet_ms"])
def test_times_come_in_many_forms(form, tmp_path):
    values = {
        "naive": TIMES.tz_localize(None).astype(str),
        "zoned": [t.tz_convert("Asia/Tokyo" if i % 2 else "America/New_York").isoformat() for i, t in enumerate(TIMES)],
        "ms": BARS.close_time // 10**6,
        "s": BARS.close_time / 1e9,
        "ns": BARS.close_time,
        "parquet_ms": TIMES.as_unit("ms"),
    }[form]
    table = pd.DataFrame({"timestamp": values, "symbol": BARS.symbols[0], "xgb_action": "BUY", "xgb_confidence": 0.7})
    made = Predictions.import_file(table, BARS)
    assert (made.action[0, :, 0] == 2).all()
    assert (Predictions.import_file(pl.from_pandas(table), BARS).action == made.action).all()


def test_rows_that_match_nothing_or_repeat_are_noted(tmp_path):
    table = frame(xgb_action="BUY", xgb_confidence=0.7)
    stray = table.iloc[:2].assign(symbol="XYZ")
    again = table.iloc[[5]].assign(xgb_action="SELL")
    made = imported(pd.concat([table, stray, again]), tmp_path)
    assert made.notes == (
        "2 of 83 rows match no bar and were ignored",
        "1 rows repeat a close_time and symbol, 1 of them with another prediction; the last one counts",
    )
    assert made.action[0, 5, 0] == 0
    same = imported(pd.concat([table, table.iloc[[5, 6]], table.iloc[[7]].assign(xgb_confidence=0.8)]), tmp_path)
    assert same.notes == ("3 rows repeat a close_time and symbol, 1 of them with another prediction; the last one counts",)
    assert same.confidence[0, 5:8, 0].tolist() == [0.7, 0.7, 0.8]
    same = imported(pd.concat([table, table.iloc[[5, 6]]]), tmp_path)
    assert same.notes == ("2 rows repeat a close_time and symbol, with the same predictions; the last one counts",)


def test_a_column_that_can_only_name_the_symbol_places_votes_and_is_told(tmp_path):
    made = imported(frame(xgb_action="BUY", xgb_confidence=0.7).rename(columns={"symbol": "market"}), tmp_path)
    assert made.notes == ("symbol is column market",)
    assert (made.action[0, :, 0] == 2).all()


def test_import_mistakes_are_told_in_a_sentence(tmp_path):
    good = frame(xgb_action="BUY", xgb_confidence=0.7)
    for table, match in (
        (good.assign(symbol="XYZ"), r"0 of 80 rows did: their symbols are XYZ"),
        (good.assign(close_time=good.close_time - pd.Timedelta("1h")).iloc[:1], r"must be the close of each bar, was its open"),
        (good.assign(close_time=good.close_time + pd.Timedelta("9min")), r"load the same period and bar length"),
        (good.drop(columns="symbol"), r"must have the columns close_time \(or timestamp, or open_time alone\) and symbol"),
        (good.drop(columns="xgb_confidence"), r"must hold xgb_action and xgb_confidence, or xgb_p_sell, .* was xgb_action alone; add"),
        (good[["close_time", "symbol"]], r"must hold columns such as xgb_action"),
        (good.assign(close_time="noon"), r"column close_time of the predictions must hold times, was 'noon'"),
        (good.iloc[:0], r"must have at least one row"),
        (good.assign(XGB_Confidence=0.7), r"must name a column once, capital letters or not, was 'xgb_confidence' twice"),
    ):
        with pytest.raises(UserError, match=match):
            imported(table, tmp_path)
    (tmp_path / "bad.parquet").write_text("x")
    for name in ("bad.parquet", "none.parquet", "none.jsonl"):
        with pytest.raises(UserError, match="must be a readable file"):
            Predictions.import_file(tmp_path / name, BARS)
    (tmp_path / "p.xlsx").write_text("x")
    with pytest.raises(UserError, match=r"must be a .parquet, .csv or .jsonl file"):
        Predictions.import_file(tmp_path / "p.xlsx", BARS)
    with pytest.raises(UserError, match="must be a path, a pandas or a polars frame, was int"):
        Predictions.import_file(3, BARS)


def test_columns_of_any_name_are_a_voter_where_they_hold_a_vote(tmp_path):
    said = frame(
        xgb_action="BUY", xgb_confidence=0.7, oracle_action="SELL", oracle_confidence=1.0, ensemble_action="BUY", order_status="new"
    )
    made = imported(said, tmp_path)
    assert made.slots == ("xgb", "oracle")
    assert made.names == ("xgb", "lgbm", "nhits", "patchtst", "oracle")
    assert made.notes == (
        "columns of order were ignored: a voter has NAME_action and NAME_confidence, or NAME_p_sell, NAME_p_hold and NAME_p_buy",
    )


def test_a_voter_that_lacks_one_probability_is_refused(tmp_path):
    said = frame(xgb_action="BUY", xgb_confidence=0.7, oracle_p_sell=0.2, oracle_p_buy=0.5)
    with pytest.raises(UserError, match=r"must hold oracle_action .* was oracle_p_buy and oracle_p_sell alone; add what is missing"):
        imported(said, tmp_path)


def test_columns_of_a_model_that_are_not_read_are_named():
    table = frame(xgb_action="BUY", xgb_confidence=0.7).assign(lgbmaction="BUY", xgb_shap=0.1, oracle_note="x")
    made = Predictions.import_file(table, BARS)
    assert len(made.notes) == 1
    assert made.notes[0].startswith("columns that name a model were not read: lgbmaction, xgb_shap; they must end in _action, _confidence")


def test_a_stored_file_comes_back_through_the_import_with_its_folds_and_labels(tmp_path):
    made = dataclasses.replace(Predictions.random(BARS, label="L5"), imported=False, fold=np.repeat(np.array([-1, 0], np.int16), 40))
    path = made.save(tmp_path / "p.parquet")
    again = Predictions.import_file(path, BARS)
    same(made, again)
    assert Predictions.import_file(path, BARS, label="L3").label == LABELS["L3"]
    assert Predictions.import_file(path, BARS[:20]).n == 20


def test_a_refusal_of_a_file_of_others_names_the_page_of_accepted_forms(tmp_path):
    bars = simulate("random_walk", n_bars=60, n_symbols=1)
    readme = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")
    assert "[data/README.md](data/README.md)" in readme
    for name, text in (("x.csv", "close_time,symbol,up\n2024-01-01T01:00,A,1\n"), ("y.csv", "a,b\n1\n1,2,3\n"), ("z.txt", "")):
        (tmp_path / name).write_text(text)
        with pytest.raises(UserError, match=r"; data/README.md lists the accepted forms$"):
            Predictions.import_file(tmp_path / name, bars)


def votes(bars, name="close_time", zone=None) -> tuple[pd.DataFrame, np.ndarray]:
    """Random votes of every bar and symbol, as a table and as a plane; zone: times of its clock that name none."""
    action = np.random.default_rng(7).integers(0, 3, (bars.n, len(bars.symbols)))
    times = pd.to_datetime(np.repeat(bars.close_time, len(bars.symbols)), utc=True)
    times = times if zone is None else times.tz_convert(zone).tz_localize(None)
    table = pd.DataFrame({name: times, "symbol": np.tile(bars.symbols, bars.n), "xgb_action": action.ravel(), "xgb_confidence": 0.7})
    return table, action


@pytest.mark.parametrize("symbols", [("000001", "600519"), ("NA", "NULL"), ("TRUE", "FALSE"), ("1E5", "INF")])
def test_symbols_of_a_csv_file_are_read_as_they_are_written(symbols, tmp_path):
    bars = dataclasses.replace(simulate("random_walk", n_bars=60, n_symbols=2), symbols=symbols)
    table, action = votes(bars)
    table.to_csv(tmp_path / "mine.csv", index=False)
    made = Predictions.import_file(tmp_path / "mine.csv", bars, "L1")
    assert (made.action[MODELS.index("xgb")] == action).all()
    assert made.notes == ()


def test_rounded_times_of_a_csv_file_are_refused(tmp_path):
    bars = simulate("random_walk", n_bars=60, n_symbols=2)
    table, _ = votes(bars)
    table.assign(close_time=(table["close_time"].astype("int64") // 10**6).astype("f4")).to_csv(tmp_path / "mine.csv", index=False)
    with pytest.raises(UserError, match="must be written to the second, was rounded"):
        Predictions.import_file(tmp_path / "mine.csv", bars)


@pytest.mark.parametrize("name", ["close_time", "date", ""])
def test_times_without_a_zone_are_of_the_zone_of_the_candles(name, tmp_path):
    bars = simulate("random_walk", n_bars=24 * 300, n_symbols=2, interval="1h")  # both changes of the clock
    table, action = votes(bars, name, "America/New_York")
    told = "are of America/New_York, as those of the candles (--time-zone)"
    for path in (tmp_path / "mine.csv", tmp_path / "mine.parquet"):
        table.to_csv(path, index=False) if path.suffix == ".csv" else table.to_parquet(path, index=False)
        made = Predictions.import_file(path, bars, time_zone="America/New_York")
        assert (made.action[MODELS.index("xgb")] == action).all()
        assert any(told in note for note in made.notes)
    votes(bars)[0].to_csv(tmp_path / "mine.csv", index=False)  # they name UTC
    made = Predictions.import_file(tmp_path / "mine.csv", bars, time_zone="America/New_York")
    assert (made.action[MODELS.index("xgb")] == action).all()
    assert any("says its own zone; --time-zone America/New_York was not needed" in note for note in made.notes)


def test_backtest_and_live_read_predictions_in_the_zone_of_the_candles(tmp_path, monkeypatch, capsys):
    bars = simulate("random_walk", n_bars=24 * 20, n_symbols=2, interval="1h")
    table, action = votes(bars, zone="America/New_York")
    table.to_csv(tmp_path / "mine.csv", index=False)
    candles = to_pandas(bars).reset_index().drop(columns="close_time")
    naive = candles["open_time"].dt.tz_convert("America/New_York").dt.tz_localize(None)
    candles.assign(open_time=naive).to_csv(tmp_path / "candles.csv", index=False)
    monkeypatch.chdir(tmp_path)
    flags = ["--time-zone", "America/New_York", "--predictions", "mine.csv", "--quiet"]
    assert qt("backtest", FLAG, "candles.csv", *flags, "--out", "run", "--no-verify", monkeypatch=monkeypatch) == 0
    stored = Predictions.load(tmp_path / "run" / "predictions.parquet").align(bars)
    assert (stored.action[MODELS.index("xgb")] == action).all()
    capsys.readouterr()
    assert qt("live", FLAG, "--feed", "replay:candles.csv", *flags, "--journal", "j.db", "--json", monkeypatch=monkeypatch) == 0
    assert "times of close_time are of America/New_York, as those of the candles (--time-zone)" in capsys.readouterr().out


@pytest.mark.parametrize("said", [pd.DataFrame({"xgb_action": [1]}), "said.csv", None])
def test_what_is_no_predictions_is_told_how_it_becomes_some(said):
    match = rf"predictions must be research\.Predictions, was {type(said).__name__}; research\.Predictions\.import_file"
    with pytest.raises(UserError, match=match):
        research.backtest(BARS, said, PUBLISHED)
    with pytest.raises(UserError, match=match):
        research.sweep(BARS, said, grid={"governor.min_confidence": [0.5, 0.6]}, params=PUBLISHED)
