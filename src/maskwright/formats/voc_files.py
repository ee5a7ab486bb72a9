"""The files of Pascal VOC trees: which photo goes with which mask images, and what the lists say of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES
from maskwright.formats import PHOTO_NAMES, SPLIT_NAMES, Skipped, Work, outside, plural, subfolders, walk
from maskwright.formats.planes import LOSSY_SUFFIXES, Item, named_folder
from maskwright.formats.voc_values import LABEL_FILES, Label, read_labels, text_of
from maskwright.settings import PrepareSettings


@dataclass(frozen=True)
class Tree:
    """One VOC tree.

    Attributes:
        folder: It.
        objects: Its folder of images of object numbers, if there is one.
        classes: Its folder of images of classes; one of the two is there.
        split: What the folder's name says that all its photos are; `None`: the lists say it.
    """

    folder: Path
    objects: Path | None
    classes: Path | None
    split: str | None = None


def trees_in(place: Path, settings: PrepareSettings) -> list[Tree]:
    """Return the VOC trees in a folder, in its subfolders, or in its `VOCdevkit`; one if the folder itself is one."""
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
            trees.append(Tree(folder, objects, classes, SPLIT_NAMES.get(folder.name.lower())))
    return trees[:1] if trees and trees[0].folder == place else trees


@dataclass
class Plan:
    """What is to be read of one tree.

    Attributes:
        tree: It.
        photos: Its folder of photos.
        labels: Its list of classes, if it has one.
        items: The photos with their masks, in order.
        sources: The lists that were read.
        skipped: What is not used, and why.
        notes: What the user should know.
        problems: What keeps the tree from being read.
    """

    tree: Tree
    photos: Path
    labels: tuple[Label, ...] | None
    items: list[Item] = field(default_factory=list)
    sources: list[Path] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def plan_of(tree: Tree, work: Work, *, several: bool) -> Plan:
    """Say what is to be read of a tree.

    Args:
        tree: It.
        work: Settings, and the input's root.
        several: Whether there are others, so that photos must say which one they are of.

    Raises:
        UserError: If it has no folder of photos, or a list cannot be read; other problems are in the plan.
    """
    folder = _photo_folder(tree, work)
    plan = Plan(tree, folder, None)
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


def _add(plan: Plan, problem: tuple[str, str], line: str) -> None:
    """Add a line to a problem of a plan."""
    for number, known in enumerate(plan.problems):
        if known.what == problem[0]:
            plan.problems[number] = Problem(known.what, (*known.where, line), known.fix)
            return
    plan.problems.append(Problem(problem[0], (line,), problem[1]))


def _item(plan: Plan, photo: Path, masks: tuple[Path, ...], split: str | None, work: Work, *, several: bool) -> Item:
    place = plan.tree.folder
    where = place.relative_to(work.root).as_posix() if work.root in place.parents else place.name
    return Item(photo, masks, photo.relative_to(plan.photos).as_posix(), split, where if several else "")


def _photo_folder(tree: Tree, work: Work) -> Path:
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


def _by_stem(folder: Path, plan: Plan, *, photos: bool = False) -> dict[str, Path]:
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
    plan: Plan, photos: Mapping[str, Path], masks: Mapping[str, Path], classes: Mapping[str, Path] | None
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


def _lists(tree: Tree, plan: Plan) -> dict[str, list[str]]:
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
    plan: Plan, lists: Mapping[str, Sequence[str]], photos: Mapping[str, Path], masks: Mapping[str, Path]
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


def _labels(tree: Tree, plan: Plan) -> tuple[Label, ...] | None:
    tops = [tree.folder, tree.folder.parent]
    path = next((top / name for top in tops for name in LABEL_FILES if (top / name).is_file()), None)
    if path is None:
        return None
    plan.sources.append(path)
    labels, problems = read_labels(path)
    plan.problems += problems
    return labels


def skipped_of(plans: Sequence[Plan], root: Path) -> Iterator[Skipped]:
    """Yield every file of an input that its trees do not use, and why."""
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
