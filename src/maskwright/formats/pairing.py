"""Which mask image belongs to which photo: by exact name first, then by usual ways of naming, never by likeness."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskwright.errors import Problem
from maskwright.files import PHOTO_SUFFIXES
from maskwright.formats import Skipped, plural, walk
from maskwright.settings import PrepareSettings

MASK_WORDS = ("mask", "masks", "seg", "segmentation", "label", "labels", "gt", "annotation", "instances", "ids")
PHOTO_WORDS = ("rgb", "image", "img", "photo", "color", "colour")
"""Words that may stand at the end (or the start) of a file name, joined by `_`, `-` or `.`."""

Rule = tuple[str, Callable[[str], str], Callable[[str], str]]


@dataclass(frozen=True)
class Place:
    """A folder of photos with its folder of mask images; both names are as the user typed them."""

    photos: Path
    masks: Path
    split: str | None = None
    category: str | None = None


@dataclass(frozen=True)
class Pair:
    """A photo and its mask image, if it has one."""

    place: Place
    photo: Path
    mask: Path | None


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


def pair_all(
    places: Sequence[Place], settings: PrepareSettings
) -> tuple[list[Pair], list[Skipped], list[str], list[Problem]]:
    """Pair the files of all places by one rule: the strictest that pairs most masks.

    Letter case counts, except in the ending (`.JPG`). `1.jpg` never takes `10.png`.

    Returns:
        The pairs, photo by photo; the files that were skipped; what to tell the user; and what is wrong.
    """
    files: list[tuple[Place, list[Path], list[Path]]] = []
    skipped: list[Skipped] = []
    for place in places:
        photos, odd = walk(place.photos)
        masks, also_odd = walk(place.masks)
        if place.masks in place.photos.parents or place.photos in place.masks.parents:
            photos = [p for p in photos if place.masks not in p.parents or place.masks in place.photos.parents]
            masks = [p for p in masks if place.photos not in p.parents or place.photos in place.masks.parents]
            odd = [s for s in odd if place.masks not in s.path.parents]
        skipped += odd + also_odd
        skipped += [Skipped(p, "no photo format") for p in photos if p.suffix.lower() not in PHOTO_SUFFIXES]
        files.append((place, [p for p in photos if p.suffix.lower() in PHOTO_SUFFIXES], masks))
    rule = _best_rule(files)
    pairs: list[Pair] = []
    twice: list[str] = []
    twice_masks: list[str] = []
    alone: list[str] = []
    orphans: list[str] = []
    _, photo_key, mask_key = rule
    bare = [place.masks for place, photos, masks in files if photos and not masks]
    if settings.unmatched != "error" and any(masks for _, _, masks in files):
        bare = []  # the user said what photos without a mask mean
    for place, photos, masks in files:
        by_key: dict[str, list[Path]] = defaultdict(list)
        for path in masks:
            by_key[mask_key(path.relative_to(place.masks).as_posix())].append(path)
        keys = [photo_key(path.relative_to(place.photos).as_posix()) for path in photos]
        same: dict[str, list[Path]] = defaultdict(list)
        for key, path in zip(keys, photos, strict=True):
            same[key].append(path)
        twice += [f"{key}: {' and '.join(str(p) for p in paths)}" for key, paths in same.items() if len(paths) > 1]
        twice_masks += [
            f"{same[key][0]}: {' and '.join(str(p) for p in paths)}"
            for key, paths in by_key.items()
            if len(paths) > 1 and key in same
        ]
        orphans += [
            f"{path}: no photo {key}.* in {place.photos}" for key in by_key if key not in same for path in by_key[key]
        ]
        for key, path in zip(keys, photos, strict=True):
            mask = by_key[key][0] if key in by_key else None
            if place.masks in bare:
                pass  # one line for the folder says it
            elif mask is None and settings.unmatched == "error":
                alone.append(f"{path}: no mask {key}.* in {place.masks}")
            elif mask is None and settings.unmatched == "skip":
                skipped.append(Skipped(path, "photo without a mask, left out as you said"))
                continue
            pairs.append(Pair(place, path, mask))
    problems = []
    if bare:
        problems.append(empty_folders(bare))
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
        fix = "draw them; or, for photos without objects: --unmatched empty; or leave the photos out: --unmatched skip"
        problems.append(Problem(what, tuple(alone), fix))
    notes = [] if rule is RULES[0] else [f"photos and masks are paired {rule[0]}"]
    return pairs, skipped, notes, problems


def empty_folders(folders: Sequence[Path]) -> Problem:
    """Say that folders of mask images have none."""
    lines = tuple(f"{f}: {'no picture file' if any(f.iterdir()) else 'empty'}" for f in folders)
    what = "the mask folder holds no mask images" if len(lines) == 1 else "the mask folders hold no mask images"
    return Problem(
        what, lines, "put the mask images there, or name both folders: maskwright prepare PHOTOS MASKS -o DATA"
    )


def _best_rule(files: Sequence[tuple[Place, list[Path], list[Path]]]) -> Rule:
    """Return the strictest rule that pairs most masks; one that makes two files equal is no rule."""
    best, most = RULES[0], -1
    total = sum(len(masks) for _, _, masks in files)
    for rule in RULES:
        _, photo_key, mask_key = rule
        paired, unique = 0, True
        for place, photos, masks in files:
            photo_keys = [photo_key(p.relative_to(place.photos).as_posix()) for p in photos]
            mask_keys = [mask_key(p.relative_to(place.masks).as_posix()) for p in masks]
            known = set(photo_keys)
            unique &= len(known) == len(photo_keys) and len(set(mask_keys)) == len(mask_keys)
            paired += sum(key in known for key in mask_keys)
        if paired > most and (unique or rule is RULES[0]):
            best, most = rule, paired
        if most == total:
            break
    return best
