"""What can be wrong with a dataset: every rule in one table, and the collector that makes findings from offenders."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskwright.errors import Problem
from maskwright.facts import SPECK_PX, SPECK_SHARE, Example, Finding, Severity, SplitView
from maskwright.formats.coding import WEAK

SAME_IOU = 0.95
"""Two masks of one photo with more IoU than this are one object marked twice."""

EXAMPLES = 12
"""So many examples of a finding are kept, the worst ones."""

AGAIN = "mend the file: maskwright prepare DATASET.json -o NEW"

RULES: dict[str, tuple[Severity, str, str]] = {
    "no-train": ("error", "there is no train split: nothing can be learned", "prepare again with photos to train on"),
    "no-objects": (
        "error",
        "no photo of the train split has an object: nothing can be learned",
        "check that the mask images are not all black, then prepare again",
    ),
    "category-not-in-train": (
        "error",
        "{n} {category has|categories have} no object in the train split and cannot be learned",
        "add photos of them to train, or remove these categories from the annotation files",
    ),
    "categories-differ": (
        "error",
        "the splits differ in their categories",
        "give each category the same id and name in every split",
    ),
    "photo-outside": (
        "error",
        "{n} {photo has a name|photos have names} leading out of the data folder",
        "make the names relative to the photo folder, without '..'",
    ),
    "photo-missing": (
        "error",
        "{n} {photo is|photos are} not where the annotation file says",
        "copy them there, or remove them from the annotation file",
    ),
    "photo-unreadable": (
        "error",
        "{n} {photo|photos} cannot be read",
        "replace them, or remove them from the annotation file",
    ),
    "photo-size": (
        "error",
        "{n} {photo differs|photos differ} in size from what the annotation file says",
        "prepare again, from these photos and masks of their size",
    ),
    "photo-listed-twice": (
        "error",
        "{n} {photo is|photos are} listed more than once in a split",
        "list each photo once, with all its objects",
    ),
    "no-mask": ("error", "{n} {object has|objects have} only a box, no mask", "draw the masks, or remove the objects"),
    "empty-mask": ("error", "{n} {mask has|masks have} no pixel", f"remove these objects, or {AGAIN}"),
    "no-val": (
        "warning",
        "there is no val split: the best weights cannot be told from the last, nor a score threshold advised",
        "prepare again with a share for validation, for example --val-share 0.3; if the input"
        " gives the splits itself, move some photos into one named val",
    ),
    "no-objects-to-score": (
        "warning",
        "{n} {split|splits} besides train {has|have} no object: scores on {it|them} are undefined",
        "move photos with objects into {it|them}",
    ),
    "photo-leak": (
        "warning",
        "{n} {photo stands|photos stand} in more than one split: scores will be too good",
        "keep each photo in one split",
    ),
    "blank-photo": (
        "warning",
        "{n} {photo shows|photos show} nothing: all of one colour",
        "look at {it|them}: a failed export or a covered lens; remove {it|them} from the annotation file",
    ),
    "near-leak": (
        "warning",
        "{n} {photo looks|photos look} like a photo of another split: scores will be too good",
        "put photos that look alike into one split; new splits that do: maskwright prepare DATA -o NEW --resplit",
    ),
    "exif-one-side": (
        "warning",
        "in {n} {photo|photos} the masks fit the edges of the picture only when turned: the camera's orientation was"
        " applied to one side alone",
        "prepare again with --mask-frame stored, which turns the masks as their photos are (without it, if it was"
        " given)",
    ),
    "masks-turned": (
        "warning",
        "in {n} {photo|photos} the masks fit the edges of the picture only when turned or mirrored",
        "find out which tool turned the photos or the masks, and export both from it again",
    ),
    "masks-shifted": (
        "warning",
        "the masks lie beside the edges of the objects, by the same step throughout the {split|splits}",
        "move the masks back, or export them again at the photo's size: counting from 1 instead of 0, or a resize in"
        " between, does this",
    ),
    "looks-inverted": (
        "warning",
        "{n} {mask looks|masks look} inverted: it fills the photo but for one patch in it",
        "look at them: where the object is the patch, exchange black and white in the mask image",
    ),
    "boxes-for-masks": (
        "warning",
        "{n} {mask is an exact rectangle|masks are exact rectangles}: they look like boxes, not outlines",
        "draw the outlines; a network learns to predict boxes from them otherwise",
    ),
    "id-below-1": ("warning", "{n} {id is|ids are} below 1, which other COCO tools may read as 'none'", AGAIN),
    "id-twice": ("warning", "{n} annotations share their id: other COCO tools keep one of each", AGAIN),
    "area-wrong": ("warning", "{n} {object has|objects have} an area that differs from the mask's", AGAIN),
    "box-wrong": ("warning", "{n} {object has|objects have} a bbox that differs from the mask's", AGAIN),
    "same-object-twice": (
        "warning",
        f"{{n}} {{object repeats|objects repeat}} another of the category (IoU over {SAME_IOU})",
        "keep one of each",
    ),
    "coarse-masks": (
        "warning",
        "{n} {mask was|masks were} drawn on a coarser grid than the photo's pixels and scaled up",
        "export the masks at the full size of the photo",
    ),
    "object-in-two-categories": (
        "warning",
        f"{{n}} {{object stands|objects stand}} under two categories (IoU over {SAME_IOU}): both cannot be right",
        "keep the category that is right",
    ),
    "near-categories": (
        "warning",
        "{n} {pair of category names differs|pairs of category names differ} only by case, spaces, plural or a letter",
        "if they mean one thing, give them one name in the annotation files, then prepare again",
    ),
    "category-in-one-split": (
        "warning",
        "{n} {category has objects|categories have objects} in train only: how well {it is|they are} found is not"
        " measured",
        "move some photos of {it|them} to the other splits",
    ),
    "speck": (
        "warning",
        f"{{n}} {{object is a speck|objects are specks}} (under {SPECK_PX} pixels or {SPECK_SHARE} of the photo)",
        "look at them: stray pixels of a mask image are not objects",
    ),
    "covers-all": (
        "warning",
        "{n} {mask covers its|masks cover their} whole photo",
        "look at them: an inverted or all-white mask image marks everything",
    ),
    "under-stride": (
        "warning",
        "{n} {object is|objects are} smaller than one step of the network's map, once the photo has its working size",
        "cut the photos into tiles, or train with a larger --side; as it is they will hardly be found",
    ),
    "crowded-photo": (
        "warning",
        "{n} {photo has|photos have} more objects than are looked for",
        "cut them into tiles; what is over the limit counts as missed",
    ),
    "style-differs": (
        "warning",
        "masks are drawn in different ways in different splits: scores then measure the drawing, too",
        "look at some of each side by side, and draw them by one rule",
    ),
    "photo-twice": (
        "note",
        "{n} {photo repeats|photos repeat} another of the same split, byte by byte",
        "keep one of each: the others only count double",
    ),
    "near-photos": (
        "note",
        "{n} {photo looks|photos look} like another of the same split",
        "leave them if they are frames of one scene; keep them in one split, and count on fewer different photos",
    ),
    "not-compared": (
        "note",
        "{n} {pair|pairs} of photos that may be alike {was|were} not compared: the nearest pairs were, up to a limit",
        "count on more photos that look alike than are named; for new splits all pairs are compared: maskwright prepare"
        " DATA -o NEW --resplit",
    ),
    "soft-masks": (
        "note",
        f"in {{n}} mask {{image|images}} it mattered where soft edges were cut: more than {WEAK:.0%} of the pixels that"
        " are not 0 were below half, and belong to no object",
        "look at {it|them}: if these pixels are object, export the masks without smooth edges and prepare again",
    ),
    "exif-unsure": (
        "note",
        "{n} {photo carries|photos carry} a camera's orientation, and whether the masks were drawn with it cannot be"
        " told from the edges",
        "look at the masks over the photos: maskwright check DATA --html; where they lie turned, prepare again with"
        " --mask-frame stored",
    ),
    "crowd": (
        "warning",
        "{n} {object is a crowd|objects are crowds}: neither learned nor scored",
        "leave them if they mark groups; an object with a hole needs no iscrowd",
    ),
}
"""Every finding: how bad it is, what it says ({one|many} follows the number) and how it is mended; worst first."""


class Notes:
    """Collects offenders by rule; `findings` puts them in the order of the rules, the worst offender first."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()
        self._where: dict[str, list[tuple[float, str]]] = defaultdict(list)
        self._examples: dict[str, list[tuple[float, Example]]] = defaultdict(list)

    def add(self, code: str, where: Sequence[str], count: int | None = None, badness: float = 0.0) -> None:
        """Note offenders, one line each unless `count` says how many they are; equally bad ones keep their order."""
        self._count[code] += len(where) if count is None else count
        self._where[code] += [(badness, line) for line in where]

    def show(self, code: str, example: Example, badness: float = 0.0) -> None:
        """Note a place where a finding can be seen; only the worst are kept."""
        kept = self._examples[code]
        kept.append((badness, example))
        if len(kept) > 50 * EXAMPLES:
            self._examples[code] = sorted(kept, key=lambda pair: -pair[0])[:EXAMPLES]

    def objects(
        self,
        code: str,
        view: SplitView,
        chosen: NDArray[np.bool_],
        text: Callable[[int], str],
        badness: NDArray[Any] | None = None,
        beside: NDArray[np.int64] | None = None,
    ) -> None:
        """Note the objects of a split that are `chosen`, `(M,)` bool: one line and one example per photo.

        Args:
            code: The rule.
            view: The split.
            chosen: Which objects.
            text: Describes one, by its position.
            badness: `(M,)` how bad each is; a photo counts as its worst.
            beside: `(M,)` the object that each is held against; shown with it.
        """
        by_photo: dict[int, list[int]] = defaultdict(list)
        for k in np.flatnonzero(chosen).tolist():
            by_photo[int(view.d.image_index[k])].append(k)
        for i, unsorted in by_photo.items():
            ks = unsorted if badness is None else [unsorted[n] for n in np.argsort(-badness[unsorted], kind="stable")]
            image, worst = view.d.images[i], 0.0 if badness is None else float(badness[ks[0]])
            more = f" ... and {len(ks) - 1} more in this photo" if len(ks) > 1 else ""
            self.add(code, [f"{view.photo(image)}: {text(ks[0])}{more}"], len(ks), worst)
            shown = [k for n in ks[:50] for k in ((n,) if beside is None else (int(beside[n]), n))]
            ids = tuple(int(view.d.ids[k]) for k in dict.fromkeys(shown))
            self.show(
                code,
                Example(split=view.name, photo=image.file_name, annotations=ids, note=text(ks[0])),
                worst,
            )

    def findings(self) -> tuple[Finding, ...]:
        """Return what was noted, a finding per rule."""
        return tuple(
            Finding(
                code=code,
                severity=severity,
                problem=Problem(number(what, n), tuple(_worst(self._where[code])), number(fix, n)),
                count=n,
                examples=tuple(_worst(self._examples[code])[:EXAMPLES]),
            )
            for code, (severity, what, fix) in RULES.items()
            if (n := self._count[code])
        )


def _worst(items: Sequence[tuple[float, Any]]) -> list[Any]:
    return [item for _, item in sorted(items, key=lambda pair: -pair[0])]


def number(text: str, n: int) -> str:
    """Put a number into a sentence: `{n}` becomes it, `{one|many}` follows it.

    Example:
        >>> number("{n} {photo is|photos are} gone", 1_000)
        '1,000 photos are gone'
    """
    text = text.replace("{n}", f"{n:,}")
    return re.sub(r"\{([^{}|]*)\|([^{}|]*)\}", lambda found: found[1 if n == 1 else 2], text)


def sorted_findings(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Return findings in the order of the rules; those of no rule come first."""
    order = {code: place for place, code in enumerate(RULES)}
    return tuple(sorted(findings, key=lambda finding: order.get(finding.code, -1)))
