"""Does the page's server answer what it should, and nobody whom it should not?"""

import http.client
import io
import json
import socket
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from qtcore.rules import Reason
from qtcore.types import Action, Source
from research.cli import show
from research.cli.app import app
from research.cli.common import guarded
from research.cli.terminal import Terminal
from research.errors import UserError
from research.live.dashboard import server as serving
from research.live.dashboard.server import Dashboard
from research.live.monitoring.counts import SECONDS, Durations
from research.live.monitoring.health import status
from research.live.monitoring.metrics import metrics_text
from research.live.monitoring.sources import open_source
from research.live.storage.files import connect, hold, is_held
from research.runs.tables import final_source
from research.workflow.run import Run
from tests.support.live_market import content
from tests.support.live_world import ask, replay, served, traded

RESET = "api/ai/meta/reset_stats"


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> tuple[Path, Path, Run]:
    return traded(tmp_path_factory.mktemp("watched"))


# metrics


def families(source) -> dict:
    """What Prometheus' own parser reads, by name; no family comes twice."""
    found = list(text_string_to_metric_families(metrics_text(source)))
    assert len({family.name for family in found}) == len(found)
    return {family.name: family for family in found}


def values(family) -> dict:
    return {tuple(sample.labels.values()): sample.value for sample in family.samples}


def test_prometheus_reads_the_published_names(watched):
    found = families(open_source(watched[0]))
    kinds = {
        "meta_v2_escalation_rate": "gauge", "arbiter_invocation_count": "counter", "arbiter_override_rate": "gauge",
        "final_decision_source": "counter", "governor_rejections": "counter", "governor_drawdown_ratio": "gauge",
        "base_predictions": "counter", "governor_equity": "gauge", "bar_latency_seconds": "histogram",
    }  # fmt: skip
    assert {name: found[name].type for name in kinds} == kinds
    assert all(family.documentation for family in found.values())
    lines = metrics_text(open_source(watched[0])).splitlines()
    names = {line.partition("{")[0].partition(" ")[0] for line in lines if not line.startswith("#")}
    published = {"arbiter_invocation_count", "final_decision_source", "governor_rejections_total", "base_predictions_total"}
    assert published <= names  # as they are asked for: the parser takes the `_total` of counters away


def test_metrics_are_the_counts_of_the_run(watched):
    journal, folder, run = watched
    result = run.result
    d = result.decisions
    for path in (journal, folder):
        found = families(open_source(path))
        assert values(found["arbiter_invocation_count"]) == {(): int((d.arbiter_action >= 0).sum())}
        voted = d.n_voters > 0
        sources = {(s.name.lower(),): int((final_source(run)[voted] == s).sum()) for s in Source}
        assert values(found["final_decision_source"]) == sources
        refused = values(found["governor_rejections"])
        assert refused[("LOW_CONFIDENCE",)] == int((result.governor_reason == Reason.LOW_CONFIDENCE).sum())
        assert refused[("SHORTS_DISABLED",)] == 0.0
        votes = {tuple(sample.labels.items()): sample.value for sample in found["base_predictions"].samples}
        assert votes[("action", "BUY"), ("model", "xgb")] == int((result.votes.action[0] == Action.BUY).sum())
        assert values(found["governor_equity"]) == {(): result.equity[-1]}
    assert "bar_latency_seconds" not in found  # nobody waited for the bars of a finished run


def test_the_latency_is_a_histogram_of_every_bar(watched):
    source = open_source(watched[0])
    samples = families(source)["bar_latency_seconds"].samples
    buckets = [sample.value for sample in samples if sample.name.endswith("_bucket")]
    assert len(buckets) == len(SECONDS) + 1
    assert buckets == sorted(buckets)
    taken = [ns for (ns,) in source.rows("SELECT latency FROM bars ORDER BY bar")][:-1]
    by_name = {sample.name: sample.value for sample in samples}
    assert by_name["bar_latency_seconds_count"] == buckets[-1] == len(taken)
    assert by_name["bar_latency_seconds_sum"] == pytest.approx(sum(taken) / 1e9)
    bounds = [sample.labels["le"] for sample in samples if sample.name.endswith("_bucket")]
    assert buckets[bounds.index("0.01")] == sum(ns <= 10_000_000 for ns in taken)


def test_a_duration_on_a_bound_counts_below_it():
    counted = Durations()
    counted.add([1_000_000, 1_000_001, 11_000_000_000])
    assert counted.buckets[:2] == [1, 1]
    assert counted.buckets[-1] == 1
    assert counted.total == pytest.approx(11.002000001)


def test_counters_only_grow_while_bars_come(watched, tmp_path):
    folder = watched[0].parent
    replay(folder, tmp_path / "j", until=100)
    source = open_source(tmp_path / "j")
    before = families(source)
    replay(folder, tmp_path / "j")
    after = families(source)
    for name, family in before.items():
        if family.type != "gauge":
            grown = values(after[name])
            assert all(grown[labels] >= value for labels, value in values(family).items()), name
    whole = families(open_source(watched[0]))
    assert values(after["base_predictions"]) == values(whole["base_predictions"])
    assert values(after["bar_latency_seconds"])[()] > 0.0


# the server


def test_the_server_answers(watched):
    with served(open_source(watched[0])) as server:
        url = server.url.rstrip("/")
        assert server.server_address[0] == "127.0.0.1"
        for path, kind in (("/", "text/html"), ("/app.js", "text/javascript"), ("/style.css", "text/css"), ("/metrics", "text/plain")):
            code, body, headers = ask(url + path)
            assert code == 200
            assert headers["Content-Type"].startswith(kind)
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert "http://" not in body.replace("http://www.w3.org", "")
        code, body, _ = ask(url + "/api/page?at=1")
        assert code == 200
        assert json.loads(body)["status"]["source"] == "journal.sqlite"
        assert json.loads(ask(url + "/api/ai/meta/status")[1])["total_predictions"] > 0
        code, body, headers = ask(url + "/", method="HEAD")
        assert (code, body) == (200, "")
        assert int(headers["Content-Length"]) > 500
        for path in ("/nothing", "/../server.py", "/%2e%2e/server.py", "/app.js/"):
            assert ask(url + path)[0] == 404, path


def copied(journal: Path, to: Path) -> Path:
    """A journal of one's own, to write into."""
    with sqlite3.connect(journal) as source, sqlite3.connect(to) as target:
        source.backup(target)
    return to


def test_only_those_who_show_the_token_change_anything(watched, tmp_path):
    with served(open_source(copied(watched[0], tmp_path / "j"))) as server:
        for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic secret"}, {"Authorization": "secret"}):
            code, body, headers = ask(server.url + RESET, b"", **given)
            assert code == 401
            assert headers["WWW-Authenticate"] == "Bearer"
            assert "secret" not in body
        assert json.loads(ask(server.url + "api/ai/meta/status")[1])["total_predictions"] > 0
        assert ask(server.url + RESET, b"", Authorization="Bearer secret")[0] == 200
        now = json.loads(ask(server.url + "api/ai/meta/status")[1])
        assert now["total_predictions"] == now["escalations"] == now["arbiter"]["total_calls"] == 0
        assert now["governor"]["total_trades"] > 0  # the account is no statistic
        assert len(now["active_models"]) == 4


def test_counts_begin_at_the_last_reset_whoever_asks_and_when(watched, tmp_path):
    folder, journal = watched[0].parent, tmp_path / "j"
    replay(folder, journal, until=100)
    beside = open_source(journal)
    assert beside.tally().cells == 400
    with served(open_source(journal)) as server:
        assert ask(server.url + RESET, b"", Authorization="Bearer secret")[0] == 200
        assert json.loads(ask(server.url + "api/ai/meta/status")[1])["total_predictions"] == 0
    again = open_source(journal)
    assert (again.tally().cells, beside.tally().cells) == (0, 0)
    assert again.active() == beside.active() == open_source(watched[0]).active()
    replay(folder, journal, until=150)
    replay(folder, tmp_path / "k", until=150)
    late, never = open_source(journal).tally(), open_source(tmp_path / "k").tally()
    assert late.counts() == again.tally().counts() == beside.tally().counts()
    assert 0 < late.cells == never.cells - 400
    assert late.last_vote == never.last_vote
    assert content(journal) == content(tmp_path / "k"), "the runner does not care"
    with sqlite3.connect(journal) as db:
        assert db.execute("SELECT COUNT(*) FROM versions").fetchone() == (1,)
    again.reset()
    assert open_source(journal).tally().cells == 0


def test_without_a_token_nobody_may_change_anything(watched):
    with served(open_source(watched[1]), token="") as server:
        for given in ("Bearer ", "Bearer", "Bearer None"):
            assert ask(server.url + RESET, b"", Authorization=given)[0] == 401


def test_the_token_is_compared_in_constant_time(watched, monkeypatch):
    compared = []
    monkeypatch.setattr(serving.hmac, "compare_digest", lambda a, b: compared.append((a, b)) or False)
    with served(open_source(watched[1])) as server:
        assert ask(server.url + RESET, b"", Authorization="Bearer secret")[0] == 401
    assert compared == [(b"secret", b"secret")]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{port}.evil.example", ""])
def test_a_name_bound_to_this_address_reads_nothing(watched, host):
    with served(open_source(watched[1])) as server:
        for path in ("", "api/page", "metrics", "api/ai/meta/status"):
            code, body, _ = ask(server.url + path, Host=host.format(port=server.server_port))
            assert code == 403
            assert "journal" not in body
        for name in ("localhost", "LOCALHOST", "[::1]"):
            assert ask(server.url, Host=f"{name}:{server.server_port}")[0] == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "https://127.0.0.1:{port}", "null", "http://127.0.0.1:1"])
def test_another_site_changes_nothing(watched, origin):
    with served(open_source(watched[1])) as server:
        named = {"Authorization": "Bearer secret", "Origin": origin.format(port=server.server_port)}
        assert ask(server.url + RESET, b"", **named)[0] == 403
        assert ask(server.url + RESET, b"", Authorization="Bearer secret", Origin=server.url.rstrip("/"))[0] == 200
        answer = ask(server.url + RESET, method="OPTIONS", Origin="http://evil.example")
        assert answer[0] == 405
        assert "Access-Control-Allow-Origin" not in answer[2]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", RESET, "POST"),
        ("HEAD", "api/stop", "POST"),
        ("POST", "api/page", "GET, HEAD"),
        ("POST", "", "GET, HEAD"),
        ("PUT", "api/stop", "GET, HEAD, POST"),
        ("DELETE", "metrics", "GET, HEAD, POST"),
        ("TRACE", "", "GET, HEAD, POST"),
    ],
)
def test_a_method_that_is_not_allowed_is_told(watched, method, path, allowed):
    with served(open_source(watched[1])) as server:
        code, _, headers = ask(server.url + path, b"" if method == "POST" else None, method, Authorization="Bearer secret")
        assert code == 405
        assert headers["Allow"] == allowed
        assert "default-src 'none'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b"[" * 4000, 400),
        (b'{"now": "yes"}', 400),
        (b'{"a": "' + b"x" * 5000 + b'"}', 413),
        (b"{}", 409),  # understood, but a finished run cannot be stopped
    ],
)
def test_a_body_is_a_small_json_object(watched, body, code):
    with served(open_source(watched[1])) as server:
        assert ask(server.url + "api/stop", body, Authorization="Bearer secret")[0] == code


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("Content-Length", "-1", 400),
        ("Content-Length", "x", 400),
        ("Content-Length", "", 400),
        ("Content-Length", "+5", 400),
        ("Content-Length", "5, 5", 400),
        ("Content-Length", "0x5", 400),
        ("Content-Length", "\u0665".encode(), 400),
        ("Content-Length", "5_0", 400),
        ("Content-Length", "4097", 413),
        ("Content-Length", str(2**64), 413),
        ("Content-Length", "9" * 10_000, 413),
        ("Content-Length", "9" * 70_000, 431),
        ("Content-Length", "0" * 10_000, 409),
        ("Transfer-Encoding", "chunked", 411),
        ("X-Nothing", "", 409),  # no length is no body
    ],
)
def test_a_body_without_an_honest_length_is_not_read(watched, name, value, code):
    with served(open_source(watched[1])) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.putrequest("POST", "/api/stop")
        connection.putheader("Authorization", "Bearer secret")
        connection.putheader(name, value)
        connection.endheaders()
        assert connection.getresponse().status == code
        connection.close()


def test_who_drips_is_cut_off_and_keeps_nobody_waiting(watched, monkeypatch):
    monkeypatch.setattr(serving, "SECONDS", 1.0)
    with served(open_source(watched[1])) as server:
        slow = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(3)]
        slow[1].sendall(b"GET / HTTP/1.1\r\n")
        slow[2].sendall(
            b"POST /api/stop HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer secret\r\nContent-Length: 50\r\n\r\n{"
            % server.server_port
        )
        start = time.monotonic()
        assert ask(server.url)[0] == 200
        assert time.monotonic() - start < 0.9
        open_ = set(slow)
        while open_ and time.monotonic() - start < 8.0:
            for one in list(open_):
                one.settimeout(0.1)
                try:
                    one.sendall(b" ")
                    if not one.recv(100):
                        open_.remove(one)
                except TimeoutError:
                    pass
                except OSError:
                    open_.remove(one)
        assert not open_
        assert 0.9 < time.monotonic() - start < 4.0


def test_a_body_that_does_not_come_gets_an_answer(watched, monkeypatch):
    monkeypatch.setattr(serving, "SECONDS", 0.5)
    with served(open_source(watched[1])) as server:
        head = b"POST /api/stop HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer secret\r\nContent-Length: 50\r\n\r\n{"
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=10) as one:
            one.sendall(head % server.server_port)
            answer = b"".join(iter(lambda: one.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.0 408 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "a request must be there within 0.5 seconds"}


@pytest.mark.parametrize("path", ["api/page", "api/stop", "no/such"])
def test_a_body_that_is_not_read_does_not_take_the_answer_away(watched, path):
    with served(open_source(watched[1])) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
        connection.request("POST", f"/{path}", b"x" * 20_000_000)
        answer = connection.getresponse()
        assert (answer.status, set(json.loads(answer.read()))) == ({"api/page": 405, "api/stop": 401}.get(path, 404), {"error"})
        connection.close()


def test_two_hundred_at_once_are_all_answered_beside_slow_ones(watched):
    with served(open_source(watched[0])) as server:
        slow = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(40)]
        paths = ["api/page", "api/ai/meta/status", "metrics", "", "app.js"]
        start = time.monotonic()
        with ThreadPoolExecutor(200) as pool:
            answers = list(pool.map(lambda k: ask(server.url + paths[k % 5]), range(200)))
        assert [code for code, *_ in answers] == [200] * 200
        assert all(json.loads(text)["status"]["source"] for _, text, _ in answers[::5])
        assert time.monotonic() - start < 9.0  # those who say nothing are cut off after ten
        for one in slow:
            one.close()


def test_what_was_made_before_one_asked_is_not_what_one_gets(watched, tmp_path):
    path = copied(watched[0], tmp_path / "j")
    with served(open_source(path)) as server:
        before = json.loads(ask(server.url + "api/page")[1])["events"]
        with sqlite3.connect(path) as db:
            db.execute("INSERT INTO events (bar, time, kind, symbol, text) VALUES (1, 0, 'late', '', 'new')")
        after = json.loads(ask(server.url + "api/page")[1])["events"]
    assert after[0]["text"] == "new"
    assert before[:1] != after[:1]


def test_those_above_the_limit_wait_their_turn(watched, monkeypatch):
    monkeypatch.setattr(serving, "SECONDS", 1.0)
    with served(open_source(watched[1])) as server:
        idle = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(serving.CONNECTIONS)]
        start = time.monotonic()
        assert ask(server.url)[0] == 200
        assert time.monotonic() - start < 8.0
        for one in idle:
            one.close()


@pytest.mark.parametrize("place", ["flag", "environment"])
@pytest.mark.parametrize(
    "token", ["", " ", "        ", "short", "p\u00e4sswort-lang", "token with spaces", "token-and-line\n", "tab\ttab-tab", "nul\x7fnul-nul"]
)
def test_a_token_that_never_matches_is_refused_at_the_start(watched, monkeypatch, capsys, token, place):
    monkeypatch.setattr(Dashboard, "serve_forever", lambda server: pytest.fail("it began to serve"))
    monkeypatch.delenv("QT_TOKEN", raising=False)
    words = ["dashboard", str(watched[0]), "--port", "0"]
    if place == "environment":
        monkeypatch.setenv("QT_TOKEN", token)
    else:
        words += ["--token", token]
    assert guarded(lambda: app(words, standalone_mode=False)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("qt: --token (QT_TOKEN) must be 8 or more ASCII letters, digits and signs, no space, was ")
    assert told.err.count("\n") == 1
    assert not token.strip() or token.strip() not in told.err  # it is a secret, or near one


def test_any_token_of_signs_matches_itself(watched, tmp_path):
    token = "".join(map(chr, range(33, 127)))
    assert serving.check_token(token) == token
    with served(open_source(copied(watched[0], tmp_path / "j")), token=token) as server:
        assert ask(server.url + RESET, b"", Authorization=f"Bearer {token}")[0] == 200


def test_who_reads_slowly_keeps_nobody_waiting(watched, monkeypatch):
    with served(open_source(watched[1])) as server:
        lazy = socket.create_connection(("127.0.0.1", server.server_port))
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
        lazy.sendall(b"GET /api/page HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n" % server.server_port)
        start = time.monotonic()
        for _ in range(3):
            assert ask(server.url + "api/page")[0] == 200
        assert time.monotonic() - start < 2.0
        lazy.close()


def test_the_api_throws_the_kill_switch(watched, tmp_path):
    folder = watched[0].parent
    replay(folder, tmp_path / "j", until=100)
    with served(open_source(tmp_path / "j")) as server:
        assert ask(server.url + "api/stop", b'{"now": true}', Authorization="Bearer secret")[0] == 200
    replay(folder, tmp_path / "j", until=140)
    source = open_source(tmp_path / "j")
    assert source.params().governor.emergency_stop
    assert source.book().positions == ()
    with served(source) as server:
        assert json.loads(ask(server.url + "api/ai/meta/status")[1])["alarms"][0]["name"] == "kill switch"
        assert ask(server.url + "api/lift", b"", Authorization="Bearer secret")[0] == 200
    replay(folder, tmp_path / "j", until=150)
    assert not source.params().governor.emergency_stop


def test_a_live_feed_without_runner_and_bars_is_an_alarm(watched, tmp_path):
    replay(watched[0].parent, tmp_path / "j", until=60)
    assert open_source(tmp_path / "j").runner()["late_seconds"] == 0.0  # a replay has no hurry
    db = connect(tmp_path / "j")
    db.execute("UPDATE about SET value = 'false' WHERE key = 'is_replay'")
    source = open_source(tmp_path / "j")
    assert source.runner()["is_running"] is False
    assert [alarm["name"] for alarm in status(source)["alarms"][:2]] == ["runner", "feed"]
    held = hold(tmp_path / "j")
    assert source.runner()["is_running"] is True
    assert is_held(tmp_path / "j")  # looking again changed nothing
    with pytest.raises(UserError, match="one runner at a time"):
        hold(tmp_path / "j")
    held.close()
    hold(tmp_path / "j").close()
    db.execute("UPDATE bars SET close_time = ? WHERE bar = 59", (time.time_ns() - source.interval,))
    assert source.runner()["late_seconds"] == 0.0  # within the time that grace and download take
    db.close()


def test_an_address_that_cannot_be_had_is_told(watched):
    source = open_source(watched[1])
    with served(source) as server, pytest.raises(UserError, match="--port must be free"):
        Dashboard(source, server.server_port)
    with pytest.raises(UserError, match="--host must be an address of this machine"):
        Dashboard(source, 0, "203.0.113.7")
    with pytest.raises(UserError, match="--host must be an address of this machine"):
        Dashboard(source, 0, "no.such.host.invalid")


def test_a_server_on_every_address_answers_to_numbers_and_its_own_name_only(watched):
    server = Dashboard(open_source(watched[1]), 0, "0.0.0.0")
    port = server.server_port
    server.server_close()
    assert server.is_own(f"192.168.1.7:{port}")
    assert server.is_own(f"[fe80::1]:{port}")
    assert server.is_own(f"{socket.gethostname()}:{port}")
    assert not server.is_own(f"evil.example:{port}")
    assert not server.is_own("192.168.1.7:1")


@pytest.mark.parametrize(("is_terminal", "environment"), [(False, None), (False, "s3cret-token"), (True, "s3cret-token"), (True, None)])
def test_the_token_is_shown_on_a_terminal_only_and_only_a_new_one(watched, monkeypatch, is_terminal, environment):
    out, made = io.StringIO(), []
    monkeypatch.setattr(show, "console", Terminal(file=out, force_terminal=is_terminal, width=200))
    monkeypatch.delenv("QT_TOKEN", raising=False)
    if environment is not None:
        monkeypatch.setenv("QT_TOKEN", environment)

    def serve(server):
        made.append(server.token)
        raise KeyboardInterrupt

    monkeypatch.setattr(Dashboard, "serve_forever", serve)
    assert guarded(lambda: app(["dashboard", str(watched[0]), "--port", "0"], standalone_mode=False)) == 0
    (token,) = made
    assert (token != "") == (is_terminal or environment is not None)
    assert (token != "" and token in out.getvalue()) == (is_terminal and environment is None)


def test_requests_leave_no_trace_of_the_token(watched, tmp_path, capfd):
    with served(open_source(copied(watched[0], tmp_path / "j")), token="s3cret-token") as server:
        ask(server.url + RESET, b"", Authorization="Bearer s3cret-token")
        ask(server.url + "api/stop?token=s3cret-token", b"[", Authorization="Bearer s3cret-token")
        assert "s3cret" not in ask(server.url + "api/page")[1]
    assert "s3cret" not in "".join(capfd.readouterr())
    assert "s3cret" not in (watched[0].parent / "live.log").read_text()
