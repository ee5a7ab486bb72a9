"""The little YAML that dataset files are written in: keys with a scalar, a list or a table of scalars, nothing else.

A full YAML reader makes objects from tags, grows without end from aliases, and turns a category called `no` into False.
Here every scalar stays the text that it is, and what is not understood is refused by its line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

Value = str | list[str] | dict[str, str]

_KEY = re.compile(r"""(?P<key>"[^"]*"|'[^']*'|[^\s#'"\[\]{},&*!|>%@`-][^:#]*?|-?\d+)\s*:(?:\s+(?P<rest>.*))?$""")
_QUOTED = re.compile(r""""(?:[^"\\]|\\.)*"|'(?:[^']|'')*'""")
_REFUSED = "&*!|>%@`?"


class NotPlain(ValueError):
    """The text is not in the plain form; the message names the line."""


def read(text: str, wanted: frozenset[str]) -> dict[str, Value]:
    r"""Read the top-level entries of a YAML text.

    Args:
        text: The whole file.
        wanted: The keys to read; what other keys hold is passed over, whatever it is.

    Returns:
        For each wanted key that is there its value, scalars as text, quotes undone; an empty value is `""`.

    Raises:
        NotPlain: If a wanted value is in no plain form, or a key stands twice.

    Example:
        >>> read("nc: 2\nnames:\n  0: nut\n  1: 'big bolt'  # M8\n", frozenset({"names", "nc"}))
        {'nc': '2', 'names': {'0': 'nut', '1': 'big bolt'}}
    """
    found: dict[str, Value] = {}
    for number, key, rest, block in _entries(text):
        if key not in wanted:
            continue
        if key in found:
            raise NotPlain(f"line {number}: '{key}' stands twice")
        found[key] = _value(number, rest, block)
    return found


def _entries(text: str) -> Iterator[tuple[int, str, str, list[tuple[int, str]]]]:
    """Yield line number, key, what follows it, and the lines that belong to it, of each top-level entry."""
    current: tuple[int, str, str, list[tuple[int, str]]] | None = None
    for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), start=1):
        line = raw.rstrip()
        if not line.strip() or line.lstrip().startswith("#") or line.startswith(("---", "...", "%")):
            continue
        if current is not None and (line[0] in " \t" or line[0] == "-" or line[0] in "]}" or _is_open(current)):
            current[3].append((number, line))
            continue
        match = _KEY.match(line)
        if match is None:
            raise NotPlain(f"line {number}: {line.strip()[:60]!r} is no 'key: value'")
        if current is not None:
            yield current
        current = (number, _scalar(number, match["key"]), (match["rest"] or "").strip(), [])
    if current is not None:
        yield current


def _is_open(entry: tuple[int, str, str, list[tuple[int, str]]]) -> bool:
    """Tell whether brackets of an entry are still open."""
    if not entry[2].startswith(("[", "{")):
        return False
    last = entry[3][-1][1] if entry[3] else entry[2]
    return not _without_comment(last).endswith(("]", "}"))


def _value(number: int, rest: str, block: list[tuple[int, str]]) -> Value:
    rest = _without_comment(rest)
    if rest.startswith(("[", "{")):
        return _flow(number, " ".join([rest, *(_without_comment(line.strip()) for _, line in block)]))
    if rest:
        if block:
            raise NotPlain(f"line {block[0][0]}: {block[0][1].strip()[:60]!r} is not understood here")
        return _scalar(number, rest)
    if not block:
        return ""
    indents = {len(line) - len(line.lstrip(" ")) for _, line in block}
    if len(indents) > 1 or any("\t" in line[: len(line) - len(line.lstrip())] for _, line in block):
        raise NotPlain(f"line {block[0][0]}: the lines below a key must be indented alike, by blanks")
    items = [(line_number, line.strip()) for line_number, line in block]
    if all(line == "-" or line.startswith("- ") for _, line in items):
        return [_scalar(n, _without_comment(line[1:].strip())) for n, line in items]
    table: dict[str, str] = {}
    for line_number, line in items:
        match = _KEY.match(line)
        if match is None:
            raise NotPlain(f"line {line_number}: {line[:60]!r} is no 'key: value'")
        key = _scalar(line_number, match["key"])
        if key in table:
            raise NotPlain(f"line {line_number}: '{key}' stands twice")
        table[key] = _scalar(line_number, _without_comment((match["rest"] or "").strip()))
    return table


def _tokens(text: str) -> Iterator[str]:
    """Yield a text letter by letter, but what stands in quotes as one."""
    place, opening = 0, True  # a quote within a word is a letter
    while place < len(text):
        quoted = _QUOTED.match(text, place) if opening else None
        token = quoted[0] if quoted else text[place]
        opening = token in " [{,:" if len(token) == 1 else False
        place += len(token)
        yield token


def _without_comment(text: str) -> str:
    """Cut a comment off: `#` at the start or after a blank, outside of quotes."""
    kept = ""
    for token in _tokens(text):
        if token == "#" and (not kept or kept[-1] in " \t"):
            break
        kept += token
    return kept.rstrip()


def _scalar(number: int, text: str) -> str:
    if text.startswith("'"):
        if len(text) < 2 or not text.endswith("'") or "'" in text[1:-1].replace("''", ""):
            raise NotPlain(f"line {number}: {text[:60]!r} is no text in quotes")
        return text[1:-1].replace("''", "'")
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            raise NotPlain(f"line {number}: {text[:60]!r} is no text in quotes") from None
    if text[:1] in {*_REFUSED, "[", "{", "]", "}"} and text:
        raise NotPlain(f"line {number}: {text[:60]!r} is more YAML than is read here")
    if re.search(r":\s", text):
        raise NotPlain(f"line {number}: {text[:60]!r} needs quotes, because of the colon in it")
    return "" if text in {"~", "null"} else text


def _flow(number: int, text: str) -> Value:
    """Read `[a, b]` or `{a: b}`."""
    end = "]" if text[0] == "[" else "}"
    if len(text) < 2 or not text.endswith(end):
        raise NotPlain(f"line {number}: {text[:60]!r} does not end with {end!r}")
    pieces, piece = [], ""
    for token in _tokens(text[1:-1]):
        if token in "[]{}":
            raise NotPlain(f"line {number}: lists within lists are not read here")
        if token == ",":
            pieces.append(piece.strip())
            piece = ""
        else:
            piece += token
    if piece.strip():
        pieces.append(piece.strip())
    if end == "]":
        return [_scalar(number, one) for one in pieces]
    table: dict[str, str] = {}
    for one in pieces:
        match = _KEY.match(one)
        if match is None:
            raise NotPlain(f"line {number}: {one[:60]!r} is no 'key: value'")
        table[_scalar(number, match["key"].strip())] = _scalar(number, (match["rest"] or "").strip())
    return table
