"""Do the files that a service is made of (unit files, Prometheus rules, the Grafana dashboard) name what exists?"""

import configparser
import json
import re
import shlex
from pathlib import Path

import pytest

from research.cli.app import app
from research.live.monitoring.metrics import metrics_text
from research.live.monitoring.sources import open_source
from research.workflow.run import Run
from tests.support.live_world import traded

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "live"
BUILT_IN = {"up"}
SUFFIXES = ("_bucket", "_sum", "_count")


@pytest.fixture(scope="module")
def watched(tmp_path_factory) -> tuple[Path, Path, Run]:
    return traded(tmp_path_factory.mktemp("watched"))


@pytest.fixture(scope="module")
def names(watched) -> set[str]:
    """Names that are scraped, as they are asked for."""
    lines = metrics_text(open_source(watched[0])).splitlines()
    return {re.match(r"\w+", line)[0] for line in lines if not line.startswith("#")}


@pytest.fixture(scope="module")
def board() -> dict:
    return json.loads((FOLDER / "grafana.json").read_text())


def asked(expression: str) -> set[str]:
    """Metrics of a PromQL expression: words that are no function, keyword, label or unit of time."""
    bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]|"[^"]*"|\b(by|without)\s*\([^)]*\)', " ", expression)
    return set(re.findall(r"\b[a-z_][a-z0-9_]*\b(?!\s*\()", bare)) - {"by", "and", "or", "unless"}


def test_the_reader_of_expressions():
    assert asked('sum by (le) (rate(a_b{job="$job"}[1d])) / time() > 0.5 and c') == {"a_b", "c"}


def test_each_panel_asks_for_a_metric_that_exists(board, names):
    for panel in board["panels"]:
        assert panel["targets"], panel["title"]
        for target in panel["targets"]:
            found = asked(target["expr"])
            assert found, target["expr"]
            assert found <= names, (panel["title"], found - names)
            assert 'job="$job"' in target["expr"]


def test_each_metric_has_a_panel(board, names):
    shown = set().union(*(asked(target["expr"]) for panel in board["panels"] for target in panel["targets"]))
    assert names <= shown


def test_the_board_is_a_grafana_model(board):
    assert board["schemaVersion"] >= 30
    assert {variable["name"] for variable in board["templating"]["list"]} == {"datasource", "job"}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    taken = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert panel["type"] in ("stat", "gauge", "timeseries")
        assert place["x"] + place["w"] <= 24
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["datasource"]["uid"] == "${datasource}"
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs)


def test_the_alerts_ask_for_metrics_that_exist(names):
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed: the rules were not read")
    rules = [rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in rules}) == len(rules) > 5
    for rule in rules:
        assert asked(rule["expr"]) <= names | BUILT_IN, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
    scrape = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    assert scrape["rule_files"] == ["alerts.yml"]
    assert {job["job_name"] for job in scrape["scrape_configs"]} == {"qtcore"}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("qtcore-*")), ids=lambda path: path.name)
def test_a_unit_calls_what_exists(path, capsys):
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read_string(path.read_text())
    assert unit["Unit"]["Description"]
    commands = re.findall(r"^ExecStart=(.*)$", path.read_text(), re.MULTILINE)
    assert bool(commands) == (path.suffix == ".service")
    for words in map(shlex.split, commands):
        if words[0].endswith("/qt"):
            with pytest.raises(SystemExit) as ended:
                app([words[1], "--help"])
            assert ended.value.code == 0
            told = capsys.readouterr().out
            assert all(word in told for word in words if word.startswith("--"))
            assert "--token" not in words  # the list of processes is no place for a secret


def test_the_guide_names_every_file():
    guide = (FOLDER.parent / "live.md").read_text()
    for path in FOLDER.iterdir():
        assert f"(live/{path.name})" in guide, path.name
