"""Does a study try every combination, count each, look at nothing that is held back, and say how to make its best again?"""

import json
import re
import shlex
import sys
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pytest
from markupsafe import escape
from typer.testing import CliRunner

import research
from research.cli.app import app
from research.cli.common import guarded
from research.data import save_bars
from research.errors import UserError
from research.evidence.ledger import Ledger
from research.evidence.openings import openings, path
from research.runs.config import load_config
from research.runs.study_plan import StudyPlan
from research.workflow.backtest_job import Job
from research.workflow.study_job import Study, run_study
from tests.support import PUBLISHED

WORLD = "simulated:macd?n_bars=2600&n_symbols=5&pull=0.3"
RUN = ["run.models=lgbm", "run.preset=tiny", "run.folds=2", "run.meta=none"]
PLAN = """
[study]
data = "{data}"
families = ["clock"]
targets = ["L3", "XS"]
books = ["symbols", "cross_section"]

[features]
sets = ["v5_rel"]

[run]
models = ["lgbm"]
preset = "tiny"
folds = 2
meta = "none"
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """A study on candles of a file, once; what is shared is only read."""
    folder = tmp_path_factory.mktemp("study")
    bars = research.load_bars(WORLD)
    save_bars(bars, folder / "candles.parquet")
    (folder / "study.toml").write_text(PLAN.format(data=folder / "candles.parquet"))
    patch = pytest.MonkeyPatch()
    patch.setenv("QT_HOME", str(folder / "home"))
    done = CliRunner().invoke(app, ["study", str(folder / "study.toml"), "--out", str(folder / "out")])
    patch.undo()
    assert done.exit_code == 0, done.output
    return folder, bars, done.output, json.loads((folder / "out" / "study.json").read_text())


def test_every_combination_is_tried_and_counted_and_the_page_tells_of_each(told, monkeypatch):
    folder, _, shown, found = told
    assert [(r["families"], r["target"]) for r in found["skill"]] == [(f, t) for f in ("base", "clock") for t in ("L3", "XS")]
    assert len(found["money"]) == 8
    assert len({(r["families"], r["target"], r["book"]) for r in found["money"]}) == 8
    monkeypatch.setenv("QT_HOME", str(folder / "home"))
    assert Ledger().count() == 8 == found["best"]["trials"]["trials"]
    assert (found["data"]["seen"], found["held_back"]["bars"]) == (2080, 520)
    page = (folder / "out" / "study.html").read_text()
    assert found["best"]["proven"]
    assert research.load_run(folder / "out" / "best").verification["passed"]
    assert (folder / "out" / found["best"]["report"]).exists()
    for text in (*found["sentences"], "cross_section", "2,080 bars", found["best"]["reason"]):
        assert str(escape(text)) in page
    for text in found["sentences"]:
        assert text in shown
    assert "is unopened" in found["sentences"][-1]
    assert not path().exists()


def test_what_is_held_back_moves_no_figure_of_a_study(told, tmp_path, monkeypatch):
    _, bars, _, found = told
    rng, seen = np.random.default_rng(1), found["data"]["seen"]
    planes = {name: getattr(bars, name).copy() for name in ("open", "high", "low", "close", "volume")}
    factor = np.exp(np.cumsum(rng.normal(0.0, 0.05, (bars.n - seen, 5)), axis=0))
    for name in ("open", "high", "low", "close"):
        planes[name][seen:] *= factor
    save_bars(replace(bars, **planes), tmp_path / "other.parquet")
    (tmp_path / "study.toml").write_text(PLAN.format(data=tmp_path / "other.parquet"))
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    other = run_study(load_config(path=tmp_path / "study.toml"), tmp_path / "out").summary
    for part in ("skill", "money"):
        assert other[part] == found[part]
    assert {name: value for name, value in other["best"].items() if name not in ("command", "sentence")} == {
        name: value for name, value in found["best"].items() if name not in ("command", "sentence")
    }


def test_its_best_is_made_again_by_the_command_that_it_names(told, tmp_path, monkeypatch):
    folder, _, _, found = told
    monkeypatch.setenv("QT_HOME", str(folder / "home"))
    best, before = found["best"], Ledger().count()
    words = shlex.split(best["command"])
    done = CliRunner().invoke(app, [*words[1:], "--out", str(tmp_path / "run"), "--no-verify"])
    assert done.exit_code == 0, done.output
    run = research.load_run(tmp_path / "run")
    assert run.summary["evidence"]["test"]["t"] == pytest.approx(best["test"]["t"], rel=1e-12)
    assert Ledger().count() == before  # it is the trial that it was


def test_what_is_held_back_is_opened_for_the_best_alone_and_every_opening_is_kept(told, tmp_path, monkeypatch):
    folder, bars, _, found = told
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    config = load_config(path=folder / "study.toml")
    for times in (1, 2):
        report = run_study(config, tmp_path / "out", opens=True)
        held = report.summary["held_back"]
        seen = found["data"]["seen"]
        assert held["openings"] == times == openings(bars[seen:]) == openings(bars[seen + 100 : seen + 300])
        assert openings(bars[:seen]) == openings(research.load_bars(f"{WORLD}&seed=9")[seen:]) == 0
        assert held["opened"]["net"]["ci95"][0] < held["opened"]["net"]["value"]
        assert report.summary["money"] == found["money"]
        page = report.page.read_text()
        assert ("is no longer unseen" in page) == (times == 2)
    notes = [json.loads(line) for line in path().read_text().splitlines()]
    assert [note["setting"] for note in notes] == [[found["best"][name] for name in ("families", "target", "book")]] * 2
    path().write_text("nothing\n")
    with pytest.raises(UserError, match="put it aside; who does so forgets what was opened"):
        openings(bars[1:])


def test_what_is_held_back_is_traded_by_a_fresh_account_with_the_worth_learned_before(told, monkeypatch):
    folder, bars, _, found = told
    monkeypatch.setenv("QT_HOME", str(folder / "home"))
    config = load_config(path=folder / "study.toml")
    study = Study.of(config.study, Job(config.study.data, config), bars)
    best = tuple(found["best"][name] for name in ("families", "target", "book"))
    run = study.run(best, bars.n, None)
    assert run.result.fills.size > 0
    assert run.result.fills["bar"].min() > study.seen
    assert np.all(run.result.equity[: study.seen] == run.params.broker.initial_cash)
    first, kept = run.predictions.maps.maps[0], run.predictions.models.map_schedule.at(bars.close_time[study.seen])[0]
    assert first["start"] == bars.close_time[study.seen]
    assert (first["slope"], first["arbiter_slope"]) == (kept["slope"], kept["arbiter_slope"])
    assert kept["slope"] > 0.0


@pytest.mark.parametrize("world", ["constant", "trend"])
def test_a_market_in_which_no_model_speaks_has_a_page_without_figures(world, tmp_path, monkeypatch):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    (tmp_path / "study.toml").write_text(f'[study]\ndata = "simulated:{world}?n_bars=1800&n_symbols=5"\ntargets = ["L3", "XS"]\n')
    report = run_study(load_config(path=tmp_path / "study.toml", sets=RUN), tmp_path / "out")
    assert report.summary["best"] is None
    assert "is unopened" in report.summary["sentences"][-1]
    assert world == "trend" or all(row["gain"] is None and row["balanced_accuracy"] is None for row in report.summary["skill"])
    assert "None traded enough to be judged" in report.page.read_text()


@pytest.mark.parametrize(
    ("sets", "text"),
    [
        (["study.data="], "study.data must name candles, was empty"),
        (["study.families=clocks"], "study.families must be among base, all, cross_section, .*was 'clocks'"),
        (["study.families=flow+v5_rel"], "beside features.sets .*was 'v5_rel' of 'flow.v5_rel', which is there already; .* smaller"),
        (["study.targets=auto"], "study.targets must name labels, was auto"),
        (["study.targets=L3,L9"], "label .* must be auto, .*was 'L9'"),
        (["study.targets="], "must have 1 to 1000 combinations .* was 0"),
        (["study.books=both"], "governor.book must be one of symbols, cross_section, was 'both'"),
        (["study.hold_back=soon"], "study.hold_back must hold times, was 'soon'"),
        (["study.hold_back=1999-01-01"], "must leave 100 bars or more on either side, was 1999-01-01 with 0 bars before"),
        (["study.targets=XS", "study.symbols=SIM01,SIM02"], "label XS ranks .* must be 5 or more, was 2"),
        (["study.families=market", "study.symbols=SIM01,SIM02"], r"features\.sets may hold market for 5 symbols or more, was for 2"),
    ],
)
def test_mistakes_are_told_before_anything_is_trained(sets, text, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    (tmp_path / "study.toml").write_text(f'[study]\ndata = "{WORLD}"\n')
    flags = [word for value in (*RUN, *sets) for word in ("--set", value)]
    monkeypatch.setattr(sys, "argv", ["qt", "study", str(tmp_path / "study.toml"), *flags, "--out", str(tmp_path / "out")])
    assert guarded(lambda: app(standalone_mode=False)) == 2
    assert re.search(text, capsys.readouterr().err)
    assert not (tmp_path / "out").exists()
    assert Ledger().count() == 0


def test_dates_may_be_those_of_toml():
    plan = StudyPlan(data="x", start=date(2024, 1, 2), hold_back=datetime(2024, 7, 15, 6, tzinfo=UTC))
    assert (plan.start, plan.end, plan.hold_back) == ("2024-01-02", "", "2024-07-15T06:00:00+00:00")


def test_families_are_put_together_by_name_and_those_that_need_more_symbols_are_left_out_of_all():
    plan, params = StudyPlan(data="x", families=("all", "clock+range")), PUBLISHED
    base = params.features.every_set
    assert plan.sets(params, "base", 2) == base
    assert plan.sets(params, "clock+range", 2) == (*base, "clock", "range")
    assert not {"market", "cross_section"} & {*plan.sets(params, "all", 2)}
    assert {"market", "cross_section"} <= {*plan.sets(params, "all", 5)}
    assert plan.combinations()[0] == ("base", "L3", "symbols")


def test_the_best_by_skill_is_the_one_whose_gain_is_surest_and_what_is_opened_tells_of_it(told, tmp_path, monkeypatch):
    folder, _, _, found = told
    monkeypatch.setenv("QT_HOME", str(folder / "home"))
    plan = (folder / "study.toml").read_text().replace("books =", 'best_by = "skill"\nbooks =')
    (tmp_path / "study.toml").write_text(plan)
    report = run_study(load_config(path=tmp_path / "study.toml"), tmp_path / "out", opens=True)
    gains = {(r["families"], r["target"]): r["gain"]["ci95"][0] if r["gain"] else 0.0 for r in found["skill"]}
    best, opened = report.summary["best"], report.summary["held_back"]["opened"]
    assert gains[best["families"], best["target"]] == max(gains.values())
    assert opened["skill"]["families"] == best["families"]
    assert (opened["skill"]["gain"] is None) == (best["families"] == "base")
    page = (tmp_path / "out" / "study.html").read_text()
    assert "What its models know there" in page
