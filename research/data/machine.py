"""Memory limit: the memory that this machine, or the container that holds less, gives to a process."""

import os
from pathlib import Path

LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))  # of a container, versions 2 and 1


def memory() -> int | None:
    """Return the bytes of memory of this machine, or of the container that holds less; None where the system does not say."""
    try:
        found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    except (AttributeError, ValueError, OSError):
        return None
    for path in LIMITS:
        try:
            found.append(int(path.read_text()))
        except (ValueError, OSError):  # none, or the word `max`
            continue
    return min(found)
