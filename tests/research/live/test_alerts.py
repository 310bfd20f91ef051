"""Is somebody told in time, without a bar that waits and without a secret that leaks?"""

import json
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from research.data import load_bars
from research.errors import UserError
from research.live.feeds.feeds import Arrival
from research.live.monitoring import alerts
from research.live.monitoring.alerts import WAITING, Alerts
from research.live.records import Event
from research.live.session.controls import command
from research.live.start import LiveOptions, start_live
from research.training.predictions import Predictions
from tests.research.live.test_live import content
from tests.support.as_published import CONFIG

WORLD = "simulated:random_walk?n_bars=160&n_symbols=2"
SECRET = "T0PSECRET"


class Hook(BaseHTTPRequestHandler):
    """Keep what is posted; `/slow` waits, `/bad` fails, `/away` redirects."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path.startswith("/slow"):
            time.sleep(1.0)
        self.server.got.append((self.path, json.loads(body), self.headers["Content-Type"]))
        self.send_response({"/bad": 500, "/away": 302}.get(self.path.partition("?")[0], 200))
        self.send_header("Location", "/elsewhere")
        self.end_headers()

    def log_message(self, *args) -> None:
        """Stay quiet."""


@pytest.fixture
def hook():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.got = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    path = tmp_path_factory.mktemp("world") / "predictions.parquet"
    Predictions.random(load_bars(WORLD), seed=1).save(path)
    return path


def wait_for(what, seconds=10.0) -> None:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.01)
    assert what()


def events(journal, kind) -> list[str]:
    with sqlite3.connect(journal) as db:
        return [text for (text,) in db.execute("SELECT text FROM events WHERE kind = ?", (kind,))]


def test_a_webhook_is_told_of_the_kill_switch_and_changes_no_decision(hook, predictions, tmp_path):
    server, url = hook
    asked = LiveOptions(f"replay:{WORLD}", tmp_path / "j", CONFIG, predictions=predictions, alert=f"{url}/hook?token={SECRET}")
    runner, close = start_live(asked)
    runner.watchers = (lambda entry: command(tmp_path / "j", {"do": "stop", "now": False}) if entry.bar == 100 else None,)
    runner.run()
    close()
    ((path, body, kind),) = server.got
    assert path == f"/hook?token={SECRET}"
    assert kind == "application/json"
    assert body["kind"] == "stop"
    assert body["time"] == f"{np.datetime64(int(load_bars(WORLD).close_time[101]), 'ns').astype('M8[s]')}Z"
    quiet, close = start_live(LiveOptions(f"replay:{WORLD}", tmp_path / "k", CONFIG, predictions=predictions))
    quiet.watchers = (lambda entry: command(tmp_path / "k", {"do": "stop", "now": False}) if entry.bar == 100 else None,)
    quiet.run()
    close()
    assert content(tmp_path / "j") == content(tmp_path / "k")
    assert SECRET.encode() not in (tmp_path / "j").read_bytes()


def test_a_command_gets_the_alert_on_stdin_and_no_token(tmp_path, monkeypatch):
    monkeypatch.setenv("QT_TOKEN", SECRET)
    script = tmp_path / "told.py"
    told_file, there = tmp_path / "told", "'QT_TOKEN' in os.environ"
    script.write_text(
        f"import json, os, sys\ntold = [json.load(sys.stdin), os.environ['QT_ALERT_KIND'], {there}]\n"
        f"open({str(told_file)!r}, 'a').write(json.dumps(told))\n"
    )
    told = Alerts(f"{sys.executable} {script}")
    list(told.before(RUNNER, 0, 0))
    list(told.after(RUNNER, entry_of(1.0, is_halted=1)))
    list(told.after(RUNNER, entry_of(1.0, is_halted=1)))  # told once
    told.close()
    body, kind, has_token = json.loads(told_file.read_text())
    assert (body["kind"], kind, has_token) == ("drawdown", "drawdown", False)
    assert "the drawdown limit is reached" in body["text"]


@pytest.mark.parametrize(
    ("path", "said"), [("/bad", "answered 500"), ("/away", "answered 302"), ("/slow", "did not answer (TimeoutError)")]
)
def test_what_fails_is_noted_without_the_address(hook, path, said):
    server, url = hook
    told = Alerts(f"{url}{path}?key={SECRET}", seconds=0.2, pause=0.0)
    told.tell("stop", "text", 0)
    wait_for(lambda: told._failures)
    (event,) = told.after(RUNNER, ENTRY)
    assert (event.kind, event.text) == ("alert_failed", f"stop: 127.0.0.1 {said}")
    assert len([p for p, *_ in server.got if p == "/elsewhere"]) == 0
    told.close()


@pytest.mark.parametrize(
    ("code", "seconds", "said"),
    [("raise SystemExit(3)", 30.0, "ended with 3"), ("import time; time.sleep(5)", 0.3, "took longer than 0.3 seconds")],
)
def test_a_command_that_fails_is_noted_by_its_name_alone(code, seconds, said):
    told = Alerts(f'{sys.executable} -c "{code}" {SECRET}', seconds=seconds, pause=0.0)
    told.tell("due", "text", 0)
    wait_for(lambda: told._failures)
    (event,) = told.after(RUNNER, ENTRY)
    assert event.text.endswith(said)
    assert SECRET not in event.text
    told.close()


def test_a_target_that_hangs_never_holds_a_bar(hook):
    told = Alerts(f"{hook[1]}/slow", seconds=5.0)
    start = time.monotonic()
    for k in range(WAITING + 10):
        told.tell("stop", str(k), 0)
    assert time.monotonic() - start < 0.5
    assert told.dropped >= 8
    assert any("this one was dropped" in event.text for event in told.after(RUNNER, ENTRY))
    told.close(0.0)


def test_silence_of_a_live_feed_and_a_bar_of_holes_are_a_loss(hook):
    server, url = hook
    told = Alerts(url, silence=0.2)
    wait_for(lambda: len(server.got) == 1)
    time.sleep(0.5)
    assert [body["kind"] for _, body, _ in server.got] == ["feed_loss"]  # once
    list(told.before(RUNNER, 0, 0))
    list(told.after(RUNNER, entry_of(np.nan)))
    list(told.after(RUNNER, entry_of(np.nan)))
    told.close()
    assert [body["text"] for _, body, _ in server.got[1:2]] == ["a bar without a single candle"]
    assert sum("candle" in body["text"] for _, body, _ in server.got) == 1


def test_a_loss_is_told_once_when_it_lasts_and_a_moment_is_none(hook):
    server, url = hook
    told = Alerts(url)
    minute = 60 * 10**9

    def hear(at: float, *said: tuple[str, str, str]) -> None:
        now = round(at * minute)
        told.heard(Arrival(now, events=tuple(Event(now, kind, text, symbol) for kind, text, symbol in said)))

    hear(0.0, ("lost", "x does not answer: 503", ""))
    hear(1.0, ("back", "x answers again", ""))
    hear(9.0, ("lost", "x does not answer: 503", ""), ("lost", "the websocket of x broke: gone", ""))
    hear(10.9, ("back", "the websocket of x is up again", ""))
    hear(11.1)
    hear(12.0, ("skew", "ahead", ""), ("lost", "x gives no candles: 429", "B/Q"))
    hear(30.0, ("back", "x answers again after 1260 s", ""), ("back", "x gives candles again", "B/Q"))
    hear(40.0)
    told.close()
    assert [(body["kind"], body["text"], body["time"][14:]) for _, body, _ in server.got] == [
        ("feed_loss", "x does not answer: 503", "11:06Z"),
        ("feed_loss", "x gives no candles: 429 B/Q", "30:00Z"),
    ]


def test_alarms_of_other_duties_are_handed_on(hook):
    server, url = hook
    told = Alerts(url)
    said = [SimpleNamespace(kind=kind, text=kind, symbol="", time=0) for kind in (*alerts.TOLD, "late")]
    list(told.after(RUNNER, entry_of(1.0, said)))
    told.close()
    assert [body["kind"] for _, body, _ in server.got] == list(alerts.TOLD)


@pytest.mark.parametrize("target", ["", "no_such_program_anywhere", "http:///path", "'", "ftp://host/x"])
def test_a_target_that_nobody_answers_is_refused(target):
    with pytest.raises(UserError, match="--alert must be"):
        Alerts(target)


RUNNER = SimpleNamespace(params=SimpleNamespace(governor=SimpleNamespace(emergency_stop=False)))


def entry_of(close, events=(), is_halted=0):
    result = SimpleNamespace(close_time=np.array([0]), bars=SimpleNamespace(close=np.full((1, 2), close)))
    return SimpleNamespace(result=result, account=np.array([(is_halted,)], [("is_halted", "i8")]), events=list(events))


ENTRY = entry_of(1.0)
