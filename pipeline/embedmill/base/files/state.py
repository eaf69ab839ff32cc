"""States of files, by which a change is noticed."""

from __future__ import annotations

import os
import time
from pathlib import Path

# Size, and times of change of content and of the entry, in ns. Where there is no time of the entry's change (Windows),
# somebody who sets the other one back is not noticed. Not the inode: some network file systems give new ones.
FileState = tuple[int, int, int]
UNREAD: FileState = (0, 0, 0)

# Times of files go on in steps, of 10 ms at the most on Linux: a change in the same step as the one
# before has the same time.
_STEP_NS = 20_000_000 if os.name == "nt" else 10_000_000


def state_of(path: str) -> FileState:
    """Return the state of a file. Raises OSError."""
    found = Path(path).stat()
    return (found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def settled_state(path: str) -> FileState:
    """Return a state once any later change shows. Raises OSError."""
    state = state_of(path)
    while 0 <= (age_ns := time.time_ns() - max(state[1:])) < _STEP_NS:
        time.sleep((_STEP_NS - age_ns) / 1e9)
        state = state_of(path)
    return state
