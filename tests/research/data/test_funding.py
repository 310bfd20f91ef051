"""Is each funding rate charged once, to the right symbol, in the right bar, and is what is not charged told?"""

import numpy as np
import pandas as pd
import pytest

from research.data import add_funding, load, load_bars
from research.data.funding import match, spelling
from research.errors import UserError
from tests.research.data.test_data import frame

HOUR = pd.Timedelta("1h")
NAMES = ("BTCUSDT", "ETHUSDT")


def rates(*symbols: str, times=("2024-01-01 08:00", "2024-01-01 16:00")) -> pd.DataFrame:
    rows = [(pd.Timestamp(time, tz="UTC"), name, 1e-4 * (i + 1)) for name in symbols for i, time in enumerate(times)]
    return pd.DataFrame(rows, columns=["timestamp", "symbol", "funding_rate"])


def charged(given, symbols=NAMES, n=23) -> tuple[list[tuple[int, int]], list[str]]:
    loaded = load(frame(n, symbols), funding=given)
    return [tuple(cell) for cell in np.argwhere(loaded.bars.funding).tolist()], loaded.report.warnings


@pytest.mark.parametrize(
    "name",
    ["BTCUSDT", "btcusdt", "BTC/USDT", "BTC/USDT:USDT", "BTC-USDT", "BTC_USDT", "BTC-USDT-SWAP", "BTCUSDT_PERP", "BTC_USDT_PERP",
     "BTCUSDT.P", "BTC-USDT-PERPETUAL", "BTC USDT"],
)  # fmt: skip
@pytest.mark.parametrize("own", ["BTCUSDT", "BTC/USDT", "BTC/USDT:USDT", "BTC-USDT-SWAP"])
def test_a_symbol_is_matched_as_its_exchange_writes_it(name, own):
    cells, told = charged(rates(name), (own,))
    assert cells == [(7, 0), (15, 0)]
    assert told == ([] if name == own else [f"funding was matched by spelling: {name} is {own}"])


@pytest.mark.parametrize("name", ["ETHUSDT", "BTCUSDC", "BTCUSD", "BTC", "1000BTCUSDT", "BTCUSDT240628", "BTCPERP"])
def test_what_matches_nothing_is_refused(name):
    with pytest.raises(UserError, match=f"funding must be of the symbols of the bars, was of {name}; the bars have BTCUSDT; rename them"):
        charged(rates(name), ("BTCUSDT",))


def test_funding_that_may_be_of_two_symbols_is_refused():
    with pytest.raises(UserError, match="funding of BTCUSDT must be of one symbol, was of BTC/USDT or BTC/USDT:USDT; rename it"):
        charged(rates("BTCUSDT"), ("BTC/USDT", "BTC/USDT:USDT"))
    with pytest.raises(
        UserError, match="funding of BTCUSDT must come under one name, was BTC/USDT:USDT and BTC-USDT-SWAP; drop or rename one"
    ):
        charged(rates("BTC/USDT:USDT", "BTC-USDT-SWAP"))
    assert match(["BTC/USDT", "BTC/USDT:USDT"], ["BTC/USDT:USDT"])[0].tolist() == [-1, 0]  # as written comes first
    assert spelling("PERP") == "PERP"


def test_doubled_rates_are_charged_once_and_contradictions_refused():
    once = rates(*NAMES)
    late = once.assign(timestamp=once["timestamp"] + pd.Timedelta("3ms"))
    early = once.assign(timestamp=once["timestamp"] - pd.Timedelta("1ms"))
    want = load(frame(23, NAMES), funding=once).bars.funding
    for twice in (once, late, early):
        loaded = load(frame(23, NAMES), funding=pd.concat([once, twice]))
        np.testing.assert_array_equal(loaded.bars.funding, want)
        assert loaded.report.warnings == ["4 funding rates repeat another; counted once"]
    wrong = once.assign(funding_rate=[1e-4, 3e-4, 1e-4, 2e-4])
    with pytest.raises(
        UserError, match=r"one rate a symbol and time, was two for BTCUSDT at 2024-01-01 16:00: 0.0002 and 0.0003 \(1 times\)"
    ):
        charged(pd.concat([once, wrong]))


@pytest.mark.parametrize("names", [("calc_time", "last_funding_rate"), ("fundingTime", "fundingRate"), ("timestamp", "funding_rate")])
def test_files_of_exchanges(tmp_path, names):
    table = rates("BTCUSDT")
    ms = table["timestamp"].astype("datetime64[ms, UTC]").astype("int64") + 3
    out = pd.DataFrame({names[0]: ms, "funding_interval_hours": 8, names[1]: table["funding_rate"]})
    out.to_csv(tmp_path / "BTCUSDT-fundingRate-2024-01.csv", index=False)
    cells, told = charged(tmp_path / "BTCUSDT-fundingRate-2024-01.csv")
    assert cells == [(7, 0), (15, 0)]
    assert told == ["ETHUSDT: no funding rates; counted as 0"]
    out.to_csv(tmp_path / "ETHUSDT-fundingRate-2024-01.csv", index=False)
    assert charged(tmp_path) == ([(7, 0), (7, 1), (15, 0), (15, 1)], [])
    (tmp_path / "BTCUSDT-fundingRate-2024-01.csv").rename(tmp_path / "funding.csv")
    assert charged(tmp_path / "funding.csv", ("BTCUSDT",)) == ([(7, 0), (15, 0)], [])
    with pytest.raises(UserError, match="must have the columns timestamp, symbol, funding_rate"):
        charged(tmp_path / "funding.csv")


def test_funding_that_is_not_charged_is_counted():
    outside = rates(
        "BTCUSDT", "SOLUSDT", times=("2023-12-31 16:00", "2024-01-01 00:00", "2024-01-01 08:00", "2024-01-03 00:00", "2024-01-03 08:00")
    )
    cells, told = charged(outside, n=48)
    assert cells == [(7, 0), (47, 0)]
    assert told == [
        "5 funding rates of SOLUSDT are of no symbol of the bars; left out",
        "3 of 5 funding rates are due before the first bar or after the last; left out",
        "ETHUSDT: no funding rates; counted as 0",
        "BTCUSDT: 4 of 6 funding rates, one every 8h, are missing, between 2024-01-01 08:00 and 2024-01-03 00:00; counted as 0",
    ]
    with pytest.raises(
        UserError, match="funding must be due in the bars, was none of 2 rates; they span 2025-01-01 08:00 to 2025-01-01 16:00"
    ):
        charged(rates("BTCUSDT", times=("2025-01-01 08:00", "2025-01-01 16:00")))


def test_rates_between_sessions_and_in_per_cent_are_told():
    rows = frame(200, ("EURUSD",))
    bars = load_bars(rows[rows["timestamp"].dt.hour.between(9, 15)])
    notes: list[str] = []
    funding = add_funding(bars, rates("EURUSD", times=("2024-01-01 12:00", "2024-01-02 00:00")).assign(funding_rate=0.01), notes).funding
    assert np.count_nonzero(funding) == 1
    assert notes == [
        "half of the funding rates are 1.00% or more a time; they were read as fractions, not per cent",
        "1 of 2 funding rates fall between two bars; left out",
        "EURUSD: 7 of 8 funding rates, one every 12h, are missing, after 2024-01-02 00:00; counted as 0",
    ]


def test_naive_times_of_rates_are_in_the_zone_that_is_said(tmp_path):
    table = rates("BTCUSDT")
    table["timestamp"] = table["timestamp"].dt.tz_localize(None)
    table.to_csv(tmp_path / "f.csv", index=False)
    loaded = load(frame(48, ("BTCUSDT",)), funding=tmp_path / "f.csv", time_zone="Etc/GMT-2")
    assert np.flatnonzero(loaded.bars.funding[:, 0]).tolist() == [5, 13]


@pytest.mark.parametrize("name", ["market", "product_id", "s"])
def test_rates_of_another_symbol_are_never_charged_whatever_the_column_of_symbols_is_called(name, tmp_path):
    times = pd.date_range("2024-01-01 08:00", periods=4, freq="4h", tz="UTC")
    table = pd.DataFrame({"timestamp": times, name: ["ETHUSDT", "BTCUSDT"] * 2, "funding_rate": [1e-3, 1e-4, 1e-3, 1e-4]})
    table.to_csv(tmp_path / "BTCUSDT-fundingRate-2024-01.csv", index=False)
    for given in (table, tmp_path / "BTCUSDT-fundingRate-2024-01.csv"):
        loaded = load(frame(20, ("BTCUSDT",)), funding=given)
        assert np.flatnonzero(loaded.bars.funding[:, 0]).tolist() == [11, 19]
        assert set(loaded.bars.funding[:, 0].tolist()) == {0.0, 1e-4}
        assert f"funding: symbol is column {name}" in loaded.report.warnings
        assert "2 funding rates of ETHUSDT are of no symbol of the bars; left out" in loaded.report.warnings


def test_rates_of_one_time_that_a_text_tells_apart_are_refused(tmp_path):
    table = rates(*NAMES).rename(columns={"symbol": "what"})
    table.to_csv(tmp_path / "funding.csv", index=False)
    for given in (table, tmp_path / "funding.csv"):
        with pytest.raises(UserError, match="was 'BTCUSDT' and 'ETHUSDT' in column what at 2024-01-01 08:00; call that column symbol"):
            load(frame(48, ("BTCUSDT",)), funding=given)


def test_rates_with_a_per_cent_sign_are_fractions_and_told(tmp_path):
    lines = [
        "Time,Contract,Funding Rate",
        *(f"2024-01-01 {hour}:00,BTCUSDT Perpetual,{rate}%" for hour, rate in (("08", "0.0100"), ("16", "-0.0250"))),
    ]
    (tmp_path / "history.csv").write_text("\n".join(lines))
    bars = load_bars(frame(40, ("BTCUSDT",)))
    for source in (tmp_path / "history.csv", pd.read_csv(tmp_path / "history.csv")):
        notes: list[str] = []
        assert sorted(set(add_funding(bars, source, notes).funding[:, 0].tolist())) == [-0.00025, 0.0, 0.0001]
        assert "funding: Funding Rate is read as per cent" in notes


def test_the_rate_that_was_charged_goes_before_the_one_that_was_predicted():
    bars = load_bars(frame(23, ("BTCUSDT",)))
    rows = rates("BTCUSDT").rename(columns={"funding_rate": "fundingRate"}).assign(realizedRate=[3e-4, 4e-4])
    notes: list[str] = []
    assert sorted(set(add_funding(bars, rows, notes).funding[:, 0].tolist())) == [0.0, 3e-4, 4e-4]
    assert notes == [
        "funding: funding rate is column realizedRate; fundingRate is not read",
        "funding: rates are those of realizedRate",
    ]


def told_of_missing(hours, n=200, symbols=("BTCUSDT",)) -> list[str]:
    """What is told of rates that are due at these hours after the first open, in `n` bars of an hour."""
    start = pd.Timestamp("2024-01-01", tz="UTC")
    table = pd.DataFrame(
        [(start + h * HOUR, name, 1e-4) for name in symbols for h in hours], columns=["timestamp", "symbol", "funding_rate"]
    )
    return load(frame(n, symbols), funding=table).report.lacked


ALL = range(8, 201, 8)


@pytest.mark.parametrize(
    ("hours", "n", "where"),
    [
        (ALL, 0, ""),
        ([h + 0.001 for h in ALL[:-1]] + [200], 0, ""),
        ([*range(-16, 1, 8), *ALL, 208], 0, ""),
        ([*range(8, 100, 8), *range(100, 201, 4)], 0, ""),  # the exchange changed the step
        ([*range(4, 100, 4), *range(104, 201, 8)], 0, ""),
        ([h for h in ALL if not 72 <= h < 152], 10, "between 2024-01-03 16:00 and 2024-01-07 08:00"),
        (ALL[:8], 17, "after 2024-01-03 16:00"),
        (ALL[8:], 8, "before 2024-01-04 00:00"),
        ([h for h in ALL if h != 104], 1, "between 2024-01-05 00:00 and 2024-01-05 16:00"),
        ([h for h in ALL[:20] if h not in (48, 104)], 7, "most of them after 2024-01-07 16:00"),
    ],
)  # fmt: skip
def test_rates_that_are_missing_are_told_with_their_number_and_where(hours, n, where):
    told = [text for text in told_of_missing(hours) if "missing" in text]
    assert told == ([f"BTCUSDT: {n} of 25 funding rates, one every 8h, are missing, {where}; counted as 0"] if n else [])


def test_one_rate_and_many_symbols_are_told_shortly():
    assert told_of_missing([8]) == [
        "BTCUSDT: 2024-01-01 08:00 has the only funding rate; whether others are missing cannot be told",
    ]
    told = told_of_missing(ALL[:8], symbols=("A", "B", "C", "D", "E"))
    assert [text[:1] for text in told] == ["A", "B", "C", "2"]
    assert told[-1] == "2 more symbols: 34 funding rates are missing; counted as 0"


def test_no_rate_is_missing_where_no_bar_is():
    rows = frame(400, ("EURUSD",))
    rows = rows[rows["timestamp"].dt.weekday < 5]
    due = pd.date_range("2024-01-01 08:00", "2024-01-17 16:00", freq="8h", tz="UTC")
    given = pd.DataFrame({"timestamp": due, "symbol": "EURUSD", "funding_rate": 1e-4})
    weekdays = given[given["timestamp"].dt.tz_convert(None).sub(pd.Timedelta("1s")).dt.weekday < 5]
    assert not [text for text in load(rows, funding=weekdays, calendar="sessions").report.lacked if "missing" in text]
