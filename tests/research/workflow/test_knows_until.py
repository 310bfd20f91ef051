"""Are bars that the maker of predictions knew never evidence, in a run, its folder, a sweep and a journal, and is what is unsaid told?"""

import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import research
from research.cli.app import app
from research.cli.common import guarded
from research.live.monitoring.export import journal_record
from research.report import build
from research.runs import tables
from research.runs.folder import read_run
from research.runs.verdict import combined, judge, stated, told
from research.training.predictions import Predictions
from research.workflow.recording import reproduce, save_certificate

WORLD = "simulated:macd?n_bars=900&n_symbols=2&pull=0.11"
UNTIL = "2000-01-15"
FIRST = pd.Timestamp("2000-01-16T00:00", tz="UTC")  # the bar that closes an hour later is the first that nobody knew
PASSED = {"passed": True, "checks": [{"name": "replay", "group": "parity", "passed": True, "detail": ""}]}


def qt(*words: object, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["qt", *map(str, words)])
    return guarded(lambda: app(standalone_mode=False))


def table(bars, seed: int = 0) -> pd.DataFrame:
    """One voter that follows the market's momentum, with noise."""
    z = np.zeros(bars.close.shape)
    z[12:] = np.log(bars.close[12:] / bars.close[:-12])
    z = z / z.std() + np.random.default_rng(seed).normal(0.0, 0.5, z.shape)
    p = np.exp(np.stack([-z, 0.0 * z, z], axis=-1))
    p /= p.sum(axis=-1, keepdims=True)
    keys = {"close_time": np.repeat(pd.to_datetime(bars.close_time, utc=True), len(bars.symbols)), "symbol": np.tile(bars.symbols, bars.n)}
    return pd.DataFrame(keys | {f"mine_p_{side}": p[..., i].reshape(-1) for i, side in enumerate(("sell", "hold", "buy"))})


@pytest.fixture(scope="module")
def bars():
    return research.load_bars(WORLD)


@pytest.fixture(scope="module")
def files(tmp_path_factory, bars):
    """The predictions, and the same with another past up to the declared moment."""
    folder = tmp_path_factory.mktemp("files")
    frame, other = table(bars), table(bars)
    known = other["close_time"] <= FIRST
    other.loc[known, ["mine_p_sell", "mine_p_buy"]] = other.loc[known, ["mine_p_buy", "mine_p_sell"]].to_numpy()
    other.loc[known, ["mine_p_hold", "mine_p_sell"]] = other.loc[known, ["mine_p_sell", "mine_p_hold"]].to_numpy()
    for name, each in (("mine", frame), ("other", other)):
        each.to_parquet(folder / f"{name}.parquet")
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory, files):
    """Folders of runs by the command line: of the predictions, and of those with another past."""
    home, patch = tmp_path_factory.mktemp("ran"), pytest.MonkeyPatch()
    for name in ("mine", "other"):
        patch.setenv("QT_HOME", str(home / f"qt_{name}"))
        words = ["backtest", WORLD, "--predictions", files / f"{name}.parquet", "--knows-until", UNTIL, "--out", home / name, "--quiet"]
        assert qt(*words, monkeypatch=patch) == 0
    patch.undo()
    return home


def test_what_the_maker_knew_changes_no_figure(ran):
    one, two = (read_run(ran / name) for name in ("mine", "other"))
    assert one.manifest["arrays"] == two.manifest["arrays"]
    for part in ("evidence", "pnl", "models", "layers", "regimes", "symbols", "traders", "provenance", "attribution"):
        assert one.summary[part] == two.summary[part], part
    assert pd.Timestamp(one.summary["data"]["test_start"]) == FIRST
    assert one.summary["assumptions"]["knows_until"] == FIRST.isoformat()
    assert one.verify["passed"] is True
    claims = [check for check in one.verify["checks"] if "which the maker of the predictions knew, has a vote" in check["name"]]
    assert [(check["n_checked"], check["n_violated"]) for check in claims] == [(15 * 24, 0)]
    assert any("nor whether what they are said to know is all" in text for text in one.verify["not_covered"])


def test_shares_of_what_is_contaminated_are_told_on_the_first_screen(ran, bars, monkeypatch, capsys):
    total = read_run(ran / "mine").summary["provenance"]["total"]
    assert total["contaminated"] == pytest.approx(15 * 24 / bars.n)
    assert (total["undeclared"], total["imported"] > 0.5, total["due"]) == (0.0, True, 2 * bars.n)
    assert qt("compare", ran / "mine", ran / "other", "--json", monkeypatch=monkeypatch) == 0
    row = json.loads(capsys.readouterr().out)["mine"]["known to their maker"]
    assert row == "until 2000-01-16 00:00; 40.0% of the predictions are contaminated, no evidence"
    html = (ran / "mine" / "report.html").read_text(encoding="utf-8")
    head = html[html.index("<header>") : html.index("</header>")]
    assert "40.0 % of the predictions are contaminated: their maker knew the bars" in head
    assert "their maker is said to know nothing after 2000-01-16 00:00 UTC" in head


def test_a_folder_keeps_it(ran, monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    files = read_run(ran / "mine")
    assert files.manifest["knows_until"] == FIRST.value == files.predictions().knows_until
    assert "run.knows_until=2000-01-16T00:00Z" in files.manifest["command"]
    run = research.load_run(ran / "mine")
    assert run.bars.open_time[tables.tested_rows(run)][0] == FIRST.value
    assert run.stats()["known to their maker"].startswith("until 2000-01-16 00:00")
    assert run.verify()["passed"] is True
    assert reproduce(ran / "mine", is_training=False)["equal"]
    swapped = replace(run.predictions, knows_until=run.predictions.knows_until + 1)
    swapped.save(ran / "mine" / "predictions.parquet")
    try:
        with pytest.raises(research.UserError, match=r"predictions.parquet must be as the backtest wrote it, was with another knows_until"):
            research.load_run(ran / "mine")
    finally:
        run.predictions.save(ran / "mine" / "predictions.parquet")


def test_a_sweep_begins_after_it(files, bars, monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path))
    grid = {"decide.min_edge": [0.0, 0.0005]}
    rows = []
    for name in ("mine", "other"):
        preds = Predictions.import_file(files / f"{name}.parquet", bars, knows_until=UNTIL)
        trials = research.sweep(bars, preds, grid=grid)
        assert bars.open_time[trials.case.first] == FIRST.value
        rows.append(trials.table())
    pd.testing.assert_frame_equal(*rows)
    words = ["sweep", WORLD, "--predictions", files / "mine.parquet", "--knows-until", UNTIL, "--grid", "decide.min_edge=0.0,0.0005"]
    assert qt(*words, "--out", tmp_path / "sweep", "--quiet", monkeypatch=monkeypatch) == 0
    summary = json.loads((tmp_path / "sweep" / "summary.json").read_text())
    assert (summary["data"]["test_start"], summary["verdict"]["condition"]) == (FIRST.isoformat(), None)


def test_undeclared_predictions_are_told_and_their_edge_hangs_on_a_condition(files, bars, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "qt"))
    words = ["backtest", WORLD, "--predictions", files / "mine.parquet", "--out", tmp_path / "run", "--no-verify"]
    assert qt(*words, monkeypatch=monkeypatch) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "undeclared: nobody said until when their maker knew the data" in shown
    assert "undeclared is until when their maker knew the data (--knows-until says it)" in shown
    read = read_run(tmp_path / "run")
    condition = "these predictions were made without data later than each bar"
    assert (read.summary["provenance"]["total"]["undeclared"] > 0.9, read.summary["evidence"]["condition"]) == (True, condition)
    edge = combined(read.summary | {"evidence": read.summary["evidence"] | {"finding": "edge", "plausibility": None}}, PASSED)
    assert (edge["verdict"], stated(edge)["condition"]) == ("edge", condition)
    assert edge["evidence"]["sentence"].startswith(f"Edge, if {condition}: ")
    assert told("edge", edge["evidence"]) == f"edge, if {condition}"
    save_certificate(tmp_path / "run", read.verify)
    assert "undeclared is until" in build(tmp_path / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("finding", ["edge", "no edge", "not enough data"])
@pytest.mark.parametrize("certificate", [PASSED, {}, {"passed": False, "checks": [{"name": "x", "passed": False, "detail": ""}]}])
def test_a_condition_is_of_an_edge_alone_and_changes_no_code(finding, certificate):
    evidence = {"finding": finding, "reason": "the numbers that decided."}
    plain, with_one = judge(evidence, certificate), judge(evidence | {"condition": "nobody looked ahead"}, certificate)
    assert with_one.verdict == plain.verdict
    is_told = finding == "edge" and certificate.get("passed") is not False
    assert (with_one.condition, plain.condition) == ("nobody looked ahead" if is_told else None, None)
    assert ("if nobody looked ahead" in with_one.sentence) == is_told
    assert is_told or with_one.sentence == plain.sentence


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--knows-until", "2150-01-01"], "must lie before the last prediction, 2000-02-07 12:00, was 2150-01-02 00:00"),
        (["--knows-until", "2000-02"], "must be a date or a time, was '2000-02'"),
        (["--set", "run.knows_until=soon"], "knows_until (--knows-until) must hold times, was 'soon'"),
    ],
)
def test_nonsense_is_one_sentence_before_the_work(flags, text, files, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "qt"))
    words = ["backtest", WORLD, "--predictions", files / "mine.parquet", "--out", tmp_path / "run", *flags]
    assert qt(*words, monkeypatch=monkeypatch) == 2
    assert text in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_a_journal_keeps_what_was_declared(files, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "qt"))
    kept = {}
    for name, flags in (("said", ["--set", f"run.knows_until={UNTIL}"]), ("unsaid", [])):
        journal = tmp_path / f"{name}.sqlite"
        words = ["live", "--feed", f"replay:{WORLD}", "--predictions", files / "mine.parquet", "--journal", journal, *flags]
        assert qt(*words, monkeypatch=monkeypatch) == 0
        kept[name] = journal_record(journal)
    assert "are of bars up to 2000-01-16 00:00, which their maker knew" in " ".join(capsys.readouterr().out.split())
    assert (kept["said"].predictions.knows_until, kept["said"].predictions.condition) == (FIRST.value, None)
    assert kept["said"].bars.open_time[tables.tested_rows(kept["said"])][0] == FIRST.value
    assert kept["unsaid"].predictions.condition is not None
