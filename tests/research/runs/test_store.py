"""Does a run's folder hold the run, to the bit, whole or not at all?"""

import errno
import hashlib
import json
import shutil
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qtcore.rules import Reason
from qtcore.types import DECISION_COLUMNS, FILL, MODELS
from research.data import simulate
from research.errors import UserError
from research.evidence.ledger import Ledger
from research.runs import folder as run_folder
from research.runs import tables
from research.runs.folder import array_hashes, check_output, read_run
from research.runs.kinds import COLUMNS, kind_of
from research.runs.tables import decisions_frame, equity_frame, fills_frame, trades_frame
from research.training.predictions import Predictions
from research.workflow.recording import save_certificate, save_run
from tests.conftest import assert_same_bits
from tests.support.fake_run import fake_run
from tests.test_style import ROOT


@pytest.fixture(autouse=True)
def _own_ledger(monkeypatch, tmp_path):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def run():
    return fake_run(n=400, seed=7)


@pytest.fixture(scope="module")
def written(run, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_HOME", str(tmp_path_factory.mktemp("home")))
        return save_run(run, tmp_path_factory.mktemp("reports") / "first")


@pytest.fixture
def folder(written, tmp_path):
    return shutil.copytree(written, tmp_path / "first")


# what is written comes back


def test_bars_and_decisions_come_back_to_the_bit(run, written):
    files = read_run(written)
    bars = files.bars()
    for name in ("open_time", "close_time", "open", "high", "low", "close", "volume"):
        assert_same_bits(getattr(bars, name), getattr(run.bars, name), name)
    assert (bars.symbols, bars.interval, bars.funding) == (run.bars.symbols, run.bars.interval, None)
    planes = files.decisions()
    for name in DECISION_COLUMNS:
        assert_same_bits(planes[name], getattr(run.result.decisions, name), name)
    for name in ("final_action", "governor_reason", "size", "cell_pnl"):
        assert_same_bits(planes[name], getattr(run.result, name), name)
    assert_same_bits(planes["xgb_confidence"], run.result.votes.confidence[0])
    assert_same_bits(planes["label"], run.labels)
    assert_same_bits(planes["volatility"], run.result.planes.regime[0])


def test_funding_comes_back(run, tmp_path):
    funding = np.where(np.arange(run.bars.n)[:, None] % 8 == 0, 1e-4, 0.0) * np.ones((1, len(run.bars.symbols)))
    funded = replace(run, bars=replace(run.bars, funding=funding), manifest={})
    assert_same_bits(read_run(save_run(funded, tmp_path / "funded", record=False)).bars().funding, funding)


def test_equity_and_fills_come_back_to_the_bit(run, written):
    files = read_run(written)
    equity = files.frame("equity")
    for name in ("equity", "balance", "exposure"):
        assert_same_bits(equity[name].to_numpy(), getattr(run.result, name), name)
    assert_same_bits(equity["ensemble_only"].to_numpy(), run.ensemble_only.equity)
    fills = files.frame("fills")
    assert set(FILL.names) <= set(fills.columns)
    for name in ("price", "qty", "fee", "pnl"):
        assert_same_bits(fills[name].to_numpy(), np.ascontiguousarray(run.result.fills[name]), name)
    assert fills["symbol"].tolist() == [run.bars.symbols[s] for s in run.result.fills["symbol"]]
    assert [t.value for t in fills["time"]] == run.result.fills["time"].tolist()


def test_one_row_per_bar_and_symbol_in_order(run, written, monkeypatch, tmp_path):
    table = read_run(written).frame("decisions", ["open_time", "close_time", "symbol"])
    assert len(table) == run.bars.n * len(run.bars.symbols)
    assert table["symbol"].tolist()[: len(run.bars.symbols)] == list(run.bars.symbols)
    assert str(table["close_time"].dtype) == "datetime64[ns, UTC]"
    monkeypatch.setattr(run_folder, "ROWS_AT_ONCE", 37)  # written in parts, the same rows
    again = save_run(replace(run, manifest={}), tmp_path / "parts", record=False)
    for name in ("decisions", "bars"):
        assert read_run(again).frame(name).equals(read_run(written).frame(name))


def sources_of(folder):
    digest = hashlib.sha256()
    paths = sorted(folder.rglob("*.py"))
    assert len(paths) > 20
    for path in paths:
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def test_a_manifest_says_how_the_run_was_made(run, written):
    manifest = read_run(written).manifest
    assert manifest["params"] == run.params.flat()
    assert read_run(written).params() == run.params
    assert manifest["command"] == run.command
    assert manifest["trials"]["trials"] == 1
    assert manifest["source_hash"] == {name: sources_of(ROOT / name) for name in ("qtcore", "research")}
    assert {"data_fingerprint", "versions", "seeds", "threads", "created", "label", "symbols"} <= set(manifest)
    assert all(len(digest) == 64 for digest in manifest["arrays"].values())
    assert {"bars.close", "votes.probs", "decisions.raw_action", "decisions.cell_pnl", "equity", "fills"} <= set(manifest["arrays"])


def test_one_changed_bit_changes_one_hash(run):
    before = array_hashes(run)
    close = run.bars.close.copy()
    close[50, 0] = np.nextafter(close[50, 0], 0.0)
    after = array_hashes(replace(run, bars=replace(run.bars, close=close)))
    assert {name for name in before if before[name] != after[name]} == {"bars.close"}


def test_own_models_travel_with_the_run(run, tmp_path):
    class Models:
        layers = None
        config: ClassVar[dict] = {"thresholds": [{"sell": dict.fromkeys(run.bars.symbols)}]}

        def save(self, folder):
            folder.mkdir()
            (folder / "schedule.json").write_text("{}")

    trained = replace(run, predictions=replace(run.predictions, models=Models()), manifest={})
    target = save_run(trained, tmp_path / "own", record=False)
    assert (target / "models" / "schedule.json").exists()
    assert not (save_run(replace(run, manifest={}), tmp_path / "bought", record=False) / "models").exists()


# whole or not at all


def test_a_full_disk_is_one_sentence_and_leaves_nothing(run, tmp_path, monkeypatch):
    target = save_run(replace(run, manifest={}), tmp_path / "out", record=False)
    stamp = (target / "manifest.json").read_text()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pq.ParquetWriter, "write_table", full)
    for name in ("out", "other"):
        with pytest.raises(UserError, match="free space or choose another --out"):
            save_run(replace(run, manifest={}), tmp_path / name, record=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert (target / "manifest.json").read_text() == stamp
    read_run(target)


def test_an_earlier_run_is_replaced_and_other_folders_are_not_touched(run, tmp_path):
    target = save_run(replace(run, manifest={}), tmp_path / "out", record=False)
    (target / "stale.txt").write_text("from the earlier run")
    save_run(replace(run, manifest={}), target, record=False)
    assert not (target / "stale.txt").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="other files in it"):
        save_run(replace(run, manifest={}), tmp_path / "mine", record=False)
    (tmp_path / "plain").write_text("a file")
    with pytest.raises(UserError, match="must be a folder"):
        check_output(tmp_path / "plain")
    check_output(tmp_path / "new" / "deep")
    check_output(tmp_path / "mine", marker="thesis.txt")


def test_a_leftover_of_a_killed_run_is_cleared(run, tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "bars.parquet").write_text("half")
    save_run(replace(run, manifest={}), tmp_path / "out", record=False)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "trades.parquet").unlink(), r"must be complete, was .* without trades.parquet"),
        (lambda f: (f / "manifest.json").unlink(), "without manifest.json"),
        (lambda f: (f / "manifest.json").write_text("{"), "was no JSON"),
        (lambda f: (f / "manifest.json").write_text("[1]"), "not a table of names and values"),
        (lambda f: (f / "manifest.json").write_text('{"schema_version": 99}'), "must be of schema 1, was 99"),
        (shutil.rmtree, "must be a folder that `qt backtest` wrote"),
    ],
)
def test_half_a_folder_or_another_schema_is_refused(folder, spoil, words):
    spoil(folder)
    with pytest.raises(UserError, match=words):
        read_run(folder)


def test_a_partial_folder_is_no_run(folder):
    with pytest.raises(UserError, match="half-written"):
        read_run(folder.rename(folder.with_name(".first.partial")))


def test_an_unknown_table_is_refused(written):
    with pytest.raises(UserError, match="table must be one of bars, decisions"):
        read_run(written).frame("manifest")


def test_a_certificate_is_put_into_a_finished_run(folder):
    files = read_run(folder)
    assert files.verify == {"passed": None, "checks": []}
    save_certificate(folder, {"passed": True, "checks": [{"name": "parity", "passed": True}]})
    assert files.verify["passed"] is True
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["verify"] == {"passed": True}
    assert summary["evidence"] == files.summary["evidence"]


def edited(path, change):
    """Write a JSON file again after `change(content)`."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "change",
    [
        lambda summary: summary["evidence"].update(finding="edge", reason="wonderful"),
        lambda summary: summary["evidence"]["plausibility"].update(off=True),
        lambda summary: summary.update(final_equity=1e9),
    ],
    ids=["finding", "ceilings", "money"],
)
def test_a_summary_with_other_figures_is_refused(folder, change):
    edited(folder / "summary.json", change)
    with pytest.raises(UserError, match=r"summary\.json must be as the backtest wrote it, was with other figures; run the backtest again"):
        _ = read_run(folder).summary
    before = (folder / "verify.json").read_bytes()
    with pytest.raises(UserError, match="was with other figures"):
        save_certificate(folder, {"passed": True, "checks": []})
    assert (folder / "verify.json").read_bytes() == before


def test_every_column_that_is_written_is_declared_with_its_type(written):
    for name in COLUMNS.keys() - {"predictions"}:  # its votes are named by their models and are checked when they are loaded
        columns = set(pq.read_schema(written / f"{name}.parquet").names)
        assert columns <= {declared.removesuffix("?") for declared in kind_of(name, MODELS).shape}, name


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_of_another_type_is_refused(folder, name):
    path = folder / f"{name}.parquet"
    if name == "predictions":
        Predictions.random(simulate("random_walk", n_bars=50)).save(path)
    table = pq.read_table(path)
    lists = pa.array([[1.0]] * len(table))
    for column in (declared.removesuffix("?") for declared in COLUMNS[name]):
        if column in table.schema.names:
            pq.write_table(table.set_column(table.schema.names.index(column), column, lists), path)
            with pytest.raises(UserError, match=rf"{name}\.parquet must be .*, was {column} as list.*; run the backtest again"):
                read_run(folder).frame(name)


def test_damaged_words_of_pandas_in_a_table_change_nothing(folder):
    path = folder / "trades.parquet"
    before, table = read_run(folder).frame("trades"), pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"pandas": b"\xe5\xff"}), path)
    pd.testing.assert_frame_equal(read_run(folder).frame("trades"), before)


def test_a_verdict_in_a_summary_is_read_anew(folder):
    edited(folder / "summary.json", lambda summary: summary.update(verdict="edge", proven=True))
    assert read_run(folder).summary["verdict"] != "edge"


def test_a_proof_that_contradicts_itself_or_is_of_another_run_is_refused(folder):
    save_certificate(folder, {"passed": False, "checks": [{"name": "parity", "passed": False}], "proves": read_run(folder).proves})
    assert read_run(folder).summary["verdict"] == "invalid"
    edited(folder / "verify.json", lambda proof: proof.update(passed=True))
    with pytest.raises(UserError, match="as `qt verify` wrote it, was without its failed checks; run it again"):
        _ = read_run(folder).summary
    save_certificate(folder, {"passed": True, "checks": [], "proves": "0" * 64})
    with pytest.raises(UserError, match="was that of another run"):
        _ = read_run(folder).summary


def test_a_saved_run_is_counted_once_and_an_unrecorded_one_never(run, tmp_path):
    save_run(replace(run, manifest={}), tmp_path / "a", record=False)
    assert Ledger().count() == 0
    for name in ("a", "b"):
        save_run(replace(run, manifest={}), tmp_path / name)
    assert Ledger().count() == 1
    assert read_run(tmp_path / "b").manifest["trials"]["trials"] == 1


# tables


def test_trades_are_round_trips_of_the_fills(run):
    trades, fills = trades_frame(run), run.result.fills
    closed = trades[trades["exit_reason"] > 0]
    assert len(trades) == np.count_nonzero(fills["is_entry"] == 1)
    assert closed["pnl"].sum() == pytest.approx(fills["pnl"][fills["is_entry"] == 0].sum())
    assert trades["fee"].sum() == pytest.approx(fills["fee"].sum())
    row = trades.iloc[3]
    own = fills[fills["trade_id"] == row["trade_id"]]
    assert (row["entry_price"], row["exit_price"], row["qty"]) == (own["price"][0], own["price"][1], own["qty"][0])
    assert row["side"] == np.sign(own["qty"][0])
    assert row["bars"] == own["bar"][1] - own["bar"][0]
    assert row["ret"] == pytest.approx(own["pnl"][1] / abs(own["qty"][0] * own["price"][0]))
    assert row["exit_time"] == pd.Timestamp(own["time"][1], tz="UTC")
    decided = (own["bar"][0] - 1, own["symbol"][0])
    assert row["volatility"] == run.result.planes.regime[0][decided]
    assert row["source"] == run.result.decisions.source[decided]


def test_an_open_trade_has_no_exit(run):
    fills = run.result.fills
    result = type(run.result)(**{**vars(run.result), "fills": fills[fills["trade_id"] <= 5][:-1]})
    still_open = trades_frame(replace(run, result=result)).iloc[-1]
    assert still_open["exit_reason"] == 0
    assert np.isnan(still_open["pnl"])
    assert pd.isna(still_open["exit_time"])


def test_what_the_end_of_the_data_closes_is_a_trade(run):
    fills = run.result.fills
    last = fills["trade_id"].max()
    closing = fills[(fills["trade_id"] == last) & (fills["is_entry"] == 0)].copy()
    closing["reason"] = Reason.END_OF_DATA
    still_open = fills[~((fills["trade_id"] == last) & (fills["is_entry"] == 0))]
    ended = replace(run, result=type(run.result)(**{**vars(run.result), "fills": still_open}))
    ended.closing_fills = closing
    trade = trades_frame(ended).iloc[-1]
    assert (trade["exit_reason"], trade["pnl"]) == (Reason.END_OF_DATA, closing["pnl"][0])


def test_frames_are_indexed_by_time(run):
    assert trades_frame(run).index.name == "entry_time"
    assert fills_frame(run).index.name == "time"
    assert equity_frame(run).index.name == "open_time"
    decisions = decisions_frame(run)
    assert decisions.index.names == ["open_time", "symbol"]
    cell = decisions.loc[(pd.Timestamp(int(run.bars.open_time[300]), tz="UTC"), "SYM2")]
    assert cell["raw_action"] == run.result.decisions.raw_action[300, 2]


def test_a_refused_decision_ends_as_hold_without_confidence(run):
    decisions = decisions_frame(run)
    refused = decisions[(decisions["raw_action"] != 1) & (decisions["governor_reason"] == Reason.LOW_CONFIDENCE)]
    assert len(refused) > 0
    assert (refused["final_action"] == 1).all()
    assert (refused["final_confidence"] == 0.0).all()
    assert (refused["final_source"] == 3).all()


def test_the_market_starts_with_the_first_vote_and_stands_still_before(run):
    rows = tables.tested_rows(run)
    assert rows.start == np.flatnonzero((run.result.decisions.n_voters > 0).any(axis=1))[0]
    equity = equity_frame(run)
    assert (equity["buy_hold"].iloc[: rows.start + 1] == run.params.broker.initial_cash).all()
    assert equity["buy_hold"].iloc[-1] != run.params.broker.initial_cash
    assert (equity["drawdown"] >= 0.0).all()


def test_a_trade_of_a_symbol_that_the_run_does_not_have_is_refused(folder):
    trades = pd.read_parquet(folder / "trades.parquet")
    trades["symbol"] = trades["symbol"].astype(str).where(np.arange(len(trades)) > 0, "OTHER")
    trades.to_parquet(folder / "trades.parquet", index=False)
    with pytest.raises(UserError, match=r"trades.* must be as the backtest wrote it, was with the symbol 'OTHER'"):
        read_run(folder).frame("trades")
