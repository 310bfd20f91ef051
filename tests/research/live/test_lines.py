"""Do log and terminal say what the journal holds, in the words of the specification?"""

import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from qtcore.rules import Reason
from qtcore.types import ACCOUNT, CLOSED, MODELS, MONEY_COLUMNS, N_CLOSED, NS_PER_MINUTE, POSITION, Action, Source, Verdict
from research.cli.app import app
from research.cli.common import guarded
from research.cli.terminal import Terminal
from research.errors import UserError
from research.live.dashboard.monitor import _decisions, screen, share_bar
from research.live.monitoring import bar_log as logging_
from research.live.monitoring.bar_log import LogFile, lines_of
from research.live.monitoring.sources import open_source
from research.live.records import Event
from research.workflow.run import Run
from tests.support import FLAG, PUBLISHED
from tests.support.live_world import WORLD, replay, traded

NOON = 1_704_110_400_000_000_000  # 2024-01-01T12:00:00Z
STAMP = "2024-01-01T12:00:00Z | "


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> tuple[Path, Path, Run]:
    return traded(tmp_path_factory.mktemp("watched"))


def said(
    params: dict | None = None, account: dict | None = None, events: tuple = (), governor: Reason = Reason.HOLD_SIGNAL, **cell
) -> list[str]:
    """The lines of one made-up cell of BTCUSDT: three voters, an ensemble that says BUY 0.72, and what `cell` changes."""
    known = {
        "n_voters": 3, "ensemble_action": Action.BUY, "ensemble_confidence": 0.72, "verdict": Verdict.NONE, "meta_reason": 0,
        "raw_action": Action.BUY, "raw_confidence": 0.72, "arbiter_action": -1, "arbiter_confidence": np.nan, "arbiter_reason": 0,
        "arbiter_score": 0.3, "meta_confidence": np.nan, "source": Source.ENSEMBLE,
    }  # fmt: skip
    unpriced = dict.fromkeys(MONEY_COLUMNS)
    votes = SimpleNamespace(
        names=MODELS,
        action=np.array([2, 2, 1, -1, -1]).reshape(5, 1, 1),
        confidence=np.array([0.812, 0.7, 0.65, np.nan, np.nan]).reshape(5, 1, 1),
    )
    planes = SimpleNamespace(arbiter=np.array([80.0, -0.05, 0.02, 0.9, 1.5, -0.03]).reshape(6, 1, 1))
    result = SimpleNamespace(
        planes=planes, symbols=("BTCUSDT",), close_time=np.array([NOON]), votes=votes, equity=np.array([10_000.0]),
        size=np.array([[-758.93]]),
        governor_reason=np.array([[governor]]),
        decisions=SimpleNamespace(**unpriced, **{k: np.array([[v]]) for k, v in (known | cell).items()}),
    )  # fmt: skip
    accounts, positions = np.zeros(1, ACCOUNT), np.zeros(1, POSITION)
    for name, value in (account or {}).items():
        (accounts if name in ACCOUNT.names else positions)[name] = value
    entry = SimpleNamespace(result=result, events=list(events), account=accounts, positions=positions, closed=np.zeros(N_CLOSED, CLOSED))
    return [str(line).removeprefix(STAMP) for line in lines_of(entry, PUBLISHED.with_values(params or {}))]


def test_votes_and_ensemble():
    assert said() == [
        "[XGB-Agent] BTCUSDT \u2192 BUY (conf=0.812)",
        "[LGBM-Agent] BTCUSDT \u2192 BUY (conf=0.700)",
        "[NHiTS-Agent] BTCUSDT \u2192 HOLD (conf=0.650)",
        "[ENSEMBLE] BTCUSDT: BUY 0.72 | XGB:BUY/0.81 LGBM:BUY/0.70 NH:HOLD/0.65",
    ]
    quiet = said(ensemble_action=Action.HOLD, ensemble_confidence=0.50, raw_action=Action.HOLD)
    assert not any("ENSEMBLE" in line for line in quiet)
    assert any("[ENSEMBLE] BTCUSDT: HOLD 0.51" in line for line in said(ensemble_action=Action.HOLD, ensemble_confidence=0.51))
    assert said(n_voters=0) == []


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (
            {"verdict": Verdict.DEFER, "meta_reason": Reason.STRONG_CONSENSUS_BUY},
            ["[Meta-V2-Policy] BTCUSDT DEFER: using base ensemble BUY@0.720 | Reason: strong_consensus_buy"],
        ),
        (
            {"verdict": Verdict.ESCALATE, "meta_reason": Reason.SPLIT_VOTE, "arbiter_reason": Reason.NOT_AVAILABLE},
            [
                "[Meta-V2-Policy] BTCUSDT ESCALATE: split_vote \u2192 Calling Arbiter",
                "[Arbiter] BTCUSDT NOT AVAILABLE: keeping base ensemble BUY@0.720 | Reason: not_available",
            ],
        ),
        (
            {
                "verdict": Verdict.ESCALATE, "meta_reason": Reason.SPLIT_VOTE, "arbiter_action": Action.SELL, "arbiter_confidence": 0.76,
                "arbiter_reason": Reason.SELL_SIGNAL, "source": Source.ARBITER, "raw_action": Action.SELL, "raw_confidence": 0.76,
            },
            [
                "[Meta-V2-Policy] BTCUSDT ESCALATE: split_vote \u2192 Calling Arbiter",
                "[Arbiter] BTCUSDT INVOKED (escalated from Meta-V2)",
                "[Arbiter] BTCUSDT OVERRIDE: BUY@0.720 \u2192 SELL@0.760 | Reason: sell_signal: bearish_macd, negative_momentum",
            ],
        ),
        (
            {
                "verdict": Verdict.ESCALATE, "meta_reason": Reason.HIGH_DISAGREEMENT, "arbiter_action": Action.HOLD,
                "arbiter_confidence": 0.695, "arbiter_reason": Reason.DEFER_LOW_CONFIDENCE,
            },
            [
                "[Meta-V2-Policy] BTCUSDT ESCALATE: high_disagreement \u2192 Calling Arbiter",
                "[Arbiter] BTCUSDT INVOKED (escalated from Meta-V2)",
                "[Arbiter] BTCUSDT DEFER: keeping base ensemble BUY@0.720 | Arbiter: HOLD@0.695"
                " | Reason: defer_low_confidence (0.695 < 0.70)",
            ],
        ),
    ],
    ids=["defer", "no arbiter", "override", "arbiter defers"],
)  # fmt: skip
def test_policy_and_arbiter(cell, expected):
    assert said(**cell)[4:] == expected


def test_override_and_v5_mode():
    changed = {"verdict": Verdict.OVERRIDE, "meta_reason": Reason.META_OVERRIDE_SELL, "raw_action": Action.SELL, "raw_confidence": 0.821}
    text = "[META-V2] BTCUSDT: OVERRIDE (base=BUY@0.72 \u2192 meta=SELL@0.82) | Reason: meta_override_sell"
    assert said({"meta.mode": "override"}, **changed)[4:] == [text]
    low = {"verdict": Verdict.DEFER, "meta_reason": Reason.META_LOW_CONFIDENCE, "meta_confidence": 0.58}
    kept = said({"meta.mode": "override"}, **low)[4:]
    assert kept == ["[META-V2] BTCUSDT: FALLBACK (keeping base=BUY@0.72) | Reason: meta_low_confidence_0.58"]
    closed = {"verdict": Verdict.DEFER, "meta_reason": Reason.MODEL_NOT_LOADED, "source": Source.META, "raw_action": Action.HOLD}
    text = "[META-V2] BTCUSDT: FALLBACK (failed closed: HOLD@0.00 in place of base=BUY@0.72) | Reason: model_not_loaded"
    assert said({"meta.mode": "override"}, **closed, raw_confidence=0.0)[4:] == [text]
    assert said({"meta.mode": "v5"}, **changed)[4:] == ["[META] BTCUSDT override: BUY\u2192SELL (conf=0.821)"]


@pytest.mark.parametrize(
    ("code", "account", "text"),
    [
        (Reason.APPROVED, {}, "APPROVED: BUY | Size=$758.93 (7.6%) | Risk=$15.18"),
        (Reason.LOW_CONFIDENCE, {}, "LOW_CONFIDENCE (0.720 < 0.650)"),
        (Reason.EMERGENCY_STOP_ACTIVE, {}, "EMERGENCY_STOP_ACTIVE"),
        (Reason.MAX_DRAWDOWN_EXCEEDED, {"equity": 8000.0, "peak": 10_000.0}, "MAX_DRAWDOWN_EXCEEDED (20.0% > 15.0%)"),
        (Reason.DAILY_TRADE_LIMIT_REACHED, {"trades_today": 20}, "DAILY_TRADE_LIMIT_REACHED (20/20)"),
        (
            Reason.MAX_EXPOSURE_EXCEEDED, {"equity": 10_000.0, "exposure": 4_900.0}, "MAX_EXPOSURE_EXCEEDED (5543 > 5000)",
        ),
        (Reason.COOLDOWN_ACTIVE, {"last_loss_time": NOON - 15 * NS_PER_MINUTE}, "COOLDOWN_ACTIVE (45.0m remaining)"),
    ],
    ids=lambda value: value.name if isinstance(value, Reason) else "",
)  # fmt: skip
def test_the_governor(code, account, text):
    refused = "" if code == Reason.APPROVED else "REJECTED: BUY \u2192 HOLD | Reason: "
    assert said(account=account, governor=code)[-1] == f"[GOVERNER] BTCUSDT {refused}{text}"


def test_holds_and_exits_need_no_permission():
    for code in (Reason.HOLD_SIGNAL, Reason.EXIT_SIGNAL):
        assert not any("GOVERNER" in line for line in said(governor=code))


def test_what_the_feed_noticed_comes_first():
    assert said(events=(Event(NOON, "late", "a candle of 11:00", "ETHUSDT"), Event(NOON, "params", "stage 1")))[:2] == [
        "[FEED] ETHUSDT late: a candle of 11:00",
        "[CONTROL] params: stage 1",
    ]


def test_the_log_has_the_lines_of_the_specification(watched):
    journal, _, run = watched
    lines = (journal.parent / "live.log").read_text().splitlines()
    stamp = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ \| \[[A-Za-z0-9-]+\] ")
    assert all(stamp.match(line) for line in lines)
    result = run.result
    assert sum("[XGB-Agent]" in line for line in lines) == int((result.votes.action[0] >= 0).sum())
    assert sum("[GOVERNER]" in line and "APPROVED" in line for line in lines) == int((result.governor_reason == Reason.APPROVED).sum())
    assert sum("ESCALATE" in line for line in lines) == int((result.decisions.verdict == Verdict.ESCALATE).sum())
    assert sum("[Arbiter]" in line and "OVERRIDE" in line for line in lines) == int((result.decisions.source == Source.ARBITER).sum())
    t, s = np.argwhere(result.decisions.ensemble_action == Action.BUY)[0]
    time = f"{np.datetime64(int(result.close_time[t]), 'ns').astype('M8[s]')}Z"
    text = f"{time} | [ENSEMBLE] {result.symbols[s]}: BUY {result.decisions.ensemble_confidence[t, s]:.2f} | XGB:"
    assert any(line.startswith(text) for line in lines)


def test_the_log_can_be_json(watched, tmp_path):
    replay(watched[0].parent, tmp_path / "j", until=60, log=tmp_path / "log", log_json=True)
    rows = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert set(rows[0]) == {"time", "component", "symbol", "text"}


def test_the_log_rotates_and_loses_no_line(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(logging_, "MAX_BYTES", 40_000)
    monkeypatch.setattr(logging_, "KEPT", 50)
    replay(watched[0].parent, tmp_path / "j", until=100, log=tmp_path / "log")
    files = sorted(tmp_path.glob("log*"), key=lambda path: int(path.suffix[1:] or 0), reverse=True)
    assert len(files) > 3
    assert all(path.stat().st_size <= 40_000 for path in files)
    whole = (watched[0].parent / "live.log").read_text().splitlines()
    joined = [line for path in files for line in path.read_text().splitlines()]
    first = [line for line in whole if line < "2000-01-05T05"]
    assert [line for line in joined if "slow:" not in line] == [line for line in first if "slow:" not in line]


def test_old_logs_leave(watched, tmp_path, monkeypatch):
    monkeypatch.setattr(logging_, "MAX_BYTES", 10_000)
    monkeypatch.setattr(logging_, "KEPT", 2)
    replay(watched[0].parent, tmp_path / "j", until=60, log=tmp_path / "log")
    assert sorted(path.name for path in tmp_path.glob("log*")) == ["log", "log.1", "log.2"]


def test_a_log_that_cannot_be_written_does_not_stop_trading(watched, tmp_path, capsys):
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system: a full disk cannot be played")
    replay(watched[0].parent, tmp_path / "j", until=30, log=Path("/dev/full"))
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "trading goes on" in told
    with pytest.raises(UserError, match="--log must be a writable file"):
        LogFile(tmp_path)


# the terminal


@pytest.mark.parametrize("width", [80, 120])
def test_the_terminal_shows_the_sections(watched, width):
    for path in watched[:2]:
        source = open_source(path)
        console = Terminal(width=width, record=True, file=io.StringIO())
        console.print(screen(source))
        text = console.export_text()
        assert all(len(line) <= width for line in text.splitlines())
        for name in ("ACTIVE MODELS", "SIGNALS OF THE ENSEMBLE", "GOVERNOR", "HEALTH", "LAST DECISIONS", "inactive"):
            assert name in text
        assert f"{source.book().equity:,.2f}" in text
        for decision in source.last(10):
            row = next(line for line in text.splitlines() if decision["symbol"] in line and decision["governor"] in line)
            assert decision["raw"]["action"] in row
        assert ("ensemble" in text) == (width == 120)
        assert "\u2026" not in text  # nothing is cut off
    assert share_bar(1.0) == "#" * 20


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200])
def test_time_symbol_and_sides_of_a_decision_are_whole_at_every_width(width):
    """Long reasons of opinions with a price may wrap or lose their numbers; what was decided about which symbol may not."""
    reason = "COOLDOWN_ACTIVE (60.0m remaining), and a reason that goes on and on until no terminal has room"
    decision = {
        "time": "2000-07-27T06:00:00+00:00",
        "symbol": "BTC/USDT:USDT",
        "raw": {"action": "SELL", "confidence": 0.56},
        "edge": -143.5,
        "ensemble": {"action": "HOLD", "confidence": 0.73},
        "meta": {"verdict": "DEFER", "word": "advice", "reason": "bet_shrunk (pays with probability 0.58)"},
        "final": {"action": "HOLD"},
        "governor": reason,
    }
    console = Terminal(width=width, record=True, file=io.StringIO())
    console.print(_decisions([decision], width))
    text = console.export_text()
    first = next(line for line in text.splitlines() if "07-27 06:00" in line)
    assert [word for word in ("BTC/USDT:USDT", "SELL 0.56", "-143.5", "HOLD ") if word not in first] == []
    assert "\u2026" not in text
    assert ("advice bet_shrunk" in " ".join(text.split())) == (width >= 120)
    assert ("probability" in text) == (width >= 160)
    assert all(word in text for word in reason.split() if len(word) < 12)


def test_a_notebook_shows_it_too(watched):
    bundle = screen(open_source(watched[0]))._repr_mimebundle_([], [])
    assert "GOVERNOR" in bundle["text/html"]


def in_a_terminal(words: list[str], seconds: float) -> tuple[int, str]:
    """Run `qt` in a pseudo-terminal of 100 columns, press Ctrl-C after some seconds; returns the exit code and all that was written."""
    process, fd = pty.fork()
    if process == 0:
        os.environ |= {"COLUMNS": "100", "LINES": "50", "TERM": "xterm"}
        os.execv(sys.executable, [sys.executable, "-m", "research", *words])
    written, until, is_pressed = b"", time.monotonic() + 60.0, False
    first = None
    while time.monotonic() < until:
        if select.select([fd], [], [], 0.1)[0]:
            try:
                chunk = os.read(fd, 65536)
            except OSError:
                break
            if not chunk:
                break
            written += chunk
            first = first or time.monotonic()
        if first and not is_pressed and time.monotonic() > first + seconds:
            os.write(fd, b"\x03")
            is_pressed = True
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), written.decode(errors="replace")


def test_the_monitor_follows_a_replay_and_ends_by_ctrl_c(watched, tmp_path):
    folder = watched[0].parent
    words = ["live", FLAG, "--quiet", "--feed", f"replay:{WORLD}", "--speed", "5", "--journal", str(tmp_path / "j")]
    words += ["--predictions", str(folder / "predictions.parquet")]
    replay(folder, tmp_path / "j", until=60)
    live = subprocess.Popen([sys.executable, "-m", "research", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    source = open_source(tmp_path / "j")
    try:
        before, until = source.book().time, time.monotonic() + 60.0
        while source.book().time == before and time.monotonic() < until:
            time.sleep(0.1)
        code, text = in_a_terminal(["monitor", str(tmp_path / "j"), "--interval", "0.5"], 3.0)
    finally:
        live.send_signal(signal.SIGINT)
        assert live.wait(60) == 0
    assert code == 0
    assert "Traceback" not in text
    assert "live, on paper" in text
    assert len(set(re.findall(r"last bar ([0-9-]+ [0-9:]+)", text))) >= 2  # it moved
    assert text.rstrip().endswith("\x1b[?25h") or "\x1b[?1049l" in text  # the screen that was there comes back


@pytest.mark.parametrize("command", ["monitor", "dashboard", "status", "validate"])
def test_a_wrong_source_is_told_in_one_sentence(tmp_path, capsys, command):
    (tmp_path / "text").write_text("no journal " * 500)
    for path, what in (("none", "was missing"), ("text", "was a text file"), ("", "manifest")):
        assert guarded(lambda path=path: app([command, str(tmp_path / path)], standalone_mode=False)) == 2
        told = capsys.readouterr().err
        assert "Traceback" not in told
        assert what in told
