"""Where the command line begins: `maskwright` or `python -m maskwright`; Ctrl-C while it loads ends it in words."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """Load the command line and run it.

    Returns:
        The exit code, as `cli.main`.
    """
    # Not for a program that was told to overlook Ctrl-C, such as one that a shell started in the background.
    here = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if here:
        signal.signal(signal.SIGINT, _leave)
    from maskwright.cli import main as run

    if here:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return run()


def _leave(_number: int, _frame: object) -> None:
    """End the process: nothing is begun, and an exception in the middle of an import may be lost or shown at length."""
    os.write(2, b"interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    sys.exit(main())
