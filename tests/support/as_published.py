"""What a command is told that runs the profile whose numbers the tests know."""

from research.runs.config import load_config

CONFIG = load_config("published")
