"""Is the verdict that of evidence and proof together, said first wherever a run is shown, and does a run that fails count for nothing?"""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import research
import research.verify.certificate as proof
from qtcore.types import MODELS
from research.cli.app import app
from research.cli.common import guarded
from research.evidence import sharpe as sr
from research.evidence.ledger import Ledger
from research.evidence.trials import name_trial
from research.live.dashboard.server import Dashboard
from research.live.monitoring.sources import open_source
from research.report import build
from research.runs.folder import read_run
from research.runs.verdict import UNPROVEN, combined, judge
from research.training.predictions import Predictions
from research.verify.claims import Claim
from research.verify.evidence import read_evidence
from research.workflow.recording import reproduce, verify_run
from tests.support import FLAG, PUBLISHED

WORLD = "simulated:random_walk?n_bars=700&n_symbols=2&seed=3"
PASSED = {"passed": True, "checks": [{"name": "replay: the same bits", "group": "parity", "passed": True, "detail": ""}]}
FAILED = {
    "passed": False,
    "checks": [
        {"name": "replay: the same bits", "group": "parity", "passed": True, "detail": ""},
        {"name": "leak: nothing early", "group": "models", "passed": False, "detail": "leak: 1 of 2 models break it, first xgb"},
        {"name": "O-5: sizes", "group": "invariants", "passed": False, "detail": "O-5: 1 of 9 cells break it, first bar 7"},
    ],
}
TOO_GOOD = {"exempt": None, "findings": [{"name": "accuracy", "text": "balanced accuracy of xgb is 98.0 %, above the ceiling of 60.0 %."}]}


def evidence(finding: str, **more) -> dict:
    return {"finding": finding, "reason": "the numbers that decided.", **more}


def knowing(bars, lead: int, seed: int = 0) -> Predictions:
    """Predictions that follow the last move of the close, stamped `lead` bars early; both tree models say the same."""
    last = np.zeros(bars.close.shape)
    last[1:] = bars.close[1:] / bars.close[:-1] - 1.0
    z = 1.2 * np.clip(np.nan_to_num(last) / np.nanstd(last), -3.0, 3.0) + np.random.default_rng(seed).normal(0.0, 0.3, last.shape)
    z = np.roll(z, -lead, axis=0)
    p = np.exp(np.stack([-z, 0.0 * z, z], axis=-1))
    p /= p.sum(axis=-1, keepdims=True)
    keys = {"close_time": np.repeat(pd.to_datetime(bars.close_time, utc=True), len(bars.symbols)), "symbol": np.tile(bars.symbols, bars.n)}
    said = {f"{m}_p_{side}": p[..., i].reshape(-1) for m in MODELS[:2] for i, side in enumerate(("sell", "hold", "buy"))}
    return Predictions.import_file(pd.DataFrame(keys | said), bars)


@pytest.fixture(scope="module")
def bars():
    return research.load_bars(WORLD)


@pytest.fixture(scope="module")
def early(bars):
    return knowing(bars, 1)


def qt(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["qt", *map(str, words)])
    return guarded(lambda: app(standalone_mode=False))


# one word of two


@pytest.mark.parametrize("finding", ["edge", "no edge", "not enough data"])
def test_the_proof_decides_what_the_figures_are_worth(finding):
    found = evidence(finding)
    for certificate in ({}, UNPROVEN, {"passed": None, "checks": PASSED["checks"], "not_covered": ["the decisions"]}):
        said = judge(found, certificate)
        assert said.verdict == ("not proven" if finding == "edge" else finding)
        assert "not proven" in said.sentence.lower()
        assert (said.proven, said.failed_check) == (False, None)
        assert not said.sentence.startswith("Edge")
    said = judge(found, PASSED)
    assert (said.verdict, said.proven, said.failed_check) == (finding, True, None)
    assert said.sentence == f"{finding.capitalize()}: the numbers that decided."
    assert not said.fails


@pytest.mark.parametrize("finding", ["edge", "no edge", "not enough data"])
@pytest.mark.parametrize("plausibility", [None, TOO_GOOD, TOO_GOOD | {"exempt": "simulated candles"}])
def test_a_failed_check_comes_before_everything(finding, plausibility):
    said = judge(evidence(finding, plausibility=plausibility), FAILED)
    assert (said.verdict, said.proven, said.failed_check, said.fails) == ("invalid", False, "leak: nothing early", True)
    assert said.sentence.startswith("Invalid: the proof failed at the check leak: 1 of 2 models break it, first xgb, and 1 more check.")


def test_a_figure_above_its_ceiling_comes_before_what_it_seems_to_show():
    for finding in ("edge", "no edge", "not enough data"):
        said = judge(evidence(finding, plausibility=TOO_GOOD), PASSED)
        assert (said.verdict, said.proven, said.fails) == ("implausible", True, True)
        assert said.sentence == f"Implausible: {TOO_GOOD['findings'][0]['text']}"
        assert judge(evidence(finding, plausibility=TOO_GOOD), {}).sentence.startswith("Implausible, not proven: balanced")
    for harmless in ({}, {"findings": []}, TOO_GOOD | {"exempt": "candles of our own simulator"}):
        assert judge(evidence("edge", plausibility=harmless), PASSED).verdict == "edge"


def test_a_summary_has_one_verdict_whatever_it_said_before():
    summary = {"schema_version": 1, "evidence": evidence("edge")}
    told = combined(summary, {})
    assert list(told)[:4] == ["verdict", "proven", "failed_check", "figures"]
    doubts = [combined(summary, c)["figures"] for c in (PASSED, {}, FAILED)]
    assert doubts == [None, "not proven", "not to be believed: the proof failed"]
    too_good = combined({"evidence": evidence("edge", plausibility=TOO_GOOD)}, PASSED)
    assert too_good["figures"] == "not to be believed: one is above what honest work reaches"
    for certificate, verdict in ((PASSED, "edge"), (FAILED, "invalid"), ({}, "not proven"), (PASSED, "edge")):
        told = combined(told, certificate)
        assert told["verdict"] == told["evidence"]["verdict"] == verdict
        assert told["verify"] == {"passed": certificate.get("passed")}
        assert told["evidence"]["finding"] == "edge"
    older = {"evidence": {"verdict": "edge", "sentence": "Edge: the numbers that decided."}, "verify": {"passed": None}}
    assert combined(older, {})["verdict"] == "not proven"
    assert combined(older, FAILED)["verdict"] == "invalid"
    assert combined(older, PASSED)["evidence"]["sentence"] == "Edge: the numbers that decided."


# predictions stamped one bar early on a random walk


@pytest.fixture(scope="module")
def leaked(tmp_path_factory, bars, early):
    """The run through the real command line: its folder, and what each way of asking said."""
    home = tmp_path_factory.mktemp("leaked")
    early.save(home / "early.parquet")
    said = {}
    for name, flags in (("people", ()), ("quiet", ("--quiet",)), ("json", ("--json",))):
        words = ["backtest", FLAG, WORLD, "--predictions", home / "early.parquet", "--set", "run.meta=none", "--out", home / name, *flags]
        command = [sys.executable, "-m", "research", *map(str, words)]
        said[name] = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "QT_HOME": str(home / "qt")}, check=False)
    return home, said


def test_a_leak_is_said_first_with_its_check_and_exits_1(leaked):
    home, said = leaked
    assert [done.returncode for done in said.values()] == [1, 1, 1]
    assert re.match(r"verdict: Invalid: the proof failed at the check leak: 2 of 2 models break", said["people"].stdout)
    assert "\nverdict: Invalid:" in said["people"].stdout
    assert said["quiet"].stdout.split() == [str(home / "quiet" / "report.html")]
    assert said["quiet"].stderr.startswith("verdict: Invalid: the proof failed at the check leak")
    told = json.loads(said["json"].stdout)
    assert (told["verdict"], told["proven"]) == ("invalid", False)
    assert told["failed_check"].startswith("leak: no model's predictions")
    assert told == json.loads((home / "json" / "summary.json").read_text())
    assert "Traceback" not in "".join(done.stderr for done in said.values())
    assert "edge" not in {told["verdict"], told["evidence"]["verdict"]}


def test_its_page_opens_on_it(leaked):
    page = (leaked[0] / "people" / "report.html").read_text()
    header = page[page.index("<header>") :]
    assert header.index('class="verdict invalid"') < header.index('class="tiles doubted"')
    assert "<strong>Invalid:</strong> the proof failed at the check leak" in header


def test_no_figure_of_it_reads_as_praise(leaked, monkeypatch, capsys, tmp_path):
    doubt = "not to be believed: the proof failed"
    home, said = leaked
    page = (home / "people" / "report.html").read_text()
    assert "tested out of sample" not in page
    assert f'<p class="doubt">Figures: {doubt}.</p>' in page
    sections = re.findall(r"<h2>(.*?)</h2>", page[page.index("<section") :])
    assert {text.partition(" <span")[0] for text in sections if doubt not in text} == {"Proof", "Parameters"}
    assert '<dl class="evidence doubted">' in page
    assert re.search(r"\.doubted \.value, .*font-weight: 400", page)
    assert re.search(rf"figures +{doubt}", said["people"].stdout)
    assert f"accuracy of the layers, {doubt}" in said["people"].stdout
    assert json.loads(said["json"].stdout)["figures"] == doubt
    folders = home / "people", home / "quiet"
    assert qt("compare", *folders, "--json", monkeypatch=monkeypatch) == 0
    assert {column["figures"] for column in json.loads(capsys.readouterr().out).values()} == {doubt}
    assert qt("compare", *folders, "--out", tmp_path / "two.html", "--quiet", monkeypatch=monkeypatch) == 0
    table = (tmp_path / "two.html").read_text().split('id="figures"')[1].split("</table>")[0]
    assert '<td class="few">' in table
    assert "<td>" not in table
    assert research.load_run(folders[0]).stats()["figures"] == doubt


def test_every_other_command_says_it_too(leaked, monkeypatch, capsys, tmp_path):
    folder = leaked[0] / "people"
    monkeypatch.setenv("QT_HOME", str(leaked[0] / "qt"))
    assert qt("report", folder, monkeypatch=monkeypatch) == 0
    out = capsys.readouterr().out
    assert out.startswith("verdict: Invalid: the proof failed at the check leak")
    assert out.endswith(f"\n{folder / 'report.html'}\n")
    assert qt("report", folder, "--quiet", monkeypatch=monkeypatch) == 0
    told = capsys.readouterr()
    assert told.out == f"{folder / 'report.html'}\n"
    assert told.err.startswith("verdict: Invalid")
    assert qt("compare", folder, leaked[0] / "quiet", "--json", monkeypatch=monkeypatch) == 0
    table = json.loads(capsys.readouterr().out)
    assert {column["verdict"] for column in table.values()} == {"invalid"}
    assert all(column["proof"].startswith("FAILED: leak") for column in table.values())
    assert qt("trials", "--json", monkeypatch=monkeypatch) == 0
    row = json.loads(capsys.readouterr().out)["lineages"][0]
    assert (row["trials"], row["invalid"], row["pending"], row["best"]) == (1, 1, 0, "")
    assert qt("trials", monkeypatch=monkeypatch) == 0
    assert "1 invalid" in capsys.readouterr().out
    for flags in ([], ["--quiet"], ["--json"]):
        copy = shutil.copytree(folder, tmp_path / f"copy{len(flags)}{''.join(flags)}")
        assert qt("verify", copy, *flags, monkeypatch=monkeypatch) == 1
        out = capsys.readouterr().out
        told = json.loads(out) if flags == ["--json"] else {}
        assert told.get("verdict", "invalid") == "invalid"
        assert told or out.startswith("verdict: Invalid: the proof failed at the check leak")
    run = research.load_run(folder)
    assert run.stats()["verdict"] == "invalid"
    assert run.stats()["proof"].startswith("FAILED: leak")
    assert "verdict invalid, proof FAILED: leak" in repr(run)
    assert reproduce(folder, is_training=False)["verdict"] == {
        "stored": "invalid", "again": "invalid", "declined": False, "condition": None, "figures": "not to be believed: the proof failed",
    }  # fmt: skip
    assert qt("sweep", folder, "--grid", "governor.min_confidence=0.5,0.6", "--out", tmp_path / "sweep", monkeypatch=monkeypatch) == 1
    assert capsys.readouterr().out.startswith("verdict: Invalid: the proof failed at the check leak")
    assert '<p class="verdict invalid">' in (tmp_path / "sweep" / "sweep.html").read_text()
    row = Ledger().lineages()[0]
    assert (row["tried"].trials, row["tried"].invalid, row["tried"].variance, row["best"]) == (3, 3, 0.0, None)


def test_every_view_of_the_run_opens_on_it(leaked, monkeypatch, capsys):
    folder = leaked[0] / "people"
    when = str(read_run(folder).frame("bars", ["close_time"])["close_time"].iloc[-1])
    first = "verdict: Invalid: the proof failed at the check leak"
    for words, code in ((("monitor", folder, "--once"), 0), (("validate", folder), 1), (("explain", folder, "SYM0", when), 0)):
        words = tuple(read_run(folder).symbols[0] if word == "SYM0" else word for word in words)
        assert qt(*words, monkeypatch=monkeypatch) == code
        assert " ".join(capsys.readouterr().out.split()).startswith(first), words[0]
    for words in (("status", folder), ("validate", folder, "--json"), ("explain", folder, read_run(folder).symbols[0], when, "--json")):
        qt(*words, monkeypatch=monkeypatch)
        told = json.loads(capsys.readouterr().out)
        assert next(iter(told.items())) == ("verdict", "invalid"), words[0]
        assert told["sentence"].startswith("Invalid: the proof failed at the check leak")
        assert told["figures"] == "not to be believed: the proof failed"
    server = Dashboard(open_source(folder), 0)
    try:
        assert json.loads(server.read("/api/page")[0])["status"]["verdict"] == "invalid"
    finally:
        server.server_close()


# what was not proven


def test_nothing_that_was_not_proven_reads_edge(bars, early, tmp_path):
    run = research.backtest(bars, early, PUBLISHED)
    assert repr(run).endswith("fills, not proven>")
    assert run.measured["evidence"]["finding"] == "edge"
    assert run.summary["verdict"] == "not proven"
    assert run.stats()["verdict"] == run.stats()["proof"] == "not proven"
    folder = run.save(tmp_path / "run")
    raw = json.loads((folder / "summary.json").read_text())
    assert (raw["verdict"], raw["evidence"]["verdict"], raw["proven"]) == ("not proven", "not proven", False)
    assert 'class="verdict not-proven"' in run.report(folder / "report.html").read_text()
    run.verify()
    assert run.summary["verdict"] == "invalid"
    assert json.loads((folder / "summary.json").read_text())["verdict"] == "invalid"
    assert 'class="verdict invalid"' in (folder / "report.html").read_text()  # the page was made anew


def test_no_verify_says_so(bars, tmp_path, monkeypatch, capsys):
    knowing(bars, 0).save(tmp_path / "honest.parquet")
    words = ("backtest", FLAG, WORLD, "--predictions", tmp_path / "honest.parquet", "--set", "run.meta=none", "--no-verify")
    assert qt(*words, "--out", tmp_path / "run", monkeypatch=monkeypatch) == 0
    assert "verdict: No edge, not proven: what it earned" in capsys.readouterr().out
    assert Ledger().lineages()[0]["best"]["standing"] == "pending"
    assert qt("verify", tmp_path / "run", "--json", monkeypatch=monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["proven"], told["failed_check"]) == ("no edge", True, None)
    assert "<strong>No edge:</strong>" in (tmp_path / "run" / "report.html").read_text()
    assert Ledger().lineages()[0]["best"]["standing"] == "proven"
    assert Ledger().lineages()[0]["tried"].trials == 1


def test_an_older_run_gets_its_verdict_from_its_next_proof(bars, early, tmp_path):
    """Its summary says edge, and knows of no finding; nobody had proven it."""
    run = research.backtest(bars, early, PUBLISHED)
    folder = run.save(tmp_path / "run")
    older = json.loads((folder / "summary.json").read_text())
    for name in ("verdict", "proven", "failed_check"):
        del older[name]
    older["evidence"] = {k: v for k, v in older["evidence"].items() if k not in ("finding", "reason")}
    older["evidence"] |= {"verdict": "edge", "sentence": "Edge: the numbers of then."}
    (folder / "summary.json").write_text(json.dumps(older))
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["figures"]  # nor does its manifest vouch for the summary
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert read_run(folder).summary["verdict"] == "not proven"
    assert 'class="verdict not-proven"' in build(folder).read_text()
    assert verify_run(folder)["passed"] is False
    raw = json.loads((folder / "summary.json").read_text())
    assert (raw["verdict"], raw["evidence"]["verdict"], raw["verify"]["passed"]) == ("invalid", "invalid", False)
    assert 'class="verdict invalid"' in (folder / "report.html").read_text()


def test_own_layers_are_proven_where_their_code_is_at_hand(bars, tmp_path, monkeypatch):
    def judge_all(votes, planes, params):
        return np.ones(votes.action.shape[1:], np.int8), np.full(votes.action.shape[1:], 0.5)

    run = research.backtest(bars, knowing(bars, 0), PUBLISHED, judge=judge_all)
    folder = run.save(tmp_path / "run")
    assert qt("verify", folder, monkeypatch=monkeypatch) == 0  # nothing is wrong, and nothing shown
    assert not read_run(folder).summary["proven"]
    assert run.verify()["passed"]
    assert read_run(folder).summary["proven"]


# the ledger


def test_an_interrupt_between_run_and_proof_hides_nothing(bars, early, tmp_path):
    run = research.backtest(bars, early, PUBLISHED)

    def stop(done, total, text):
        assert Ledger().lineages()[0]["best"]["standing"] == "pending"  # counted before the first step of the proof
        raise KeyboardInterrupt

    folder = run.save(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        run.verify(stop)
    assert Ledger().count() == 1
    assert json.loads((folder / "summary.json").read_text())["verdict"] == "not proven"
    assert read_run(folder).summary["verdict"] == "not proven"
    other = research.backtest(bars, knowing(bars, 0), PUBLISHED).summary["evidence"]
    assert (other["trials"]["trials"], other["trials"]["pending"]) == (2, 1)
    assert "of 2 trials, 1 not proven among them, reaches" in other["reason"]


def test_what_a_leaked_run_earned_moves_no_honest_figure(bars, early, tmp_path):
    """Honest runs before, the leaked one between: the later honest run's deflated ratio is that of the same number of honest tries."""
    settings = [PUBLISHED.with_values({"governor.min_confidence": x}) for x in (0.55, 0.6, 0.65, 0.7)]
    honest = knowing(bars, 0)
    last = research.backtest(bars, honest, settings[-1])
    for params in settings[:-1]:
        research.backtest(bars, honest, params).save(tmp_path / f"{params.governor.min_confidence}")
    before = last.measured["evidence"]
    leak = research.backtest(bars, early, PUBLISHED)
    leak.save(tmp_path / "leak")
    moved = replace(last).measured["evidence"]
    assert moved["trials"]["variance"] > 2.0 * before["trials"]["variance"]  # pending: nobody knows yet
    leak.verify()
    after = replace(last).measured["evidence"]
    assert after["trials"]["variance"] == before["trials"]["variance"]
    assert after["trials"]["trials"] == before["trials"]["trials"] + 1
    assert after["trials"]["invalid"] == 1
    figures = after["sharpe"]
    m = sr.Moments(figures["per_bar"], figures["skew"], figures["kurtosis"], figures["n_bars"])
    assert figures["deflated"] == sr.deflated_sharpe(m, after["trials"]["trials"], before["trials"]["variance"])
    assert Ledger().lineages()[0]["best"]["predictions"] != name_trial(bars, leak.params, leak.result.votes, None, None).predictions


def test_other_settings_of_the_same_leak_count_for_nothing_either(bars, early, tmp_path):
    """A sweep's rows and runs without a proof, before and after the one whose proof fails."""
    for x in (0.5, 0.6):
        research.backtest(bars, early, PUBLISHED.with_values({"governor.min_confidence": x})).save(tmp_path / str(x))
    research.sweep(bars, early, {"governor.min_confidence": [0.7, 0.75]}, params=PUBLISHED)
    assert Ledger().lineages()[0]["tried"].variance > 0.0
    leak = research.backtest(bars, early, PUBLISHED)
    leak.save(tmp_path / "leak")
    leak.verify()
    research.sweep(bars, early, {"governor.min_confidence": [0.8, 0.85]}, params=PUBLISHED)
    row = Ledger().lineages()[0]
    assert row["best"] is None
    assert (row["tried"].trials, row["tried"].invalid, row["tried"].pending, row["tried"].variance) == (7, 7, 0, 0.0)


def test_the_latest_proof_counts(bars, tmp_path, monkeypatch):
    """A check that failed makes the run invalid; once it holds, the run is proven: both rows stay."""
    run = research.backtest(bars, knowing(bars, 0), PUBLISHED)
    folder = run.save(tmp_path / "run")
    with monkeypatch.context() as patched:
        patched.setattr(proof, "early_claim", lambda run: Claim("leak", "no model's predictions look one bar early", 1, 1, "models"))
        assert qt("verify", folder, monkeypatch=monkeypatch) == 1
    assert Ledger().lineages()[0]["tried"].invalid == 1
    assert qt("verify", folder, monkeypatch=monkeypatch) == 0
    assert Ledger().lineages()[0]["tried"].invalid == 0
    assert [row["outcome"] for row in Ledger().results()] == ["pending", "invalid", "proven"]
    assert all(row["source"] for row in Ledger().results()[1:])


def test_a_folder_names_its_trial_as_the_run_did(bars, tmp_path):
    run = research.backtest(bars, knowing(bars, 0), PUBLISHED)
    found = read_evidence(run.save(tmp_path / "run", record=False))
    stored = name_trial(found.bars, found.params, found.votes, found.meta, found.planes["meta_action"])
    mine = name_trial(run.bars, run.params, run.result.votes, run.meta, run.result.decisions.meta_action)
    assert (stored.sketch.digest, *stored[1:]) == (mine.sketch.digest, *mine[1:])


def test_an_edited_table_fails_the_proof_and_says_nothing_of_the_trial(bars, tmp_path, monkeypatch):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    run = research.backtest(bars, Predictions.random(bars, seed=3), PUBLISHED)
    run.save(tmp_path / "run")
    assert run.verify()["passed"] is True
    before = Ledger().lineages()[0]["tried"]
    copy = shutil.copytree(tmp_path / "run", tmp_path / "copy")
    trades = pd.read_parquet(copy / "trades.parquet")
    trades.assign(pnl=trades["pnl"].abs()).to_parquet(copy / "trades.parquet")
    certificate = verify_run(copy)
    assert certificate["passed"] is False
    (failed,) = [check for check in certificate["checks"] if not check["passed"]]
    assert failed["id"] == "tables"
    assert "trades.parquet" in failed["detail"]
    assert Ledger().lineages()[0]["tried"] == before
