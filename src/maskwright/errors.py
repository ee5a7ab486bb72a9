"""The one error that a user sees: what rule is broken, where, and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

LONGEST = 600
"""So many characters of a line are printed: names from a broken file can be of any length."""

SHOWN = 5
"""How many offenders of one problem are printed; the rest are counted."""


@dataclass(frozen=True)
class Problem:
    """One broken rule: what it is, every place that breaks it, and what to do.

    Args:
        what: The rule that is broken, in one sentence without a full stop.
        where: One line per offender, naming the file as the user typed it, with what was found and expected.
        fix: What to do; a command where there is one. Empty only if nothing can be done.
    """

    what: str
    where: tuple[str, ...] = ()
    fix: str = ""

    def __str__(self) -> str:
        lines = [self.what]
        lines += [f"  {line if len(line) <= LONGEST else line[:LONGEST] + ' ...'}" for line in self.where[:SHOWN]]
        if len(self.where) > SHOWN:
            lines.append(f"  ... and {len(self.where) - SHOWN} more")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join(lines)


class UserError(Exception):
    """Something that the user must change; the command line prints it and exits with 2.

    Example:
        >>> print(UserError("2 photos have no mask", ["a.jpg", "b.jpg"], "draw them, or: --unmatched empty"))
        2 photos have no mask
          a.jpg
          b.jpg
        fix: draw them, or: --unmatched empty
    """

    def __init__(self, what: str | Sequence[Problem], where: Iterable[str] = (), fix: str = "") -> None:
        self.problems: tuple[Problem, ...]
        if isinstance(what, str):
            self.problems = (Problem(what, tuple(where), fix),)
        else:
            self.problems = tuple(what)
        super().__init__("\n\n".join(str(problem) for problem in self.problems))


def nearest(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the closest known name, or an empty string.

    Example:
        >>> nearest("minuts", ["minutes", "steps"])
        "; did you mean 'minutes'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else ""
