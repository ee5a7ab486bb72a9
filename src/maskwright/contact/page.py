"""The contact sheet: what was found, each finding with its worst examples, and a sample of what is normal."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.contact.pictures import COLOURS, Picture, Pictures
from maskwright.dataset import SPLITS, Dataset
from maskwright.errors import UserError
from maskwright.facts import Example, Facts, Finding, SplitFacts
from maskwright.files import atomic_file, provenance, refuse_existing, refuse_input
from maskwright.shards import parts_of

MOST_BYTES = {"findings": 3_000_000, "samples": 1_000_000, "strips": 700_000}
"""So many bytes of pictures each part of the page takes at most."""

SAMPLES = 8
"""Photos per split that show what is normal."""

STRIP = 8
"""Objects per category."""

LINES = 40
"""Offenders of a finding that are listed."""

MOST_CATEGORIES = 60
"""Categories that get a row."""

_SIDE, _STRIP_SIDE = 340, 150
_MARKS = {"error": "Error", "warning": "Warning", "note": "Note"}


@dataclass(frozen=True)
class Card:
    """One example: a picture, or two that are held against each other.

    Attributes:
        pictures: With the name of each photo.
        what: The categories of the objects.
        note: What was measured.
    """

    pictures: tuple[tuple[str, Picture], ...]
    what: str = ""
    note: str = ""


@dataclass(frozen=True)
class Group:
    """A finding, or a split, or a category, with its cards.

    Attributes:
        title: What it is called.
        cards: Worst first, or at random.
        total: How many there are of what the cards show some of.
        finding: The finding, if it is one.
        colour: 0..5, of a category.
    """

    title: str
    cards: tuple[Card, ...]
    total: int
    finding: Finding | None = None
    colour: int = 0


def contact_sheet(
    facts: Facts,
    data: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    seed: int = 0,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write what is in a data folder, and what is wrong with it, as one HTML page of pictures that opens offline.

    Args:
        facts: What `check` found.
        data: The data folder that it looked at.
        out: The HTML file to write.
        overwrite: Replace `out` if it exists.
        seed: Of the choice of the photos and objects that show what is normal.
        say: Called with a line that says where the page is.

    Returns:
        The path of the page.

    Raises:
        UserError: If `out` exists, holds the data, or cannot be written.
    """
    data, out = Path(data), Path(out)
    refuse_existing(out, overwrite=overwrite)
    refuse_input(out, *parts_of(data))
    page = _render(facts, data, seed)
    with atomic_file(out) as handle:
        handle.write(page.encode("utf-8", "replace"))  # a file name may hold bytes that are not text
    if say is not None:
        say(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB); open it in any browser")
    return out


def _render(facts: Facts, data: Path, seed: int) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    colours = {c.name: n % COLOURS for n, c in enumerate(facts.categories)}
    pictures = Pictures(_splits(data), colours)
    rng = np.random.default_rng(seed)
    environment = Environment(
        loader=PackageLoader("maskwright.contact", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["thousands"] = lambda value: f"{value:,}"
    style = "\n".join(
        resources.files(f"maskwright.{package}").joinpath("page.css").read_text(encoding="utf-8")
        for package in ("report", "contact")
    )
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        policy=f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        style=Markup(style),
        title=data.resolve().name or str(data),
        splits=list(facts.splits),
        rows=_rows(facts),
        marks=_MARKS,
        found={mark: sum(f.severity == mark for f in facts.problems) for mark in _MARKS},
        photos=sum(s.photos for s in facts.splits.values()),
        objects=sum(s.objects for s in facts.splits.values()),
        findings=_findings(facts, pictures),
        samples=_samples(pictures, rng),
        strips=_strips(facts, pictures, rng),
        categories=len(facts.categories),
        lines=LINES,
        made=provenance(),
    )


def _splits(data: Path) -> dict[str, Dataset]:
    """Return the splits that can be read; that others cannot is a finding, and stands on the page as such."""
    splits = {}
    for split in SPLITS:
        try:
            dataset = Dataset.read_split(data, split)
        except UserError:
            continue
        if dataset is not None:
            splits[split] = dataset
    return splits


def _findings(facts: Facts, pictures: Pictures) -> list[Group]:
    groups, left = [], MOST_BYTES["findings"]
    pictured = sum(bool(f.examples) for f in facts.problems)
    for finding in facts.problems:
        cards: list[Card] = []
        if finding.examples:
            makers = [partial(_card, example, finding.code, pictures) for example in finding.examples]
            cards = _within(left // pictured, makers)
            pictured -= 1
            left -= sum(p.cost for card in cards for _, p in card.pictures)
        groups.append(Group(finding.code, tuple(cards), finding.count, finding))
    return groups


def _within(most: int, makers: Sequence[Callable[[], Card]]) -> list[Card]:
    """Make cards until they take so many bytes; always one."""
    cards: list[Card] = []
    spent = 0
    for make in makers:
        card = make()
        spent += sum(picture.cost for _, picture in card.pictures)
        if cards and spent > most:
            break
        cards.append(card)
    return cards


def _card(example: Example, code: str, pictures: Pictures) -> Card:
    if not example.photo:
        return Card((), note=example.note)
    pair = example.other_photo is not None
    ks = pictures.objects(example.split, example.photo, example.annotations)
    own = pictures.take(
        example.split,
        example.photo,
        ks,
        _SIDE,
        crop=bool(example.annotations) and not pair,
        beside=code in {"same-object-twice", "object-in-two-categories"},
    )
    shown = [(f"{example.split}/{example.photo}", own)]
    if pair:
        split, photo = example.other_split or example.split, str(example.other_photo)
        other = pictures.take(split, photo, pictures.objects(split, photo), _SIDE)
        shown.insert(0, (f"{split}/{photo}", other))
    what = pictures.names(example.split, ks) if ks else ""
    if example.note.startswith(what.split(" (")[0]):
        what = ""  # the note says it, and more
    return Card(tuple(shown), what, example.note)


def _samples(pictures: Pictures, rng: np.random.Generator) -> list[Group]:
    """Choose photos of each split at random."""
    groups = []
    for split, d in pictures.splits.items():
        chosen = sorted(rng.permutation(len(d.images))[:SAMPLES].tolist())
        makers = [partial(_whole, pictures, split, i) for i in chosen]
        cards = _within(MOST_BYTES["samples"] // len(pictures.splits), makers)
        groups.append(Group(split, tuple(cards), len(d.images)))
    return groups


def _whole(pictures: Pictures, split: str, i: int) -> Card:
    photo = pictures.splits[split].images[i].file_name
    ks = pictures.objects(split, photo)
    shown = pictures.take(split, photo, ks, _SIDE)
    return Card(((f"{split}/{photo}", shown),), pictures.names(split, ks) or "no object")


def _strips(facts: Facts, pictures: Pictures, rng: np.random.Generator) -> list[Group]:
    """Choose objects of each category at random, from all splits."""
    groups = []
    categories = facts.categories[:MOST_CATEGORIES]
    for category in categories:
        places = [
            (split, k)
            for split, d in pictures.splits.items()
            for k in np.flatnonzero((d.category_ids == category.id) & ~d.crowd).tolist()
        ]
        chosen = [places[n] for n in sorted(rng.permutation(len(places))[:STRIP].tolist())]
        makers = [partial(_object, pictures, *at) for at in chosen]
        cards = _within(MOST_BYTES["strips"] // len(categories), makers)
        groups.append(Group(category.name, tuple(cards), len(places), colour=pictures.colours[category.name]))
    return groups


def _object(pictures: Pictures, split: str, k: int) -> Card:
    d = pictures.splits[split]
    photo = d.images[int(d.image_index[k])].file_name
    return Card(((f"{split}/{photo}", pictures.take(split, photo, [k], _STRIP_SIDE, crop=True)),))


def _rows(facts: Facts) -> list[tuple[str, list[str], int]]:
    """Return the table of facts: name, one cell per split, and how deep the name is set in."""
    parts = list(facts.splits.values())

    def row(name: str, text: Callable[[SplitFacts], Any], depth: int = 0) -> tuple[str, list[str], int]:
        values = [text(part) for part in parts]
        return name, ["-" if v is None else f"{v:,}" if isinstance(v, int) else str(v) for v in values], depth

    def size(value: tuple[int, int] | None) -> str | None:
        return None if value is None else f"{value[1]} × {value[0]}"

    return [
        row("Photos", lambda s: s.photos),
        row("without objects", lambda s: s.empty_photos, 1),
        row("size of the median one", lambda s: size(s.median), 1),
        row("different sizes", lambda s: len(s.sizes), 1),
        row("Objects", lambda s: s.objects),
        *(
            (c.name, [f"{c.objects.get(split, 0):,}" for split in facts.splits], 1)
            for c in facts.categories[:MOST_CATEGORIES]
        ),
        row("Objects per photo, mean", lambda s: s.objects_per_photo and f"{s.objects_per_photo:.1f}"),
        row("most", lambda s: s.most_objects, 1),
        row("Median side, share of the photo", lambda s: s.side_share and f"{s.side_share.p50:.1%}"),
        row("With holes", lambda s: s.with_holes),
        row("In several parts", lambda s: s.in_parts),
        row("Pairs that touch", lambda s: s.touching),
        row("Pairs that overlap", lambda s: s.overlapping),
        row("At the border", lambda s: s.at_border),
        row("Specks", lambda s: s.specks),
        row("Crowds", lambda s: s.crowd),
    ]
