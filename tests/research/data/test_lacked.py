"""Does everything that was lost or assumed of the data stand where its reader looks, counted, in one block?"""

import json
import re
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import research
from qtcore.types import Bars
from research.cli import _formatted
from research.cli.app import app
from research.cli.common import guarded
from research.data import load, load_bars, simulate
from research.data.clock import iso
from research.data.lacks import measure, mute, sentences
from research.data.load import DataWarning
from research.data.quality import quality
from research.errors import UserError
from research.evidence.lacked import deficiencies, funding_payments, lacked
from research.report import build
from research.training.predictions import Predictions
from research.training.walk_forward import train
from tests.research.data.test_data import PLANES, frame
from tests.support import FLAG, PUBLISHED


def walk(n: int, symbols: tuple[str, ...] = ("AAA", "BBB"), seed: int = 0) -> pd.DataFrame:
    """Hourly candles of a quiet market."""
    rng = np.random.default_rng(seed)
    rows = frame(n, symbols)
    close = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.006, (len(symbols), n)), axis=1)).ravel()
    return rows.assign(open=close, high=close * 1.002, low=close * 0.998, close=close)


def scaled(rows: pd.DataFrame, symbol: str, at: int, until: int, by: float) -> pd.DataFrame:
    """Multiply the prices of one symbol from row `at` to before `until`."""
    rows = rows.copy()
    mine = rows.index[rows["symbol"] == symbol][at:until]
    rows.loc[mine, ["open", "high", "low", "close"]] *= by
    return rows


# jumps that look like splits


@pytest.mark.parametrize("ratio", [2.0, 3.0, 1.5, 5.0, 10.0, 100.0])
@pytest.mark.parametrize("up", [True, False])
def test_a_round_ratio_that_stays_looks_like_a_split(ratio, up):
    bars = load_bars(scaled(walk(400), "AAA", 200, 400, ratio if up else 1 / ratio))
    found = [(i.symbol, i.problem, i.count, i.first) for i in measure(bars)]
    assert found == [("AAA", what, 1, int(bars.open_time[200])) for what in ("jump", "split")]  # a jump as it comes, a split in hindsight


def test_other_jumps_are_no_splits():
    spike = load_bars(scaled(walk(400), "AAA", 200, 201, 10.0))
    assert [(i.problem, i.count) for i in measure(spike)] == [("jump", 2)]
    inside = scaled(walk(400), "AAA", 200, 400, 0.5)  # traded all the way down
    inside.loc[200, ["open", "high"]] *= 2.0
    assert [(i.problem, i.count) for i in measure(load_bars(inside))] == [("jump", 1)]
    crash = load_bars(scaled(walk(400), "AAA", 200, 400, 0.81))
    assert [(i.problem, i.count) for i in measure(crash)] == [("jump", 1)]
    market = load_bars(scaled(scaled(walk(400), "AAA", 200, 400, 0.5), "BBB", 200, 400, 0.52))
    assert {i.problem for i in measure(market)} == {"jump"}
    assert measure(simulate("random_walk", n_bars=2_000)) == []


def test_a_split_over_a_hole_is_found():
    rows = scaled(walk(400), "AAA", 200, 400, 0.5).drop(index=range(195, 200))
    assert {i.problem: i.count for i in measure(load_bars(rows))} == {"gap": 5, "jump": 1, "split": 1}


# symbols that can never vote


def beside(n: int = 400) -> pd.DataFrame:
    """Daily candles of a market that never closes, and of one that closes at the weekend."""
    always, weekdays = (frame(n, (name,), "1D", "2020-01-01") for name in ("BTC", "SPY"))
    return pd.concat([always, weekdays[weekdays["timestamp"].dt.day_of_week < 5]])


def test_a_symbol_that_can_never_vote_is_named_with_the_cause(tmp_path):
    bars = load_bars(beside())
    (text,) = mute(bars).values()
    assert text.startswith("SPY can never vote: its features are never complete (")
    assert ": 286 of the 400 rows between its first and last candle have one, at most 5 in a row" in text
    assert quality(beside()).mute == (text,)
    assert text in quality(beside()).to_dict()["mute"]
    made = train(bars, models=["lgbm"], preset="tiny", n_folds=2, processes=1, profile="published")
    (few,) = mute(bars, PUBLISHED).values()
    assert few in made.notes
    run = research.backtest(bars, made, PUBLISHED)
    assert run.summary["data"]["lacked"][0] == few


def test_too_few_candles_and_no_predictions_are_causes():
    late = pd.concat([walk(400, ("AAA",)), walk(400, ("NEW",), 1)[360:]])
    bars = load_bars(late)
    assert mute(bars) == {"NEW": "NEW can never vote: it has 40 candles, and its features need more than 50"}
    assert mute(bars, PUBLISHED.with_values({"features.warmup": 20})) == {}
    said = Predictions.random(bars)
    said.action[:, :, 1] = -1
    assert "NEW: no prediction counts for it in the tested bars, so it is never traded" in lacked(research.backtest(bars, said, PUBLISHED))


def test_the_true_cause_stands_where_nothing_can_be_learned():
    rows = walk(900, ("AAA", "BBB", "CCC"))
    rows.loc[np.random.default_rng(0).random(len(rows)) < 0.6, list(PLANES)] = np.nan
    made = train(load_bars(rows), models=["lgbm"], preset="tiny", n_folds=2, processes=1, profile="published")
    assert "3 symbols: features are complete at 4 of 1,060 candles (0.4%), for holes break their windows" in made.notes
    assert any("training rows must exist, was none with whole features and a label: too many holes" in text for text in made.notes)
    rows.loc[np.random.default_rng(1).random(len(rows)) < 0.6, list(PLANES)] = np.nan
    with pytest.raises(UserError, match="data must have a symbol that can vote, was without: AAA can never vote") as error:
        train(load_bars(rows), models=["lgbm"], preset="tiny", n_folds=2, processes=1, profile="published")
    assert re.search(r"\d+ of the \d+ rows between its first and last candle have one, at most \d+ in a row", str(error.value))
    assert "(2 more symbols likewise)" in str(error.value)
    assert mute(load_bars(rows[rows["symbol"] == "AAA"])) == {}  # alone its rows are sessions


# one block


def dirty() -> pd.DataFrame:
    rows = scaled(walk(400, ("AAA", "BBB", "CCC")), "AAA", 200, 400, 0.5)
    rows.loc[[10, 11], "high"] = np.inf
    rows.loc[[450], "high"] = np.inf
    rows.loc[[900, 901, 902], "volume"] = 0.0
    return pd.concat([rows.drop(index=[20, 21, 500]), rows.iloc[[30]]])


LACKED = [
    "AAA: 1 of 399 rows are earlier than the row before them, the first at 2024-01-02 06:00; sorted",
    "2 symbols: 3 of 798 rows have an infinite value, the first at 2024-01-01 10:00; masked; most in AAA (2)",
    "AAA: 1 of 399 rows repeat another row, the first at 2024-01-02 06:00; dropped",
    "AAA: 1 of 396 rows close more than 10 % and 20 usual moves away from the close before, the first at 2024-01-09 08:00",
    "2 symbols: 6 of 800 rows have no candle between the first and the last, the first at 2024-01-01 10:00; most in AAA (4)",
    "CCC: 3 of 400 rows have no volume, the first at 2024-01-05 04:00",
    "AAA: 1 of 396 rows close at a round multiple or fraction of the close before, as after a split that prices are not adjusted for, "
    "the first at 2024-01-09 08:00",
]


def test_problems_of_several_symbols_are_one_sentence():
    loaded = load(dirty())
    assert list(dict.fromkeys([*loaded.report.lacked, *sentences(measure(loaded.bars))])) == LACKED


def test_the_choice_of_a_grid_is_told():
    rows = walk(400, ("AAA",))
    report = load(rows[rows["timestamp"].dt.hour < 12]).report
    assert report.warnings == []
    assert report.lacked == [
        "the rows are the times that have a candle (sessions): 48% of a regular grid of 1h would be empty; "
        "--calendar regular makes them holes"
    ]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A saved run of dirty candles, foreign predictions and doubled funding, and what the terminal showed."""
    folder = tmp_path_factory.mktemp("lacked")
    dirty().to_csv(folder / "candles.csv", index=False)
    bars = load(folder / "candles.csv").bars
    said = Predictions.random(bars, seed=3).to_pandas().reset_index()[["close_time", "symbol", "xgb_p_sell", "xgb_p_hold", "xgb_p_buy"]]
    said.loc[len(said)] = [pd.Timestamp("2030-01-01", tz="UTC"), "AAA", 0.2, 0.3, 0.5]
    said.dropna().to_parquet(folder / "said.parquet", index=False)
    due = pd.date_range("2024-01-01", periods=60, freq="8h", tz="UTC")
    rates = pd.DataFrame({"timestamp": due, "symbol": "aaa", "funding_rate": 1e-4})
    pd.concat([rates, rates[:3]]).to_csv(folder / "funding.csv", index=False)
    words = ["backtest", "candles.csv", "--predictions", "said.parquet", "--funding", "funding.csv", "--no-verify", "--out", "run"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_HOME", str(folder / "home"))
        patch.chdir(folder)
        yield folder, [*words, FLAG, "--set", "governor.min_confidence=0.4", "--set", "broker.max_holding_bars=12"]


FUNDING = [
    "funding was matched by spelling: aaa is AAA",
    "3 funding rates repeat another; counted once",
    "10 of 60 funding rates are due before the first bar or after the last; left out",
    "BBB, CCC: no funding rates; counted as 0",
]


def test_the_block_stands_in_the_terminal_the_summary_and_on_the_first_screen(finished, capsys):
    folder, words = finished
    assert guarded(lambda: app(words, standalone_mode=False)) == 0
    shown = capsys.readouterr().out
    told = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))["data"]["lacked"]
    assert set(LACKED[:4] + FUNDING + LACKED[5:]) <= set(told)
    assert any(re.search(r"1 of \d+ rows match no bar", text) for text in told)
    assert f"what the data lacked: {len(told)} things to know\n" + "".join(f"  - {text}\n" for text in told) in shown
    html = (folder / "run" / "report.html").read_text(encoding="utf-8")
    head = html[html.index("<header>") : html.index("</header>")]
    assert re.findall(r"<li>(.*?)</li>", head) == told
    assert f"What the data lacked: {len(told)} things to know" in head
    assert html.count(told[0]) == 1
    assert "The base predictions were imported: that they were made out of sample cannot be proven here; undeclared is until" in shown
    assert "This run was not verified; `qt verify` proves it.\n" in shown
    again = research.load_run(folder / "run")
    assert again.summary["data"]["lacked"] == told
    build(folder / "run")
    assert (folder / "run" / "report.html").read_text(encoding="utf-8") == html
    paid = again.summary["assumptions"]["funding_payments"]
    assert 0 < paid < 49
    assert f"funding charged {paid} times" in shown
    assert f"funding charged {paid} times" in head


READERS = {
    "sweep": ["sweep", "candles.csv", "--predictions", "said.parquet", "--grid", "governor.stop_loss=0.1", "--out", "swept"],
    "trials": ["trials", "candles.csv"],
    "resample": ["data", "resample", "candles.csv", "--interval", "2h", "--out", "long.parquet"],
    "leakage": ["audit", "leakage", "candles.csv", "--preset", "tiny", "--folds", "1"],
    "cpcv": ["audit", "cpcv", "candles.csv", "--preset", "tiny", "--groups", "3", "--tested", "1"],
    "nullworlds": ["audit", "nullworlds", "candles.csv", "--worlds", "1", "--folds", "1", "--out", "worlds.jsonl"],
}


@pytest.mark.parametrize("command", READERS)
def test_every_command_that_reads_candles_tells_the_same_block(finished, capsys, command):
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        code = guarded(lambda: app(READERS[command], standalone_mode=False))
    shown = capsys.readouterr().out
    assert code == 0
    told = re.search(r"^what the data lacked: (\d+) things to know\n((?:  - .*\n)+)", shown, re.M)
    lines = [line.removeprefix("  - ") for line in told[2].splitlines()]
    assert len(lines) == int(told[1])
    assert set(LACKED) <= set(lines)


def test_the_block_goes_to_standard_error_where_standard_output_is_json(finished, capsys):
    assert guarded(lambda: app(["trials", "candles.csv", "--json"], standalone_mode=False)) == 0
    shown = capsys.readouterr()
    assert "lineages" in json.loads(shown.out)
    assert f"  - {LACKED[0]}\n" in shown.err


def test_a_warning_in_the_terminal_names_no_place_in_the_code():
    assert _formatted(DataWarning("ticks:\nAAA"), DataWarning, "a/workflow.py", 137) == "qt: ticks:\nAAA\n"
    assert _formatted(RuntimeWarning("overflow"), RuntimeWarning, "/lib/numpy.py", 1) == "qt: RuntimeWarning: overflow\n"


@pytest.mark.parametrize("fill", ["next_open", "close"])
def test_payments_are_counted_as_they_were_made(fill):
    bars = simulate("random_walk", n_bars=900, n_symbols=3, seed=5)
    rates = np.zeros(bars.close.shape)
    rates[7::8] = 1e-4
    bars = replace(bars, funding=rates)
    params = PUBLISHED.with_values({"broker.fill": fill, "governor.min_confidence": 0.4, "governor.stop_loss": 0.005})
    run = research.backtest(bars, Predictions.random(bars, seed=2), params)
    fills = np.concatenate([run.result.fills, run.closing_fills])
    n = 0
    for exit_ in fills[fills["is_entry"] == 0]:
        (entry,) = fills[(fills["trade_id"] == exit_["trade_id"]) & (fills["is_entry"] == 1)]
        s = int(exit_["symbol"])
        due = -entry["qty"] * bars.close[:, s] * rates[:, s]
        first, last = int(entry["bar"]), int(exit_["bar"])
        fits = [  # the stretch of bars whose payments are those that were booked
            (a, b)
            for a in (first, first + 1)
            for b in (last, last + 1)
            if np.isclose(due[a:b].sum(), exit_["funding"], rtol=1e-9, atol=1e-12)
        ]
        n += int(np.count_nonzero(due[slice(*fits[0])]))
    assert n > 20
    assert funding_payments(run) == n


def test_clean_data_lacks_nothing():
    bars: Bars = simulate("random_walk", n_bars=400, n_symbols=2)
    run = research.backtest(bars, Predictions.random(bars, seed=1), PUBLISHED)
    assert lacked(run) == ["random predictions"]
    assert funding_payments(run) == 0


def test_candles_that_no_model_serves_are_told():
    bars = simulate("random_walk", n_bars=900, n_symbols=2)
    models = train(bars, models=("lgbm",), n_folds=2, processes=1, profile="published").models
    first = min(a.valid_from for a in models.artefacts)
    early = bars[: int(np.searchsorted(bars.close_time, first))]
    (told,) = [text for text in deficiencies(early, PUBLISHED, (), None, models, None) if "nobody votes" in text]
    assert told.startswith(f"no model serves these candles, so nobody votes and nothing is traded: the first serves from {iso(first)}, ")
    assert not any("nobody votes" in text for text in deficiencies(bars[: early.n + 1], PUBLISHED, (), None, models, None))


@pytest.mark.parametrize(("label", "has_labels"), [("L3", True), ("L4", False)])
def test_symbols_that_the_models_were_not_trained_on_are_told(label, has_labels):
    bars = simulate("random_walk", n_bars=900, n_symbols=2)
    models = train(bars, models=("lgbm",), label=label, n_folds=2, processes=1, profile="published").models
    other = replace(bars, symbols=("NEW", bars.symbols[1]))
    run = research.backtest(other, Predictions.from_models(models, other), PUBLISHED)
    (told,) = [text for text in lacked(run) if "not trained on" in text]
    assert told.startswith("the models were not trained on 1 of 2 symbols, the first NEW")
    assert ("no labels and no accuracy" in told) != has_labels
    assert (run.labels[:, 0] >= 0).any() == has_labels
    assert (run.labels[:, 1] >= 0).any()
    assert not any("not trained on" in text for text in lacked(research.backtest(bars, Predictions.from_models(models, bars), PUBLISHED)))
