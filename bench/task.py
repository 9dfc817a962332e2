"""Train or decode on a whole task, by name: `python bench/task.py published --list`. The tasks are in tasks/."""

from __future__ import annotations

import importlib
import sys

TASKS = ("beam", "decoding", "g2p_twin", "growth", "published", "scorings")


def main(argv: list[str]) -> int:
    """Hand the rest of the command line to the task that is named first; 2 where there is no such task."""
    if not argv or argv[0] not in TASKS:
        print(f"usage: task.py {{{','.join(TASKS)}}} [options]; each knows --help", file=sys.stderr)
        return 2
    sys.argv[0] = f"{sys.argv[0]} {argv[0]}"  # as argparse names the program
    return int(importlib.import_module(f"tasks.{argv[0]}").main(argv[1:]) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
