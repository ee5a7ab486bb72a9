"""Which mask image belongs to which photo: by exact name first, then by usual ways of naming, never by likeness."""

from __future__ import annotations

import os
import sqlite3
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from maskwright.errors import Problem
from maskwright.files import PHOTO_SUFFIXES, is_text
from maskwright.formats import Skipped, ending_of, plural, scan, unreadable_names
from maskwright.formats.shelf import temporary_database
from maskwright.formats.split_folders import split_and_category, split_anew

if TYPE_CHECKING:  # pydantic would make worker processes start a third later
    from maskwright.settings import PrepareSettings

MASK_WORDS = ("mask", "masks", "seg", "segmentation", "label", "labels", "gt", "annotation", "instances", "ids")
PHOTO_WORDS = ("rgb", "image", "img", "photo", "color", "colour")
"""Words that may stand at the end (or the start) of a file name, joined by `_`, `-` or `.`."""

Rule = tuple[str, Callable[[str], str], Callable[[str], str]]

_PHOTO, _MASK = 0, 1


@dataclass(frozen=True)
class Place:
    """A folder of photos with its folder of mask images; both names are as the user typed them."""

    photos: Path
    masks: Path
    split: str | None = None
    category: str | None = None


class Pair(NamedTuple):
    """A photo and its mask image, if it has one: texts, since there may be millions.

    Attributes:
        place: The number of their place among `Pairing.places`.
        name: The photo's name inside its folder, `/` between the parts.
        photo: Its path.
        mask: The path of the mask image.
    """

    place: int
    name: str
    photo: str
    mask: str | None


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name)  # macOS writes accents in another way than Linux and Windows


def _stem(name: str) -> str:
    return _plain(name.rpartition(".")[0])


def _base(name: str) -> str:
    return name.rpartition("/")[2]


def _without(words: Sequence[str]) -> Callable[[str], str]:
    def strip(name: str) -> str:
        stem = _stem(name)
        folder, slash, base = stem.rpartition("/")
        for word in words:
            for joint in "_-.":
                if base.lower().endswith(joint + word):
                    return folder + slash + base[: -len(word) - 1]
                if base.lower().startswith(word + joint):
                    return folder + slash + base[len(word) + 1 :]
        return stem

    return strip


_strip_mask, _strip_photo = _without(MASK_WORDS), _without(PHOTO_WORDS)

RULES: tuple[Rule, ...] = (
    ("by the name without its ending", _stem, _stem),
    ("by the photo's full name (photo x.jpg, mask x.jpg.png)", _plain, _stem),
    ("leaving out words like _mask and _rgb at the end or start", _strip_photo, _strip_mask),
    ("by file name, in whatever subfolder", lambda n: _base(_stem(n)), lambda n: _base(_stem(n))),
    ("not minding letter case", lambda n: _stem(n).lower(), lambda n: _stem(n).lower()),
    (
        "by file name in whatever subfolder, not minding letter case, leaving out words like _mask and _rgb",
        lambda n: _base(_strip_photo(n)).lower(),
        lambda n: _base(_strip_mask(n)).lower(),
    ),
)
"""How a photo and its mask may share a name, strictest first: what it is called, key of a photo, key of a mask."""


class Pairing(Collection[Pair]):
    """The pairs of all places by one rule, the strictest that pairs most masks; in order of place and photo.

    Letter case counts, except in the ending (`.JPG`). `1.jpg` never takes `10.png`. The names are in a database on
    disk, so that any number of files takes little memory.

    Where the photo folders are in no split and folders in them are, each of these is a place of its own, if every photo
    that is used lies in one; else a note says that these splits are not used.

    Attributes:
        places: Where the pairs are: the places that were given, or the split folders inside.
        skipped: The files that are not used.
        notes: What to tell the user.
        problems: What is wrong.
        photos: How many photos each place has.
        masks: How many of them have a mask.
    """

    def __init__(self, places: Sequence[Place], settings: PrepareSettings) -> None:
        """List the files of the places and pair them.

        Raises:
            UserError: If a file's name cannot be written in a text file.
        """
        self._places = places
        self.places = tuple(places)
        self._database = temporary_database()
        self._database.execute("CREATE TABLE file (place INTEGER, side INTEGER, name TEXT, rank TEXT)")
        self.skipped: list[Skipped] = []
        for number, place in enumerate(places):
            self._list(number, place)
        rule = self._best_rule()
        skip = settings.unmatched == "skip"
        self._which = "m.name IS NOT NULL" if skip else "TRUE"
        self.notes = [] if rule is RULES[0] else [f"photos and masks are paired {rule[0]}"]
        self.problems = self._find_problems(settings)
        if skip:
            self.skipped += [
                Skipped(places[place].photos / name, "photo without a mask, left out as you said")
                for place, name in self._database.execute(
                    f"SELECT p.place, p.name FROM {_JOINED} WHERE m.name IS NULL ORDER BY p.place, p.rank"
                )
            ]
        self._number = self._split_folders()
        self.photos, self.masks = [0] * len(self.places), [0] * len(self.places)
        for number, top, photos, masks in self._tops():
            self.photos[self._number.get((number, top), number)] += photos
            self.masks[self._number.get((number, top), number)] += masks

    def __len__(self) -> int:
        """Count the pairs."""
        return sum(self.photos)

    def __iter__(self) -> Iterator[Pair]:
        """Yield the pairs."""
        rows = self._database.execute(
            f"SELECT p.place, p.name, m.name FROM {_JOINED} WHERE {self._which} ORDER BY p.place, p.rank"
        )
        folders = [(os.path.join(place.photos, ""), os.path.join(place.masks, "")) for place in self._places]
        for number, name, mask in rows:
            photos, masks = folders[number]
            top = name[: name.find("/") + 1] if self._number else ""
            where = self._number.get((number, top), number)
            yield Pair(where, name[len(top) :], photos + name, None if mask is None else masks + mask)

    def __contains__(self, pair: object) -> bool:
        """Tell whether a pair is there, by looking at all."""
        return any(pair == one for one in self)

    def _tops(self) -> Iterator[tuple[int, str, int, int]]:
        """Yield the folders in the photo folders: place, name with its `/` (empty: none), photos, those with a mask."""
        yield from self._database.execute(
            "SELECT p.place, substr(p.name, 1, instr(p.name, '/')) AS top, count(*), count(m.name)"
            f" FROM {_JOINED} WHERE {self._which} GROUP BY p.place, top ORDER BY p.place, top"
        )

    def _split_folders(self) -> dict[tuple[int, str], int]:
        """Make a place of each split folder in the photo folders; return its number by its place and name.

        Empty, and nothing is made, if not every photo lies in one; where some do, a note says it.
        """
        if any(place.split is not None for place in self._places):
            return {}
        places: list[Place] = []
        number_of: dict[tuple[int, str], int] = {}
        bare, folders = 0, list[str]()
        for number, top, photos, _ in self._tops():
            whole = self._places[number]
            split, category = split_and_category(top[:-1])
            if split is None:
                bare += photos
                folders += [str(whole.photos / top)] if len(folders) < 4 else []
            else:
                number_of[number, top] = len(places)
                places.append(Place(whole.photos / top, whole.masks, split, whole.category or category))
        if bare or not places:
            self.notes += [split_anew(bare, folders)] if places else []
            return {}
        self.places = tuple(places)
        return number_of

    def _list(self, number: int, place: Place) -> None:
        """Write the names of a place's files into the database."""
        unreadable: list[str] = []
        for side, folder, other in ((_PHOTO, place.photos, place.masks), (_MASK, place.masks, place.photos)):
            # Where one folder lies in the other, its files are its own.
            inner = f"{other.relative_to(folder).as_posix()}/" if folder in other.parents else None
            names: list[tuple[int, int, str, str]] = []
            odd: list[Skipped] = []
            for name, why in scan(folder):
                if inner is not None and f"{name}/".startswith(inner):
                    continue
                if why:
                    odd.append(Skipped(folder / name, why))
                elif not is_text(name):
                    unreadable.append(repr(str(folder / name)))
                elif side == _PHOTO and ending_of(name) not in PHOTO_SUFFIXES:
                    odd.append(Skipped(folder / name, "no photo format"))
                else:
                    # Comparing these texts is comparing the names part by part.
                    names.append((number, side, name, name.replace("/", "\x01")))
                if len(names) == 1000:
                    self._database.executemany("INSERT INTO file VALUES (?, ?, ?, ?)", names)
                    names = []
            self._database.executemany("INSERT INTO file VALUES (?, ?, ?, ?)", names)
            self.skipped += sorted(odd, key=lambda item: item.path.parts)
        if unreadable:
            raise unreadable_names(unreadable)

    def _key(self, database: sqlite3.Connection, rule: Rule) -> None:
        """Give every file its key under a rule."""
        _, photo_key, mask_key = rule
        database.create_function("key_of", 2, lambda side, name: (photo_key, mask_key)[side](name), deterministic=True)
        database.execute("DROP TABLE IF EXISTS keyed")
        database.execute(
            "CREATE TABLE keyed AS SELECT place, side, key_of(side, name) AS key, name, rank FROM file"
            " ORDER BY side, place, key, rank"
        )
        database.execute("CREATE INDEX by_key ON keyed (side, place, key)")
        # Of masks that share a key the first stands for all; that there are several is an error anyway.
        database.execute("DROP TABLE IF EXISTS mask")
        database.execute(
            "CREATE TABLE mask AS SELECT place, key, min(rank), name FROM keyed WHERE side = 1 GROUP BY place, key"
        )
        database.execute("CREATE INDEX mask_by_key ON mask (place, key)")

    def _best_rule(self) -> Rule:
        """Return the strictest rule that pairs most masks; one that makes two files equal is no rule."""
        best, most, rule = RULES[0], -1, RULES[0]
        total = self._one("SELECT count(*) FROM file WHERE side = 1")
        for rule in RULES:
            self._key(self._database, rule)
            paired = self._one(f"SELECT count(*) FROM keyed m WHERE side = 1 AND {_HAS_PHOTO}")
            unique = not self._database.execute(
                "SELECT 1 FROM keyed GROUP BY side, place, key HAVING count(*) > 1 LIMIT 1"
            ).fetchone()
            if paired > most and (unique or rule is RULES[0]):
                best, most = rule, paired
            if most == total:
                break
        if rule is not best:
            self._key(self._database, best)
        return best

    def _one(self, question: str) -> int:
        return int(self._database.execute(question).fetchone()[0])

    def _find_problems(self, settings: PrepareSettings) -> list[Problem]:
        places = self._places
        filled = {
            (place, side) for place, side in self._database.execute("SELECT DISTINCT place, side FROM file").fetchall()
        }
        bare = [n for n in range(len(places)) if (n, _PHOTO) in filled and (n, _MASK) not in filled]
        if settings.unmatched != "error" and any(side == _MASK for _, side in filled):
            bare = []  # the user said what photos without a mask mean
        twice = [
            f"{key}: {' and '.join(str(places[place].photos / name) for name in self._names(place, _PHOTO, key))}"
            for place, key in self._repeated(_PHOTO)
        ]
        twice_masks = []
        for place, key in self._repeated(_MASK):
            photos = self._names(place, _PHOTO, key)
            if photos:
                masks = " and ".join(str(places[place].masks / name) for name in self._names(place, _MASK, key))
                twice_masks.append(f"{places[place].photos / photos[0]}: {masks}")
        orphans = [
            f"{places[place].masks / name}: no photo {key}.* in {places[place].photos}"
            for place, key, name in self._database.execute(
                f"SELECT place, key, name FROM keyed m WHERE side = 1 AND NOT {_HAS_PHOTO} ORDER BY place, rank"
            )
        ]
        alone = []
        if settings.unmatched == "error":
            alone = [
                f"{places[place].photos / name}: no mask {key}.* in {places[place].masks}"
                for place, key, name in self._database.execute(
                    f"SELECT p.place, p.key, p.name FROM {_JOINED} WHERE m.name IS NULL ORDER BY p.place, p.rank"
                )
                if place not in bare  # one line for the folder says it
            ]
        problems = []
        if bare:
            problems.append(empty_folders([places[number].masks for number in bare]))
        if twice:
            problems.append(
                Problem(
                    "photos in one folder have the same name but for the ending",
                    tuple(twice),
                    "rename or remove one of each",
                )
            )
        if twice_masks:
            problems.append(
                Problem("photos have several mask images", tuple(twice_masks), "keep one mask image for each photo")
            )
        if orphans:
            what = f"{plural(len(orphans), 'mask image')} {'has' if len(orphans) == 1 else 'have'} no photo"
            problems.append(
                Problem(what, tuple(orphans), "add the photos, or remove these masks (upper and lower case differ)")
            )
        if alone:
            what = f"{plural(len(alone), 'photo')} {'has' if len(alone) == 1 else 'have'} no mask image"
            fix = (
                "draw them; or for photos without objects: --unmatched empty; or leave the photos out: --unmatched skip"
            )
            problems.append(Problem(what, tuple(alone), fix))
        return problems

    def _repeated(self, side: int) -> list[tuple[int, str]]:
        return self._database.execute(
            "SELECT place, key FROM keyed WHERE side = ? GROUP BY place, key HAVING count(*) > 1", (side,)
        ).fetchall()

    def _names(self, place: int, side: int, key: str) -> list[str]:
        question = "SELECT name FROM keyed WHERE side = ? AND place = ? AND key = ? ORDER BY rank"
        return [name for (name,) in self._database.execute(question, (side, place, key))]


_JOINED = "(SELECT * FROM keyed WHERE side = 0) p LEFT JOIN mask m ON m.place = p.place AND m.key = p.key"
_HAS_PHOTO = "EXISTS (SELECT 1 FROM keyed p WHERE p.side = 0 AND p.place = m.place AND p.key = m.key)"


def empty_folders(folders: Sequence[Path]) -> Problem:
    """Say that folders of mask images have none."""
    lines = tuple(f"{f}: {'no picture file' if any(f.iterdir()) else 'empty'}" for f in folders)
    what = "the mask folder holds no mask images" if len(lines) == 1 else "the mask folders hold no mask images"
    return Problem(
        what, lines, "put the mask images there, or name both folders: maskwright prepare PHOTOS MASKS -o DATA"
    )
