"""Is a stored predictions file read by its keys, and is whatever `save` never writes refused in one sentence?"""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from research import backtest
from research.cli.app import app
from research.cli.common import guarded
from research.data import save_bars, simulate
from research.errors import UserError
from research.training.labels import LABELS
from research.training.predictions import Predictions
from research.training.predictions_file import stream_predictions
from research.workflow.load import load_run
from tests.conftest import assert_same_bits, awkward_bars
from tests.research.training.test_predictions import same
from tests.support import FLAG, PUBLISHED

BARS = awkward_bars(60, seed=4, n_symbols=3)


def walk_forward(seed=1) -> Predictions:
    """Predictions as a training leaves them: two folds after bars without any."""
    made = Predictions.random(BARS, seed=seed, label="L3")
    fold = np.repeat(np.array([-1, 0, 1], np.int16), 20)
    probs = np.where((fold >= 0)[None, :, None, None], made.probs, np.nan)
    return Predictions.from_probs(BARS, probs, fold, made.labels, LABELS["L3"])


MADE = walk_forward()


@pytest.fixture
def stored(tmp_path):
    return pq.read_table(MADE.save(tmp_path / "stored.parquet"))


def put(table, column, rows, value, kind=None) -> pa.Table:
    """The table with `value` in some rows of a column."""
    values = table[column].to_numpy().astype(kind or table[column].to_numpy().dtype)
    values[rows] = value
    return table.set_column(table.column_names.index(column), column, pa.array(values))


def says(table, **changes) -> pa.Table:
    """The table with changed metadata; `...` removes a key."""
    about = json.loads(table.schema.metadata[b"qt_predictions"]) | changes
    return table.replace_schema_metadata({"qt_predictions": json.dumps({k: v for k, v in about.items() if v is not ...})})


def by_symbol(table):
    return table.sort_by([("symbol", "ascending"), ("close_time", "ascending")])


ORDERS = {
    "sorted by symbol": by_symbol,
    "shuffled": lambda table: table.take(np.random.default_rng(0).permutation(len(table))),
    "newest first": lambda table: table.take(np.arange(len(table))[::-1]),
    "symbols reversed in each bar": lambda table: table.take(np.arange(len(table)).reshape(-1, 3)[:, ::-1].ravel()),
    "two rows swapped": lambda table: table.take(np.r_[1, 0, 2 : len(table)]),
    "symbols as a dictionary": lambda table: by_symbol(table).set_column(2, "symbol", by_symbol(table)["symbol"].dictionary_encode()),
    "wider codes": lambda table: put(table, "xgb_action", [], 0, np.int64),
    "a column of the user's": lambda table: table.append_column("remark", pa.array(["x"] * len(table))),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n_rows", [7, 30, 10**6], ids=["groups that cut bars", "groups of bars", "one group"])
def test_rows_in_any_order_give_the_same_bits(order, n_rows, stored, tmp_path):
    pq.write_table(ORDERS[order](stored), tmp_path / "other.parquet", row_group_size=n_rows)
    same(MADE, Predictions.load(tmp_path / "other.parquet"))
    same(MADE, Predictions.import_file(tmp_path / "other.parquet", BARS))


def test_an_ordered_file_is_read_in_blocks_and_never_as_a_whole(stored, tmp_path, monkeypatch):
    pq.write_table(stored, tmp_path / "p.parquet", row_group_size=30)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("read as a whole"))
    blocks = list(stream_predictions(tmp_path / "p.parquet"))
    assert [block.n for block in blocks] == [10] * 6
    same(MADE[20:30], blocks[2])


def test_a_part_of_the_bars_is_a_grid_of_its_own(stored, tmp_path):
    pq.write_table(by_symbol(stored.slice(0, 90)), tmp_path / "p.parquet")
    same(MADE[:30], Predictions.load(tmp_path / "p.parquet"))


def renamed(table, old, new):
    return table.rename_columns([new if c == old else c for c in table.column_names]).replace_schema_metadata(table.schema.metadata)


def turned(table):
    said = table["xgb_action"].to_numpy()
    return put(table, "xgb_action", slice(None), np.where(said >= 0, (said + 1) % 3, said))


REFUSED = {
    "one symbol only": (lambda t: t.filter(pc.equal(t["symbol"], BARS.symbols[1])), r"close_time once, was with 120 of 180 missing"),
    "a row lost": (lambda t: t.take([*range(50), *range(51, 180)]), r"was with 1 of 180 missing, the first SOLUSDT at 2024-01-01 17:00"),
    "a row twice": (lambda t: pa.concat_tables([t, t.slice(4, 1)]), r"1 of 180 more than once, the first ETHUSDT"),
    "another symbol": (lambda t: t.set_column(2, "symbol", pc.replace_substring(t["symbol"], "ETH", "XRP")), r"was with 'XRPUSDT'"),
    "no name of a symbol": (lambda t: t.set_column(2, "symbol", pa.nulls(len(t), pa.string())), r"must hold the symbols .*, was with None"),
    "symbol renamed": (lambda t: renamed(t, "symbol", "pair"), r"was without symbol;"),
    "a model's column lost": (lambda t: t.drop_columns("nhits_p_buy"), r"was without nhits_p_buy;"),
    "a column twice": (lambda t: t.append_column("xgb_action", t["xgb_action"]), r"must have each column once, was with xgb_action twice"),
    "action 258": (lambda t: put(t, "xgb_action", 77, 258, np.int64), r"1 \(HOLD\) or 2 \(BUY\) in xgb_action, was 258"),
    "action 1e9": (lambda t: put(t, "lgbm_action", 3, 10**9, np.int64), r"in lgbm_action, was 1e\+09 in row 4"),
    "action 255": (lambda t: put(t, "lgbm_action", 3, 255, np.uint8), r"in lgbm_action, was 255"),
    "action -2": (lambda t: put(t, "lgbm_action", 3, -2), r"in lgbm_action, was -2"),
    "action 1.5": (lambda t: put(t, "xgb_action", 77, 1.5, float), r"in xgb_action, was 1.5 in row 78"),
    "action NaN": (lambda t: put(t, "xgb_action", 77, np.nan, float), r"in xgb_action, was nan"),
    "action as text": (lambda t: t.set_column(9, "xgb_action", pa.array(["BUY"] * 180)), r"must hold numbers in xgb_action, was string"),
    "fold 70000": (lambda t: put(t, "fold", slice(60, 63), 70_000, np.int32), r"-1 \(none\) or the number of a fold in fold, was 70000"),
    "two folds of a bar": (lambda t: put(t, "fold", 61, 1), r"must have one fold for all symbols of a bar"),
    "label 9": (lambda t: put(t, "label", 0, 9), r"2 \(BUY\) in label, was 9"),
    "a probability of 1.5": (lambda t: put(t, "xgb_p_buy", 90, 1.5), r"that sum to 1, was otherwise in 1 cells, first of xgb"),
    "probabilities without a sum": (lambda t: put(t, "nhits_p_sell", [90, 91], 0.0), r"sum to 1, was otherwise in 2 cells, first of nhits"),
    "one probability lost": (lambda t: put(t, "xgb_p_sell", 90, np.nan), r"sum to 1, was otherwise in 1 cells"),
    "another action than its probabilities": (lambda t: turned(t), r"the most likely class as action .*, was otherwise in \d+ cells"),
    "another confidence": (lambda t: put(t, "xgb_confidence", 90, 0.01), r"its probability as confidence, was otherwise in 1 cells"),
    "a confidence of 73": (lambda t: put(t, "xgb_confidence", 90, 73.0), r"a confidence in \[0, 1\] for each vote and none without one"),
    "a vote without confidence": (lambda t: put(t, "xgb_confidence", 90, np.nan), r"a confidence in \[0, 1\] for each vote"),
    "a confidence without vote": (lambda t: put(t, "xgb_confidence", 0, 0.5), r"and none without one"),
    "open after close": (lambda t: t.set_column(1, "open_time", t["close_time"]), r"must have open_time before close_time"),
    "a time lost": (lambda t: t.set_column(0, "close_time", pa.nulls(180, t.schema.field(0).type)), r"must have a time in every row"),
    "another version": (lambda t: says(t, schema_version=99), r"must be of schema version 1, was 99"),
    "no version": (lambda t: says(t, schema_version=...), r"metadata qt_predictions of .* must be JSON .*, was without schema_version"),
    "no symbols in the metadata": (lambda t: says(t, symbols=...), r"was without symbols"),
    "symbols of another kind": (lambda t: says(t, symbols=[1, 2, 3]), r"was symbols\[0\] as 1, not text"),
    "a symbol twice in the metadata": (lambda t: says(t, symbols=["A", "A", "B"]), r"was with no symbol, or one twice"),
    "imported as text": (lambda t: says(t, imported="no"), r"was imported as 'no', not true or false"),
    "no label": (lambda t: says(t, label=...), r"was without label;"),
    "a label of other fields": (lambda t: says(t, label={"id": "L3"}), r"was without label.horizon"),
    "a horizon as text": (lambda t: says(t, label=LABELS["L3"].to_dict() | {"horizon": "4"}), r"was label.horizon as '4', not a whole"),
    "metadata that is a list": (lambda t: t.replace_schema_metadata({"qt_predictions": "[1]"}), r"was its content as \[1\], not a table"),
    "metadata cut short": (lambda t: t.replace_schema_metadata({"qt_predictions": '{"schema_ver'}), r"was no JSON"),
    "metadata that is no text": (lambda t: t.replace_schema_metadata({"qt_predictions": b"\xff\xfe"}), r"was not UTF-8 text"),
    "metadata without an end": (lambda t: t.replace_schema_metadata({"qt_predictions": '{"a":' * 100_000}), r"was no JSON \(larger"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence(case, stored, tmp_path):
    change, match = REFUSED[case]
    pq.write_table(change(stored), tmp_path / "p.parquet")
    with pytest.raises(UserError, match=match) as told:
        Predictions.import_file(tmp_path / "p.parquet", BARS)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("cut", [3, 200, 0.3, 0.7, -9])
def test_a_cut_file_is_refused(cut, stored, tmp_path):
    data = MADE.save(tmp_path / "p.parquet").read_bytes()
    (tmp_path / "p.parquet").write_bytes(data[: int(len(data) * cut) if isinstance(cut, float) else cut])
    for read in (Predictions.load, lambda path: Predictions.import_file(path, BARS)):
        with pytest.raises(UserError, match="must be a"):
            read(tmp_path / "p.parquet")


def test_a_rotten_page_is_refused(tmp_path):
    data = bytearray(MADE.save(tmp_path / "p.parquet").read_bytes())
    data[10:2000] = b"\x55" * 1990
    (tmp_path / "p.parquet").write_bytes(data)
    with pytest.raises(UserError, match="must be a Parquet file of predictions"):
        Predictions.load(tmp_path / "p.parquet")


def test_a_name_of_a_column_that_is_no_text_is_refused(tmp_path):
    data = MADE.save(tmp_path / "p.parquet").read_bytes()
    (tmp_path / "p.parquet").write_bytes(data.replace(b"symbol", b"symb\xe7l"))
    for read in (Predictions.load, lambda path: Predictions.import_file(path, BARS)):
        with pytest.raises(UserError, match="'utf-8' codec can't decode byte 0xe7"):
            read(tmp_path / "p.parquet")


def test_imported_predictions_may_follow_thresholds_of_their_own(tmp_path):
    cautious = dataclasses.replace(Predictions.random(BARS, seed=1), probs=None)
    action = np.where(cautious.confidence > 0.6, cautious.action, np.where(cautious.action >= 0, 1, -1)).astype(np.int8)
    made = dataclasses.replace(Predictions.random(BARS, seed=1), action=action)
    same(made, Predictions.load(made.save(tmp_path / "p.parquet")))


def test_an_empty_file_of_ours_says_nothing_and_matches_nothing(tmp_path):
    path = MADE[:0].save(tmp_path / "p.parquet")
    assert Predictions.load(path).n == 0
    with pytest.raises(UserError, match="must have at least one row, was empty"):
        Predictions.import_file(path, BARS)


def test_a_runs_folder_backtest_and_live_take_the_shuffled_file(tmp_path):
    bars = simulate("random_walk", n_bars=500, n_symbols=2)
    run = backtest(bars, Predictions.random(bars, seed=3), PUBLISHED)
    run.save(tmp_path / "run")
    path = tmp_path / "run" / "predictions.parquet"
    pq.write_table(ORDERS["shuffled"](pq.read_table(path)), path)
    assert_same_bits(load_run(tmp_path / "run").result.equity, run.result.equity)
    save_bars(bars, tmp_path / "bars.parquet")
    words = [
        "backtest",
        FLAG,
        str(tmp_path / "bars.parquet"),
        "--predictions",
        str(path),
        "--no-verify",
        "--quiet",
        "--out",
        str(tmp_path / "two"),
    ]
    assert guarded(lambda: app(words, standalone_mode=False)) == 0
    assert_same_bits(load_run(tmp_path / "two").result.equity, run.result.equity)
    words = ["live", FLAG, "--feed", f"replay:{tmp_path / 'bars.parquet'}", "--journal", str(tmp_path / "j"), "--predictions", str(path)]
    assert guarded(lambda: app(words, standalone_mode=False)) == 0
    words = ["status", str(tmp_path / "j"), "--export", str(tmp_path / "three")]
    assert guarded(lambda: app(words, standalone_mode=False)) == 0
    assert_same_bits(load_run(tmp_path / "three").result.equity, run.result.equity)
