"""COCO JSON with its photos: every dialect of it that is about, read into one form; each mend is counted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from maskwright import pixels
from maskwright.columns import crowd_of, whole
from maskwright.dataset import read_json, rle_of
from maskwright.errors import Problem, UserError
from maskwright.files import real
from maskwright.formats import (
    SPLIT_NAMES,
    Found,
    Mark,
    Photo,
    Reading,
    Skipped,
    Tally,
    Work,
    both_sizes,
    outside,
    plural,
    subfolders,
    walk,
    wrong_frame,
)
from maskwright.formats.coco_photos import Source, find_photos
from maskwright.formats.photos import sight
from maskwright.formats.shapes import sane_polygons
from maskwright.pixels import Size
from maskwright.settings import FormName, PrepareSettings
from maskwright.shards import coco_files, means_coco, named_files, unnumbered

NAME: FormName = "coco"
EXPECTS = "one COCO .json file with images, annotations and categories, or one for each split, with the photos beside"

MOST_FILES = 20
"""A folder with more JSON files than this, shards counted as one, holds one file per photo, which is another form."""

_KEPT_IMAGE = {"id", "file_name", "width", "height"}
_KEPT_ANNOTATION = {"id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd"}


@dataclass(frozen=True)
class _Entry:
    """One photo of a COCO file with its objects, not yet converted."""

    source: Source
    item: Mapping[str, Any]
    path: Path
    annotations: list[Mapping[str, Any]]

    @property
    def name(self) -> str:
        return f"{self.source.path}: {self.item['file_name']}"


def is_coco(document: Any) -> bool:
    """Tell whether a parsed JSON file is a COCO dataset of objects; a panoptic one has segments, not objects."""
    if not isinstance(document, dict):
        return False
    rows = document.get("annotations")
    panoptic = isinstance(rows, list) and bool(rows) and isinstance(rows[0], dict) and "segments_info" in rows[0]
    return (
        isinstance(document.get("images"), list)
        and isinstance(rows, list)
        and isinstance(document.get("categories"), list)
        and not panoptic
    )


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Look for COCO files: the file or shards that the user named, or those in a folder.

    Raises:
        UserError: If a file is broken, or there are several and their names do not tell their splits.
    """
    if not place.is_dir():
        if not means_coco(place):
            return None
        files = coco_files(place)
        head = read_json(files[0])
        if not is_coco(head):
            if settings.form != NAME and place.exists():
                return None
            raise UserError(
                "the file is not a COCO dataset: it needs 'images', 'annotations' and 'categories'",
                [str(place)],
                "export it as COCO instances",
            )
        return Found(NAME, place, f"the COCO file {place}", ([_source(place, head, files)], []))
    sources, skipped = find_sources(place)
    if not sources:
        if settings.form == NAME:
            raise UserError(
                "there is no COCO file in the folder, its 'annotations' or its split folders",
                [str(place), *(f"{item.path}: {item.why}" for item in skipped)],
                "name the file: maskwright prepare FILE.json -o DATA",
            )
        return None
    return Found(NAME, place, ", ".join(str(source.path) for source in sources), (sources, skipped))


def find_sources(root: Path) -> tuple[list[Source], list[Skipped]]:
    """Return the COCO files of a folder, with the split that their names tell; and JSON files that are something else.

    Looked at are the folder itself, its `annotations`, and its split folders.

    Raises:
        UserError: If there are several and their names do not tell their splits.
    """
    found: list[Source] = []
    skipped: list[Skipped] = []
    inner = [folder for folder in subfolders(root) if folder.name.lower() in {"annotations", *SPLIT_NAMES}]
    for folder in [root, *inner]:
        files: dict[Path, list[Path]] = defaultdict(list)
        for path in sorted(path for path in folder.glob("*.json") if not path.name.startswith(".")):
            files[unnumbered(path)].append(path)
        if len(files) > MOST_FILES:
            continue
        for path, all_parts in files.items():
            if folder == root and path.name == "prepare.json":
                skipped.append(Skipped(path, "written by prepare"))
                continue
            parts = [path] if path in all_parts else all_parts  # as everywhere, what is whole goes before shards
            skipped += [Skipped(part, f"a shard, and {path.name} is there") for part in all_parts if part not in parts]
            try:
                head = read_json(parts[0])
            except UserError:
                if folder == root or len(files) == 1:
                    raise
                skipped += [Skipped(part, "not valid JSON") for part in parts]
                continue
            if is_coco(head):
                split = _split_of(path.stem) or SPLIT_NAMES.get(folder.name.lower())
                found.append(_source(path, head, named_files(path), split))
            else:
                skipped += [Skipped(part, "not a COCO dataset") for part in parts]
    masks = [source for source in found if source.path.stem.lower().startswith("instances")]
    if masks and len(masks) < len(found):  # captions_*.json and person_keypoints_*.json lie beside the instances
        skipped += [Skipped(path, "not the instances file") for s in found if s not in masks for path in s.read]
        found = masks
    untold = [source for source in found if source.split is None]
    splits = Counter(source.split for source in found)
    if len(found) > 1 and (untold or max(splits.values()) > 1):
        raise UserError(
            "there are several COCO files and their names do not tell the splits",
            [str(source.path) for source in found],
            "name them instances_train.json, instances_val.json, instances_test.json; or name one file:"
            f" maskwright prepare {found[0].path} -o DATA",
        )
    return found, skipped


def _source(path: Path, head: dict[str, Any], files: Sequence[Path], split: str | None = None) -> Source:
    """Return a COCO file, or one that is in shards, which are read as one.

    Args:
        path: How it was named.
        head: What the first file says.
        files: The file, or the shards.
        split: What the name tells.

    Raises:
        UserError: If shards cannot be read, or do not fit together.
    """
    if list(files) == [path]:
        return Source(path, head, split)
    documents = [head, *(read_json(file) for file in files[1:])]
    odd = [str(file) for file, document in zip(files, documents, strict=True) if not is_coco(document)]
    if odd:
        raise UserError("shards of a COCO file are something else", odd, "write the shards anew")
    odd = [str(file) for file, d in zip(files, documents, strict=True) if d["categories"] != head["categories"]]
    if odd:
        where = [f"{file}: not those of {files[0].name}" for file in odd]
        raise UserError("shards differ in categories", where, "write the shards anew")
    joined = {key: [item for document in documents for item in document[key]] for key in ("images", "annotations")}
    return Source(unnumbered(files[0]), {**head, **joined}, split, tuple(files))


def read(found: Found, work: Work) -> Reading:
    """Read COCO files with their photos; says what it understood before it reads the masks.

    Photos are looked for in the folder that the user named and beside the files.

    Raises:
        UserError: With every problem that was found.
    """
    sources: Sequence[Source]
    skipped: Sequence[Skipped]
    sources, skipped = found.parts
    root, settings, say = work.root, work.settings, work.say
    tally = Tally()
    problems: list[Problem] = []
    categories = _categories(sources, settings, tally, problems)
    for source in sources:
        find_photos(source, root, settings, tally, problems)
    entries = _entries(sources, tally, problems)
    for source in sources:
        count = len(source.document["images"])
        objects = len(source.document["annotations"])
        told = f"{source.split}: " if source.split else ""
        say(
            f"understood: {told}COCO file {source.path} with {plural(count, 'photo')} (in {source.folder}) and"
            f" {plural(objects, 'object')}"
        )
    names = tuple(dict.fromkeys(name for table in categories for name in table.values()))
    say(f"understood: {plural(len(names), 'category')}: {', '.join(names)}")
    splits = ""
    if any(source.split for source in sources):
        have = ", ".join(source.split or "" for source in sources)
        splits = f"splits are kept as the files give them ({have})"
        say(f"understood: {splits}")
    photos = _photos(work, sources, entries, categories, tally, problems)
    if problems:
        raise UserError(problems)
    if not any(photo.marks for photo in photos):
        raise UserError(
            "there is no object with a mask", [str(source.path) for source in sources], "check the 'annotations'"
        )
    _mend_header(sources, tally)
    used = {real(photo.path) for photo in photos}
    first = sources[0].document
    return Reading(
        form=NAME,
        coding=None,
        categories=names,
        photos=tuple(photos),
        sources=tuple(path for source in sources for path in source.read),
        skipped=_skipped(sources, root, used, skipped),
        splits=splits,
        mends=tally.mends(),
        info=first["info"] if isinstance(first.get("info"), dict) else {},
        licenses=[item for item in first["licenses"] if isinstance(item, dict)]
        if isinstance(first.get("licenses"), list)
        else [],
    )


def _split_of(stem: str) -> str | None:
    """Return the split that a file name tells: instances_train2017, hammer_val, test.

    Example:
        >>> _split_of("instances_train2017"), _split_of("trainval"), _split_of("valid")
        ('train', None, 'val')
    """
    tail = stem.lower().replace("-", "_").rpartition("_")[2].rstrip("0123456789")
    return SPLIT_NAMES.get(tail)


def _key(value: Any) -> Any:
    """Return an id such that 7, 7.0 and "7" are one; 7.5 is no id of anything, nor is `true`; "1_23" is not "12_3".

    Example:
        >>> _key(7), _key(7.0), _key("7"), _key(7.5), _key(True), _key("1_23")
        (7, 7, 7, '7.5', 'True', '1_23')
    """
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        return str(value)
    try:
        return whole(value)
    except (TypeError, ValueError, OverflowError):
        return str(value)


# ── categories ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _categories(
    sources: Sequence[Source], settings: PrepareSettings, tally: Tally, problems: list[Problem]
) -> list[dict[Any, str]]:
    """Return, for each file, the name of each category id; equal names in one order for all files."""
    tables: list[dict[Any, str]] = []
    bad: list[str] = []
    for source in sources:
        table: dict[Any, str] = {}
        parents: set[str] = set()
        for number, item in enumerate(source.document["categories"]):
            if not isinstance(item, dict) or "id" not in item or not str(item.get("name") or "").strip():
                bad.append(f"{source.path}: categories[{number}] needs an id and a name")
                continue
            key, name = _key(item["id"]), str(item["name"])
            if key in table or name in table.values():
                bad.append(f"{source.path}: category {name!r} (id {item['id']}) stands twice")
                continue
            table[key] = name
            if str(item.get("supercategory")) != name:
                parents.add(str(item.get("supercategory")))
        used = {_key(a.get("category_id")) for a in source.document["annotations"] if isinstance(a, dict)}
        for key in [k for k, name in table.items() if name in parents and k not in used]:
            tally.add("category that only groups others and has no objects, left out", f"'{table.pop(key)}'")
        tables.append(dict(sorted(table.items(), key=lambda pair: (isinstance(pair[0], str), pair[0]))))
    if bad:
        problems.append(Problem("categories must have different ids and names", tuple(bad), "mend the categories"))
    elif not any(tables):
        problems.append(
            Problem("the file has no categories", tuple(str(s.path) for s in sources), "add the 'categories'")
        )
    if len({frozenset(table.values()) for table in tables}) > 1:
        lines = tuple(f"{s.path}: {', '.join(t.values())}" for s, t in zip(sources, tables, strict=True))
        problems.append(
            Problem("the categories differ between the splits", lines, "give every file the same list of categories")
        )
    elif len({tuple(table.items()) for table in tables}) > 1:
        tally.add("category ids that differ between the files, joined by name", "", len(tables[0]))
    for table in tables[:1]:
        keys = list(table)
        if 0 in keys:
            tally.add("category id 0, renumbered from 1", f"'{table[0]}'")
        elif keys != list(range(1, len(keys) + 1)):
            tally.add("gaps in the category ids, renumbered from 1", f"{', '.join(str(k) for k in keys[:5])}")
    if settings.category is not None:
        if len(tables[0]) != 1:
            problems.append(
                Problem(
                    "one category name was given, the COCO file has several",
                    (f"{sources[0].path}: {', '.join(tables[0].values())}",),
                    "leave out --category",
                )
            )
        tables = [dict.fromkeys(table, settings.category) for table in tables]
    # The names stand in one order, that of the first file, whatever ids the other files give them.
    return tables


# ── photos ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _skipped(sources: Sequence[Source], root: Path, used: set[Path], known: Sequence[Skipped]) -> tuple[Skipped, ...]:
    """Account for every file in the photo folders and beside them that no COCO file lists."""
    taken = used | {real(path) for source in sources for path in source.read}
    found = {real(item.path): item for item in known}
    folders = set(dict.fromkeys(source.folder for source in sources))
    for folder in folders:
        pictures, others = walk(folder)
        unlisted = [Skipped(path, "photo that the COCO file does not list") for path in pictures]
        for item in [*unlisted, *others]:
            found.setdefault(real(item.path), item)
    for item in outside(root, folders | {path for source in sources for path in source.read}):
        if not any(path.is_relative_to(real(item.path)) for path in taken):
            found.setdefault(real(item.path), item)
    return tuple(item for path, item in found.items() if path not in taken)


def _entries(sources: Sequence[Source], tally: Tally, problems: list[Problem]) -> list[_Entry]:
    """Join photos and annotations, and mend their ids."""
    entries: list[_Entry] = []
    shared, twice, lost, wrong = [], [], [], []
    for source in sources:
        by_id: dict[Any, _Entry] = {}
        files: dict[Path, Any] = {}
        for item, path in zip(source.document["images"], source.files, strict=True):
            key = _key(item["id"])
            if path in files:
                twice.append(f"{source.path}: {item['file_name']} (id {files[path]} and id {item['id']})")
                continue
            files[path] = item["id"]
            if key in by_id:
                first = by_id[key].item["file_name"]
                shared.append(f"{source.path}: {first} and {item['file_name']} share id {item['id']}")
                continue
            by_id[key] = _Entry(source, item, path, [])
        _mend_ids("image", source, list(by_id), tally)
        keys: list[Any] = []
        for number, annotation in enumerate(source.document["annotations"]):
            if not isinstance(annotation, dict) or "image_id" not in annotation or "category_id" not in annotation:
                wrong.append(f"{source.path}: annotations[{number}] needs an image_id and a category_id")
                continue
            entry = by_id.get(_key(annotation["image_id"]))
            if entry is None:
                lost.append(f"{source.path}: annotations[{number}] names image {annotation['image_id']}")
                continue
            keys.append(_key(annotation.get("id")))
            entry.annotations.append(annotation)
        _mend_ids("annotation", source, keys, tally)
        entries += by_id.values()
    if twice:
        problems.append(Problem("photos are listed twice", tuple(twice), "list each photo once, with its own id"))
    if shared:
        problems.append(
            Problem("photos share an id, so nobody can tell whose an object is", tuple(shared), "give each its own id")
        )
    if lost:
        problems.append(
            Problem(
                f"{plural(len(lost), 'object')} of photos that are not listed",
                tuple(lost),
                "list the photos under 'images', or remove these annotations",
            )
        )
    if wrong:
        problems.append(Problem("the COCO file has entries that cannot be read", tuple(wrong), "mend these entries"))
    return entries


def _mend_ids(noun: str, source: Source, keys: list[Any], tally: Tally) -> None:
    where = str(source.path)
    numbers = sorted(key for key in keys if isinstance(key, int))
    if len(numbers) < len(keys):
        tally.add(f"{noun} ids that are missing or no numbers, numbered from 1", where, len(keys) - len(numbers))
    repeated = len(numbers) - len(set(numbers))
    if repeated:
        tally.add(f"{noun} ids that stand more than once, renumbered from 1", where, repeated)
    if numbers and numbers[0] <= 0:
        tally.add(f"{noun} id {numbers[0]}, renumbered from 1", where)
    gaps = sum(b - a > 1 for a, b in pairwise(numbers))
    if gaps:
        tally.add(f"gaps in the {noun} ids, renumbered from 1", where, gaps)


def _mend_header(sources: Sequence[Source], tally: Tally) -> None:
    for source in sources:
        for name, kind in (("info", dict), ("licenses", list)):
            if not isinstance(source.document.get(name), kind):
                tally.add(f"no '{name}' in the file, written anew", str(source.path))


# ── objects ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _photos(
    work: Work,
    sources: Sequence[Source],
    entries: Sequence[_Entry],
    categories: Sequence[dict[Any, str]],
    tally: Tally,
    problems: list[Problem],
) -> list[Photo]:
    """Check every photo, then convert its objects; problems of all photos are collected."""
    table_of = {id(source): table for source, table in zip(sources, categories, strict=True)}
    alike = len({source.path.stem for source in sources}) < len(sources)  # those of one name are in folders by split
    frame = work.settings.mask_frame
    looks = work.each(partial(sight, frame=frame), [entry.path for entry in entries])
    unread, turned, sized, wrong = [], [], [], []
    photos: list[Photo] = []
    for entry, found in zip(entries, looks, strict=True):
        if found.fault:
            unread.append(f"{entry.path}: {found.fault}")
            continue
        size = found.size
        stated = _stated_size(entry.item)
        if stated is None:
            tally.add("photos without width and height, taken from the picture", str(entry.item["file_name"]))
        elif stated != size:
            line = f"{entry.name} is {stated[1]} x {stated[0]} in the file, the photo"
            if stated == found.other:
                turned.append(f"{line} {both_sizes(size, found.other, found.orientation, frame)}")
            else:
                sized.append(f"{line} {size[1]} x {size[0]}")
            continue
        table = table_of[id(entry.source)]
        marks = []
        for annotation in entry.annotations:
            name = table.get(_key(annotation["category_id"]))
            if name is None:
                wrong.append(
                    f"{entry.name}: annotation {annotation.get('id')}: no category {annotation['category_id']}"
                )
                continue
            try:
                crowd = crowd_of(annotation.get("iscrowd"))
                rle = _object(annotation, size, entry.name, tally)
            except (KeyError, TypeError, ValueError, OverflowError) as error:
                wrong.append(f"{entry.name}: annotation {annotation.get('id')}: {error}")
                continue
            if rle is not None:
                marks.append(Mark(name, rle, crowd))
        extra = sorted(set(entry.item) - _KEPT_IMAGE)
        if extra:
            tally.add("photo entries with fields that are not kept", ", ".join(extra))
        relative = entry.path.relative_to(entry.source.folder) if entry.source.folder in entry.path.parents else None
        photos.append(
            Photo(
                file=str(entry.path),
                name=relative.as_posix() if relative else entry.path.name,
                place="" if len(sources) == 1 else (entry.source.path.parent.name if alike else entry.source.path.stem),
                split=entry.source.split,
                size=size,
                sha256=found.sha256,
                marks=tuple(marks),
                turn=found.turn,
            )
        )
    crowds = sum(mark.crowd for photo in photos for mark in photo.marks)
    if crowds:
        tally.add("crowd objects, kept as crowds (not learned, not scored)", "", crowds)
    empty = [photo.name for photo in photos if not photo.marks]
    for name in empty:
        tally.add("photos without objects, kept", name)
    if unread:
        problems.append(
            Problem(f"{plural(len(unread), 'picture file')} cannot be read", tuple(unread), "replace these files")
        )
    if turned:
        what = f"{plural(len(turned), 'photo')} {'was' if len(turned) == 1 else 'were'} marked"
        problems.append(wrong_frame(what, turned, frame))
    if sized:
        problems.append(
            Problem(
                f"{plural(len(sized), 'photo')} {'has' if len(sized) == 1 else 'have'} another size than the COCO file"
                " says",
                tuple(sized),
                "use the photos that were marked, at their full size",
            )
        )
    if wrong:
        problems.append(
            Problem("the COCO file has objects that cannot be read", tuple(wrong), "mend or remove these annotations")
        )
    return photos


def _stated_size(item: Mapping[str, Any]) -> Size | None:
    try:
        size = (int(item["height"]), int(item["width"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def _object(annotation: Mapping[str, Any], size: Size, name: str, tally: Tally) -> bytes | None:
    """Turn one annotation into an RLE; `None` if it marks no pixel.

    Raises:
        KeyError, TypeError, ValueError: If it breaks COCO's form; the message says how.
    """
    given = annotation.get("segmentation")
    if not given:
        raise ValueError("it has no mask (a box is not enough)" if annotation.get("bbox") else "it has no segmentation")
    if isinstance(given, list):
        given = _polygons(given, size, name, tally)
        if not given:
            tally.add("objects without a pixel, left out", name)
            return None
        tally.add("polygons turned into run lengths")
    elif isinstance(given, dict) and isinstance(given.get("counts"), list):
        tally.add("uncompressed run lengths, compressed", name)
    rle = rle_of(given, size)
    area = pixels.area(rle, size)
    if not area:
        tally.add("objects without a pixel, left out", name)
        return None
    _compare(annotation, rle, area, size, name, tally)
    extra = sorted(set(annotation) - _KEPT_ANNOTATION)
    if extra:
        tally.add("objects with fields that are not kept", ", ".join(extra))
    return rle


def _polygons(given: list[Any], size: Size, name: str, tally: Tally) -> list[list[float]]:
    """Return the polygons that enclose something, as numbers within reach of the photo."""
    if all(isinstance(value, int | float) for value in given):
        tally.add("polygons without the outer brackets", name)
        given = [given]
    return sane_polygons(given, size, name, tally)


def _compare(annotation: Mapping[str, Any], rle: bytes, area: int, size: Size, name: str, tally: Tally) -> None:
    """Count areas and boxes that do not fit the mask; a polygon's own area differs a little from its pixels."""
    stated = annotation.get("area")
    if not isinstance(stated, int | float) or abs(stated - area) > max(0.05 * area, 10):
        tally.add("wrong or missing 'area', computed from the mask", name)
    box = annotation.get("bbox")
    x1, y1, x2, y2 = pixels.box(rle, size)
    found = (x1, y1, x2 - x1, y2 - y1)
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, int | float) for v in box)) or any(
        abs(a - b) > 2 for a, b in zip(box, found, strict=True)
    ):
        tally.add("wrong or missing 'bbox', computed from the mask", name)
