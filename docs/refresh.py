"""Runs the demo and puts what it prints, and a picture of its report, into the README: nobody types a number.

.venv/bin/python docs/refresh.py      (needs Chromium; `CHROMIUM` names another binary than /usr/bin/chromium)
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from research.workflow.backtest_job import DEMO

ROOT = Path(__file__).resolve().parents[1]


def demo() -> str:
    """Run the demo in the repository and return what it prints, of its second run without the accuracies."""
    with tempfile.TemporaryDirectory() as home:
        environment = {**os.environ, "QT_HOME": home, "COLUMNS": "88"}
        done = subprocess.run(
            [sys.executable, "-m", "research", "demo"], cwd=ROOT, capture_output=True, text=True, check=True, env=environment
        )
    first, mark, second = done.stdout.strip("\n").partition(f"\n{[*DEMO][1]}\n")
    second = re.sub(r"\nlayer +accuracy.*?\n\n(?=verdict: )", "\n", second, flags=re.DOTALL)
    return "\n".join(line.rstrip() for line in (first + mark + second).splitlines())


def picture(report: Path, target: Path) -> None:
    """Photograph the first screen of a report."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1180, "height": 1080}, color_scheme="light")
        page.goto(report.as_uri())
        page.screenshot(path=target)
        browser.close()


def main() -> None:
    """Refresh README and picture."""
    printed = demo()
    picture(ROOT / "reports" / "demo" / "planted" / "report.html", ROOT / "docs" / "report.png")
    readme = ROOT / "README.md"
    block = f"<!-- demo -->\n```\n{printed}\n```\n<!-- /demo -->"
    text = re.sub(r"<!-- demo -->.*<!-- /demo -->", lambda _: block, readme.read_text(encoding="utf-8"), flags=re.DOTALL)
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
