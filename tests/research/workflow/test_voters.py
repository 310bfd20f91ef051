"""Is a voter called by its own name wherever it votes, weighs what it was told, and refused where it cannot take part?"""

import json
import re
import sqlite3

import numpy as np
import pandas as pd
import pytest

import qtcore as qt
import research
from qtcore.types import MODELS
from qtcore.voters import slots_of
from research.data import save_bars
from research.live.monitoring.gap import live_gap
from research.live.monitoring.health import status
from research.live.monitoring.journal_source import JournalSource
from research.live.monitoring.run_source import RunSource
from research.live.start import LiveOptions, start_live
from research.report.rows import changed_params, param_table
from research.runs.config import load_config
from research.runs.explain import explain_decision
from research.runs.folder import read_run
from research.runs.prediction_log import export_log
from research.training.meta import train_meta
from research.training.meta.logs import read_log
from research.training.meta.schedule import MetaSchedule
from research.training.models import base, register
from research.training.models.schedule import ModelSet
from tests.conftest import assert_same_bits
from tests.support import PUBLISHED
from tests.support.as_published import CONFIG

VECTORS = ("v5", "meta26", "meta30", "meta32", "meta36", "meta32_original", "meta36_original", "bet30", "bet35")
NAMELESS = re.compile(r"(?<![a-z0-9])tft(?![a-z0-9])", re.IGNORECASE)


@pytest.fixture(scope="module", autouse=True)
def registered():
    known = dict(base._REGISTRY)
    for name in ("forest", "wood", *"abcdef"):
        register(name, "examples.forest:Forest")
    yield
    base._REGISTRY.clear()
    base._REGISTRY.update(known)


@pytest.fixture(scope="module")
def bars():
    return research.simulate("planted_edge", seed=3, n_bars=700, n_symbols=2)


@pytest.fixture(scope="module")
def trained(bars):
    return research.train(bars, models=("lgbm", "forest"), preset="tiny", n_folds=2, processes=1, profile="published")


@pytest.fixture(scope="module")
def run(bars, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("voters") / "run"
    made = research.backtest(bars, trained, PUBLISHED)
    made.save(folder, record=False)
    made.verify()
    made.report(folder / "report.html")
    export_log(made, folder)
    return made


def names_in(folder) -> set[str]:
    """Files of a folder whose text, names of columns, or bytes of JSON and HTML name the slot's known voter."""
    found = set()
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            text = " ".join(pd.read_parquet(path).columns)
        elif path.is_file():
            text = (
                path.read_bytes().decode("utf-8", "replace") if path.suffix in (".json", ".html", ".jsonl", ".csv", ".txt") else path.name
            )
        else:
            text = path.name
        if NAMELESS.search(f"{path.name} {text}"):
            found.add(path.name)
    return found


def test_voters_take_their_slots():
    assert slots_of(["forest", "lgbm"]) == ("xgb", "lgbm", "nhits", "patchtst", "forest")
    assert slots_of(["tft", "b", "a"]) == ("xgb", "lgbm", "b", "a", "tft")
    assert slots_of("edcba") == tuple("edcba")
    assert slots_of([]) == MODELS
    assert all(slots_of(slots_of(names)) == slots_of(names) for names in (["b", "xgb"], list("abcd"), ["tft", "z", "lgbm"]))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (list("abcdef"), "at most 5, was 6: a, b, c, d, e, f"),
        (["a", "A"], "different names, capital letters or not, was a, A"),
        (["my model"], "letters, digits and underscores, .* was 'my model'"),
        (["1st"], "a letter first"),
        (["x" * 41], "40 at most"),
        (["ensemble"], "must not begin with the word ensemble"),
        (["meta_forest"], "must not begin with the word meta"),
        (["xgboost"], "another way to write xgb"),
        (["LGBM"], "another way to write lgbm"),
    ],
)
def test_voters_that_cannot_take_part_are_refused(names, message):
    with pytest.raises(qt.InputError, match=message):
        slots_of(names)


def test_voters_of_their_own_names_are_called_so_in_every_file(run):
    folder = run.folder
    assert run.verification["passed"], run.verification
    assert run.predictions.slots == ("lgbm", "forest")
    assert "forest_action" in run.decisions
    assert names_in(folder) == set()
    assert "forest" in (folder / "report.html").read_text()
    assert read_run(folder).voters == ("xgb", "lgbm", "nhits", "patchtst", "forest")
    assert run.manifest["weights"] == run.summary["assumptions"]["weights"] == {"lgbm": 0.25, "forest": 0.25}
    assert sorted(path.name.split("_v")[0] for path in folder.glob("models/fold_00/*.skops")) == ["forest"]
    close = str(pd.Timestamp(run.bars.close_time[500], tz="UTC").tz_localize(None))
    told = explain_decision(folder, run.bars.symbols[0], close)
    assert [layer["name"] for layer in told["layers"] if layer["name"].startswith("model ")][-1] == "model forest"
    assert not NAMELESS.search(json.dumps(told) + json.dumps(status(RunSource(read_run(folder))), default=str))
    back = research.load_run(folder)
    assert_same_bits(back.result.equity, run.result.equity)
    assert back.result.votes.names == run.result.votes.names


def test_what_voters_and_label_settle_is_no_change_of_the_profile(run):
    a = run.summary["assumptions"]
    assert a["params"]["ensemble.weights"] != qt.Params.profile("published").flat()["ensemble.weights"]
    assert a["params"]["broker.max_holding_bars"] == a["label"]["horizon"] != qt.Params.profile("published").broker.max_holding_bars
    assert changed_params(a) == []
    assert "published, 0 parameters changed" in (run.folder / "report.html").read_text()
    assert not any(row[2] for row in param_table(a).rows)
    by_hand = a | {"params": a["params"] | {"broker.max_holding_bars": 9, "ensemble.weights": [0.25, 0.25, 0.3, 0.2, 0.1]}}
    assert changed_params(by_hand) == ["ensemble.weights", "broker.max_holding_bars"]


def test_voters_serve_live_as_they_did_in_the_backtest(run, trained, tmp_path):
    save_bars(run.bars, tmp_path / "bars.parquet")
    asked = LiveOptions(
        f"replay:{tmp_path / 'bars.parquet'}", tmp_path / "j", CONFIG, models=str(run.folder / "models"), allow_rejected=True,
        log=tmp_path / "log.txt",
        how={"symbols": run.bars.symbols},
    )  # fmt: skip
    runner, close = start_live(asked)
    try:
        runner.run()
    finally:
        close()
    source = JournalSource(tmp_path / "j")
    equity = np.array(source.rows("SELECT equity FROM bars ORDER BY bar"))[:, 0]
    assert_same_bits(
        equity, research.backtest(run.bars, research.Predictions.from_models(trained.models, run.bars), PUBLISHED).result.equity
    )
    assert live_gap(tmp_path / "j")["identical"]
    with sqlite3.connect(tmp_path / "j") as db:
        schema = " ".join(text for (text,) in db.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL"))
        (features,) = db.execute("SELECT features FROM metav2_decisions ORDER BY timestamp DESC LIMIT 1").fetchone()
    assert "forest_action" in schema
    assert "forest" in json.loads(features)["base_predictions"]
    said = [schema, features, json.dumps(status(source), default=str), json.dumps(source.last(5)), (tmp_path / "log.txt").read_text()]
    assert not NAMELESS.search(" ".join(said))
    assert "[forest]" in said[-1]
    predictions = research.Predictions.random(run.bars, models=("lgbm", "wood"))
    predictions.save(tmp_path / "other.parquet")
    other = LiveOptions(asked.feed, asked.journal, CONFIG, predictions=tmp_path / "other.parquet", how=asked.how)
    with pytest.raises(research.UserError, match=r"journal must be of the same voters .* wood, was .* forest"):
        start_live(other)


def test_voters_are_swept_with_their_weights(run, bars, trained):
    trials = research.sweep(bars, trained, grid={"governor.min_confidence": [0.5, 0.65]}, record=False, params=PUBLISHED)
    assert trials.params(1).ensemble.weights == run.params.ensemble.weights
    assert_same_bits(research.backtest(bars, trained, trials.params(1)).result.equity, run.result.equity)
    of_run = research.sweep(bars, read_run(run.folder).predictions(), {"governor.min_confidence": [0.65]}, run.params, record=False)
    assert of_run.params(0).ensemble.weights == run.params.ensemble.weights


def test_weights_by_name_are_swept_alone_and_together(bars, trained):
    grid = {"ensemble.weights.forest": "0:0.6:0.2", "ensemble.weights.lgbm": "0.1,2", "governor.min_confidence": [0.4]}
    trials = research.sweep(bars, trained, grid, record=False, params=PUBLISHED)
    assert list(trials.table()["ensemble.weights.forest"]) == [0.0, 0.0, 0.2, 0.2, 0.4, 0.4, 0.6, 0.6]
    for trial, (forest, lgbm) in enumerate((a, b) for a in (0.0, 0.2, 0.4, 0.6) for b in (0.1, 2.0)):
        told = PUBLISHED.with_values({"ensemble.weights.forest": forest, "ensemble.weights.lgbm": lgbm, "governor.min_confidence": 0.4})
        run = research.backtest(bars, trained, told)
        assert trials.params(trial).ensemble.weights == run.params.ensemble.weights
        assert trials.table()["last_equity"][trial] == run.result.equity[-1]
    known = {"ensemble.weights.lgbm": [0.1, 0.25, 0.9, 3.0]}  # the forest's equal share follows
    base = PUBLISHED.with_values({"governor.min_confidence": 0.4})
    trials = research.sweep(bars, trained, known, base, record=False)
    for trial, weight in enumerate(known["ensemble.weights.lgbm"]):
        run = research.backtest(bars, trained, base.with_values({"ensemble.weights.lgbm": weight}))
        assert trials.params(trial).ensemble.weights == run.params.ensemble.weights == (0.25, weight, 0.3, 0.2, weight)
        assert trials.table()["last_equity"][trial] == run.result.equity[-1]
    drawn = research.sweep(
        bars, trained, {"ensemble.weights.forest": "0.1:0.9"}, search="random", settings=30, record=False, params=PUBLISHED
    )
    assert drawn.table()["ensemble.weights.forest"].between(0.1, 0.9).all()
    run = research.backtest(bars, trained, drawn.params(7))
    assert drawn.table()["last_equity"][7] == run.result.equity[-1]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"ensemble.weights.wood": [0.5]}, "--grid: ensemble.weights must name voters of this run, .*, was with 'wood'; correct it"),
        ({"ensemble.weights.forest": [-1.0]}, r"--grid: ensemble.weights.forest must be a number in \[0, 100\], was -1.0"),
        ({"ensemble.weights.forest": [1.0], "ensemble.weights": "1 1 1 1 1"}, "weights by name or in order of the slots, .*; take one"),
        ({f"ensemble.weights.{name}": [0.0, 1.0] for name in ("forest", "lgbm")}, "--grid: .* must have a sum above 0 over the voters"),
    ],
)
def test_weights_by_name_that_cannot_be_swept_are_refused(bars, trained, grid, message):
    with pytest.raises(research.UserError, match=message):
        research.sweep(bars, trained, grid, record=False, params=PUBLISHED)


@pytest.mark.parametrize(
    ("sets", "weights"),
    [
        ((), (0.25, 0.25, 0.30, 0.20, 0.25)),
        (("ensemble.weights.forest=0.3",), (0.25, 0.25, 0.30, 0.20, 0.3)),
        (("ensemble.weights.lgbm=1", "ensemble.weights.xgb=0"), (0.0, 1.0, 0.30, 0.20, 1.0)),
        (("ensemble.weights=1,2,3,4",), (1.0, 2.0, 3.0, 4.0, 0.0)),
        (("ensemble.weights=1,2,3,4,5",), (1.0, 2.0, 3.0, 4.0, 5.0)),
        (("ensemble.weights=0.25,0.25,0.3,0.2,0",), (0.25, 0.25, 0.3, 0.2, 0.0)),
        (("ensemble.weights=1,1,1,1", "ensemble.weights.forest=2"), (1.0, 1.0, 1.0, 1.0, 2.0)),
        (("ensemble.weights.forest=2", "ensemble.weights=1,1,1,1"), (1.0, 1.0, 1.0, 1.0, 0.0)),
    ],
)
def test_voters_weigh_what_they_are_told(bars, trained, sets, weights):
    config = load_config("published", sets=sets)
    run = research.backtest(bars, trained, config.params)
    assert run.params.ensemble.weights == weights
    again = load_config("published", sets=config.changes()).params
    assert research.backtest(bars, trained, again).params.ensemble.weights == weights
    assert any("forest votes with a weight of 0" in note for note in run.notes) == (weights[4] == 0.0)
    stored = PUBLISHED.with_values(json.loads(json.dumps(run.params.flat())))
    assert_same_bits(research.backtest(bars, trained, stored).result.equity, run.result.equity)


def test_voters_are_weighed_in_a_file_and_by_regime(bars, trained, tmp_path):
    text = "[ensemble.weights]\nforest = 0.7\n\n[ensemble.regime_weights]\nvolatility_high = {forest = 2.0, lgbm = 0.5}\n"
    (tmp_path / "qt.toml").write_text(text)
    given = load_config("published", path=tmp_path / "qt.toml")
    run = research.backtest(bars, trained, given.params)
    assert run.params.ensemble.weights[4] == 0.7
    factors = np.array(run.params.ensemble.regime_factors).reshape(9, 5)
    assert factors[6:, 4].tolist() == [2.0] * 3
    assert factors[6:, 1].tolist() == [0.5] * 3
    assert factors[:6].tolist() == np.ones((6, 5)).tolist()
    for name in ("ensemble.weights.tft", "ensemble.regime_weights.volatility_high.tft"):
        with pytest.raises(research.UserError, match=r"must name .*forest.* was .*'tft'"):
            research.backtest(bars, trained, PUBLISHED.with_values({name: 1.0}))
    with pytest.raises(research.UserError, match="sum above 0 over the voters lgbm, forest, was 0; give one of them a weight"):
        research.backtest(bars, trained, PUBLISHED.with_values({"ensemble.weights": {"forest": 0, "lgbm": 0}}))
    with pytest.raises(qt.InputError, match=r"ensemble.weights.forest must be a number in \[0, 100\], was -1"):
        PUBLISHED.with_values({"ensemble.weights": {"forest": -1}})


def test_voters_without_settled_weights_do_not_vote_in_an_engine_of_ones_own(bars, trained):
    votes = trained.votes()
    with pytest.raises(qt.InputError, match="the weight of forest is open"):
        qt.Engine(PUBLISHED).run(bars, votes)
    run = research.backtest(bars, trained, PUBLISHED)
    assert_same_bits(qt.Engine(run.params).run(bars, votes).equity, run.result.equity)
    assert qt.Engine(PUBLISHED, models=trained.models).params.ensemble.weights == run.params.ensemble.weights


ALONE = [("forest", "wood"), *(pytest.param(names, marks=pytest.mark.slow) for names in (tuple("abcde"), ("lgbm", "b", "a")))]


@pytest.mark.parametrize("names", ALONE)
def test_voters_of_their_own_alone_make_a_run_that_is_proven(bars, names, tmp_path):
    made = research.train(bars, models=names, preset="tiny", n_folds=2, processes=1, profile="published")
    assert set(made.slots) == set(names)
    run = research.backtest(bars, made, PUBLISHED)
    run.save(tmp_path / "run", record=False)
    assert run.verify()["passed"], run.verification
    weights = set(run.manifest["weights"].values())
    assert weights == ({0.25} if "lgbm" in names else {1.0})
    back = ModelSet.load(tmp_path / "run" / "models")
    assert back.names == made.names
    assert_same_bits(back.serve(research.training.models.inputs.model_inputs(bars, PUBLISHED).matrix, bars.close_time), made.probs)


def test_voters_are_five_at_most_in_a_training(bars):
    with pytest.raises(research.UserError, match="voters must be at most 5, was 6"):
        research.train(bars, models=tuple("abcdef"), preset="tiny", n_folds=2, profile="published")


@pytest.mark.parametrize("vector", VECTORS)
def test_voters_are_stored_with_a_meta_layer_and_others_are_refused(vector, tmp_path):
    bars = research.simulate("random_walk", seed=5, n_bars=900, n_symbols=3)
    predictions = research.Predictions.random(bars, seed=5, models=("xgb", "lgbm", "wood", "forest"))
    params = PUBLISHED.with_values({"meta.mode": "v5" if vector == "v5" else "override"})
    made = train_meta(bars, predictions, params, kind="logistic", vector=vector).save(tmp_path / "meta")
    back = MetaSchedule.load(tmp_path / "meta")
    assert back.vector == vector
    assert back.voters == predictions.names == ("xgb", "lgbm", "nhits", "wood", "forest")
    assert_same_bits(*(research.backtest(bars, predictions, params, meta=meta).result.equity for meta in (made, back)))
    assert names_in(tmp_path / "meta") == set()
    with pytest.raises(research.UserError, match=r"must be served with the voters .* trained with wood in slot 4 and asked about patchtst"):
        research.backtest(bars, research.Predictions.random(bars, seed=5), params, meta=back)


def test_voters_of_a_log_are_those_that_wrote_it(tmp_path):
    bars = research.simulate("random_walk", seed=5, n_bars=600, n_symbols=2)
    predictions = research.Predictions.random(bars, seed=5, models=("wood", "forest"))
    run = research.backtest(bars, predictions, PUBLISHED.with_values({"governor.min_confidence": 0.0, "meta.enabled": False}))
    log, outcomes = export_log(run, tmp_path)
    read = read_log(log, outcomes)
    for name in ("wood", "forest"):
        mine, theirs = read.votes.names.index(name), predictions.names.index(name)
        voted = (run.result.decisions.n_voters > 0).any(axis=1)
        assert_same_bits(read.votes.confidence[mine], predictions.confidence[theirs][voted])


def test_voters_of_a_file_have_the_names_of_its_columns(bars, tmp_path):
    said = research.Predictions.random(bars, models=("wood", "lgbm", "Forest"))
    table = said.to_pandas().reset_index().drop(columns=["open_time", "fold", "label", "provenance"])
    table.to_csv(tmp_path / "mine.csv", index=False)
    read = research.Predictions.import_file(tmp_path / "mine.csv", bars)
    assert read.names == said.names == ("xgb", "lgbm", "nhits", "wood", "Forest")
    assert read.slots == ("lgbm", "wood", "Forest")
    with pytest.raises(research.UserError, match="voters must be at most 5, was 6"):
        research.Predictions.import_file(table.assign(x_action=1, x_confidence=0.5), bars)
    odd = research.Predictions.import_file(table.assign(final_action=1, final_confidence=0.5, raw_action=1), bars)
    assert odd.slots == read.slots
    assert "columns of final were not read: that is a layer's name and no voter's; rename them where a model is meant" in odd.notes
    with pytest.raises(research.UserError, match=r"letters, digits and underscores, .* was 'my model'"):
        research.Predictions.import_file(table.assign(**{"my model_action": 1, "my model_confidence": 0.5}), bars)


def test_voters_with_a_weight_of_zero_are_told_and_known_ones_keep_theirs(bars):
    predictions = research.Predictions.random(bars, models=MODELS)
    run = research.backtest(bars, predictions, PUBLISHED)
    assert run.params.ensemble.weights == PUBLISHED.ensemble.weights
    assert [note for note in run.notes if "weight of 0" in note] == [
        "tft votes with a weight of 0 and moves no sum; --set ensemble.weights.tft=1 gives it one"
    ]
