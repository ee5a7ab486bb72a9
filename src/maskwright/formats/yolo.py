"""YOLO segmentation: one .txt for each photo with a polygon a line, in shares of width and height; read and written.

A line is `class x1 y1 x2 y2 ...`; label files lie where the photos' path has `labels` for `images`, or beside photos.
`data.yaml` gives the names and the splits. How it is laid out: https://docs.ultralytics.com/datasets/segment/
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from maskwright import pixels
from maskwright.dataset import Dataset
from maskwright.errors import Problem, UserError
from maskwright.files import is_side_file, link_or_copy
from maskwright.formats import (
    PHOTO_NAMES,
    Found,
    Mark,
    Photo,
    Reading,
    Skipped,
    Tally,
    Work,
    Written,
    plural,
    some,
    walk,
)
from maskwright.formats.listing import (
    Outcome,
    account,
    files_below,
    one_category,
    outcome_notes,
    outcome_problems,
    outcome_tally,
    photo_of,
    sample,
    spot,
    with_splits,
)
from maskwright.formats.names import stems
from maskwright.formats.photos import photo_folders, sight
from maskwright.formats.yolo_lines import BOX, CLASS, LINE, RANGE, Fault, line_of, looks, object_of
from maskwright.formats.yolo_yaml import Description, describe, listed
from maskwright.settings import FormName, MaskFrame, PrepareSettings

NAME: FormName = "yolo"
EXPECTS = "a folder with photos in `images`, one YOLO segmentation .txt for each in `labels`, and a data.yaml"

MOST_BYTES = 32 * 2**20
"""A label file that is larger is refused; one of a photo with ten thousand objects has a few megabytes."""

LABEL_NAMES = frozenset({"labels", "label"})
"""Folder names in which every .txt is a label file."""

NAME_FILES = ("classes.txt", "obj.names", "classes.names", "_darknet.labels", "labels.txt")
"""Files with one category name a line, most usual first."""

_FILE = "label files cannot be read"
_UNUSED = "photo that is not used"
_FIXES = {
    _FILE: "save them as plain text",
    LINE: "a line is: class x1 y1 x2 y2 x3 y3 ...; mend or remove these lines",
    BOX: "export these objects as polygons (in Roboflow: an instance segmentation project), or remove the lines",
    RANGE: "divide x by the photo's width and y by its height; keypoints (pose) and turned boxes are no masks",
    CLASS: "add the names (in data.yaml or classes.txt), or correct these lines; ids start at 0",
}


@dataclass(frozen=True)
class _Job:
    """One photo and its label file; `None`: it shows no object."""

    photo: Path
    label: Path | None


@dataclass
class _Pairs:
    """Photos with their label files, and what is left on both sides."""

    jobs: list[_Job] = field(default_factory=list)
    bare: list[Path] = field(default_factory=list)
    lost: list[Path] = field(default_factory=list)
    shared: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Tell whether a folder, or a data.yaml, holds YOLO labels; see the contract in `formats`."""
    named = settings.form == NAME
    if place.is_file():
        if place.suffix.lower() not in {".yaml", ".yml"}:
            return None
        description = describe(place)
        if description is None:
            return None
        return Found(NAME, place, f"category names in {place}", description)
    files = [path for path in files_below(place, ".txt") if path.name.lower() not in NAME_FILES]
    seen = [looks(path) for path in sample(files)]
    labels = sum(look is True for look in seen)
    others = sum(look is False for look in seen)
    if not named and not labels and None not in seen:
        return None
    source = _description_file(place)
    if not named and (labels < max(others, 1)) and not (source is not None and any(map(_is_placed, files))):
        return None
    if not files:
        raise UserError("there is no YOLO label file (.txt)", [str(place)], f"yolo means: {EXPECTS}")
    description = None if source is None else describe(source)
    why = f"{plural(len(files), '.txt file')} with lines as YOLO writes them"
    reads = tuple(sorted({path.parent for path in files if _is_placed(path)}))
    return Found(NAME, place, why, description, reads)


def _is_placed(path: Path) -> bool:
    return path.parent.name.lower() in LABEL_NAMES or path.parent.parent.name.lower() in LABEL_NAMES


def _description_file(place: Path) -> Path | None:
    """Return the data.yaml of a folder; that of the folder above, if this is only a part of a dataset.

    Raises:
        UserError: If there are several.
    """
    tops = [place]
    if place.name.lower() in {"train", "valid", "val", "test", *LABEL_NAMES, *PHOTO_NAMES}:
        tops.append(place.parent)
    for top in tops:
        files = sorted(path for path in top.iterdir() if path.suffix.lower() in {".yaml", ".yml"} and path.is_file())
        files = [path for path in files if not is_side_file(path) and describe(path) is not None]
        usual = [path for path in files if path.stem.lower() in {"data", "dataset"}]
        if len(files) > 1 and len(usual) != 1:
            raise UserError(
                "there are several files with category names",
                [str(path) for path in files],
                f"name one of them: maskwright prepare {files[0]} -o DATA",
            )
        if files:
            return (usual or files)[0]
    return None


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def read(found: Found, work: Work) -> Reading:
    """Read YOLO label files with their photos; see the contract in `formats`.

    Raises:
        UserError: With every problem that was found.
    """
    description: Description | None = found.parts
    source = description.path if description is not None else None
    if description is not None and description.pose:
        raise UserError(
            "the labels are keypoints (pose): boxes with points, and no masks",
            [f"{source}: kpt_shape"],
            "use a dataset of instance segmentation",
        )
    folder = found.place if found.place.is_dir() else found.place.parent
    tops = photo_folders(work.root, work.settings) if work.settings.photos is not None else [work.root]
    if not tops:
        raise UserError("the photo folder does not exist", [str(work.settings.photos)], "check --photos")
    top = tops[0]
    pictures = walk(top)[0]
    skipped: list[Skipped] = []
    notes: list[str] = []
    split_of: dict[Path, str] | None = None
    anew = False
    pairs = _pair(pictures, top, files_below(folder, ".txt"), folder)
    if description is not None:
        lists = listed(description, pictures, top)
        notes += lists.notes
        split_of = lists.splits
        anew = lists.photos is not None and lists.splits is None
        skipped += [Skipped(path, "list of photos") for path in lists.files]
        pairs.others = [path for path in pairs.others if path not in lists.files]
        pairs.lost = [path for path in pairs.lost if path not in lists.files]
        if lists.photos is not None:
            unlisted = f"that {description.path.name} does not list"
            skipped += [Skipped(job.photo, f"photo {unlisted}") for job in pairs.jobs if job.photo not in lists.photos]
            skipped += [
                Skipped(job.label, f"label file of a photo {unlisted}")
                for job in pairs.jobs
                if job.photo not in lists.photos and job.label is not None
            ]
            pairs.jobs = [job for job in pairs.jobs if job.photo in lists.photos]
            pairs.bare = [path for path in pairs.bare if path in lists.photos]
    skipped += [Skipped(path, "text that is no label file") for path in pairs.others]
    names, names_file = _names(description, folder, work.root)
    count = sum(job.label is not None for job in pairs.jobs)
    work.say(
        f"understood: {plural(count, 'YOLO label file')} in {folder} with {plural(len(pictures), 'picture')} in {top}"
    )
    problems = _pairing_problems(pairs, work.settings, folder, top)
    if pairs.elsewhere:
        notes.append(
            f"{plural(len(pairs.elsewhere), 'label file')} paired by file name, in whatever subfolder"
            f" ({some(pairs.elsewhere)})"
        )
    if work.settings.unmatched == "empty" and pairs.bare:
        notes.append(
            f"{plural(len(pairs.bare), 'photo')} without a label file: photos without objects, as you said"
            f" ({some(str(path) for path in pairs.bare)})"
        )
        pairs.jobs = sorted([*pairs.jobs, *(_Job(path, None) for path in pairs.bare)], key=lambda job: job.photo)
    elif work.settings.unmatched == "skip":
        skipped += [Skipped(path, "photo without a label file, left out as you said") for path in pairs.bare]
    outcomes = list(work.each(partial(_look, names=names, frame=work.settings.mask_frame), pairs.jobs))
    problems += _label_problems(outcomes, problems)
    if problems:
        raise UserError(problems)
    categories, photos = _photos(pairs.jobs, outcomes, names, top, work.settings, found.place)
    if names is None:
        notes.append(
            f"no data.yaml or classes.txt gives names: the categories are called {some(categories)}; to name them put a"
            " classes.txt with one name a line beside `labels`"
        )
    notes += outcome_notes(outcomes)
    drawn = np.array([[int(v) for v in one.extra.split()] for one in outcomes if one.extra]).reshape(-1, 3).sum(axis=0)
    if drawn[0] > 2 and drawn[2] == drawn[0]:
        notes.append(
            f"all {drawn[0]:,} objects have exactly four corners: if these are turned boxes (YOLO-OBB) and no outlines,"
            " boxes are what will be learned"
        )
    if split_of is not None and description is not None:
        photos = [photo._replace(split=split_of[photo.path]) for photo in photos]
        have = [split for split in ("train", "val", "test") if split in split_of.values()]
        kept, splits = tuple(photos), f"splits are kept as {description.path.name} gives them ({', '.join(have)})"
    elif anew:
        kept, splits = tuple(photo._replace(split=None) for photo in photos), ""
    else:
        kept, splits, more = with_splits(photos)
        notes += more
    for text in [f"{plural(len(categories), 'category')}: {', '.join(categories)}", splits, *notes]:
        if text:
            work.say(f"understood: {text}")
    labels = [job.label for job in pairs.jobs if job.label is not None]
    used = [job.photo for job in pairs.jobs]
    sources = [path for path in (source, names_file) if path is not None]
    return Reading(
        form=NAME,
        coding=None,
        categories=categories,
        photos=kept,
        sources=(*dict.fromkeys(sources), *labels),
        skipped=account(list(dict.fromkeys([work.root, folder])), [*sources, *labels, *used], skipped, _UNUSED),
        splits=splits,
        mends=outcome_tally(outcomes).mends(),
        notes=tuple(notes),
    )


def _keys(parts: Sequence[str]) -> list[tuple[str, ...]]:
    """Return where the label file of a photo may be, likeliest first; `parts` is its path without the ending."""
    folders = list(parts[:-1])
    found = []
    for wanted in ("images", None):
        for i in range(len(folders) - 1, -1, -1):
            name = folders[i].lower()
            if name == wanted or (wanted is None and name in PHOTO_NAMES):
                found.append((*folders[:i], "labels", *folders[i + 1 :], parts[-1]))
    found += [(*folders, parts[-1]), (*folders, "labels", parts[-1]), ("labels", *parts)]
    return list(dict.fromkeys(found))


def _pair(pictures: Sequence[Path], top: Path, files: Sequence[Path], folder: Path) -> _Pairs:
    """Pair photos and label files by their paths; what is left, by names that only one of each side has."""
    pairs = _Pairs()
    labels: dict[tuple[str, ...], Path] = {}
    loose: dict[tuple[str, ...], Path] = {}
    for path in files:
        if path.name.lower() in NAME_FILES:
            continue
        parts = list(path.relative_to(folder).parts)
        places = [i for i, part in enumerate(parts[:-1]) if part.lower() in LABEL_NAMES]
        if places:
            parts[places[-1]] = "labels"
        elif folder.name.lower() in LABEL_NAMES or (folder != top and not folder.is_relative_to(top)):
            parts.insert(0, "labels")
        else:
            loose[(*parts[:-1], path.stem)] = path
            continue
        labels[(*parts[:-1], path.stem)] = path
    everything = {**loose, **labels}
    taken: dict[Path, Path] = {}
    waiting: list[Path] = []
    for photo in pictures:
        inner = photo.relative_to(top)
        label = next((everything[key] for key in _keys([*inner.parts[:-1], inner.stem]) if key in everything), None)
        if label is None:
            waiting.append(photo)
        elif label in taken:
            pairs.shared.append(f"{label}: {taken[label]} and {photo}")
        else:
            taken[label] = photo
            pairs.jobs.append(_Job(photo, label))
    free = [path for path in labels.values() if path not in taken]
    stems_left = Counter(path.stem for path in free)
    photos_left = Counter(path.stem for path in waiting)
    by_stem = {path.stem: path for path in free}
    for photo in waiting:
        if stems_left[photo.stem] == 1 and photos_left[photo.stem] == 1:
            label = by_stem[photo.stem]
            taken[label] = photo
            pairs.jobs.append(_Job(photo, label))
            pairs.elsewhere.append(str(label))
        else:
            pairs.bare.append(photo)
    pairs.lost = [path for path in free if path not in taken]
    for path in loose.values():  # beside the photos lie all kinds of text
        if path not in taken:
            (pairs.lost if looks(path) else pairs.others).append(path)
    pairs.jobs.sort(key=lambda job: job.photo.relative_to(top).parts)
    return pairs


def _pairing_problems(pairs: _Pairs, settings: PrepareSettings, folder: Path, top: Path) -> list[Problem]:
    problems = []
    if not pairs.jobs and not pairs.bare:
        return [
            Problem(
                "there are label files but no photos of theirs",
                (f"labels in {folder}, photos looked for in {top}",),
                "name the folder that holds both, or say where the photos are: --photos FOLDER",
            )
        ]
    if pairs.lost:
        problems.append(
            Problem(
                f"{plural(len(pairs.lost), 'label file')} without a photo",
                tuple(str(path) for path in pairs.lost),
                "add the photos, or remove these files; a photo and its label file have one name",
            )
        )
    if pairs.shared:
        problems.append(
            Problem("photos share one label file", tuple(pairs.shared), "give the photos names that differ")
        )
    if pairs.bare and settings.unmatched == "error":
        problems.append(
            Problem(
                f"{plural(len(pairs.bare), 'photo')} without a label file",
                tuple(str(path) for path in pairs.bare),
                "in YOLO that means a photo without objects; if so: --unmatched empty; or leave them out: --unmatched"
                " skip; or add the label files",
            )
        )
    return problems


def _names(description: Description | None, folder: Path, root: Path) -> tuple[dict[int, str] | None, Path | None]:
    """Return the category names by id, and the file that gives them; `None` if none does."""
    if description is not None:
        return description.names, None
    tops = dict.fromkeys([folder, root, folder.parent if folder.name.lower() in LABEL_NAMES else folder])
    inner = [top / name for top in tops for name in sorted(LABEL_NAMES)]
    for place in [*tops, *inner]:
        for name in NAME_FILES:
            path = place / name
            if not path.is_file():
                continue
            try:
                lines = path.read_text(encoding="utf-8-sig").splitlines()
            except (OSError, UnicodeDecodeError):
                raise UserError("the category names cannot be read", [str(path)], "save them as plain text") from None
            found = [line.strip() for line in lines]
            while found and not found[-1]:
                found.pop()
            twice = [name for name, n in Counter(found).items() if n > 1 or not name]
            if twice or not found:
                raise UserError(
                    "category names must differ, one a line",
                    [f"{path}: {name!r} stands more than once or is empty" for name in twice or [""]],
                    "correct the names",
                )
            return dict(enumerate(found)), path
    return None, None


def _label_problems(outcomes: Sequence[Outcome], known: Sequence[Problem]) -> list[Problem]:
    lines, boxes = 0, 0
    for one in outcomes:
        counts = [int(v) for v in one.extra.split()] or [0, 0, 0]
        lines, boxes = lines + counts[0], boxes + counts[1]
    if boxes and boxes == lines:
        held = sum(bool(one.extra) and one.extra.split()[1] != "0" for one in outcomes)
        first = next(one for one in outcomes if one.extra and one.extra.split()[1] != "0")
        return [
            Problem(
                "the label files hold boxes, not masks",
                (f"{plural(lines, 'line')} of {plural(held, 'file')} with 4 numbers each, such as {first.label}",),
                "export the dataset as YOLO segmentation, with polygons; a box does not tell which pixels are the"
                " object, so where only boxes were drawn the outlines must be drawn",
            )
        ]
    problems = outcome_problems(outcomes, _FIXES)
    if not problems and not known and not any(one.marks for one in outcomes):
        where = some(one.label for one in outcomes)
        problems.append(Problem("no label file marks an object", (where,), "check that these are the right files"))
    return problems


def _look(job: _Job, names: Mapping[int, str] | None, frame: MaskFrame) -> Outcome:
    """Read one photo and its label file; `extra` counts lines, boxes and polygons of four corners."""
    seen = sight(job.photo, frame)
    if job.label is None or seen.fault:
        return Outcome(str(job.label or job.photo), seen)
    label = str(job.label)
    tally = Tally()
    try:
        if not job.label.is_file():  # reading from a pipe would wait for ever
            raise ValueError("is no plain file")
        if job.label.stat().st_size > MOST_BYTES:
            raise ValueError(f"is larger than {MOST_BYTES // 2**20} MB")
        text = job.label.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return Outcome(label, seen, faults=((_FILE, f"{label}: is no text in UTF-8"),))
    except (OSError, ValueError) as error:
        return Outcome(label, seen, faults=((_FILE, f"{label}: {getattr(error, 'strerror', None) or error}"),))
    marks: list[Mark] = []
    faults: list[tuple[str, str]] = []
    lines = boxes = fours = 0
    for number, line in enumerate(text.splitlines(), start=1):
        tokens = line.split()
        if not tokens:
            continue
        lines += 1
        boxes += len(tokens) in {5, 6}
        fours += len(tokens) == 9
        try:
            category, rle = object_of(tokens, seen.size, names, label, tally)
        except Fault as fault:
            faults.append((fault.rule, f"{label}, line {number}: {fault}"))
            continue
        if rle is not None:
            marks.append(Mark(category, rle))
    return Outcome(label, seen, None, tuple(marks), tuple(faults), tally.mends(), f"{lines} {boxes} {fours}")


def _photos(
    jobs: Sequence[_Job],
    outcomes: Sequence[Outcome],
    names: Mapping[int, str] | None,
    top: Path,
    settings: PrepareSettings,
    place: Path,
) -> tuple[tuple[str, ...], list[Photo]]:
    """Return the categories in the order of their ids, and the photos."""
    used = {mark.category for one in outcomes for mark in one.marks}
    if names is not None:
        categories: Collection[str] = [names[key] for key in sorted(names)]
    else:
        categories = sorted(used, key=lambda name: int(name.rpartition(" ")[2]))
    one_category(categories, settings, str(place), "the labels have")
    photos = []
    for job, one in zip(jobs, outcomes, strict=True):
        told = spot(job.photo, top)
        photo = photo_of(one, told.name, told.place, told.split)
        if settings.category is not None:
            photo = photo._replace(marks=tuple(mark._replace(category=settings.category) for mark in photo.marks))
        photos.append(photo)
    return (tuple(categories) if settings.category is None else (settings.category,)), photos


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(dataset: Dataset, folder: Path) -> Written:
    """Write `labels/*.txt`, `data.yaml` and, where they are known, the photos as hard links in `images`.

    Outlines run along the pixels' edges (see `tracing`), holes and parts joined to them, so that each object is one
    line that is read back to the same pixels; every line is read back here, and what differs is said.

    Raises:
        UserError: If two photos would share a label file.
    """
    stems(dataset)  # refuses names that lead outside and photos that are listed twice
    places = [_label_name(image.file_name) for image in dataset.images]
    shared = defaultdict(list)
    for image, name in zip(dataset.images, places, strict=True):
        shared[name.casefold()].append(image.file_name)
    alike = tuple(" and ".join(names) for names in shared.values() if len(names) > 1)
    if alike:
        raise UserError(
            "photos would share one YOLO label file, which is named after the photo without its ending",
            alike,
            "give the photos names that differ in more than the ending",
        )
    index = {category.id: n for n, category in enumerate(dataset.categories)}
    names = dict(enumerate(category.name for category in dataset.categories))
    crowds = boxes = empty = written = linked = 0
    wrong: list[tuple[float, str]] = []
    first = dataset.first
    for i, (image, name) in enumerate(zip(dataset.images, places, strict=True)):
        lines = []
        for k in range(int(first[i]), int(first[i + 1])):
            rle = dataset.rle(k)
            if dataset.crowd[k] or not rle or not pixels.area(rle, image.size):
                crowds += bool(dataset.crowd[k])
                boxes += not rle and not dataset.crowd[k]
                empty += bool(rle) and not dataset.crowd[k]
                continue
            line = line_of(index[int(dataset.category_ids[k])], rle, image.size)
            again = object_of(line.split(), image.size, names, image.file_name, Tally())[1]
            if again != rle:
                same = float(pixels.iou([again or rle], [rle], image.size)[0, 0]) if again else 0.0
                if same < 1:
                    wrong.append((same, f"{image.file_name}, annotation {int(dataset.ids[k])}: IoU {same:.4f}"))
            lines.append(line)
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        written += len(lines)
        photo = dataset.photo_path(image) if dataset.folder is not None else None
        if photo is not None and photo.is_file():
            link_or_copy(photo, folder / "images" / image.file_name)
            linked += 1
    (folder / "data.yaml").write_text(_yaml(names), encoding="utf-8")
    scored = int((~np.isnan(dataset.scores)).sum())
    notes = [
        f"every object is one polygon, read back to the same pixels (IoU 1): {written - len(wrong):,} of {written:,}"
    ]
    if wrong:
        notes.append(f"objects that differ: {'; '.join(line for _, line in sorted(wrong)[:5])}")
    if linked < len(dataset.images):
        notes.append(f"put {plural(len(dataset.images) - linked, 'photo')} into images/, by the names of the COCO file")
    for count, text in (
        (crowds, "crowds left out: YOLO has no word for many objects in one mask"),
        (boxes, "objects without a mask left out: a box is no mask"),
        (empty, "objects without a pixel left out"),
        (scored, "scores not kept: YOLO's label lines have no place for them"),
    ):
        if count:
            notes.append(f"{count:,} {text}")
    return Written(files=len(dataset.images) + 1, objects=written, notes=tuple(notes))


def _label_name(file_name: str) -> str:
    """Return the label file of a photo in `images`, by the rule that YOLO's loaders follow.

    Example:
        >>> _label_name("a/1.jpg")
        'labels/a/1.txt'
    """
    parts = ["images", *PurePosixPath(file_name.replace("\\", "/")).with_suffix(".txt").parts]
    last = max(i for i, part in enumerate(parts[:-1]) if part == "images")
    return "/".join([*parts[:last], "labels", *parts[last + 1 :]])


def _yaml(names: Mapping[int, str]) -> str:
    lines = [
        "# Photos are in images, labels in labels. For training give val photos of their own.",
        "train: images",
        "val: images",
        f"nc: {len(names)}",
        "names:",
        *(f"  {key}: {json.dumps(name, ensure_ascii=False)}" for key, name in names.items()),
    ]
    return "\n".join(lines) + "\n"
