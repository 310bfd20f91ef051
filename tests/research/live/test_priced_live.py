"""Does paper trading of opinions with a price do what the backtest did, also after a restart, a command and a promotion?"""

import io
import re
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import research
from qtcore import Engine, Params
from qtcore.types import MODELS, MONEY_COLUMNS, N_KNOTS, Action, Source
from research.cli.terminal import Terminal
from research.errors import UserError
from research.evidence.seats import seats_at
from research.live.dashboard.monitor import screen
from research.live.monitoring.gap import live_gap
from research.live.monitoring.health import status
from research.live.monitoring.sources import open_source
from research.live.session.controls import command, command_set
from research.live.start import LiveOptions, start_live
from research.live.storage.codec import cell_names, hash_state
from research.runs.config import load_config
from research.runs.folder import read_run
from research.runs.price_text import map_text, place_text, seat_text
from research.runs.tables import decision_planes
from research.training import registry
from research.training.models.layers import Layers
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from research.workflow.load import export_run
from research.workflow.recording import verify_run
from tests.conftest import assert_same_bits
from tests.support.as_published import CONFIG
from tests.support.live_market import content, run_live
from tests.support.priced import PRICED

WORLD, N, S = "simulated:planted_edge?n_bars=600&n_symbols=3&seed=1", 600, 3
PARAMS = Params.profile("published").with_values(PRICED)
EDGE = replace(CONFIG, params=PARAMS)


def with_slopes(made: Predictions, slope: float) -> Predictions:
    """The predictions and models of a training as if its maps had found these slopes."""
    maps = made.maps.maps.copy()
    maps["slope"], maps["arbiter_slope"] = slope, 2.0 * slope
    maps["variance"], maps["arbiter_variance"] = 4.0, 9.0
    maps["win"], maps["arbiter_win"] = np.linspace(0.4, 0.7, N_KNOTS), np.linspace(0.45, 0.55, N_KNOTS)
    schedule = replace(made.maps, maps=maps)
    return replace(made, maps=schedule, models=replace(made.models, config={**made.models.config, "maps": schedule.to_dict()}))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """Folders of one training of trees: its maps know of an edge, of none, and are absent."""
    folder, bars = tmp_path_factory.mktemp("trained"), research.load_bars(WORLD)
    plan = {"preset": "tiny", "n_folds": 3, "calibration": "prior", "processes": 1, "use_store": False}
    made = research.train(bars, ["lgbm"], "L1", PARAMS, maps=True, **plan)
    config = {name: value for name, value in made.models.config.items() if name != "maps"}
    plain = replace(made, maps=None, models=replace(made.models, config=config))
    for name, each in (("priced", with_slopes(made, 1.5)), ("flat", with_slopes(made, 0.0)), ("plain", plain)):
        each.models.save(folder / name)
        each.save(folder / name / "predictions.parquet")
    return folder


@pytest.fixture(scope="module")
def run(trained):
    bars = research.load_bars(WORLD)
    return research.backtest(bars, Predictions.from_models(trained / "priced", bars), PARAMS)


def asked(journal: Path, config=EDGE, **who) -> LiveOptions:
    return LiveOptions(f"replay:{WORLD}", journal, config, allow_synthetic=True, **{"allow_rejected": True} | who)


def test_a_model_without_skill_advises_where_an_edge_is_asked_for_and_is_refused_elsewhere(trained, tmp_path):
    who = {"models": str(trained / "flat"), "allow_rejected": False}
    statuses = {a.meta["status"] for a in ModelSet.load(trained / "flat").serving}
    assert statuses == {"unskilled"}
    for config in (CONFIG, load_config("original")):
        with pytest.raises(UserError, match="must be accepted to go live"):
            start_live(asked(tmp_path / "refused", config, **who))
    for name, config in (("served", EDGE), ("default", load_config())):
        run_live(asked(tmp_path / name, config, **who))
        with sqlite3.connect(tmp_path / name) as db:
            leaning, traded = db.execute("SELECT sum(lean != 0), sum(final_action != 1) FROM decisions").fetchone()
        assert leaning > 0
        assert traded == 0


def test_models_of_another_label_than_the_one_that_is_set_are_refused(trained, tmp_path):
    other = replace(EDGE, run=load_config(sets=["run.label=L3"]).run)
    with pytest.raises(UserError, match=r"must be that of the models, L1, was L3; leave it out, or train with run.label=L3"):
        start_live(asked(tmp_path / "journal.sqlite", other, models=str(trained / "priced")))
    assert list(tmp_path.glob("journal*")) == []


def check_against(run, journal: Path) -> None:
    """Decisions, edges and equity of a journal are those of a backtest, bit for bit."""
    names, expected, n_symbols = cell_names(MODELS, True), decision_planes(run), len(run.bars.symbols)
    with sqlite3.connect(journal) as db:
        table = np.array(db.execute(f"SELECT {', '.join(names)} FROM decisions ORDER BY cell").fetchall(), float)
        equity = np.array(db.execute("SELECT equity FROM bars ORDER BY bar").fetchall())
    for k, name in enumerate(names):
        assert_same_bits(table[:, k].reshape(-1, n_symbols) + 0.0, expected[name].astype(float) + 0.0, name)
    assert_same_bits(equity[:, 0], run.result.equity)


@pytest.fixture(scope="module")
def whole(trained, tmp_path_factory):
    """An uninterrupted replay of models: journal, and hash of the state."""
    journal = tmp_path_factory.mktemp("whole") / "journal.sqlite"
    return journal, run_live(asked(journal, models=str(trained / "priced")))[1]


def test_a_priced_replay_is_the_priced_backtest(run, whole):
    journal, state = whole
    assert len(run.result.fills) > 20
    check_against(run, journal)
    engine = Engine(run.params, models=run.predictions.models)
    engine.run(run.bars)
    assert hash_state(engine.state) == state
    assert live_gap(journal)["identical"]
    lean = run.result.decisions.lean[run.result.decisions.n_voters > 0]
    assert open_source(journal).tally().leans == {
        side: np.count_nonzero(np.sign(lean) == side) for side in (-1, 0, 1) if side in np.sign(lean)
    }
    wished = run.result.decisions.raw_action[run.result.decisions.n_voters > 0]
    counts = {action.name: np.count_nonzero(wished == action) for action in Action if action in wished}
    assert open_source(journal).tally().signals == ("wishes to trade", counts)
    told = open_source(journal).last(N * S)
    assert {row["raw_source"] for row in told} == {"ensemble", "arbiter"}
    assert all(row["edge"] > 0.0 for row in told if row["raw"]["action"] != "HOLD")


def test_the_status_says_who_acts_and_on_what_evidence(whole, trained):
    maps = ModelSet.load(trained / "priced").map_schedule
    source = open_source(whole[0])
    row, told = maps.at(source.book().time)
    said = status(source)["layers"]
    assert row["arbiter_slope"] > 0.0
    assert said["arbiter"] == {"word": "acts", "text": seat_text(told["arbiter"], True)}
    assert said["meta"]["word"] == "no model"
    assert said["ensemble"] == {"word": "acts", "text": map_text(told["ensemble"], float(row["slope"]))}
    assert list(said) == ["ensemble", "arbiter", "meta"]  # one voter alone is not tried
    place = {"is_kept": True, "gain": {"mean": 0.0001, "upper": 0.0004, "n_blocks": 20}}
    assert seats_at(row, told | {"voters": {"lgbm": place}}, MODELS)["lgbm"] == (True, place_text(place))
    monitor = Terminal(width=240, record=True, file=io.StringIO())
    monitor.print(screen(source))
    table = monitor.export_text().partition("SEATS OF THE LAYERS")[2]
    for layer, each in said.items():
        assert re.search(rf"\b{layer} +{each['word']} +{re.escape(each['text'].partition(' with')[0])}", table)
    assert maps.at(int(maps.maps["start"][0]) - 1) == (None, {})


def test_the_log_tells_edges_and_what_the_arbiter_said(run, trained, tmp_path):
    run_live(asked(tmp_path / "journal.sqlite", models=str(trained / "priced"), log=tmp_path / "live.log"))
    lines = (tmp_path / "live.log").read_text()
    d, (t, s) = run.result.decisions, np.argwhere(run.result.decisions.source == Source.ARBITER)[0]
    worth = (
        f"gross={1e4 * d.gross_edge[t, s]:.1f}bp | net={1e4 * d.edge[t, s]:+.1f}bp (above 0.0bp trades) | win={d.raw_confidence[t, s]:.3f}"
    )
    assert f"[EDGE] {run.bars.symbols[s]}: {Action(int(d.raw_action[t, s])).name} | {worth}" in lines
    assert f"[Arbiter] {run.bars.symbols[s]}: {Action(int(d.arbiter_action[t, s])).name}, win probability " in lines
    assert "nan" not in lines


def test_an_own_judge_has_no_price_in_the_maps_of_models(trained, tmp_path):
    layers = Layers(judge=lambda votes, planes, params: (votes.action[0], votes.confidence[0]))
    with pytest.raises(UserError, match="an own judge must be priced by what it said before"):
        start_live(asked(tmp_path / "journal.sqlite", models=str(trained / "priced"), layers=layers))


def test_stored_predictions_carry_their_maps_into_a_replay(run, trained, tmp_path):
    run_live(asked(tmp_path / "journal.sqlite", predictions=trained / "priced" / "predictions.parquet"))
    check_against(run, tmp_path / "journal.sqlite")
    assert live_gap(tmp_path / "journal.sqlite")["identical"]


@pytest.mark.parametrize(("point", "bar"), [("filled", 331), ("committed", 480), ("submitted", 481)])
def test_a_killed_session_goes_on_with_the_same_bits(whole, trained, tmp_path, point, bar):
    wish = asked(tmp_path / "journal.sqlite", models=str(trained / "priced"))
    runner, close = start_live(wish)
    passed = []

    def die(at: str) -> None:
        passed.append(at)
        if passed.count(point) > bar:
            raise KeyboardInterrupt

    runner.passed = die
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    close()
    assert run_live(wish)[1] == whole[1]
    assert content(wish.journal) == content(whole[0])


def test_the_least_edge_can_be_set_while_it_runs(trained, tmp_path):
    journal = tmp_path / "journal.sqlite"
    run_live(asked(journal, models=str(trained / "priced")), until=400)
    command(journal, command_set(["decide.min_edge=0.5"]))
    run_live(asked(journal, models=str(trained / "priced")))
    with sqlite3.connect(journal) as db:
        edge, action = np.array(db.execute("SELECT edge, raw_action FROM decisions WHERE bar > 400").fetchall(), float).T
    assert np.nanmax(edge) > 0.0
    assert np.all(action == 1)
    assert live_gap(journal)["identical"]
    for text in ("decide.rule=confidence", "ensemble.rule=vote", "meta.mode=policy"):
        with pytest.raises(UserError, match="a running chain takes"):
            command_set([text])


def test_promoted_models_bring_their_maps(trained, tmp_path):
    registry.promote(trained / "priced", "mine")
    journal = tmp_path / "journal.sqlite"
    runner, close = start_live(asked(journal, models="mine"))
    promoted = {450: trained / "flat", 500: trained / "plain"}
    runner.watchers = (lambda entry: registry.promote(promoted[entry.bar], "mine") if entry.bar in promoted else None,)
    try:
        runner.run()
    finally:
        close()
    with sqlite3.connect(journal) as db:
        edges = "SELECT MAX(gross_edge) FROM decisions WHERE bar BETWEEN ? AND ?"
        assert db.execute(edges, (400, 450)).fetchone()[0] > 0.0
        assert db.execute(edges, (451, N)).fetchone()[0] == 0.0
        ((refused,),) = db.execute("SELECT text FROM events WHERE kind = 'reload_refused'").fetchall()
    assert "must say what their opinions are worth" in refused
    assert live_gap(journal)["identical"]
    assert export_run(journal, tmp_path / "run").own_layers == ("sequence of maps",)


def test_an_exported_journal_is_proven_but_for_the_maps_of_its_models(run, whole, tmp_path):
    export_run(whole[0], tmp_path / "run")
    found, expected = read_run(tmp_path / "run").decisions(), decision_planes(run)
    for name in MONEY_COLUMNS:
        assert_same_bits(found[name], expected[name], name)
    certificate = verify_run(tmp_path / "run")
    assert certificate["passed"] is True
    assert "the maps from opinion to money: they were fitted on other bars than these" in certificate["not_covered"]
    assert open_source(tmp_path / "run").tally().leans == open_source(whole[0]).tally().leans


def test_a_training_without_maps_is_refused_with_the_remedy(trained, tmp_path):
    for who in ({"models": str(trained / "plain")}, {"predictions": trained / "plain" / "predictions.parquet"}):
        with pytest.raises(UserError, match=r"must say what their opinions are worth, was without; .*--profile published"):
            start_live(asked(tmp_path / "journal.sqlite", **who))


def test_imported_predictions_are_priced_as_in_a_backtest(tmp_path):
    bars = research.load_bars(WORLD)
    known = Predictions.random(bars, seed=4)
    known.save(tmp_path / "predictions.parquet")
    run_live(asked(tmp_path / "journal.sqlite", predictions=tmp_path / "predictions.parquet"))
    check_against(research.backtest(bars, known, PARAMS), tmp_path / "journal.sqlite")


def test_a_journal_is_of_one_rule(whole, trained):
    journal, _ = whole
    assert set(MONEY_COLUMNS) <= set(cell_names(MODELS, True)) - set(cell_names(MODELS))
    with pytest.raises(UserError, match=r"journal must be of the same decide.rule confidence, was edge"):
        start_live(asked(journal, load_config("published"), models=str(trained / "plain")))
