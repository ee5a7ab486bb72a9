"""Pascal VOC trees: one image of object numbers and one of classes beside each photo, with lists that name the splits.

The form is that of the VOC development kit and of what labelling tools export after it (CVAT's "Segmentation mask
1.1"). Value 0 is ground and 255 is the border that belongs to nobody. Tools store the values as palette indices, as
grey values, or as the colours of VOC's colour map; all three are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from maskwright.dataset import Dataset
from maskwright.errors import Problem, UserError
from maskwright.formats import Found, Mark, Photo, Reading, Tally, Work, Written, plural, some
from maskwright.formats.names import stems
from maskwright.formats.photos import Sight
from maskwright.formats.planes import Item, Losses, drawn, mask_problems, paint, save_png
from maskwright.formats.shelf import Shelf
from maskwright.formats.voc_files import Plan, Tree, plan_of, skipped_of, trees_in
from maskwright.formats.voc_values import CLASSES, CLEAR, MOST, VOID, Seen, colour_map, is_no_class, look
from maskwright.pixels import Size
from maskwright.settings import FormName, PrepareSettings

NAME: FormName = "voc"
EXPECTS = "a Pascal VOC tree: JPEGImages, SegmentationObject, SegmentationClass and ImageSets/Segmentation"


def find(place: Path, settings: PrepareSettings) -> Found | None:
    """Return the VOC trees in a folder, in its subfolders, or in its `VOCdevkit`; `None` if there is none."""
    trees = trees_in(place, settings)
    if not trees:
        return None
    reads = tuple(folder for tree in trees for folder in (tree.objects, tree.classes) if folder is not None)
    why = f"a Pascal VOC tree in {', '.join(str(tree.folder) for tree in trees)}"
    return Found(NAME, place, why, tuple(trees), reads)


def read(found: Found, work: Work) -> Reading:
    """Read VOC trees.

    Raises:
        UserError: With every problem that was found.
    """
    trees: tuple[Tree, ...] = found.parts
    plans = [plan_of(tree, work, several=len(trees) > 1) for tree in trees]
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
        skipped=tuple(skipped_of(plans, work.root)),
        splits=splits,
        mends=reader.tally.mends(),
        notes=tuple([note for plan in plans for note in plan.notes] + reader.notes()),
    )


def _say(plan: Plan, work: Work) -> None:
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


def _splits_text(splits: Sequence[str | None]) -> str:
    have = sorted({split for split in splits if split}, key=["train", "val", "test"].index)
    return f"splits are kept as the lists give them ({', '.join(have)})" if have else ""


class _Reader:
    """Goes through the photos of all trees, and joins what was found."""

    def __init__(self, settings: PrepareSettings) -> None:
        self.settings = settings
        self.tally = Tally()
        self.seen: Shelf[tuple[int, Item, Seen]] = Shelf()
        self.plans: list[Plan] = []
        self.looked: list[tuple[str, Size | None, str, Sight]] = []
        self.keys: list[set[int]] = []
        self.as_voc = True
        self.mixed: list[str] = []
        self.bare: list[str] = []
        self.void = self.void_photos = self.loose = self.objects = self.masks = 0

    def take(self, plan: Plan, work: Work) -> None:
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
