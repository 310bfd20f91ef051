"""Report of a run: one self-contained HTML page, made from nothing but the run's folder.

`page` turns files into words and tables, `figures` draws, `svg` makes the drawings follow the reader's screen, `templates/` sets the pages,
the sweep's too.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from research.errors import visible
from research.files import save_text

__all__ = ["build"]

TEMPLATES = Path(__file__).parent / "templates"


def build(folder: str | Path, path: str | Path | None = None, intrabar: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a finished run to `path` (default `report.html` in its folder) and return where it is.

    intrabar: bounds of the net PnL by finer bars (`Bounds.figures`), in place of those that the run itself has.
    Reads the folder only. Raises UserError when the folder is missing, half-written or of another schema.
    """
    from research.report.page import page
    from research.runs.folder import read_run

    files = read_run(folder)
    return render("report.html", page(files, intrabar), files.path / "report.html" if path is None else Path(path))


def render(template: str, content: Mapping[str, Any], target: Path) -> Path:
    """Set a template with `content`, write the page to `target`, whole or not at all, and return it."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=seen
    )
    environment.filters["ticks"] = ticks
    html = environment.get_template(template).render(content, style=(TEMPLATES / "style.css").read_text(encoding="utf-8"))
    save_text(target, html)
    return target


def seen(value: Any) -> Any:
    """Show what a browser would obey or hide, such as a change of direction, as an escape; markup stays markup."""
    return type(value)(visible(value, "\n\t")) if isinstance(value, str) else value


def ticks(text: str) -> Any:
    """Set what stands between backticks as code; everything else is escaped."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]*)`", r"<code>\1</code>", str(escape(text))))
