"""Does the meta layer learn from logs as it learns from a run, is every odd line counted, and does MetaPredictor answer as written?"""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from qtcore import Engine
from qtcore.meta import VECTORS, MetaModel
from research import backtest
from research.cli.app import app
from research.cli.common import guarded
from research.data import simulate
from research.errors import UserError
from research.runs.prediction_log import export_log
from research.training.meta import V1_THRESHOLD, MetaPredictor, MetaSchedule, read_log, train_from_log, train_meta
from research.training.predictions import Predictions
from tests.conftest import assert_same_bits
from tests.support import FLAG, PUBLISHED

BUSY = PUBLISHED.with_values({"governor.max_daily_trades": 10_000, "broker.max_holding_bars": 1})  # a trade in every second cell
HEADER = "timestamp,symbol,action,outcome,pnl_pct,hold_duration_minutes\n"


def line(time, symbol="BTCUSDT", action="BUY", confidence=0.7, **more):
    votes = {name: {"action": action, "confidence": confidence} for name in ("xgb", "patch")}
    return {"timestamp": time, "symbol": symbol, "base_predictions": votes, "ensemble_action": action, "ensemble_confidence": 0.7} | more


@pytest.fixture
def files(tmp_path):
    log, outcomes = tmp_path / "predictions.jsonl", tmp_path / "outcomes.csv"
    lines = [
        line("2026-02-05T02:00:00Z", action="SELL"),
        line("2026-02-05T01:00:00Z"),  # out of order
        line("2026-02-05T01:00:00Z", "ETHUSDT", regime={"volatility": 0.7, "trend_strength": -0.1}),
        line("2026-02-05T03:00:00", action="HOLD"),  # naive is UTC
        line("2026-02-05T03:00:00Z", action="BUY"),  # doubled: the last one counts
        line("2026-02-05T05:00:00+01:00", action="BUY"),  # 04:00 UTC
        line("2026-01-01T00:00:00Z"),  # before the first date
    ]
    bad = ["no json", json.dumps(line("never")), json.dumps(line("2026-02-05T01:00:00Z", confidence=1.5)), json.dumps(["a list"])]
    bad.append(json.dumps(line("2026-02-05T01:00:00Z", action="MOON")))
    log.write_text("\n".join([*map(json.dumps, lines), *bad]) + "\n\n")
    outcomes.write_text(
        HEADER
        + "2026-02-05T01:00:00Z,BTCUSDT,BUY,loss,-1.0,90\n"
        + "2026-02-05T01:00:00Z,BTCUSDT,BUY,win,1.0,60\n"  # doubled: the last one counts
        + "2026-02-05T01:00:00Z,ETHUSDT,SELL,loss,-1.0,120\n"
        + "2026-02-05T02:50:00Z,BTCUSDT,SELL,win,1.0,10\n"  # opened ten minutes before a line
        + "2026-02-05T01:00:00Z,XRPUSDT,BUY,win,1.0,60\n"  # no line
        + "soon,BTCUSDT,BUY,win,1.0,60\n"
    )
    return log, outcomes


def test_symbols_are_read_as_they_are_written(tmp_path):
    log, outcomes = tmp_path / "predictions.jsonl", tmp_path / "outcomes.csv"
    names = ("NA", "null", "0700", "1E5", "BTCUSDT ")
    log.write_text("\n".join(json.dumps(line("2026-02-05T01:00:00Z", name)) for name in names))
    outcomes.write_text(HEADER + "".join(f"2026-02-05T01:00:00Z, {name},BUY,win,1.0,60\n" for name in names))
    read = read_log(log, outcomes)
    assert [read.counts[name] for name in ("lines", "invalid outcomes", "lines without an outcome", "outcomes without a line")] == [
        5,
        0,
        0,
        0,
    ]


def test_every_odd_line_is_counted_and_the_last_double_wins(files):
    read = read_log(*files, min_date="2026-02-05")
    assert read.counts == {
        "lines": 12,
        "invalid lines": 5,
        "outcomes": 6,
        "invalid outcomes": 1,
        "doubled outcomes": 1,
        "lines before the first date": 1,
        "lines out of order": 1,
        "doubled lines": 1,
        "lines without an outcome": 3,
        "outcomes without a line": 2,
        "rows": 5,
    }
    assert read.symbols == ("BTCUSDT", "ETHUSDT")
    assert [pd.Timestamp(t).hour for t in read.close_time] == [1, 2, 3, 4]
    assert read.labels.tolist() == [[2, 1], [-1, -1], [-1, -1], [-1, -1]]  # won BUY, lost SELL is HOLD; nothing else has an outcome
    assert read.traded.tolist() == [[2, 0], [-1, -1], [-1, -1], [-1, -1]]
    assert read.end.tolist() == [2, 1, 2, 3]  # the longer of the two trades ends at 03:00
    assert read.regime[:, 0, 1].tolist() == [0.7, -0.1]
    assert (read.votes.action[[0, 3], 1, 0] == 0).all()
    near = read_log(*files, min_date="2026-02-05", tolerance_minutes=15)
    assert near.counts["lines without an outcome"] == 2
    assert near.labels[2, 0] == 0  # the trade opened at 02:50 belongs to the line of 03:00


OUTCOMES = {
    "capitals": ("WIN", "LOSS", "BreakEven"),
    "truth": ("True", "False", "FALSE"),
    "numbers": (1, 0, 0),
    "signs": (1, -1, 0),
    "answers": ("Yes", "no", "n"),
    "past tense": ("Won", "Lost", "break even"),
}


@pytest.mark.parametrize("spelling", OUTCOMES)
@pytest.mark.parametrize("actions", [("BUY", "SELL"), ("buy", "sell"), ("Long", "Short"), (1, -1), (2, 0)])
def test_outcomes_and_actions_are_read_in_common_spellings(spelling, actions, tmp_path):
    log, outcomes = tmp_path / "log.jsonl", tmp_path / "outcomes.csv"
    log.write_text("\n".join(json.dumps(line(f"2026-02-05T0{t}:00:00Z")) for t in range(4)))
    won, lost, even = OUTCOMES[spelling]
    said = zip(range(4), (actions[0], actions[1], actions[0], actions[1]), (won, won, lost, even))
    outcomes.write_text(HEADER + "".join(f"2026-02-05T0{t}:00:00Z,BTCUSDT,{action},{outcome},0.0,60\n" for t, action, outcome in said))
    read = read_log(log, outcomes)
    assert read.counts["invalid outcomes"] == 0
    assert read.labels[:, 0].tolist() == [2, 0, 1, 1]


@pytest.mark.parametrize("words", [("buy", "short"), ("LONG", "Sell"), (2, 0), (1, -1)])
@pytest.mark.parametrize(("sure", "n_told"), [(0.7, 0), (70, 6)])
def test_lines_are_read_in_common_spellings(words, sure, n_told, files):
    log, outcomes = files
    log.write_text("\n".join(json.dumps(line(f"2026-02-05T0{t}:00:00Z", action=words[t % 2], confidence=sure)) for t in range(3)))
    read = read_log(log, outcomes)
    assert read.counts["invalid lines"] == 0
    assert read.counts.get("confidences in per cent", 0) == n_told
    assert read.votes.action[0, :, 0].tolist() == [2, 0, 2]
    assert read.votes.confidence[0, :, 0].tolist() == [0.7] * 3


def test_times_of_logs_are_read_as_those_of_candles(files):
    log, outcomes = files
    start = 1_770_253_200_000  # 2026-02-05T01:00:00Z
    for lines_early, outcomes_early in ((0, 0), (1, 0), (0, 1), (1, 1)):
        log.write_text("\n".join(json.dumps(line(start + t * 3_600_000 - lines_early)) for t in range(3)))
        outcomes.write_text(HEADER + f"{start - outcomes_early},BTCUSDT,BUY,win,1.0,60\n")
        read = read_log(log, outcomes)
        assert (read.counts["outcomes without a line"], read.labels[:, 0].tolist()) == (0, [2, -1, -1])
        assert read.close_time[0] == (start - lines_early) * 1_000_000
    outcomes.write_text(HEADER + "2026-13-45T00:00:00Z,BTCUSDT,BUY,win,1.0,60\n")
    with pytest.raises(UserError, match="timestamp of"):
        read_log(log, outcomes)


@pytest.mark.parametrize(
    ("action", "outcome", "minutes", "match"),
    [
        ("BUY", "pending", 60, r"column outcome of .* must be win, loss or breakeven \(or true and false, .*, was 'PENDING'"),
        ("BUY", "0.35", 60, r"was '0.35'"),
        ("1", "win", 60, r"column action of .* must say which number is which action, was 1 alone"),
        ("up", "win", 60, r"column action of .* must hold actions, was 'UP'"),
    ],
)  # fmt: skip
def test_outcomes_that_say_nothing_are_refused_with_the_accepted_forms(action, outcome, minutes, match, files):
    log, outcomes = files
    outcomes.write_text(HEADER + f"2026-02-05T01:00:00Z,BTCUSDT,{action},{outcome},1.0,{minutes}\n" * 3)
    with pytest.raises(UserError, match=match):
        read_log(log, outcomes)


def test_single_odd_outcomes_and_lines_are_counted(files):
    log, outcomes = files
    row = "2026-02-05T01:00:00Z,BTCUSDT,{},{},1.0,{}\n"
    odd = [("HOLD", "win", 60), ("BUY", "pending", 60), ("BUY", "win", "inf"), ("BUY", "win", -1), ("BUY", "win", ""), ("", "win", 60)]
    outcomes.write_text(HEADER + row.format("BUY", "win", 60) + "".join(row.format(*values) for values in odd))
    log.write_text(log.read_text() + "[" * 100_000 + "\n")
    read = read_log(log, outcomes)
    assert (read.counts["invalid outcomes"], read.counts["invalid lines"]) == (6, 6)


def test_files_that_cannot_teach_are_refused(files, tmp_path):
    log, outcomes = files
    with pytest.raises(UserError, match="must have at least 1,000 lines with an outcome and two voters or more, was 2"):
        train_from_log(log, outcomes, PUBLISHED)
    with pytest.raises(UserError, match="without a usable one"):
        train_from_log(log, outcomes, PUBLISHED, min_date="2030-01-01")
    with pytest.raises(UserError, match="must be a readable file of JSON lines, was not found"):
        read_log(tmp_path / "none.jsonl", outcomes)
    (tmp_path / "odd.csv").write_text("timestamp,action\n")
    with pytest.raises(UserError, match="was without symbol"):
        read_log(log, tmp_path / "odd.csv")
    assert guarded(lambda: app(["train", FLAG, "--out", str(tmp_path / "m")], standalone_mode=False)) == 2
    assert (
        guarded(lambda: app(["train", FLAG, "simulated:x", "--from-log", str(log), "--out", str(tmp_path / "m")], standalone_mode=False))
        == 2
    )


def test_a_backtests_own_log_trains_the_layer_that_the_next_backtest_serves(tmp_path):
    bars = simulate("planted_edge", n_bars=1200, n_symbols=3)
    preds = Predictions.random(bars, seed=1)
    run = backtest(bars, preds, BUSY)
    log, outcomes = export_log(run, tmp_path)
    read = read_log(log, outcomes)
    assert read.counts["invalid lines"] == read.counts["doubled lines"] == read.counts["lines out of order"] == 0
    assert read.counts["outcomes without a line"] == 0
    assert_same_bits(read.votes.action, run.result.votes.action[:, np.isin(bars.close_time, read.close_time)])
    arguments = ["train", FLAG, "--from-log", str(log), "--outcomes", str(outcomes), "--out", str(tmp_path / "meta"), "--quiet"]
    assert guarded(lambda: app(arguments, standalone_mode=False)) == 0
    stored = MetaSchedule.load(tmp_path / "meta")
    assert stored.config["label"]["id"] == "L6"
    served = Engine(PUBLISHED, meta_model=stored).run(bars, preds.votes())
    first = int(np.searchsorted(bars.close_time, stored.artefacts[0].valid_from))
    assert np.isnan(served.meta_probs[:, :first]).all()
    assert not np.isnan(served.meta_probs[:, first:]).all()
    again, _ = train_from_log(log, outcomes, PUBLISHED)
    assert again.hash == stored.hash


def planted_log(folder, teach, n=1500):
    """A log of votes without content, and outcomes as `teach` gives them: (index, votes, regime) -> (action, outcome) or None."""
    rng = np.random.default_rng(0)
    start, lines, rows = pd.Timestamp("2026-01-01T00:00:00Z"), [], []
    for t in range(n):
        time = (start + pd.Timedelta(hours=t)).isoformat().replace("+00:00", "Z")
        said = {m: (str(rng.choice(["SELL", "HOLD", "BUY"])), round(float(rng.uniform(0.4, 0.95)), 3)) for m in ("xgb", "lgbm", "nhits")}
        heads = {a: sum(c for action, c in said.values() if action == a) for a in ("SELL", "HOLD", "BUY")}
        ensemble, trend = max(heads, key=heads.get), float(rng.normal() / 3)
        lines.append(
            {
                "timestamp": time,
                "symbol": "A",
                "base_predictions": {m: {"action": a, "confidence": c} for m, (a, c) in said.items()},
                "ensemble_action": ensemble,
                "ensemble_confidence": 0.7,
                "regime": {"volatility": 0.5, "trend_strength": trend},
            }
        )
        if (taught := teach(rng, ensemble, trend)) is not None:
            rows.append(f"{time},A,{taught[0]},{taught[1]},{1.0 if taught[1] == 'win' else -1.0},60")
    (folder / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (folder / "outcomes.csv").write_text(HEADER + "\n".join(rows))
    return folder / "log.jsonl", folder / "outcomes.csv"


def test_lines_without_an_outcome_neither_train_nor_score(tmp_path):
    """Every second line has an outcome; the others would be labelled with the ensemble's action, which the model can see."""

    def teach(rng, ensemble, trend):
        return (rng.choice(["BUY", "SELL"]), rng.choice(["win", "loss"])) if rng.random() < 0.8 else None

    files = planted_log(tmp_path, teach)
    read = read_log(*files)
    assert ((read.labels >= 0) == (read.traded >= 0)).all()
    made, counts = train_from_log(*files, PUBLISHED)
    assert counts["lines without an outcome"] == int((read.labels < 0).sum()) > 200
    for artefact in made.artefacts:
        fold = slice(*artefact.meta["split"]["rows"][1:])
        assert artefact.meta["n_scored"] == int((read.labels[fold] >= 0).sum())
        assert artefact.meta["balanced_accuracy"] < 0.65
        assert artefact.meta["status"] == "unskilled"


FUNCTIONS = {
    "the ensemble's action": lambda _, ensemble, trend: ("BUY", "loss") if ensemble == "HOLD" else (ensemble, "win"),
    "the sign of a feature": lambda _, ensemble, trend: ("BUY" if trend > 0 else "SELL", "loss" if abs(trend) < 0.1 else "win"),
    "who won by the sign of a feature": lambda rng, ensemble, trend: (
        "BUY" if ensemble == "BUY" else "SELL",
        "win" if trend > 0 else "loss",
    ),
}


@pytest.mark.parametrize("kind", ["logistic", "forest"])
@pytest.mark.parametrize("function", FUNCTIONS)
def test_labels_that_are_a_function_of_the_inputs_are_refused(function, kind, tmp_path):
    files = planted_log(tmp_path, FUNCTIONS[function])
    with pytest.raises(
        UserError,
        match=r"labels must be decided by the market, were a function of the model's inputs: (8[5-9]|9\d|100)\.\d% of later rows are known",
    ):
        train_from_log(*files, PUBLISHED, kind=kind)


def test_predictions_that_hold_the_label_teach_no_meta_model():
    bars = simulate("random_walk", n_bars=1500, n_symbols=2)
    preds = Predictions.random(bars, seed=1)
    action = preds.action.copy()
    action[0] = np.where(preds.action[0] >= 0, np.maximum(preds.labels, 0), -1)
    made = train_meta(bars, dataclasses.replace(preds, action=action, probs=None), PUBLISHED)
    assert made.artefacts == ()
    assert "labels must be decided by the market, were a function of the model's inputs" in made.notes[0]


# ---------------------------------------------------------------- MetaPredictor v5


def constant_model(scores):
    """A model whose scores are `scores`, whatever it sees."""
    arrays = {"mean": np.zeros(8), "scale": np.ones(8), "coef": np.zeros((3, 8)), "intercept": np.log(scores)}
    return MetaModel("logistic_softmax", VECTORS["v5"], arrays, hash="0123456789abcdef")


def test_meta_predictor_answers_one_set_of_votes():
    votes = {name: {"action": "BUY", "confidence": 0.8} for name in ("xgb", "lgbm", "patch", "nhits")}
    answer = MetaPredictor(constant_model([0.1, 0.2, 0.7])).predict(votes, "BTCUSDT")
    assert answer["action"] == "BUY"
    assert answer["confidence"] == pytest.approx(0.7)
    assert answer["confidence_std"] == pytest.approx(np.std([0.1, 0.2, 0.7]))  # population
    assert (answer["source"], answer["version"], answer["symbol"]) == ("meta_v5", "0123456789ab", "BTCUSDT")


def test_patch_and_patchtst_are_one_model_and_a_missing_one_holds_at_a_half():
    arrays = {"mean": np.zeros(8), "scale": np.ones(8), "coef": np.random.default_rng(0).normal(size=(3, 8)), "intercept": np.zeros(3)}
    predictor = MetaPredictor(MetaModel("logistic_softmax", VECTORS["v5"], arrays))
    rest = {"xgb": {"action": "SELL", "confidence": 0.6}, "nhits": {"action": "BUY", "confidence": 0.9}}
    one, other = ({**rest, name: {"action": "BUY", "confidence": 0.7}} for name in ("patch", "patchtst"))
    assert predictor.predict(one, "A") == predictor.predict(other, "A")
    spelled = {**one, "lgbm": {"action": "HOLD", "confidence": 0.5}}
    assert predictor.predict(one, "A") == predictor.predict(spelled, "A")


@pytest.mark.parametrize("vote", [{"action": "UP", "confidence": 0.5}, {"action": "BUY", "confidence": 1.5}, {"action": "BUY"}])
def test_whatever_is_wrong_it_holds_at_zero(vote):
    predictor = MetaPredictor(constant_model([0.1, 0.2, 0.7]))
    for asked, votes in (
        (predictor, {"xgb": vote}),
        (MetaPredictor(None), {}),
        (predictor, {"unknown": {"action": "BUY", "confidence": 0.5}}),
    ):
        answer = asked.predict(votes, "A")
        assert (answer["action"], answer["confidence"]) == ("HOLD", 0.0)
        assert not asked.overrides(answer)


def test_the_threshold_is_strict_and_under_the_v2_manager_almost_never_reached():
    plain, strict = (MetaPredictor(constant_model([0.2, 0.2, 0.6]), threshold) for threshold in (0.60, V1_THRESHOLD))
    answer = plain.predict({}, "A")
    assert not plain.overrides(answer | {"confidence": 0.60})
    assert plain.overrides(answer | {"confidence": 0.6000001})
    assert V1_THRESHOLD == 0.99
    assert not strict.overrides(answer | {"confidence": 0.98})


def test_other_features_are_refused_and_a_schedule_answers_by_time():
    bars = simulate("random_walk", n_bars=1200, n_symbols=2)
    preds = Predictions.random(bars, seed=1)
    with pytest.raises(UserError, match="must get a model on the v5 features, was meta26"):
        MetaPredictor(train_meta(bars, preds, PUBLISHED))
    schedule = train_meta(bars, preds, PUBLISHED, kind="logistic", vector="v5")
    predictor, votes = MetaPredictor(schedule), {"xgb": {"action": "BUY", "confidence": 0.8}}
    assert predictor.predict(votes, "A")["version"] == schedule.artefacts[-1].meta["version"]
    assert predictor.predict(votes, "A", time=int(bars.close_time[0]))["confidence"] == 0.0


def test_a_log_of_one_voter_is_told_that_more_of_it_does_not_help(tmp_path):
    log, outcomes = planted_log(tmp_path, lambda rng, ensemble, trend: ("BUY", rng.choice(["win", "loss"])))
    lines = [json.loads(text) for text in log.read_text().splitlines()]
    alone = [row | {"base_predictions": {"xgb": row["base_predictions"]["xgb"]}} for row in lines]
    log.write_text("\n".join(map(json.dumps, alone)))
    with pytest.raises(UserError, match=r"was 0 and [\d,]+ with an outcome but one voter at most \(xgb\); log two base models or more$"):
        train_from_log(log, outcomes, PUBLISHED)
    log.write_text("\n".join(map(json.dumps, lines[:200] + alone[200:400])))
    with pytest.raises(UserError, match=r"was 200; log a longer period$"):
        train_from_log(log, outcomes, PUBLISHED)
    log.write_text("\n".join(map(json.dumps, lines[:50] + alone[50:400])))
    with pytest.raises(UserError, match=r"was 50, beside 350 with one voter at most; log two base models or more$"):
        train_from_log(log, outcomes, PUBLISHED)


def test_flags_of_logs_are_named_as_they_are_typed(files, capsys):
    log, outcomes = (str(path) for path in files)
    told = {
        ("train", FLAG, "--from-log", log, "--outcomes", outcomes, "--min-date", "yesterday"): "min_date (--min-date) must hold times",
        ("train", FLAG, "--from-log", "none"): "--from-log must exist, was 'none' (not found)",
        ("train", FLAG, "sample", "--min-date", "2024-01-01"): "--min-date must come with --from-log, was with DATA",
        ("train", FLAG, "sample", "--tolerance", "5"): "--tolerance must come with --from-log, was with DATA",
    }
    for words, text in told.items():
        assert guarded(lambda words=words: app([*words, "--out", "x"], standalone_mode=False)) == 2
        assert text in capsys.readouterr().err
