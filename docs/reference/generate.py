"""Write docs/reference/cli.md from the program itself; run by `make docs`, and a test says when it is out of date."""

import io
from pathlib import Path

from rich.console import Console

from maskwright.cli import app

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100
ORDER = ("make", "prepare", "check", "train", "predict", "evaluate", "report", "masks", "demo")

HEAD = """\
# The command line

Written by `make docs` from the program; do not edit it by hand.

Every verb is also a function of the same name in Python, with the same settings: `--batch-size 8` is `batch_size=8`.
What a verb prints goes to standard output, what went wrong to standard error.

| exit code | meaning |
|---|---|
| 0 | done |
| 2 | you must change something; the message says what, where and how |
| 1 | a bug in Maskwright |
| 130 | interrupted with Ctrl-C |
"""


def block(tokens: list[str]) -> str:
    """Return what `maskwright <tokens> --help` prints, without colours, `WIDTH` characters wide."""
    text = io.StringIO()
    console = Console(file=text, width=WIDTH, force_terminal=False, no_color=True, legacy_windows=False)
    app.help_print(tokens, console=console)
    lines = [line.rstrip() for line in text.getvalue().strip("\n").splitlines()]
    return "```text\n" + "\n".join(lines) + "\n```\n"


def page() -> str:
    """Return the whole page."""
    parts = [HEAD, "## maskwright\n", block([])]
    for verb in ORDER:
        parts += [f"## maskwright {verb}\n", block([verb])]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
