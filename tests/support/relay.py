"""What WSL's /init is between a Linux process and a Windows one: python relay.py COMMAND...

One loop passes bytes in both directions through a small buffer, and waits in each write until all is taken: while it
waits for one side, it reads nothing of the other. Exit codes shrink to eight bits.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

BUFFER = 4096


def main(command: list[str]) -> int:
    """Relay until the command has ended."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        ways = {0: child.stdin.fileno(), child.stdout.fileno(): 1, child.stderr.fileno(): 2}
        while set(ways) - {0}:
            # What comes from Linux first: the worst that a far end may meet.
            source = min(select.select(list(ways), [], [])[0])
            if block := os.read(source, BUFFER):
                try:
                    while block:
                        block = block[os.write(ways[source], block) :]
                except BrokenPipeError:
                    del ways[source]
            elif ways.pop(source) == child.stdin.fileno():
                child.stdin.close()
        return child.wait() & 0xFF


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
