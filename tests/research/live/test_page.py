"""Is the page what a trader wants beside the work: whole, honest, readable, refreshing itself, and closed to what does not belong there?"""

import io
import json
import shutil
import threading
from pathlib import Path

import pytest

from research.cli.terminal import Terminal
from research.live.dashboard import server as serving
from research.live.dashboard.monitor import screen
from research.live.monitoring.sources import open_source
from research.live.storage.files import connect
from research.runs.folder import read_run
from research.workflow.run import Run
from tests.support.live_world import replay, served, traded

pytestmark = pytest.mark.browser
WATCH_POLICY = "window.violations = []; addEventListener('securitypolicyviolation', e => violations.push(e.effectiveDirective));"


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> tuple[Path, Path, Run]:
    return traded(tmp_path_factory.mktemp("watched"))


def opened(browser, url: str, width: int = 1280, scheme: str = "light"):
    """The page after its first refresh, with what it complained about and what it asked for."""
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.complaints, page.requests = [], []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.on("request", lambda request: page.requests.append(request.url))
    page.add_init_script(WATCH_POLICY)
    page.goto(url)
    page.wait_for_function("() => document.getElementById('age').textContent.startsWith('seen')")
    return page


@pytest.mark.parametrize("which", ["journal", "run"])
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_page_shows_everything(browser, watched, which, width, scheme):
    source = open_source(watched[0] if which == "journal" else watched[1])
    with served(source) as server:
        page = opened(browser, server.url, width, scheme)
        said = json.loads(page.evaluate("JSON.stringify(shown)"))
        assert page.complaints == []
        assert page.evaluate("violations") == []
        assert all(url.startswith((server.url, "data:")) for url in page.requests)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.inner_text("#verdict") == ("" if which == "journal" else f"verdict: {source.verdict()['sentence']}")
        assert page.inner_text("#state") == ("stopped" if which == "journal" else "finished run")
        book = source.book()
        assert page.inner_text("#equity-now") == f"{book.equity:,.2f}"
        assert page.text_content("#g-balance") == f"{book.balance:,.0f}"
        assert page.text_content("#g-drawdown").replace("\u00a0", " ") == f"{100 * book.drawdown:.1f} %"
        assert page.text_content("#g-wins").replace("\u00a0", " ") == f"{100 * book.win_rate:.0f} %"
        assert page.locator("#models rect").count() == 3 * 4
        assert page.locator("#signals path").count() == 3
        page.evaluate("signals({title: 'one side', counts: {HOLD: 7}})")  # a whole ring is a ring, not nothing
        assert page.evaluate("document.querySelector('#signals path').getBBox().width") > 100
        assert page.locator("#equity polyline").get_attribute("points").count(",") == len(said["equity"]["value"])
        assert page.locator("#positions tbody tr").count() == len(book.positions)
        rows = page.locator("#decisions tbody tr").all_inner_texts()
        assert len(rows) == 12
        for row, decision in zip(rows[:6], said["decisions"]):
            for text in (decision["symbol"], decision["governor"], decision["meta"]["reason"], decision["final"]["action"]):
                assert text in row
        assert [row.split()[0] for row in page.locator("#rates tbody tr").all_inner_texts()] == [
            "escalation",
            "arbiter",
            "feature",
            "errors",
        ]
        for text in ("cut off", "undefined", "NaN", "[object"):
            assert text not in page.inner_text("body")
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert background == ("rgb(243, 245, 247)" if scheme == "light" else "rgb(15, 19, 23)")
        page.locator("#equity").hover()
        assert page.inner_text("#pointed").count("-") >= 2  # a date
        page.close()


def test_a_run_that_failed_its_proof_opens_on_it_and_nothing_of_it_is_green(browser, watched, tmp_path):
    folder = shutil.copytree(watched[1], tmp_path / "run")
    check = {"name": "leak: nothing early", "group": "models", "passed": False, "checked": 2, "detail": "leak: 1 of 2 models break it"}
    (folder / "verify.json").write_text(json.dumps({"passed": False, "checks": [check], "proves": read_run(folder).proves}))
    with served(open_source(folder)) as server:
        page = opened(browser, server.url)
        assert page.complaints == []
        assert page.inner_text("body").startswith("verdict: Invalid: the proof failed at the check leak: 1 of 2 models break it")
        assert page.get_attribute("#verdict", "class") == "failing"
        assert page.title().startswith("invalid: ")
        assert page.get_attribute("#health", "class") == "tag unknown"
        assert page.locator(".good").count() == 0
        assert page.locator("#equity-change .quiet").count() == 2
        page.close()


def test_nothing_that_is_not_the_pages_own_runs(browser, watched):
    with served(open_source(watched[1])) as server:
        page = opened(browser, server.url)
        attempts = {
            "script-src-elem": "document.body.appendChild(Object.assign(document.createElement('script'), {text: 'hacked = 1'}))",
            "script-src-attr": "document.body.setAttribute('onclick', 'hacked = 1'); document.body.click()",
            "style-src-attr": "document.body.setAttribute('style', 'color: rgb(1, 2, 3)')",
            "style-src-elem": "document.body.appendChild(Object.assign(document.createElement('style'), {textContent: 'a {}'}))",
            "connect-src": "fetch('http://127.0.0.1:1/').catch(() => 0)",
            "img-src": "document.body.appendChild(Object.assign(document.createElement('img'), {src: 'http://127.0.0.1:1/x.png'}))",
            "frame-src": "document.body.appendChild(Object.assign(document.createElement('iframe'), {src: '/'}))",
        }
        for attempt in attempts.values():
            page.evaluate(f"() => {{ try {{ {attempt}; }} catch (error) {{ }} }}")
        page.wait_for_timeout(300)
        assert page.evaluate("typeof hacked") == "undefined"
        assert page.evaluate("getComputedStyle(document.body).color") == "rgb(27, 33, 39)"
        found = set(page.evaluate("violations"))
        assert set(attempts) - {"script-src-elem", "script-src-attr"} <= found
        assert found & {"script-src-elem", "script-src-attr", "require-trusted-types-for"}
        page.close()


def test_a_new_bar_appears_by_itself(browser, watched, tmp_path):
    folder = watched[0].parent
    replay(folder, tmp_path / "j", until=60)
    source = open_source(tmp_path / "j")
    with served(source) as server:
        page = opened(browser, server.url)
        before, title = page.inner_text("#last-bar"), page.title()
        replay(folder, tmp_path / "j", until=130)
        page.wait_for_function("before => document.getElementById('last-bar').textContent !== before", arg=before, timeout=15_000)
        assert f"{source.book().equity:,.2f}" == page.inner_text("#equity-now")
        assert page.title() != title
        assert page.complaints == []
        page.close()


def test_a_lost_server_is_seen(browser, watched):
    with served(open_source(watched[1])) as server:
        page = opened(browser, server.url)
    page.wait_for_selector("body.lost", timeout=15_000)
    assert page.inner_text("#age").startswith("no answer from the server")
    page.close()


def test_a_note_is_text_whatever_it_says(browser, watched, tmp_path):
    replay(watched[0].parent, tmp_path / "j", until=30)
    evil = "<img src=x onerror=alert(1)><script>alert(2)</script>\u202e\x1b[31m"
    db = connect(tmp_path / "j")
    db.execute("INSERT INTO events (bar, time, kind, symbol, text) VALUES (1, 0, 'late', ?, ?)", (evil, evil))
    db.close()
    with served(open_source(tmp_path / "j")) as server:
        page = opened(browser, server.url)
        assert evil.replace("\u202e", "\\u202e").replace("\x1b", "\\x1b") in page.inner_text("#events")
        assert page.locator("#events img, #events script").count() == 0
        assert page.complaints == []
        page.close()


def test_alarms_of_any_part_are_shown(browser, watched, monkeypatch):
    real = serving.status
    alarms = [{"level": "critical", "name": "drift", "text": "rsi_14: PSI 0.31"}, "retrain due", {"cause": "accuracy"}]
    monkeypatch.setattr(serving, "status", lambda source: real(source) | {"alarms": alarms})
    with served(open_source(watched[0])) as server:
        page = opened(browser, server.url)
        shown = page.locator("#alarms li").all_inner_texts()
        assert "drift" in shown[0]
        assert "PSI 0.31" in shown[0]
        assert "retrain due" in shown[1]
        assert "accuracy" in shown[2]
        assert page.title().startswith("! ")
        page.close()


def looks(rows: list[tuple], due: dict, window: int | None = 168) -> dict:
    """What a look leaves: rows of (name, value, low, high, usual)."""
    made = [dict(zip(("name", "value", "low", "high", "usual"), row), n=900) for row in rows]
    made = [row | {"is_out": not row["low"] <= row["value"] <= row["high"]} for row in made]
    return {"envelope": {"bar": 200, "time": 1_725_148_800_000_000_000, "window": window, "rows": made, "out": {}}, "due": due}


DRIFTS = [(f"drift.f{k}", 0.05 * k, 0.0, 0.6, 0.1) for k in range(10)]
SEEN = [
    ("rate.escalation", 0.963, 0.58, 0.73, 0.66),
    ("calibration.xgb", -0.021, -0.1, 0.1, 0.01),
    *DRIFTS,
    ("drift.rsi_14", 0.9, 0.0, 0.4, 0.2),
]
DUE = {"drift": {"text": "the market is another one by rsi_14", "since": 1_725_000_000_000_000_000}}


def keep_looks(journal: Path, said: dict) -> None:
    db = connect(journal)
    db.executemany("REPLACE INTO looks VALUES (?, 200, ?)", [(name, json.dumps(value)) for name, value in said.items()])
    db.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light")])
def test_the_envelope_and_what_is_due_are_shown(browser, watched, tmp_path, width, scheme):
    replay(watched[0].parent, tmp_path / "j", until=30)
    keep_looks(tmp_path / "j", looks(SEEN, DUE))
    with served(open_source(tmp_path / "j")) as server:
        page = opened(browser, server.url, width, scheme)
        rows = [row.replace("\u00a0", " ").split("\t") for row in page.locator("#bands tbody tr").all_inner_texts()]
        said = {row[0].strip(): [part.strip() for part in row[1:] if part.strip()] for row in rows}
        assert list(said)[:2] == ["escalation rate", "drift of rsi 14 (PSI)"], "what is out comes first"
        assert said["escalation rate"][:2] == ["96.3 %", "58.0 % to 73.0 %"]
        assert said["escalation rate"][-1] == said["drift of rsi 14 (PSI)"][-1] == "out"
        assert said["xgb: confidence above accuracy"][0] == "-2.1 %"
        assert [name for name in said if name.startswith("drift of f")] == [f"drift of f{k} (PSI)" for k in range(5, 10)]
        assert page.inner_text("#bands-text") == (
            "last 168 bars until 2024-09-01 00:00: 2 of 13 figures are out of their bands; 5 steadier features not shown"
        )
        assert page.locator("#bands svg").count() == len(rows)
        assert page.inner_text("#due-text") == "yes, 1 of 4 causes"
        due = dict(row.split("\t") for row in page.locator("#due tbody tr").all_inner_texts())
        assert due["drift"].strip() == "due since 08-30 06:40: the market is another one by rsi_14"
        assert due["base retrained"].startswith("not due; it is when the meta layer was trained on other models")
        assert page.locator("#alarms li").filter(has_text="the market is another one").count() == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.complaints == []
        page.close()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "not looked yet"),
        (looks([], {}, None), "nothing to compare with"),
        (looks([], {}), "a look compares 168 bars, which are not there yet"),
    ],
)
def test_an_envelope_that_says_nothing_yet_says_why(browser, watched, tmp_path, said, expected):
    replay(watched[0].parent, tmp_path / "j", until=30)
    keep_looks(tmp_path / "j", said)
    with served(open_source(tmp_path / "j")) as server:
        page = opened(browser, server.url, 390)
        assert page.inner_text("#bands").startswith(expected)
        assert page.inner_text("#due-text") == "no"
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.close()


def test_a_finished_run_has_no_envelope_to_leave(browser, watched):
    with served(open_source(watched[1])) as server:
        page = opened(browser, server.url)
        assert page.inner_text("#bands") == "a finished run is what a live journal is compared with"
        assert page.inner_text("#due") == "nothing is retrained for a finished run"
        page.close()


def test_the_terminal_shows_the_envelope_too(watched, tmp_path):
    replay(watched[0].parent, tmp_path / "j", until=30)
    keep_looks(tmp_path / "j", looks(SEEN, DUE))
    console = Terminal(width=100, record=True, file=io.StringIO())
    console.print(screen(open_source(tmp_path / "j")))
    text = console.export_text()
    for part in (
        "LIVE ENVELOPE",
        "escalation rate",
        "58.0 % to 73.0 %",
        "RETRAIN DUE: yes",
        "due since 08-30 06:40: the market is another",
    ):
        assert part in text
    console.print(screen(open_source(watched[1])))
    assert "LIVE ENVELOPE" not in console.export_text()


def test_the_first_paint_waits_for_no_data(browser, watched, monkeypatch):
    may_answer, real = threading.Event(), serving.page
    monkeypatch.setattr(serving, "page", lambda source: may_answer.wait(20) and real(source))
    with served(open_source(watched[0])) as server:
        page = browser.new_page()
        page.goto(server.url)
        page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
        assert page.inner_text("#age") == "loading"
        may_answer.set()
        page.wait_for_function("() => document.getElementById('age').textContent.startsWith('seen')")
        page.close()
