"""Pascal VOC trees: one image of object numbers and one of classes beside each photo, with lists that name the splits.

The form is that of the VOC development kit and of what labelling tools export after it (CVAT's "Segmentation mask
1.1"). Value 0 is ground and 255 is the border that belongs to nobody. Tools store the values as palette indices, as
grey values, or as the colours of VOC's colour map; all three are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from maskwright.dataset import Dataset
from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES
from maskwright.formats import (
    PHOTO_NAMES,
    SPLIT_NAMES,
    Found,
    Mark,
    Photo,
    Reading,
    Skipped,
    Tally,
    Work,
    Written,
    outside,
    plural,
    some,
    subfolders,
    walk,
)
from maskwright.formats.names import stems
from maskwright.formats.photos import Sight
from maskwright.formats.planes import (
    LOSSY_SUFFIXES,
    Item,
    Losses,
    drawn,
    mask_problems,
    named_folder,
    paint,
    save_png,
)
from maskwright.formats.shelf import Shelf
from maskwright.formats.voc_values import (
    CLASSES,
    CLEAR,
    LABEL_FILES,
    MOST,
    VOID,
    Label,
    Seen,
    colour_map,
    is_no_class,
    look,
    read_labels,
    text_of,
)
from maskwright.pixels import Size
from maskwright.settings import FormName, PrepareSettings

NAME: FormName = "voc"
EXPECTS = "a Pascal VOC tree: JPEGImages, SegmentationObject, SegmentationClass and ImageSets/Segmentation"


@dataclass(frozen=True)
class _Tree:
    """One VOC tree; `objects` or `classes` may be absent."""

    folder: Path
    objects: Path | None
    classes: Path | None
    split: str | None = None


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Return the VOC trees in a folder, in its subfolders, or in its `VOCdevkit`; `None` if there is none."""
    trees = _trees(place, settings)
    if not trees:
        return None
    reads = tuple(folder for tree in trees for folder in (tree.objects, tree.classes) if folder is not None)
    why = f"a Pascal VOC tree in {', '.join(str(tree.folder) for tree in trees)}"
    return Found(NAME, place, why, tuple(trees), reads)


def _trees(place: Path, settings: PrepareSettings) -> list[_Tree]:
    if not place.is_dir():
        return []
    if settings.masks is not None:
        named = named_folder(place, settings.masks)
        tops = [] if named is None else [named, *([named.parent] if named.name.startswith("Segmentation") else [])]
    else:
        kit = next((f for f in subfolders(place) if f.name.lower() == "vocdevkit"), None)
        tops = [place, *subfolders(place), *(subfolders(kit) if kit else [])]
    trees = []
    for folder in tops:
        inside = {path.name.lower(): path for path in subfolders(folder)}
        objects, classes = inside.get("segmentationobject"), inside.get("segmentationclass")
        if objects is not None or classes is not None:
            trees.append(_Tree(folder, objects, classes, SPLIT_NAMES.get(folder.name.lower())))
    return trees[:1] if trees and trees[0].folder == place else trees


def read(found: Found, work: Work) -> Reading:
    """Read VOC trees.

    Raises:
        UserError: With every problem that was found.
    """
    trees: tuple[_Tree, ...] = found.parts
    plans = [_plan(tree, work, several=len(trees) > 1) for tree in trees]
    problems = [problem for plan in plans for problem in plan.problems]
    for plan in plans:
        _say(plan, work)
    if len({any(item.split for item in plan.items) for plan in plans if plan.items}) > 1:
        lines = tuple(f"{p.tree.folder}: {'splits' if p.items[0].split else 'no splits'}" for p in plans if p.items)
        problems.append(Problem("some trees have lists of splits and others have none", lines, "read them one by one"))
    splits = _splits_text([item.split for plan in plans for item in plan.items])
    if splits:
        work.say(f"understood: {splits}")
    reader = _Reader(work.settings)
    for plan in plans:
        reader.take(plan, work)
    problems += reader.problems()
    if problems:
        raise UserError(problems)
    if not any(plan.items for plan in plans):
        raise UserError("there is no photo with masks", [str(tree.folder) for tree in trees], f"expected: {EXPECTS}")
    names, told = reader.names()
    work.say(f"understood: {plural(len(names), 'category')}: {', '.join(names)} ({told})")
    photos = Shelf(reader.photos(names))
    return Reading(
        form=NAME,
        coding=None,
        categories=names,
        photos=photos,
        sources=tuple(path for plan in plans for path in plan.sources),
        skipped=tuple(_skipped(plans, work.root)),
        splits=splits,
        mends=reader.tally.mends(),
        notes=tuple([note for plan in plans for note in plan.notes] + reader.notes()),
    )


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class _Plan:
    """What is to be read of one tree."""

    tree: _Tree
    photos: Path
    labels: tuple[Label, ...] | None
    items: list[Item] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def _say(plan: _Plan, work: Work) -> None:
    masks = sum(bool(item.masks) for item in plan.items)
    kind = "object images" if plan.tree.objects is not None else "class images only"
    work.say(
        f"understood: Pascal VOC tree {plan.tree.folder}: {plural(len(plan.items), 'photo')} in {plan.photos},"
        f" {masks:,} with {kind}"
    )
    if plan.labels is not None:
        listed = ", ".join(label.name for label in plan.labels if not is_no_class(label.name))
        work.say(f"understood: the classes are listed in {plan.sources[-1]}: {listed}")
    for note in plan.notes:
        work.say(f"understood: {note}")


def _plan(tree: _Tree, work: Work, *, several: bool) -> _Plan:
    folder = _photo_folder(tree, work)
    plan = _Plan(tree, folder, None)
    lists = _lists(tree, plan)
    plan.labels = _labels(tree, plan)
    photos, masks, classes = _by_stem(folder, plan, photos=True), {}, {}
    if tree.objects is not None:
        masks = _by_stem(tree.objects, plan)
    if tree.classes is not None:
        classes = _by_stem(tree.classes, plan)
    both = tree.objects is not None and tree.classes is not None
    if tree.objects is None:
        masks = classes
    _pair_problems(plan, photos, masks, classes if both else None)
    splits, listed = _splits(plan, lists, photos, masks)
    for stem in photos:
        split = tree.split or splits.get(stem)
        if split == "withheld":
            plan.skipped.append(Skipped(photos[stem], "in a list whose truth is not published"))
            continue
        if stem not in masks:
            if not listed or stem in listed:
                if work.settings.unmatched == "error":
                    _add(plan, _BARE, f"{photos[stem]}: no mask {stem}.png in {tree.objects or tree.classes}")
                elif work.settings.unmatched == "skip":
                    plan.skipped.append(Skipped(photos[stem], "photo without a mask, left out as you said"))
                else:
                    plan.items.append(_item(plan, photos[stem], (), split, work, several=several))
            else:
                plan.skipped.append(Skipped(photos[stem], "photo without masks and in no list: of the detection part"))
            continue
        files = (masks[stem], *([classes[stem]] if both and stem in classes else []))
        plan.items.append(_item(plan, photos[stem], files, split, work, several=several))
    detection = sum("detection part" in item.why for item in plan.skipped)
    if detection:
        plan.notes.append(f"{plural(detection, 'photo')} without masks, in no list: of the detection part, not used")
    return plan


_BARE = (
    "photos have no mask image",
    "draw them; or, for photos without objects: --unmatched empty; or: --unmatched skip",
)


def _add(plan: _Plan, problem: tuple[str, str], line: str) -> None:
    """Add a line to a problem of a plan."""
    for number, known in enumerate(plan.problems):
        if known.what == problem[0]:
            plan.problems[number] = Problem(known.what, (*known.where, line), known.fix)
            return
    plan.problems.append(Problem(problem[0], (line,), problem[1]))


def _item(plan: _Plan, photo: Path, masks: tuple[Path, ...], split: str | None, work: Work, *, several: bool) -> Item:
    place = plan.tree.folder
    where = place.relative_to(work.root).as_posix() if work.root in place.parents else place.name
    return Item(photo, masks, photo.relative_to(plan.photos).as_posix(), split, where if several else "")


def _photo_folder(tree: _Tree, work: Work) -> Path:
    settings = work.settings
    if settings.photos is not None:
        folder = named_folder(tree.folder, settings.photos) or named_folder(work.root, settings.photos)
        if folder is None:
            raise UserError("the photos do not exist", [settings.photos], "check the path")
        return folder
    tops = [tree.folder, tree.folder.parent, work.root] if settings.masks is None else [work.root]
    for top in tops:
        inside = {path.name.lower(): path for path in subfolders(top)}
        for name in ("jpegimages", *PHOTO_NAMES):
            if name in inside:
                return inside[name]
        if top != tree.folder.parent and any(p.suffix.lower() in PHOTO_SUFFIXES for p in top.iterdir()):
            return top
    raise UserError(
        "a Pascal VOC tree without photos: there is no folder JPEGImages",
        [str(tree.folder)],
        "put the photos there, or name their folder: --photos FOLDER",
    )


def _by_stem(folder: Path, plan: _Plan, *, photos: bool = False) -> dict[str, Path]:
    """Return the pictures of a folder by their path in it without the ending, in order."""
    pictures, odd = walk(folder)
    mine = [p for p in (plan.tree.objects, plan.tree.classes) if p is not None and folder in p.parents]
    found: dict[str, Path] = {}
    for path in pictures:
        if photos and (any(m in path.parents for m in mine) or path.suffix.lower() not in PHOTO_SUFFIXES):
            continue
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in found:
            _add(
                plan,
                ("files in one folder have the same name but for the ending", "keep one of each"),
                f"{found[stem]} and {path}",
            )
        elif not photos and path.suffix.lower() in LOSSY_SUFFIXES:
            _add(
                plan,
                ("VOC masks cannot be JPEG: it changes the values", "export them as PNG"),
                str(path),
            )
            found[stem] = path
        else:
            found[stem] = path
    if not mine:
        plan.skipped += odd
    return found


def _pair_problems(
    plan: _Plan, photos: Mapping[str, Path], masks: Mapping[str, Path], classes: Mapping[str, Path] | None
) -> None:
    lone = [f"{path}: no photo {stem}.* in {plan.photos}" for stem, path in masks.items() if stem not in photos]
    if lone:
        has = "mask image has" if len(lone) == 1 else "mask images have"
        plan.problems.append(
            Problem(f"{len(lone):,} {has} no photo", tuple(lone), "add the photos, or remove these masks")
        )
    if classes is not None:
        lone = [f"{path}: none in SegmentationClass" for stem, path in masks.items() if stem not in classes]
        lone += [f"{path}: none in SegmentationObject" for stem, path in classes.items() if stem not in masks]
        if lone:
            plan.problems.append(
                Problem(
                    "object and class images do not go together",
                    tuple(lone),
                    "add the missing images, or remove these",
                )
            )


def _lists(tree: _Tree, plan: _Plan) -> dict[str, list[str]]:
    """Return the lists of photos: name of the list, names of its photos without ending."""
    folder = next((p for p in subfolders(tree.folder) if p.name.lower() == "imagesets"), None)
    folder = next((p for p in subfolders(folder) if p.name.lower() == "segmentation"), None) if folder else None
    result = {}
    for path in sorted(folder.glob("*.txt")) if folder else []:
        text = text_of(path)
        result[path.stem] = list(dict.fromkeys(name for line in text.splitlines() if (name := _listed(line))))
        plan.sources.append(path)
    return result


def _listed(line: str) -> str:
    """Read a line of a list: a name, in quotes if it has blanks; some tools write the photo's path.

    Example:
        >>> [_listed(x) for x in ("2007_000032", '"a b"', "/JPEGImages/x.jpg /SegmentationClass/x.png", "a/b c 1.5")]
        ['2007_000032', 'a b', 'x', 'a/b c 1.5']
    """
    line = line.strip()
    if line.startswith('"') and '"' in line[1:]:
        line = line[1:].partition('"')[0]
    line = re.split(r"\s+/?SegmentationClass", line)[0]
    line = re.sub(r"^/?JPEGImages/", "", line)
    head, dot, ending = line.rpartition(".")
    return head if dot and f".{ending.lower()}" in PHOTO_SUFFIXES else line


def _splits(
    plan: _Plan, lists: Mapping[str, Sequence[str]], photos: Mapping[str, Path], masks: Mapping[str, Path]
) -> tuple[dict[str, str], set[str]]:
    """Return the split of each listed photo (`withheld`: of a list without masks), and the names whose photos count."""
    where = plan.tree.folder / "ImageSets" / "Segmentation"
    listed = {name for names in lists.values() for name in names}
    unknown = [f"{where / name}.txt: {one}" for name, names in lists.items() for one in names if one not in photos]
    if unknown:
        what = "lists name photos that are not there"
        plan.problems.append(Problem(what, tuple(unknown), "add the photos, or take them off the lists"))
    if plan.tree.split is not None:
        return {}, listed
    told = {SPLIT_NAMES[name.lower()]: list(names) for name, names in lists.items() if name.lower() in SPLIT_NAMES}
    both = next((list(names) for name, names in lists.items() if name.lower() == "trainval"), None)
    if told and "train" not in told and both is not None:
        held = set(told.get("val", ()))
        told["train"] = [name for name in both if name not in held]
        plan.notes.append("there is no list train.txt: what trainval.txt has beyond the other lists is the train split")
    splits: dict[str, str] = {}
    clashes = []
    for split, names in told.items():
        withheld = bool(names) and bool(masks) and not any(name in masks for name in names)
        if withheld:
            count = sum(name in photos for name in names)
            plan.notes.append(f"no photo of the list '{split}' has masks: {plural(count, 'photo')} left out")
        for name in names:
            if name in splits:
                clashes.append(f"{name}: in {splits[name]} and in {split}")
            splits[name] = "withheld" if withheld else split
    if clashes:
        plan.problems.append(
            Problem("photos are in the lists of two splits", tuple(clashes), "take them off one of the lists")
        )
    if told:
        loose = [f"{path}: in no list in {where}" for stem, path in masks.items() if stem not in splits]
        if loose:
            plan.problems.append(
                Problem(
                    "masks are in no list of a split",
                    tuple(loose),
                    f"add them to a list; or rename {where} to split all photos anew",
                )
            )
    return splits, set(splits) if told else listed


def _splits_text(splits: Sequence[str | None]) -> str:
    have = sorted({split for split in splits if split}, key=["train", "val", "test"].index)
    return f"splits are kept as the lists give them ({', '.join(have)})" if have else ""


def _labels(tree: _Tree, plan: _Plan) -> tuple[Label, ...] | None:
    tops = [tree.folder, tree.folder.parent]
    path = next((top / name for top in tops for name in LABEL_FILES if (top / name).is_file()), None)
    if path is None:
        return None
    plan.sources.append(path)
    labels, problems = read_labels(path)
    plan.problems += problems
    return labels


def _skipped(plans: Sequence[_Plan], root: Path) -> Iterator[Skipped]:
    used: set[Path] = set()
    for plan in plans:
        yield from plan.skipped
        used |= {path for path in (plan.photos, plan.tree.objects, plan.tree.classes) if path is not None}
        used |= set(plan.sources)
    for plan in plans:
        inside = {path for path in used if plan.photos in path.parents}
        if inside:  # photos lie beside the folders of masks
            photos = {item.photo for item in plan.items} | {one.path for one in plan.skipped}
            yield from outside(plan.photos, inside | photos)
    yield from outside(root, used)


class _Reader:
    """Goes through the photos of all trees, and joins what was found."""

    def __init__(self, settings: PrepareSettings) -> None:
        self.settings = settings
        self.tally = Tally()
        self.seen: Shelf[tuple[int, Item, Seen]] = Shelf()
        self.plans: list[_Plan] = []
        self.looked: list[tuple[str, Size | None, str, Sight]] = []
        self.keys: list[set[int]] = []
        self.as_voc = True
        self.mixed: list[str] = []
        self.bare: list[str] = []
        self.void = self.void_photos = self.loose = self.objects = self.masks = 0

    def take(self, plan: _Plan, work: Work) -> None:
        """Read the photos of one tree."""
        number = len(self.plans)
        self.plans.append(plan)
        keys: set[int] = set()
        reader = partial(
            look,
            labels=plan.labels,
            of_objects=plan.tree.objects is not None,
            resize=self.settings.resize_masks,
            frame=self.settings.mask_frame,
        )
        for item, one in zip(plan.items, work.each(reader, plan.items), strict=True):
            for name, fault in one.faults or (("", ""),):
                shown = name or (str(item.masks[0]) if item.masks else str(item.photo))
                size = one.size
                if fault or one.photo.fault or (size is not None and size != one.photo.size):
                    self.looked.append((shown, size, fault, one.photo))
                    if self.settings.resize_masks and not fault and not one.photo.fault:
                        self.tally.add("masks scaled to their photo", shown)
            self._count(item, one, keys)
            self.seen.put((number, item, one))
        self.keys.append(keys)

    def _count(self, item: Item, one: Seen, keys: set[int]) -> None:
        name = str(item.masks[0]) if item.masks else ""
        self.masks += bool(item.masks)
        self.void += one.void
        self.void_photos += one.void > 0
        self.loose += one.loose
        self.objects += len(one.objects)
        self.as_voc &= one.as_voc
        for place, (_, votes) in enumerate(one.objects, 1):
            if not votes:
                continue
            total = sum(count for _, count in votes)
            key, count = next(((k, n) for k, n in votes if k > 0), (0, 0))
            if not key:
                self.bare.append(f"{name}: object {place} lies on no class in {item.masks[-1]}")
                continue
            keys.add(key)
            if count < CLEAR * total:
                shares = ", ".join(f"{self._word(k)}: {n:,} pixels" for k, n in votes[:3])
                self.mixed.append(f"{name}: object {place} has {shares}")
            elif count < total:
                self.tally.add("objects with pixels of another class, taken as of the class of nearly all", name)

    def _word(self, key: int) -> str:
        if key <= 0:
            return "void" if key else "ground"
        labels = self.plans[-1].labels
        return f"class {key}" if labels is None else labels[key - 1].name

    def problems(self) -> list[Problem]:
        """Return everything that is wrong with the pictures."""
        problems = mask_problems(
            self.looked,
            resize=self.settings.resize_masks,
            fix="mend or remove these files; a labelmap.txt says what colours mean, with a line 'name:red,green,blue::'"
            " for each",
        )
        if self.mixed:
            problems.append(
                Problem("objects are of several classes", tuple(self.mixed), "give each object one class, or split it")
            )
        if self.bare:
            problems.append(Problem("objects have no class", tuple(self.bare), "draw them in the class image too"))
        if not problems and self.masks and not self.objects:
            void = f"; {self.void:,} pixels are 255, which belongs to nobody" if self.void else ""
            problems.append(
                Problem(
                    f"no object image marks an object{void}",
                    tuple(str(plan.tree.folder) for plan in self.plans),
                    "if 255 is the object in your masks, they are no VOC masks: maskwright prepare PHOTOS MASKS"
                    " --form folders -o DATA",
                )
            )
        return problems

    def _name(self, plan: int, key: int) -> str:
        labels = self.plans[plan].labels
        if labels is not None:
            return labels[key - 1].name
        return CLASSES[key - 1] if self._says_voc() else f"class {key}"

    def _says_voc(self) -> bool:
        unlisted = [keys for keys, plan in zip(self.keys, self.plans, strict=True) if plan.labels is None]
        return self.as_voc and all(key <= len(CLASSES) for keys in unlisted for key in keys)

    def names(self) -> tuple[tuple[str, ...], str]:
        """Return the categories in order, and how they are known."""
        given = self.settings.category
        names: dict[str, None] = {}
        for number, (plan, keys) in enumerate(zip(self.plans, self.keys, strict=True)):
            if plan.labels is not None:
                names |= dict.fromkeys(label.name for label in plan.labels if not is_no_class(label.name))
            else:
                names |= dict.fromkeys(self._name(number, key) for key in sorted(keys))
        if not any(self.keys):
            return (given or "object",), "there are no class images" if given is None else "as you said"
        if given is not None:
            if len(names) > 1:
                raise UserError(
                    "one category name was given, the class images have several",
                    [", ".join(names)],
                    "leave out --category",
                )
            return (given,), "as you said"
        if all(plan.labels is not None for plan in self.plans):
            return tuple(names), "as listed"
        if self._says_voc():
            return tuple(names), "the classes of Pascal VOC, whose colours the masks have; a labelmap.txt gives others"
        return tuple(names), "the masks do not name them; a labelmap.txt does, with a line 'name:red,green,blue::' each"

    def photos(self, names: Sequence[str]) -> Iterator[Photo]:
        """Yield the photos with their objects."""
        for number, item, one in self.seen:
            marks = []
            for rle, votes in one.objects:
                key = next((k for k, _ in votes if k > 0), 0)
                alone = self.settings.category is not None or not key
                marks.append(Mark(names[0] if alone else self._name(number, key), rle))
            yield Photo(
                file=str(item.photo),
                name=item.name,
                place=item.place,
                split=item.split,
                size=one.photo.size,
                sha256=one.photo.sha256,
                marks=tuple(marks),
                masks=tuple(zip(map(str, item.masks), one.hashes, strict=False)),
                turn=one.photo.turn,
            )

    def notes(self) -> list[str]:
        """Return what the user should know."""
        notes = []
        if self.void:
            photos = plural(self.void_photos, "photo")
            notes.append(f"void border (value 255): {self.void:,} pixels in {photos} belong to no object")
        if self.loose:
            notes.append(f"{self.loose:,} pixels have a class but belong to no object; they are ground")
        if any(plan.tree.objects is None for plan in self.plans):
            notes.append(
                "there are class images but no object images (SegmentationObject): each connected part of a class is"
                " taken as an object, so objects of one class that touch are one, and one in two parts is two; only"
                " object images can tell"
            )
        bare = [item for _, item, one in self.seen if item.masks and not one.objects]
        if bare:
            notes.append(f"{plural(len(bare), 'photo')} without objects ({some(str(item.photo) for item in bare)})")
        return notes


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(dataset: Dataset, folder: Path) -> Written:
    """Write `SegmentationObject`, `SegmentationClass`, `labelmap.txt` and a list of the photos; photos are not copied.

    The n-th object of a photo has the value n and the n-th category the class n, both in VOC's colours. Crowds become
    void (255), VOC's word for what is not to be scored.

    Raises:
        UserError: If the form cannot hold the dataset; then nothing is written.
    """
    names = stems(dataset)
    problems = _write_problems(dataset)
    if problems:
        raise UserError(problems)
    losses = Losses()
    colours = colour_map()
    number = {category.id: n for n, category in enumerate(dataset.categories, 1)}
    crowds = written = 0
    for i, objects in drawn(dataset, losses):
        kept = objects[~dataset.crowd[objects]]
        crowds += len(objects) - len(kept)
        ordered = np.concatenate([kept, objects[dataset.crowd[objects]]])
        values = paint(dataset, i, ordered, losses)
        count = len(ordered) + 1
        of_object, of_class = np.full(count, VOID, dtype=np.uint8), np.full(count, VOID, dtype=np.uint8)
        of_object[: len(kept) + 1] = np.arange(len(kept) + 1)
        of_class[: len(kept) + 1] = [0, *(number[int(dataset.category_ids[k])] for k in kept)]
        save_png(of_object[values], folder / "SegmentationObject" / f"{names[i]}.png", colours)
        save_png(of_class[values], folder / "SegmentationClass" / f"{names[i]}.png", colours)
        written += len(kept)
    lines = ["# label:color_rgb:parts:actions", "background:0,0,0::"]
    lines += [f"{c.name}:{','.join(map(str, colours[number[c.id]].tolist()))}::" for c in dataset.categories]
    (folder / "ImageSets" / "Segmentation").mkdir(parents=True, exist_ok=True)
    (folder / "labelmap.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    listed = "".join(f'"{name}"\n' if " " in name else f"{name}\n" for name in names)
    (folder / "ImageSets" / "Segmentation" / "default.txt").write_text(listed, encoding="utf-8")
    notes = losses.notes()
    if crowds:
        notes.append(f"{plural(crowds, 'crowd')} drawn as void (255): VOC has no crowds")
    return Written(2 * len(names) + 2, written - len(losses.hidden), tuple(notes))


def _write_problems(dataset: Dataset) -> list[Problem]:
    problems = []
    first = dataset.first
    full = [
        f"{image.file_name}: {n:,} objects"
        for i, image in enumerate(dataset.images)
        if (n := int((~dataset.crowd[first[i] : first[i + 1]]).sum())) > MOST
    ]
    if full:
        what = f"a VOC image numbers at most {MOST} objects, and photos have more"
        problems.append(Problem(what, tuple(full), "use: --form ids"))
    if len(dataset.categories) > MOST:
        count = f"{len(dataset.categories):,} categories"
        problems.append(Problem(f"a VOC image numbers at most {MOST} classes", (count,), "use: --form ids"))
    bad = tuple(
        repr(c.name)
        for c in dataset.categories
        if is_no_class(c.name) or c.name != c.name.strip() or not c.name or c.name[0] == "#" or not c.name.isprintable()
    )
    if bad:
        what = "categories have names that labelmap.txt cannot hold or that mean no object there"
        problems.append(Problem(what, bad, "rename these categories"))
    return problems
