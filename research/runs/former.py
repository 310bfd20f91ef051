"""Former names of profiles: what versions before 0.3 called `default` is `published` now, and has the same bits."""

import re

RENAMED = (0, 3)  # the version


def profile_now(name: str, version: str | None) -> str:
    """Return what the profile of a file is called now. version: of qtcore that wrote it, None where it tells none, as journals did not.

    >>> profile_now("default", "0.2.0"), profile_now("default", "0.3.0"), profile_now("original", None)
    ('published', 'default', 'original')
    """
    found = re.match(r"(\d+)\.(\d+)", version or "")
    is_former = found is None or (int(found[1]), int(found[2])) < RENAMED
    return "published" if name == "default" and is_former else name


def command_now(text: str) -> str:
    """Return a stored command with the profile that it meant: since 0.3 every one names its own, before that only `original` was named.

    >>> command_now("qt backtest sample --set run.folds=2")
    'qt backtest sample --set run.folds=2 --profile published'
    """
    is_former = text.startswith("qt backtest ") and "--profile" not in text.split()
    return f"{text} --profile published" if is_former else text
