"""Write docs/reference/cli.md and findings.md from the program itself.

Run by `make docs`; tests say when they are out of date.
"""

import io
from pathlib import Path

from rich.console import Console

from maskwright.cli import app
from maskwright.findings import RULES, number
from maskwright.mend import SAFE, UNSAFE

PAGE = Path(__file__).with_name("cli.md")
FINDINGS = Path(__file__).with_name("findings.md")
WIDTH = 100
ORDER = (
    "make",
    "prepare",
    "check",
    "compose",
    "train",
    "predict",
    "evaluate",
    "report",
    "masks",
    "settings",
    "import-weights",
    "demo",
)

HEAD = """\
# The command line

Written by `make docs` from the program; do not edit it by hand.

Every verb is also a function in Python, of the same name (`settings` is `settings_from`, `import-weights` is
`import_weights`) and with the same settings: `--batch-size 8` is `batch_size=8`, `-o` is `out`.
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


FINDINGS_HEAD = """\
# What check finds

Written by `make docs` from the program; do not edit it by hand.

`maskwright check DATA` says what is in a dataset and everything that is wrong with it; `--html FILE` shows the worst
examples of each finding, `--fix` mends what can be mended without a decision. An error makes training pointless or
impossible (exit code 2), a warning does not, and a note is only good to know.

| code | | what it says | what to do | `--fix` |
|---|---|---|---|---|
"""


def findings_page() -> str:
    """Return the page of findings."""
    rows = []
    unreadable = ("error", "an annotation file cannot be read; its own message says why", "what that message says")
    for code, (severity, what, fix) in {"unreadable-split": unreadable, **RULES}.items():
        mended = f"yes: {number(SAFE[code], 2).removeprefix('2 ')}" if code in SAFE else f"no: {UNSAFE[code]}"
        cells = (f"`{code}`", severity, number(what, 2).removeprefix("2 "), number(fix, 2), mended)
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return FINDINGS_HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    for path, text in ((PAGE, page()), (FINDINGS, findings_page())):
        path.write_text(text, encoding="utf-8")
        print(path)
