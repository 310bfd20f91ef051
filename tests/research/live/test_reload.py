"""Does a promoted model take over between two bars, is an unfit one refused, and does a restart know who decided what?"""

import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

import qtcore as qt
import research
from research.data import load_bars
from research.errors import UserError
from research.live.monitoring.gap import live_gap
from research.live.session.reload import Reload
from research.live.start import LiveOptions, start_live
from research.training import registry
from research.training.meta import train_meta
from research.training.models.schedule import ModelSet
from research.training.predictions import Predictions
from tests.conftest import assert_same_bits
from tests.research.live.test_live import content, planes_of, run_live
from tests.support import PUBLISHED
from tests.support.as_published import CONFIG

WORLD = "simulated:random_walk?n_bars=300&n_symbols=2"
SWAP, N_SYMBOLS = 230, 2


@pytest.fixture(scope="module")
def bars():
    return load_bars(WORLD)


@pytest.fixture(scope="module")
def trained(bars, tmp_path_factory) -> list[Path]:
    """Three folders of trees: two with a meta layer each, one of them of another seed; one that looks further ahead."""
    folder = tmp_path_factory.mktemp("trained")
    made = []
    for k, label in enumerate(("L1", "L1", "L2")):
        part = research.train(bars, models=("lgbm",), label=label, n_folds=2, seed=k, preset="tiny", use_store=False, profile="published")
        part.models.save(folder / str(k))
        train_meta(bars, Predictions.random(bars, seed=8 + k), PUBLISHED, kind="logistic").save(folder / str(k) / "meta")
        made.append(folder / str(k))
    return made


def asked(journal: Path) -> LiveOptions:
    return LiveOptions(f"replay:{WORLD}", journal, CONFIG, models="mine", allow_rejected=True, allow_synthetic=True)


def run_with_a_swap(journal: Path, new: Path, at: int = SWAP, until: int | None = None):
    """Replay, and promote `new` after bar `at`; stop after bar `until`."""
    runner, close = start_live(asked(journal))

    def swap(entry) -> None:
        if entry.bar == at:
            registry.promote(new, "mine")
        if until is not None and entry.bar >= until:
            runner.stop()

    runner.watchers = (swap,)
    try:
        return runner.run()
    finally:
        close()


def rows(journal: Path, query: str) -> list:
    with sqlite3.connect(journal) as db:
        return db.execute(query).fetchall()


def test_a_promoted_version_decides_from_the_next_bar_on(bars, trained, tmp_path):
    registry.promote(trained[0], "mine")
    run_with_a_swap(tmp_path / "j", trained[1])
    versions = rows(tmp_path / "j", "SELECT id, from_bar, models, cause FROM versions ORDER BY id")
    ((event_bar, text),) = rows(tmp_path / "j", "SELECT bar, text FROM events WHERE kind = 'reload'")
    assert event_bar == SWAP + 1
    assert text == "mine@1 -> mine@2: lgbm and a meta layer from this bar on"
    assert (versions[-1][1], versions[-1][3]) == (SWAP + 1, text)
    assert [json.loads(v[2])["source"] for v in versions[:1] + versions[-1:]] == ["mine@1", "mine@2"]
    found = planes_of(tmp_path / "j", N_SYMBOLS)["lgbm_confidence"]
    for folder, part in ((trained[0], slice(0, SWAP + 1)), (trained[1], slice(SWAP + 1, bars.n))):
        votes = Predictions.from_models(folder, bars).votes()
        assert_same_bits(found[part], votes.confidence[1][part], folder.name)
    # what the account did is what an engine does that is handed the other models in between
    engine, equity = qt.Engine(PUBLISHED, models=ModelSet.load(trained[0])), []
    for k, part in enumerate((slice(0, SWAP + 1), slice(SWAP + 1, bars.n))):
        loaded = start_live(replace(asked(tmp_path / f"k{k}"), models=str(trained[k])))[0]
        engine.models, engine.meta_model = loaded.models, loaded.meta
        equity += engine.run(bars[part]).equity.tolist()
    assert [e for (e,) in rows(tmp_path / "j", "SELECT equity FROM bars ORDER BY bar")] == equity


def test_a_stop_around_the_swap_changes_nothing(trained, tmp_path):
    registry.promote(trained[0], "mine")
    run_with_a_swap(tmp_path / "whole", trained[1])
    for until in (SWAP + 1, SWAP + 12):
        shutil.rmtree(registry.registry_folder())
        registry.promote(trained[0], "mine")
        journal = tmp_path / str(until)
        run_with_a_swap(journal, trained[1], until=until)
        outcome, _ = run_live(asked(journal))
        assert outcome.resumed == until + 1
        mine, whole = content(journal), content(tmp_path / "whole")
        for name, table in mine.items():
            assert [row[:11] for row in table] == [row[:11] for row in whole[name]], name  # the number of the version may differ


def test_bars_behind_the_last_snapshot_come_out_by_the_version_that_decided_them(trained, tmp_path):
    registry.promote(trained[0], "mine")
    run_with_a_swap(tmp_path / "j", trained[1], until=SWAP + 12)
    with sqlite3.connect(tmp_path / "j") as db:  # as after a kill: the newest snapshot is older than the swap
        db.execute("DELETE FROM snapshots WHERE bar > ?", (SWAP,))
        assert db.execute("SELECT MAX(bar) FROM snapshots").fetchone()[0] < SWAP
    runner, close = start_live(asked(tmp_path / "j"))
    assert (runner.models_about["source"], runner.meta.hash) == ("mine@2", runner.models_about["meta"])
    assert runner.run().resumed == SWAP + 13
    close()


def test_a_version_promoted_while_nothing_ran_takes_over_at_the_first_bar(trained, tmp_path):
    registry.promote(trained[0], "mine")
    run_with_a_swap(tmp_path / "j", trained[1], at=-1, until=240)
    registry.promote(trained[1], "mine")
    run_live(asked(tmp_path / "j"))
    assert rows(tmp_path / "j", "SELECT bar FROM events WHERE kind = 'reload'") == [(241,)]
    registry.rollback("mine")
    run_live(asked(tmp_path / "j"))  # no bar is left: nothing to take over
    assert rows(tmp_path / "j", "SELECT COUNT(*) FROM events WHERE kind = 'reload'") == [(1,)]


def test_an_unfit_version_is_refused_once_and_the_old_one_goes_on(bars, trained, tmp_path):
    registry.promote(trained[0], "mine")
    run_with_a_swap(tmp_path / "j", trained[2])
    ((bar, text),) = rows(tmp_path / "j", "SELECT bar, text FROM events WHERE kind LIKE 'reload%'")
    assert bar == SWAP + 1
    assert text.startswith("mine@1 goes on: the label must look 5 bars ahead, as long as positions are held, was")
    votes = Predictions.from_models(trained[0], bars).votes()
    assert_same_bits(planes_of(tmp_path / "j", N_SYMBOLS)["lgbm_confidence"], votes.confidence[1], "the old version")


def test_what_may_not_trade_at_the_start_may_not_take_over(trained, tmp_path):
    registry.promote(trained[0], "mine")
    runner, close = start_live(asked(tmp_path / "j"))
    strict = replace(asked(tmp_path / "j"), allow_synthetic=False, allow_rejected=False)
    from research.live.start import load_served

    registry.promote(trained[1], "mine")
    reload = Reload("mine", 1, lambda source: load_served(replace(strict, models=source), runner.params), waits=True)
    (event,) = reload.before(runner, 0, 0)
    assert event.kind == "reload_refused"
    assert "to go live, was" in event.text
    assert list(reload.before(runner, 1, 0)) == []
    shutil.rmtree(registry.registry_folder() / "mine" / "2")
    with pytest.raises(UserError, match="must name a version that is there, was 2"):
        registry.find("mine")
    close()


def test_a_load_beside_the_bars_takes_over_when_it_is_done(trained, tmp_path):
    registry.promote(trained[0], "mine")
    runner, close = start_live(asked(tmp_path / "j"))
    (duty,) = [d for d in runner.duties if isinstance(d, Reload)]
    runner._begin()
    registry.promote(trained[1], "mine")
    duty.waits = False
    now = int(load_bars(WORLD).close_time[SWAP])
    while duty.version == 1:
        assert not list(duty.before(runner, SWAP, now))
    assert rows(tmp_path / "j", "SELECT from_bar FROM versions ORDER BY id DESC LIMIT 1") == [(SWAP,)]
    close()


def test_the_gap_report_knows_who_decided(trained, tmp_path):
    registry.promote(trained[0], "mine")
    run_with_a_swap(tmp_path / "j", trained[1])
    assert live_gap(tmp_path / "j")["identical"]
