"""Files of version 0.1.0: do they open, verify, reproduce and go on with today's code, as `published` and to the same bits?"""

import contextlib
import gzip
import io
import json
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import research
from qtcore.rules import Broker
from research.cli.app import app
from research.cli.common import guarded
from research.live.storage.cells import params_of
from research.runs.config import load_config
from research.runs.folder import read_run
from tests.conftest import assert_same_bits
from tests.support import PUBLISHED

BEFORE = Path(__file__).parent / "data" / "before"
FIRST, SWITCH, CUT, END = "2000-02-28T08:00", "2000-03-03T12:00", "2000-03-05T04:00", "2000-03-05T14:00"  # the journal ends at CUT


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A copy of the folder with its files unpacked; its ledger is the one in use."""
    folder = tmp_path / "before"
    shutil.copytree(BEFORE, folder)
    for packed in folder.rglob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
    monkeypatch.setenv("QT_HOME", str(folder / "home"))
    return folder


def qt(*words: object, code: int = 0) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        found = guarded(lambda: app([str(word) for word in words], standalone_mode=False))
    assert found == code, out.getvalue()
    return out.getvalue()


def test_run_comes_back_with_its_figures_and_arrays(before):
    run = research.load_run(before / "run")
    figures = json.loads((BEFORE / "run" / "summary.json").read_text())
    assert len(run.trades) > 200
    anew = {"mean_exposure", "net_exposure", "buy_hold_matched_return"}  # what is held counts, not what was ordered and not filled
    known, now = ({k: v for k, v in pnl.items() if k not in anew} for pnl in (figures["pnl"], run.summary["pnl"]))
    assert json.loads(json.dumps(now)) == known
    assert run.summary["verdict"] == figures["verdict"] == "no edge"


def test_run_verifies_and_its_models_train_again_to_the_same_hashes(before):
    assert "verified: " in qt("verify", before / "run")
    found = json.loads(qt("reproduce", before / "run", "--json"))
    assert found["equal"], found
    assert {stage["stage"]: stage["arrays"] for stage in found["stages"]}["training"] == 4
    assert found["verdict"]["stored"] == found["verdict"]["again"]


def test_models_and_meta_layer_serve_the_votes_they_gave(before):
    stored = research.load_run(before / "run")
    out = before / "again"
    qt("backtest", before / "run" / "bars.parquet", "--models", before / "run" / "models", "--meta", before / "run" / "models" / "meta",
       "--profile", "published", "--set", "governor.min_confidence=0.5", "--no-verify", "--quiet", "--out", out)  # fmt: skip
    again = research.load_run(out)
    for name in ("action", "confidence", "probs"):
        assert_same_bits(getattr(again.predictions, name), getattr(stored.predictions, name), name)
    for name in ("equity", "final_action", "governor_reason"):
        assert_same_bits(getattr(again.result, name), getattr(stored.result, name), name)


def test_journal_goes_on_as_one_that_was_never_stopped(before):
    def live(journal: Path, until: str) -> None:
        qt("live", "--feed", f"replay:{before / 'run' / 'bars.parquet'}", "--models", before / "run" / "models",
           "--meta", before / "run" / "models" / "meta", "--allow-rejected", "--journal", journal, "--from", FIRST, "--to", until,
           "--live-from", SWITCH, "--profile", "published", "--set", "governor.min_confidence=0.4", "--quiet")  # fmt: skip

    journal, whole = before / "journal.sqlite", before / "whole.sqlite"
    assert json.loads(qt("status", journal))["last_bar"] == f"{CUT}:00Z"
    live(journal, END)
    live(whole, END)
    for each in (journal, whole):
        qt("status", each, "--export", each.with_suffix(""), "--meta", before / "run" / "models" / "meta")  # it was moved
    for table in ("bars", "predictions", "decisions", "trades", "fills", "equity"):
        went_on, at_once = (pd.read_parquet(each.with_suffix("") / f"{table}.parquet") for each in (journal, whole))
        pd.testing.assert_frame_equal(went_on, at_once, check_exact=True)
    assert len(at_once) == 50


def test_ledger_keeps_its_trial_and_knows_the_run_again(before):
    def tried() -> list[int]:
        return [told["trials"] for told in json.loads(qt("trials", "--json"))["lineages"]]

    assert tried() == [1]
    qt("verify", before / "run")
    research.load_run(before / "run").save(before / "again")
    assert tried() == [1]


def test_what_says_default_is_called_published(before):
    stored = json.loads((before / "run" / "manifest.json").read_text())
    assert (stored["profile"], "--profile" in stored["command"]) == ("default", False)
    run = research.load_run(before / "run")
    assert (run.profile, run.command) == ("published", f"{stored['command']} --profile published")
    assert load_config("published", sets=["governor.min_confidence=0.5"]).params == replace(run.params, broker=Broker())
    qt("report", before / "run")
    page = (before / "run" / "report.html").read_text()
    assert "published, 1 parameter changed" in page
    qt("status", before / "journal.sqlite", "--export", before / "exported", "--meta", before / "run" / "models" / "meta")
    assert read_run(before / "exported").manifest["profile"] == "published"
    (told,) = json.loads(qt("trials", "--json"))["lineages"]
    assert told["best"] == run.command
    run.save(before / "again")
    assert research.load_run(before / "again").profile == "published"


def test_a_parameter_that_came_later_acts_as_published(before):
    path = before / "run" / "manifest.json"
    stored = json.loads(path.read_text())
    del stored["params"]["governor.order"], stored["params"]["ensemble.tie_break"]  # as if it were older still
    path.write_text(json.dumps(stored))
    with sqlite3.connect(before / "journal.sqlite") as db:
        ((text,),) = db.execute("SELECT params FROM versions WHERE id = 1")
    older = {name: value for name, value in json.loads(text).items() if name != "governor.order"}
    assert params_of(json.dumps(older)) == params_of(text)
    assert research.load_run(before / "run").params == PUBLISHED.with_values(stored["params"])
    qt("report", before / "run")


@pytest.mark.parametrize("pattern", ["fold_01/lightgbm_*_meta.json", "meta/fold_01/*_meta.json", "meta/schedule.json"])
def test_report_refuses_metadata_that_no_schedule_vouches_for(before, pattern):
    qt("report", before / "run", "--quiet")
    (path,) = (before / "run" / "models").glob(pattern)
    path.write_text(path.read_text().replace("0.", "1.", 1))
    assert "must be as the training wrote it, was altered; train again" in qt("report", before / "run", "--quiet", code=2)
