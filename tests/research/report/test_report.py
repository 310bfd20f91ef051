"""Is the report whole, honest and readable? Its text and figures from the folder alone, then in a browser."""

import base64
import re
import shutil
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import research
from qtcore.rules import Reason
from qtcore.types import DECISION_COLUMNS, FILL, Action, Consensus, Source, Verdict
from research.data import simulate
from research.errors import UserError, ordinal, several
from research.report import build
from research.report.rows import score_table
from research.report.terms import training_basis
from research.report.words import count, number, percent, slice_name, span, verdict_name
from research.training.predictions import Predictions
from research.workflow.recording import save_certificate, save_run
from tests.support.fake_run import fake_run

ROOT = Path(__file__).resolve().parents[3]
SECTIONS = ("equity", "decisions", "accuracy", "models", "regimes", "trades", "symbols", "evidence", "proof", "parameters")
CERTIFICATE = {
    "passed": True,
    "checks": [{"name": "parity: one bar at a time gives the same bits", "checked": "1,500 bars", "passed": True, "detail": ""}],
    "covers": ["1,500 bars of 4 symbols"],
    "not_covered": ["live fills; `qt live-gap` & others compare them"],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QT_HOME", str(tmp_path_factory.mktemp("home")))
        run = fake_run(seed=1)
        run.result.governor_reason[1_200, 1] = Reason.MAX_DRAWDOWN_EXCEEDED
        run.without_breaker = run.ensemble_only
        out = save_run(run, tmp_path_factory.mktemp("reports") / "sample-20240101")
    save_certificate(out, CERTIFICATE)
    return out


@pytest.fixture(scope="module")
def html(folder):
    return build(folder).read_text(encoding="utf-8")


def first_screen(html):
    return re.sub(r"<[^>]+>", " ", html[html.index("<header>") : html.index("</header>")])


# what it says


def test_it_opens_on_assumptions_and_verdict(html):
    text = first_screen(html)
    for words in (
        "2 of 4 voted: XGBoost (weight 0.25), LightGBM (weight 0.25)",
        "fee 0.040 %",
        "next bar&#39;s open",
        "BUY above +1.5 %",
        "4 symbols",
        "hourly bars",
    ):
        assert words in text, words
    assert re.search(r"(No edge|Edge|Not enough data)[:.]", text)
    assert "Drawdown halt: from 2024-02-20 01:00 on" in text
    assert "Without the breaker the same run returns" in text


def test_every_section_has_its_figures_and_tables(html):
    for name in SECTIONS:
        assert f'<section id="{name}">' in html
        assert f'href="#{name}"' in html
    assert html.count("<figure>") == html.count("<figcaption>") == 9
    assert html.count("<details><summary>") == 15 + 1  # slices and parameters
    assert "<li>1,500 bars of 4 symbols</li>" in html
    assert "<li>live fills; <code>qt live-gap</code> &amp; others compare them</li>" in html
    assert "parity: one bar at a time gives the same bits" in html


def test_it_is_one_small_file_that_needs_nothing_else(html):
    assert len(html.encode()) < 3_000_000
    assert re.findall(r"""(?:src|srcset)="(?!data:)[^"]*""", html) == []
    assert re.findall(r"https?://(?!www\.w3\.org)", html) == []
    assert "<script" not in html
    assert "@import" not in html


def test_figures_are_valid_drawings_that_follow_the_colour_scheme(html):
    images = re.findall(r'data:image/svg\+xml;base64,([^"]+)"', html)
    assert len(images) == 18  # wide and narrow
    for image in images:
        svg = base64.b64decode(image).decode()
        root = ET.fromstring(svg)
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5
        assert len(list(root.iter("{http://www.w3.org/2000/svg}text"))) > 5
        assert "prefers-color-scheme:dark" in svg
        assert re.findall(r"#0[1-9]0[1-9]0[1-9]", svg) == []
        assert "NaN" not in svg


def test_it_is_made_of_the_folder_alone(folder, tmp_path, html):
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    (moved / "report.html").unlink()
    assert build(moved, tmp_path / "page.html") == tmp_path / "page.html"
    assert (tmp_path / "page.html").read_text(encoding="utf-8") == html
    (moved / "equity.parquet").unlink()
    with pytest.raises(UserError, match="must be complete"):
        build(moved)


def test_a_run_without_a_proof_or_trades_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    run = fake_run(n=500, seed=3, min_confidence=1.0)
    assert len(run.result.fills) == 0
    text = build(save_run(run, tmp_path / "<b>quiet & still", record=False)).read_text(encoding="utf-8")
    assert "No trades, because the rule LOW_CONFIDENCE blocked" in first_screen(text)
    assert "not verified" in first_screen(text)
    assert "Not enough data" in first_screen(text)
    assert "<h1>&lt;b&gt;quiet &amp; still</h1>" in text


def test_a_failed_proof_is_told_on_the_first_screen(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "failed")
    check = {"name": "replay", "checked": "10 bars", "passed": False, "detail": "bar 7, SYM1, equity off by 0.5"}
    save_certificate(copy, {"passed": False, "checks": [check], "not_covered": []})
    text = build(copy).read_text(encoding="utf-8")
    assert "bar 7, SYM1, equity off by 0.5" in first_screen(text)


def test_imported_predictions_and_notes_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("QT_HOME", str(tmp_path / "home"))
    run = fake_run(n=500, seed=3)
    imported = replace(run.predictions, imported=True)
    run = replace(run, predictions=imported, notes=("lgbm: 3 rows had no match",))
    text = first_screen(build(save_run(run, tmp_path / "run", record=False)).read_text(encoding="utf-8"))
    assert "cannot be proven" in text
    assert "lgbm: 3 rows had no match" in text


def test_figures_on_too_few_events_are_not_claimed():
    figures = "accuracy balanced_accuracy majority_accuracy direction_accuracy log_loss ece activity_accuracy activity_majority brier"
    block = dict.fromkeys(f"{figures} base_rate_brier base_rate_log_loss".split(), 0.9)
    block |= {key: [0.8, 1.0] for key in ("ci95", "direction_ci95", "balanced_ci95", "activity_ci95")}
    block |= {"n": 40, "n_effective": 12.0, "enough": False, "direction_enough": False, "activity_enough": False}
    row = score_table({"xgb": block}).rows[0]
    assert row[1:3] == ["not enough data", ""]
    assert not any("90" in text or "0.9" in text for text in row)


@pytest.mark.parametrize(
    ("asked", "taken", "told"),
    [
        ("auto", "L1", r" \(auto took it\)$"),
        ("auto", "L4", r"training \(auto took it, as a class of L1 is too rare\)$"),
        ("L4", "L4", "training$"),
    ],
)
def test_a_training_says_which_label_auto_took(asked, taken, told):
    made = Predictions.random(simulate("random_walk", n_bars=50), label=taken)
    text = training_basis(replace(made, models=SimpleNamespace(config={"plan": {"label": asked}})))
    assert f"; label {taken}, " in text
    assert re.search(told, text)


@pytest.mark.parametrize(("scored", "told"), [({}, "escalated"), ({"ensemble": "ensemble's class"}, "without an edge")])
def test_doubt_has_the_name_of_what_the_profile_doubts(scored, told):
    assert verdict_name({"scored": scored}, "escalated") == told


def test_missing_figures_are_a_dash():
    assert percent(None) == number(float("nan")) == count(None) == span([None, None]) == "-"
    assert percent(0.1234) == "12.3 %"
    assert [several(n, "bars") for n in (0, 1, 1500)] == ["0 bars", "1 bar", "1,500 bars"]
    assert [ordinal(n) for n in (1, 2, 3, 11, 25, 33, 67, 112)] == ["1st", "2nd", "3rd", "11th", "25th", "33rd", "67th", "112th"]
    assert slice_name("volatility_low.trend_uptrend") == "low volatility, uptrend"


def test_the_description_of_the_folder_names_every_column_and_file(folder):
    text = (ROOT / "reports" / "README.md").read_text(encoding="utf-8")
    from research.runs.folder import read_run

    files = read_run(folder)
    for path in files.path.iterdir():
        assert f"`{path.name}`" in text, path.name
    for table in ("decisions", "trades", "fills", "equity", "bars"):
        for column in files.frame(table).columns:
            if not re.match(r"(xgb|lgbm|nhits|patchtst|tft)_", column):
                assert f"`{column}`" in text, (table, column)
    assert set(DECISION_COLUMNS) <= set(re.findall(r"`(\w+)`", text))
    assert set(FILL.names) <= set(re.findall(r"`(\w+)`", text))
    for key in files.summary:
        assert f"`{key}" in text, key
    for enum in (Action, Consensus, Verdict, Source):
        for member in enum:
            assert f"{member.value} {member.name.lower().replace('_', ' ')}" in text.lower(), member


# in a browser


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser(browser, folder, html, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto((folder / "report.html").as_uri())
    page.wait_for_load_state("networkidle")
    assert complaints == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for figure in page.query_selector_all("figure"):
        image = figure.query_selector("img")
        assert image.evaluate("i => i.complete && i.naturalWidth > 100")
        box = image.bounding_box()
        assert box["width"] > 0.8 * (width - 60 if width < 700 else 900)
        assert shades(image.screenshot()) > 20, "an empty figure"
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert light == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 24, 29)")
    first = page.query_selector("figure img").screenshot()
    assert (brightness(first) > 128) == (scheme == "light")  # the drawings follow the scheme too
    assert page.query_selector(".verdict").bounding_box()["y"] < 400
    page.close()


@pytest.mark.browser
def test_a_table_wider_than_the_page_scrolls_in_its_box_and_shows_that_there_is_more(browser, folder, html):
    page = browser.new_page(viewport={"width": 1200, "height": 900}, color_scheme="light")
    page.goto((folder / "report.html").as_uri())
    box = page.locator('[aria-label="Accuracy of models and layers"]')
    box.scroll_into_view_if_needed()
    assert box.evaluate("e => e.scrollWidth > e.clientWidth + 50")
    assert page.evaluate("document.documentElement.scrollWidth") <= 1200

    def edge() -> float:
        """Brightness of the corner below the last row's text."""
        at = box.bounding_box()
        return brightness(page.screenshot(clip={"x": at["x"] + at["width"] - 4, "y": at["y"] + at["height"] - 3, "width": 4, "height": 3}))

    more = edge()
    box.evaluate("e => e.scrollLeft = e.scrollWidth")
    assert more < 240 < edge()
    page.close()


@pytest.mark.browser
def test_the_evidence_for_seats_is_whole_in_a_browser(browser, tmp_path):
    bars = research.load_bars("simulated:random_walk?n_bars=1200&n_symbols=3&seed=2")
    run = research.backtest(bars, research.Predictions.random(bars, seed=1))
    assert len(run.summary["traders"]["seats"][0]["acts"]) == 24
    assert max(len(row["evidence"]) for row in run.summary["traders"]["seats"]) > 120
    run.save(tmp_path / "run", record=False)
    run.report(tmp_path / "run" / "report.html")
    for width in (1400, 900):
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.goto((tmp_path / "run" / "report.html").as_uri())
        table = page.locator('[aria-label="Seats of the layers"]')
        assert table.evaluate("e => e.scrollWidth <= e.clientWidth"), width


def pixels(png: bytes):
    import io

    from matplotlib.image import imread

    return imread(io.BytesIO(png), format="png")


def shades(png: bytes) -> int:
    """Number of different colours, coarsely."""
    import numpy as np

    return len(np.unique((pixels(png)[..., :3] * 31).astype(int) @ (1, 32, 1_024)))


def brightness(png: bytes) -> float:
    """Colour of the paper, 0 to 255."""
    import numpy as np

    return 255.0 * float(np.median(pixels(png)[..., :3]))
