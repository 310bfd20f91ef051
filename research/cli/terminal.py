"""Terminal output: the one console through which everything printed passes, made safe to show.

Text is never markup: a symbol named `[red]` or `:x:` is shown as it is spelled, and what a terminal would obey is shown as an escape.
"""

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from research.errors import visible

LINES = "\n\t"  # a layout has lines of its own


class Terminal(Console):
    """A console that shows text as it is spelled."""

    def __init__(self, **how: Any) -> None:
        """Take what rich's Console takes."""
        super().__init__(highlight=False, markup=False, emoji=False, **how)

    def render_str(self, text: str, **how: Any) -> Text:
        """Make plain text of a string, before it is measured."""
        return super().render_str(visible(text, LINES), **how)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Draw; what came as rich's own text is made safe here."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text, LINES), segment.style)
