"""Is every layout that `data/README.md` lists read as its row says, and is one market one set of bits in all of them?"""

import gzip
import re
import shlex
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qtcore.types import NS_PER_DAY, NS_PER_HOUR, Bars
from research.data import fingerprint, simulate
from research.data.load import load
from tests.conftest import assert_same_bits
from tests.research.data.test_data import assert_same_bars
from tests.support import PUBLISHED

README = Path(__file__).resolve().parents[3] / "data" / "README.md"


def options(flags: str) -> dict[str, str]:
    """`--time-zone EST` as arguments of load_bars."""
    words = shlex.split(flags)
    return {name.removeprefix("--").replace("-", "_"): value for name, value in zip(words[::2], words[1::2])}


def write_layout(folder: Path, layout: str, name: str, cell: str) -> Path:
    """Write the file that a row of the table shows."""
    lines = re.findall(r"`([^`]*)`", cell)
    text = "".join(line.replace("\\t", "\t") + "\n" for line in lines)
    path = folder / name
    if name.endswith(".zip"):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name.removesuffix(".zip") + ".csv", text)
    else:
        data = text.encode("utf-16" if "UTF-16" in layout else "utf-8")
        path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


PRICES = [[100.5, 102.25, 99.125, 101.75], [101.75, 103.5, 101.25, 102.5], [102.5, 104.0, 102.0, 103.25]]
PLANES = ("open", "high", "low", "close", "volume")
ROW = re.compile(r"`([^`]+)`, (\d{4}-\d{2}-\d{2} \d{2}:\d{2}), (1h|1d)(?:, volume (\d+) (\d+) (\d+))?")


def table() -> list[tuple[str, ...]]:
    """The rows of the table in the README."""
    part = README.read_text(encoding="utf-8").split("| --- | --- | --- | --- | --- |\n")[1]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in part.splitlines() if line.startswith("| ")]


@pytest.mark.parametrize("row", table(), ids=lambda row: row[0])
def test_a_layout_is_read_as_its_row_says(row, tmp_path):
    layout, file, lines, reads, said = row
    name, *flags = re.findall(r"`([^`]*)`", file)
    path = write_layout(tmp_path, layout, name, lines)
    symbol, first, interval, *volumes = ROW.fullmatch(reads).groups()
    loaded = load(path, **options(flags[0] if flags else ""))
    bars, step = loaded.bars, NS_PER_HOUR if interval == "1h" else NS_PER_DAY
    assert (bars.symbols, bars.interval, loaded.report.calendar) == ((symbol,), step, "regular")
    begin = int(np.datetime64(first, "ns").astype(np.int64))
    assert bars.open_time.tolist() == [begin + i * step for i in range(3)]
    assert bars.close_time.tolist() == [begin + (i + 1) * step for i in range(3)]
    volume = [10.0, 20.0, 30.0] if volumes[0] is None else [float(v) for v in volumes]
    cells = [[float(getattr(bars, plane)[i, 0]) for plane in PLANES] for i in range(3)]
    assert cells == [[*prices, v] for prices, v in zip(PRICES, volume)]
    assert loaded.report.warnings == re.findall(r"`([^`]*)`", said)


def test_the_table_has_every_public_layout():
    names = " ".join(row[0] for row in table())
    exchanges = ("Binance", "CryptoDataDownload", "Kaggle", "Kraken", "Coinbase", "OKX", "Polygon")
    programs = ("MetaTrader 4", "MetaTrader 5", "TradingView", "Interactive Brokers", "Sierra", "yfinance")
    for word in (*exchanges, *programs, "Stooq", "HistData", "Dukascopy", "Nasdaq", "Investing.com", "Alpha Vantage"):
        assert word in names


# -- one market, many files --------------------------------------------------------------------------------------------------


def candles(n: int, interval: int) -> Bars:
    bars = simulate("random_walk", seed=3, n_bars=n, n_symbols=1, interval="1h" if interval == NS_PER_HOUR else "1d")
    return replace(bars, symbols=("EURUSD",))


def written_everywhere(bars: Bars, folder: Path) -> dict[str, tuple[object, dict[str, str]]]:
    """One set of candles with full digits in every form: name to source and flags."""
    zone = "America/New_York"
    utc = pd.DatetimeIndex(bars.open_time).tz_localize("UTC")
    values = {name: getattr(bars, name)[:, 0] for name in PLANES}
    text = {name: [repr(float(v)) for v in values[name]] for name in PLANES}
    local = utc.tz_convert(zone)
    is_daily = bars.interval == NS_PER_DAY
    days = {"day_start": "00:00 UTC"} if is_daily else {"time_zone": zone}
    wall = utc if is_daily else local
    frame = pd.DataFrame(values, index=pd.Index(utc.strftime("%Y-%m-%d %H:%M:%S"), dtype=object))
    ms = bars.open_time // 10**6

    def lines(name: str, header: str, rows: list[str]) -> Path:
        (folder / name).write_text("\n".join([*([header] if header else []), *rows]) + "\n")
        return folder / name

    ohlcv = [",".join(row) for row in zip(*(text[name] for name in PLANES))]
    kline = [f"{t},{row},{t + bars.interval // 10**6 - 1},1.0,5,1.0,1.0,0" for t, row in zip(ms, ohlcv)]
    header = "open_time,open,high,low,close,volume,close_time,quote_volume,count,taker_buy_volume,taker_buy_quote_volume,ignore"
    with zipfile.ZipFile(folder / "EURUSD-1h-2024-03.zip", "w") as archive:
        archive.writestr("EURUSD-1h-2024-03.csv", "\n".join(kline) + "\n")
    meta = [f"{t:%Y.%m.%d}\t{t:%H:%M:%S}\t" + "\t".join(row.split(",")[:4]) + f"\t7\t{row.split(',')[4]}\t1" for t, row in zip(wall, ohlcv)]
    four = [f"{t:%Y.%m.%d},{t:%H:%M},{row}" for t, row in zip(wall, ohlcv)]
    yahoo = [f"{t:%Y-%m-%d %H:%M:%S},{','.join(row.split(',')[:4])},1.5,{row.split(',')[4]}" for t, row in zip(wall, ohlcv)]
    forms: dict[str, tuple[object, dict[str, str]]] = {
        "csv": (
            lines("EURUSD.csv", "timestamp,open,high,low,close,volume", [f"{t:%Y-%m-%dT%H:%M:%SZ},{r}" for t, r in zip(utc, ohlcv)]),
            {},
        ),
        "newest first": (lines("EURUSD_1h.csv", "date,open,high,low,close,volume", [f"{t},{r}" for t, r in zip(utc, ohlcv)][::-1]), {}),
        "binance": (lines("EURUSD-1h-2024-01.csv", "", kline), {}),
        "binance, header": (lines("EURUSD-1h-2024-02.csv", header, kline), {}),
        "binance, zipped": (folder / "EURUSD-1h-2024-03.zip", {}),
        "metatrader 5": (
            lines(
                "EURUSD_H1.csv",
                "\t".join(f"<{w}>" for w in ["DATE", "TIME", "OPEN", "HIGH", "LOW", "CLOSE", "TICKVOL", "VOL", "SPREAD"]),
                meta,
            ),
            days,
        ),
        "metatrader 4": (lines("EURUSD60.csv", "", four), days),
        "yfinance": (lines("EURUSD-1h.csv", "Date,Open,High,Low,Close,Adj Close,Volume", yahoo), days),
        "digits": (lines("EURUSD-1d.csv", "time,open,high,low,close,volume", [f"{t:%Y%m%d%H%M},{r}" for t, r in zip(utc, ohlcv)]), {}),
        "text index": (frame, {}),
        "zoned text index": (frame.set_index(wall.strftime("%Y-%m-%d %H:%M:%S")), days),
        "period index": (pd.DataFrame(values, index=utc.tz_localize(None).to_period("D" if is_daily else "h")), {}),
        "numbers as text": (frame.astype(str), {}),
    }
    if not is_daily:
        forms["offsets"] = (frame.set_index(pd.Index(local.strftime("%Y-%m-%dT%H:%M:%S%z"), name="time")), {})
    frame.rename_axis("timestamp").reset_index().assign(timestamp=utc).to_parquet(folder / "EURUSD.parquet")
    frame.to_parquet(folder / "EURUSD_2024.parquet")
    frame.set_index(utc.tz_localize(None).to_period("D" if is_daily else "h")).to_parquet(folder / "EURUSD_2025.parquet")
    frame.reset_index().to_feather(folder / "EURUSD.feather")
    frame.to_csv(folder / "EURUSD_2026.csv", encoding="utf-16")
    forms |= {
        name: (folder / name, {})
        for name in ("EURUSD.parquet", "EURUSD_2024.parquet", "EURUSD_2025.parquet", "EURUSD.feather", "EURUSD_2026.csv")
    }
    return forms


@pytest.mark.parametrize("interval", [NS_PER_HOUR, NS_PER_DAY])
def test_one_set_of_candles_is_one_set_of_bits_in_every_form(interval, tmp_path):
    """A year of hours goes through both changes of the clock."""
    bars = candles(9_000 if interval == NS_PER_HOUR else 300, interval)
    for name, (source, flags) in written_everywhere(bars, tmp_path).items():
        loaded = load(source, symbols=["EURUSD"] if isinstance(source, pd.DataFrame) else None, **flags)
        assert loaded.report.calendar == "regular", name
        assert fingerprint(loaded.bars) == fingerprint(bars), (name, loaded.report.warnings)
        assert_same_bars(loaded.bars, bars)


def test_a_backtest_is_one_whatever_the_candles_came_in(tmp_path, monkeypatch):
    import research

    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    bars = candles(700, NS_PER_HOUR)
    rng = np.random.default_rng(0)
    votes = {"xgb_action": rng.choice(["SELL", "HOLD", "BUY"], bars.n), "xgb_confidence": rng.uniform(0.6, 1.0, bars.n)}
    rows = pd.DataFrame({"close_time": pd.DatetimeIndex(bars.close_time).tz_localize("UTC"), "symbol": "EURUSD", **votes})
    first = None
    for name, (source, flags) in written_everywhere(bars, tmp_path).items():
        own = load(source, symbols=["EURUSD"] if isinstance(source, pd.DataFrame) else None, **flags).bars
        run = research.backtest(own, research.Predictions.import_file(rows, own), PUBLISHED)
        first = first or run
        for array in ("equity", "balance", "exposure", "worth", "fills"):
            assert_same_bits(getattr(run.result, array), getattr(first.result, array), f"{name} {array}")
    assert len(first.result.fills) > 10
