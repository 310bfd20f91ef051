"""Are candles in JSON read to the last digit, and is what holds no table, or several, refused?"""

import json

import numpy as np
import pandas as pd
import pytest

from qtcore.types import NS_PER_HOUR
from research.data import load, load_bars
from research.errors import UserError
from tests.research.data.test_data import assert_same_bars, frame

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
        ("AAA.json", json.dumps({"code": 0, "data": {"symbol": "aaa", "rows": RECORDS}, "page": {"next": 1}})),
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


BARE = [[str(int(row.value) // 10**6), *map(str, rest)] for row, *rest in ROWS.itertuples(index=False)]
DOCUMENTS = {
    "X:Y": {"ticker": "X:Y", "queryCount": 50, "results": RECORDS, "status": "OK"},
    "XYUSDT": {"retCode": 0, "result": {"category": "linear", "symbol": "XYUSDT", "list": BARE}},
    "XYZ": {"Meta Data": {"1. Information": "Intraday", "2. Symbol": "XYZ"}, "Time Series": {r["timestamp"]: r for r in RECORDS}},
    "XY": {"bars": {"XY": RECORDS}, "next_page_token": None},
    "XY/USDT:USDT": {"XY/USDT:USDT": BARE},
    "XXYZUSD": {"error": [], "result": {"XXYZUSD": BARE, "last": 1}},
    "XY-USDT": {"code": "0", "instId": "XY-USDT", "data": RECORDS},
}


@pytest.mark.parametrize("symbol", DOCUMENTS)
def test_the_symbol_of_a_document_goes_before_the_name_of_the_file_and_is_told(symbol, tmp_path):
    text = json.dumps(DOCUMENTS[symbol])
    (tmp_path / "candles.json").write_text(text)
    loaded = load(tmp_path / "candles.json")
    assert_same_bars(loaded.bars, load(ROWS.assign(symbol=symbol)).bars)
    assert f"the symbol is {symbol}, as the document says; the file is called candles.json" in loaded.report.lacked
    assert load(tmp_path / "candles.json", symbols=symbol).bars.symbols == (symbol,)
    with pytest.raises(UserError, match="must be in the data, was 'AAA'; it has X"):
        load(tmp_path / "candles.json", symbols="AAA")
    same = symbol.replace("/", "_").replace(":", "-")
    (tmp_path / f"{same}.json").write_text(text)
    loaded = load(tmp_path / f"{same}.json")
    assert loaded.bars.symbols == (same,)
    assert not any("as the document says" in text for text in loaded.report.lacked)


@pytest.mark.parametrize("key", ["data", "Results", "OHLCV", "candles"])
def test_a_word_is_no_symbol(key, tmp_path):
    (tmp_path / "AAA.json").write_text(json.dumps({"s": "ok", "code": "OK", "symbol": 7, key: RECORDS}))
    assert load(tmp_path / "AAA.json").bars.symbols == ("AAA",)


def test_funding_rates_are_of_the_symbol_of_their_document(tmp_path):
    rates = [{"timestamp": f"2024-01-01T{hour:02d}:00:00Z", "fundingRate": "0.0001"} for hour in (8, 16)]
    for symbol, says in (("ETHUSDT", "was of ETHUSDT"), ("BTC-USDT", "")):
        (tmp_path / "BTCUSDT.json").write_text(json.dumps({"result": {"symbol": symbol, "list": rates}}))
        if says:
            with pytest.raises(UserError, match=says):
                load(frame(23, ("BTCUSDT",)), funding=tmp_path / "BTCUSDT.json")
        else:
            bars = load(frame(23, ("BTCUSDT",)), funding=tmp_path / "BTCUSDT.json").bars
            assert np.flatnonzero(bars.funding[:, 0]).tolist() == [7, 15]


LAST = int(BARE[-1][0])


@pytest.mark.parametrize(
    ("made", "n"), [(LAST, 49), (LAST + 60_000, 49), (LAST + 3_599_999, 49), (LAST + 3_600_000, 50), (LAST - 1, 50), (5, 50)]
)
def test_the_candle_in_which_a_document_was_made_is_left_out(made, n, tmp_path):
    for key, rows in (("time", BARE), ("ts", BARE[::-1])):
        (tmp_path / "AAA.json").write_text(json.dumps({"result": {"list": rows}, key: made}))
        loaded = load(tmp_path / "AAA.json")
        assert_same_bars(loaded.bars, load(frame(50, ("AAA",)).iloc[:n]).bars)
        assert any("1 candle had not closed when the document was made (2024-01-" in text for text in loaded.report.lacked) == (n == 49)
        assert load(tmp_path / "AAA.json", time_label="close").bars.n == 50


@pytest.mark.parametrize("last", [48, 47, 49, None])
def test_what_lies_behind_the_last_of_kraken_is_left_out(last, tmp_path):
    rows = [[int(row[0]) // 1_000, *row[1:]] for row in BARE]
    (tmp_path / "AAA.json").write_text(json.dumps({"result": {"AAA": rows, "last": 7 if last is None else rows[last][0]}}))
    loaded = load(tmp_path / "AAA.json")
    n = 0 if last is None else 49 - last
    assert_same_bars(loaded.bars, load(frame(50, ("AAA",)).iloc[: 50 - n]).bars)
    assert any(text.startswith(f"{n} candle{'s' * (n > 1)} behind the document's last closed one") for text in loaded.report.lacked) == (
        n > 0
    )


NAIVE = [{**row, "timestamp": str(time.tz_convert(None))} for time, row in zip(pd.to_datetime(ROWS["timestamp"], utc=True), RECORDS)]


@pytest.mark.parametrize(
    ("about", "hours", "words"),
    [
        ({"Meta Data": {"6. Time Zone": "US/Eastern"}}, 5, "is read in US/Eastern, as the document says"),
        ({"meta": {"timezone": "Asia/Tokyo"}}, -9, "is read in Asia/Tokyo, as the document says"),
        (
            {"meta": {"exchange_timezone": "America/New_York"}},
            0,
            "where it is of its exchange's clock say so with --time-zone America/New_York",
        ),
        ({"meta": {"timezone": "Exchange"}}, 0, ""),
    ],
)
def test_naive_times_are_of_the_zone_that_their_document_says(about, hours, words, tmp_path):
    (tmp_path / "AAA.json").write_text(json.dumps({**about, "values": NAIVE}))
    loaded, plain = load(tmp_path / "AAA.json"), load_bars(ROWS)
    assert (loaded.bars.open_time - plain.open_time == hours * NS_PER_HOUR).all()
    assert any(words in text for text in loaded.report.lacked) == bool(words)
    assert (load(tmp_path / "AAA.json", time_zone="Asia/Kolkata").bars.open_time < plain.open_time).all()
    for values in (RECORDS, BARE, [{**row, "timestamp": row["timestamp"][:10]} for row in NAIVE[::24]]):  # say it themselves, or no hour
        (tmp_path / "AAA.json").write_text(json.dumps({**about, "values": values}))
        loaded = load(tmp_path / "AAA.json")
        assert (loaded.bars.open_time == plain.open_time[:: 50 // len(values) if len(values) == 50 else 24]).all()
        assert not any("zone" in text or " is read in " in text for text in loaded.report.lacked)


@pytest.mark.parametrize("order", [["timestamp", "open", "high", "low", "close", "trades", "volume"],
                                   ["close", "volume", "trades", "timestamp", "low", "high", "open"]])  # fmt: skip
def test_names_of_columns_beside_the_rows_are_their_header(order, tmp_path):
    table = pd.DataFrame(RECORDS).assign(trades=7.0)[order]
    rows = table.to_numpy().tolist()
    index = table.set_index("timestamp")
    for text in (
        json.dumps({"columns": order, "data": rows}),
        json.dumps({"data": {"fields": order, "items": rows}}),
        json.dumps({"candles": {"metadata": {"open": {"type": "double"}, "low": {"type": "double"}}, "columns": order, "data": rows}}),
        table.to_json(orient="split", double_precision=15),
        table.to_json(orient="table", double_precision=15),
        index.to_json(orient="split", double_precision=15),
        index.to_json(orient="table", double_precision=15),
    ):
        (tmp_path / "AAA.json").write_text(text)
        loaded = load(tmp_path / "AAA.json", symbols="AAA")
        np.testing.assert_allclose(loaded.bars.volume, load_bars(ROWS).volume, rtol=1e-14)
        np.testing.assert_allclose(loaded.bars.close, load_bars(ROWS).close, rtol=1e-14)
        assert (loaded.bars.open_time == load_bars(ROWS).open_time).all()
        assert not any("no header" in text for text in loaded.report.lacked)
