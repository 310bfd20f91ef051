"""Are candles in JSON read to the last digit, and is what holds no table, or several, refused?"""

import json

import numpy as np
import pandas as pd
import pytest

from research.data import load, load_bars
from research.errors import UserError
from tests.test_data import assert_same_bars, frame

ROWS = frame(50, ("AAA",)).drop(columns="symbol")
RECORDS = ROWS.assign(timestamp=ROWS["timestamp"].astype(str)).to_dict("records")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("AAA.json", json.dumps(RECORDS)),
        ("AAA.json", json.dumps(RECORDS, indent=2)),
        ("AAA.jsonl", "\n".join(map(json.dumps, RECORDS)) + "\n"),
        ("AAA.ndjson", "\r\n".join(map(json.dumps, RECORDS))),
        ("AAA-1h.json", json.dumps([[int(row.value) // 10**6, *rest] for row, *rest in ROWS.itertuples(index=False)])),
        ("AAA.json", json.dumps({"code": 0, "data": {"symbol": "X", "rows": RECORDS}, "page": {"next": 1}})),
        ("AAA.json", json.dumps(pd.DataFrame(RECORDS).to_dict("list"))),
        ("AAA.json", json.dumps(pd.DataFrame(RECORDS).set_index("timestamp").to_dict())),
        ("AAA.json", json.dumps(pd.DataFrame(RECORDS).set_index("timestamp").to_dict("index"))),
    ],
)
def test_one_market_in_every_form_of_json_is_one_set_of_bits(name, text, tmp_path):
    (tmp_path / name).write_text(text, newline="")
    assert_same_bars(load_bars(tmp_path / name, symbols="AAA"), load_bars(ROWS, symbols="AAA"))


def test_an_empty_value_is_a_hole(tmp_path):
    rows = [dict(row) for row in RECORDS]
    rows[5] = {**rows[5], **dict.fromkeys(("open", "high", "low", "close", "volume"))}
    (tmp_path / "AAA.json").write_text(json.dumps(rows))
    bars = load(tmp_path / "AAA.json").bars
    assert np.flatnonzero(np.isnan(bars.close[:, 0])).tolist() == [5]


@pytest.mark.parametrize(
    "text",
    ["", "5", "[]", "{}", "[1, 2]", '[1, {"a": 2}]', "[" * 100_000, '{"a":' * 100_000, json.dumps(RECORDS)[:-9], "\0", "\ufeff[",
     '[{"\\ud800": 1}]', json.dumps({"a": RECORDS, "b": RECORDS}), json.dumps([{"a": RECORDS}]), json.dumps([[[1]]]),
     json.dumps(RECORDS) + "]", "[[]]", "[{}]"],
)  # fmt: skip
def test_what_holds_no_table_is_refused_in_a_sentence(text, tmp_path):
    (tmp_path / "x.json").write_text(text, encoding="utf-8", errors="surrogatepass")
    with pytest.raises(UserError, match=r"^x\.json must"):
        load_bars(tmp_path / "x.json")
