"""Is a written time the instant that it says, or refused: digits, epochs, orders of day and month, offsets, zones, days, months?"""

from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtcore.types import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE
from research.data.clock import interval_text, iso, month_starts, parse_interval, parse_length, parse_months, parse_time, utc_ns
from research.data.zones import parse_reading
from research.errors import UserError

READ = {
    "2024-01-12 20:00": ["202401122000", 202401122000, 202401122000.0, "2024011220", 2024011220, "20240112200000", 20240112200000,
                         "20240112 2000", "20240112 200000", "20240112T200000Z", "20240112 20:00", "2024.01.12 20:00", "2024/1/12 20:00:00",
                         "12.01.2024 20:00", "12.01.2024 20:00:00.000 GMT", "12.01.2024 22:00:00.000 GMT+0200", "12.1.2024 20:00:00,000",
                         "12-Jan-2024 8:00 PM", "Jan 12, 2024 20:00", "January 12, 2024 8:00 pm", "Fri, 12 Jan 2024 20:00:00 GMT",
                         "2024-01-12 08-PM", "2024-01-12 15:00:00-05:00", "2024-01-12T20:00:00.000000000Z", "20240112 15:00:00 US/Eastern",
                         "2024-01-13T01:30+05:30", 1705089600, 1705089600.0, "1705089600.0", "1.705089600e9",
                         "1.705089600E+12", 1705089600000, 1705089600000000,
                         1705089600000000000, "1705089600000", np.datetime64("2024-01-12T20"), datetime(2024, 1, 12, 20),
                         datetime(2024, 1, 12, 15, tzinfo=ZoneInfo("America/New_York")), pd.Timestamp("2024-01-12 20:00", tz="UTC")],
    "2024-01-12 00:00": ["20240112", 20240112, 20240112.0, "2024-01-12", "12.01.2024", "2024.01.12", "2024/01/12", "12 January 2024",
                         "12-Jan-2024", "Jan 12, 2024", date(2024, 1, 12), "2024-01-12 12-AM"],
    "2024-02-13 00:00": ["13/02/2024", "02/13/2024", "13-02-2024", "02-13-2024"],
    "2024-01-12 20:00:00.123000000": ["20240112200000123", 20240112200000123, 1705089600.123, "1705089600.123", "1705089600123",
                                      "2024-01-12 20:00:00.123", "12.01.2024 20:00:00,123"],
}  # fmt: skip


@pytest.mark.parametrize(("value", "instant"), [(value, instant) for instant, values in READ.items() for value in values])
def test_a_written_time_is_its_instant(value, instant):
    assert iso(parse_time(value)) == instant


REFUSED = {
    "202413012000": r"must hold dates, was 202413012000 \(read as YYYYMMDDHHMM\)",
    "20240230": r"must hold dates, was 20240230 \(read as YYYYMMDD\)",
    20241301: r"must hold dates, was 20241301",
    "2024-02-30": "no such date",
    "30.02.2024": "no such date",
    "2024-01-12 25:00": "no such date",
    "2024-01-12 13:00 PM": "no such date",
    "01/02/2024": "must say which is the day and which the month, was '01/02/2024' and the like; write YYYY-MM-DD",
    "01-02-2024 10:00": "must say which is the day and which the month",
    "24.01.02": "must say which is the day, which the month and which the year, was '24.01.02' and the like; write YYYY-MM-DD",
    "01/02/24": "must say which is the day, which the month and which the year",
    "31/02/24": "must have dates with a year of two digits in one order, was '31/02/24'",
    "noon": "must hold times, was 'noon'",
    "1.7050896e9": r"must be written to the second, was rounded \(1.7050896e9\); write whole epochs or ISO 8601",
    "1.70509E+12": "must be written to the second",
    "": "must have a time in every row",
    "9999-12-31": "must hold times|1900 to 2199",
    "1899-12-30": "must lie in the years 1900 to 2199, was 1899-12-30",
    99999999999: r"must lie in the years 1900 to 2199, was 99999999999 \(as epoch seconds\)",
    90000000000000: r"must lie in the years 1900 to 2199, was 90000000000000 \(as epoch milliseconds\)",
    2**63 - 1: "must lie in the years 1900 to 2199",
    "99999999999999999999": "must hold epoch times",
    2**64: "must be a time",
    1e30: "must hold epoch times",
    float("inf"): "must hold epoch times",
    float("nan"): "must have a time in every row",
    45292: "must hold epoch times, was 45292",
    True: "must be a time, was True",
    np.datetime64("9999-12-31"): "must lie in the years 1900 to 2199, was 9999",
    np.datetime64("NaT"): "must be a time",
    datetime(9999, 12, 31): "must lie in the years 1900 to 2199",
    date(1, 1, 1): "must lie in the years 1900 to 2199, was 0001-01-01",
}


@pytest.mark.parametrize(("value", "text"), list(REFUSED.items()), ids=repr)
def test_what_is_no_time_or_not_clear_is_refused(value, text):
    with pytest.raises(UserError, match=text) as error:
        parse_time(value)
    assert "\n" not in str(error.value)


def test_ten_digits_that_are_an_epoch_and_a_date_are_refused(monkeypatch):
    monkeypatch.setattr("research.data.clock.time.time_ns", lambda: 2_100_000_000 * 10**9)  # the year 2036
    with pytest.raises(UserError, match="must be clear, was 2024011220, an epoch and a date with an hour"):
        parse_time(2024011220)
    assert iso(parse_time(2024999999)) == "2034-03-03 11:59:59"  # no date: an epoch


def column(values, zone=None, day_start=None, code=None, hours=None):
    reading = parse_reading(zone, day_start)
    hours = None if hours is None else pa.array(hours)
    return [iso(t) for t in utc_ns(pa.array(values), "the column", reading, code, hours)], reading.notes


def test_years_of_two_digits_are_read_where_the_column_as_a_whole_leaves_one_order():
    january = [f"{day:02d}" for day in range(1, 32)]
    days = [f"2024-01-{day} 00:00" for day in january]
    assert column([f"{day}.01.24" for day in january])[0] == days  # year first would end in 2031
    assert column([f"01/{day}/24" for day in january])[0] == days
    assert column([f"24-01-{day}" for day in january])[0] == days
    assert column(["15/01/24 10:00", "16/01/24 10:00"])[0] == ["2024-01-15 10:00", "2024-01-16 10:00"]  # no year lies between bars
    assert column(["15-Jan-24", "02-Feb-99"])[0] == ["2024-01-15 00:00", "1999-02-02 00:00"]
    with pytest.raises(UserError, match="which is the day, which the month and which the year"):
        column(["01/02/24", "01/03/24"])


def test_a_column_tells_its_order_of_day_and_month_as_a_whole():
    assert column(["01/02/2024", "13/02/2024"])[0] == ["2024-02-01 00:00", "2024-02-13 00:00"]
    assert column(["01/02/2024", "02/13/2024"])[0] == ["2024-01-02 00:00", "2024-02-13 00:00"]
    with pytest.raises(UserError, match=r"must have day and month in one order, was '13/02/2024' and '02/14/2024'"):
        column(["13/02/2024", "02/14/2024"])
    assert column(["01/02/2024", "13/02/2024"])[1] == ["the column is read as dates (year last, day first)"]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.datetimes(datetime(1980, 1, 1), datetime(2199, 12, 31)), min_size=1, max_size=6),
       st.sampled_from(["%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d", "%Y.%m.%d %H:%M", "%d.%m.%Y %H:%M:%S", "%d-%b-%Y %I:%M %p",
                        "%Y-%m-%dT%H:%M:%S+05:00", "%B %d, %Y"]), st.booleans())  # fmt: skip
def test_any_date_comes_back_from_every_form(times, form, as_int):
    texts = [time.strftime(form).replace("%", "") for time in times]
    expected = [int((datetime.strptime(text, form).replace(tzinfo=UTC) if "+" not in form else
                     datetime.strptime(text[:19], form[:17]).replace(tzinfo=timezone(timedelta(hours=5)))).timestamp()) * 10**9
                for text in texts]  # fmt: skip
    values = [int(text) for text in texts] if as_int and form.replace("%", "").isalpha() else texts
    assert utc_ns(pa.array(values), "the column").tolist() == expected


def test_offsets_of_both_seasons_are_instants_and_a_naive_row_among_them_is_refused():
    texts = ["2024-03-10T01:00:00-05:00", "2024-03-10T03:00:00-04:00", "2024-03-10T08:00:00Z"]
    assert column(texts)[0] == ["2024-03-10 06:00", "2024-03-10 07:00", "2024-03-10 08:00"]
    assert column(texts, "Asia/Tokyo")[1] == ["the column says its own zone; --time-zone Asia/Tokyo was not needed"]
    with pytest.raises(UserError, match=r"must have one time zone, was mixed \(-05:00, none\)"):
        column([texts[0], "2024-03-10T03:00:00"])


def test_naive_times_are_in_the_zone_and_an_hour_shown_twice_is_gone_through_in_order():
    night = ["2024-11-03 00:30", "2024-11-03 01:30", "2024-11-03 01:30", "2024-11-03 02:30"]
    utc = ["2024-11-03 04:30", "2024-11-03 05:30", "2024-11-03 06:30", "2024-11-03 07:30"]
    assert column(night, "America/New_York") == (utc, [])
    assert column(night[::-1], "America/New_York") == (utc[::-1], [])
    assert column([t for t in night for _ in "ab"], "America/New_York", code=np.array([0, 1] * 4, np.int32))[0] == [
        t for t in utc for _ in "ab"
    ]
    minutes = pd.date_range("2024-11-03 00:50", periods=140, freq="1min", tz="America/New_York")
    assert column(minutes.strftime("%Y-%m-%d %H:%M").tolist(), "America/New_York")[0] == [iso(t.value) for t in minutes]
    note = "1 times of the column lie in an hour that America/New_York shows twice and are there once; read as the later"
    assert column([night[0], night[1], night[3]], "America/New_York") == ([utc[0], utc[2], utc[3]], [note])
    with pytest.raises(UserError, match="must go through an hour twice at most, was more often at 2024-11-03 01:30"):
        column([night[1]] * 3, "America/New_York")
    with pytest.raises(UserError, match="must be sorted by time where the clock of America/New_York shows an hour twice"):
        column([night[1], "2024-12-01 00:00", "2024-01-01 00:00"], "America/New_York")
    with pytest.raises(UserError, match=r"shows, was 2024-03-10 02:30 \(1 times are skipped there\); choose another --time-zone"):
        column(["2024-03-10 02:30", "2024-03-10 03:30"], "America/New_York")
    assert column(["2018-11-03", "2018-11-04"], "America/Sao_Paulo")[0] == ["2018-11-03 03:00", "2018-11-04 03:00"]  # begins at 01:00
    with pytest.raises(
        UserError, match=r"time_zone \(--time-zone\) must be a name of the IANA database such as UTC or America/New_York, was 'Mars'"
    ):
        parse_reading("Mars")


def test_days_begin_where_the_market_says():
    days = ["2024-01-08", "2024-07-09"]
    evening = ["2024-01-07 22:00", "2024-07-08 21:00"]
    assert column(days, None, "17:00 America/New_York")[0] == evening
    assert column(days, "America/New_York", "17:00")[0] == evening
    assert column([20240108, 20240709], None, "17:00 America/New_York")[0] == evening
    assert column(["2024-01-08 00:00:00-05:00", "2024-07-09 00:00:00-04:00"], None, "09:30 America/New_York")[0] == [
        "2024-01-08 14:30", "2024-07-09 13:30"]  # fmt: skip
    aware = pa.array(pd.DatetimeIndex(days).tz_localize("America/New_York"))
    assert [iso(t) for t in utc_ns(aware, "x", parse_reading(None, "17:00 America/New_York"))] == evening
    with pytest.raises(
        UserError, match=r"day_start \(--day-start\) must go with bars that are dated by day, was with the column at 2024-01-08 10:00"
    ):
        column(["2024-01-08 10:00"], None, "17:00 America/New_York")
    for text in ("17", "25:00", "17:00 Mars", "x"):
        with pytest.raises(UserError, match=r"day_start \(--day-start\) must be"):
            parse_reading(None, text)


def test_date_and_time_in_two_columns():
    expected = ["2024-01-12 09:30", "2024-01-12 15:45"]
    for days in (["2024.01.12"] * 2, [20240112] * 2, ["12.01.2024"] * 2, [date(2024, 1, 12)] * 2):
        for hours in (
            ["09:30", "15:45"],
            ["09:30:00", "15:45:00"],
            ["093000", "154500"],
            [93000, 154500],
            [930, 1545],
            ["9:30 AM", "3:45 PM"],
        ):
            assert column(days, hours=hours)[0] == expected
    assert column(["2024-01-12"] * 2, hours=["2024-01-12 09:30", "2024-01-12 15:45"])[0] == expected
    with pytest.raises(UserError, match="must be a date where a time of day stands beside it"):
        column(["2024-01-12 10:00"], hours=["09:30"])
    with pytest.raises(UserError, match=r"must hold times of day, was '25:00'|no such date"):
        column(["2024-01-12"], hours=["25:00"])


def test_a_capital_m_is_months_and_a_small_one_minutes():
    for text in ("1M", "1mo", "1 month", "1Mon", "1MO"):
        assert (parse_months(text), parse_length(text)) == (1, 31 * NS_PER_DAY)
        with pytest.raises(UserError, match="interval must have one length here"):
            parse_interval(text)
    for text in ("1m", "1min", "1Min", "1 minute"):
        assert (parse_months(text), parse_length(text), parse_interval(text)) == (0, NS_PER_MINUTE, NS_PER_MINUTE)
    assert [parse_length(f"{n}M") // NS_PER_DAY for n in (1, 2, 3, 6, 12)] == [31, 62, 92, 184, 366]
    assert [interval_text(parse_interval(text)) for text in ("1H", "2W", "1D", "90s")] == ["1h", "2w", "1d", "90s"]
    for text in ("1monkey", "15T", "0m", "0M", "1y", "9" * 30 + "d", "99999d", "999M", "-1h", ""):
        with pytest.raises(UserError, match="interval must be"):
            parse_length(text)
    days = np.array(["2024-02-29T23", "2024-03-01T00"], "M8[ns]").astype(np.int64)
    assert [iso(t) for t in month_starts(days, 1)] == ["2024-02-01 00:00", "2024-03-01 00:00"]
    assert [iso(t) for t in month_starts(days, 3, 1)] == ["2024-04-01 00:00"] * 2
    assert parse_time("2024-01-12 20:00") - parse_time("2024-01-12 19:00") == NS_PER_HOUR


HOURS = pd.date_range("2016-03-03", periods=40, freq="1h").as_unit("ns")
COUNTED_OTHERWISE = {
    "may count 100 ns since the year 1, .NET": HOURS.asi8 // 100 + 621_355_968_000_000_000,
    "may count 100 ns since 1601, Windows": HOURS.asi8 // 100 + 116_444_736_000_000_000,
    r"may be dates \(YYMMDDHHMM\)": HOURS.strftime("%y%m%d%H%M").astype("i8").to_numpy(),
    r"may be dates \(YYMMDDHHMMSS\)": HOURS.strftime("%y%m%d%H%M%S").astype("i8").to_numpy(),
    r"may be dates \(YYMMDDHHMMSS or DDMMYYYYHHMM\)": HOURS.shift(20 * 24).strftime("%d%m%Y%H%M").astype("i8").to_numpy(),
    r"may be dates \(MMDDYYYYHHMM\)": HOURS.shift(20 * 24).strftime("%m%d%Y%H%M").astype("i8").to_numpy(),
    r"may be dates \(DDMMYYYYHHMMSS or MMDDYYYYHHMMSS\)": HOURS.strftime("%d%m%Y%H%M%S").astype("i8").to_numpy(),
    "to the second, was float32, which rounds them to minutes": (HOURS.asi8 // 10**9).astype("f4"),
}


@pytest.mark.parametrize(("words", "values"), COUNTED_OTHERWISE.items())
def test_times_counted_otherwise_are_no_epochs_of_other_years(words, values):
    with pytest.raises(UserError, match=words):
        utc_ns(pa.array(values), "time")


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_epochs_at_odd_moments_stay_epochs(unit):
    moments = np.sort(np.random.default_rng(3).integers(7 * 10**17, 17 * 10**17, 200))
    values = moments // 10 ** {"s": 9, "ms": 6, "us": 3, "ns": 0}[unit]
    assert utc_ns(pa.array(values), "time").tolist() == values.astype(f"M8[{unit}]").astype("M8[ns]").astype("i8").tolist()


def test_whole_days_of_float32_are_exact():
    days = pd.date_range("2016-03-03", periods=40, freq="1D").as_unit("ns").asi8
    assert utc_ns(pa.array((days // 10**9).astype("f4")), "time").tolist() == days.tolist()
