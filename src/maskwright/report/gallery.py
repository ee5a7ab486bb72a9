"""The gallery's data: which photos go into the page, their pictures, their outlines, and what became of each object."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage

from maskwright import pixels
from maskwright.dataset import Dataset, Image, inside
from maskwright.errors import UserError
from maskwright.files import UnreadableImage, read_photo
from maskwright.report.outcomes import Match, tally
from maskwright.report.outlines import box_path, outline, top_of
from maskwright.report.training import number

MOST_PHOTOS = 120
"""So many photos are put into a page at most: the worst two thirds of them, the rest spread over what remains."""

MOST_BYTES = 17_000_000
"""So many bytes of pictures and outlines are put into a page at most; what does not fit is left out and counted."""

MOST_DETECTIONS = 100
"""So many detections of one photo are drawn, the highest scores first; COCO's own limit."""

_SIDES = (1280, 1024, 800, 640)
_JPEG_QUALITY = 82

Key = tuple[Any, str]
"""What joins matches to a photo: the id in the truth file and the file name."""


@dataclass(frozen=True)
class Gallery:
    """What the page shows of the photos.

    Attributes:
        photos: One JSON object per photo, worst first.
        total: Photos that were scored.
        rule: Which photos are shown, in a sentence, if not all are.
        side: Longest side of the pictures, in pixels.
        notes: What is missing, for the page to say.
    """

    photos: tuple[dict[str, Any], ...] = ()
    total: int = 0
    rule: str = ""
    side: int = _SIDES[0]
    notes: tuple[str, ...] = ()


def by_photo(matches: Sequence[Match]) -> dict[Key, list[Match]]:
    """Group matches by photo."""
    groups: dict[Key, list[Match]] = {}
    for match in matches:
        groups.setdefault((match.get("image_id"), str(match.get("photo"))), []).append(match)
    return groups


def choose(quality: Sequence[float], most: int = MOST_PHOTOS) -> list[int]:
    """Choose the photos to show: all, or the worst two thirds of `most` and an even sample of the others.

    Args:
        quality: One value per photo, higher is better.
        most: How many to choose at most.

    Returns:
        Positions in `quality`, worst first; ties in the given order.

    Example:
        >>> choose([0.9, 0.1, 0.5, 0.8, 0.7, 1.0], most=3)
        [1, 2, 0]
    """
    order = sorted(range(len(quality)), key=lambda i: quality[i])
    if len(order) <= most:
        return order
    worst = -(-most * 2 // 3)
    rest = order[worst:]
    sample = np.linspace(0, len(rest) - 1, most - worst + 2)[1:-1].round().astype(int)
    return order[:worst] + [rest[i] for i in dict.fromkeys(sample.tolist())]


def build_gallery(
    truth: Dataset | None,
    detections: Dataset | None,
    matches: Sequence[Match],
    photos: Path | None,
    threshold: float,
    *,
    most: int = MOST_PHOTOS,
    most_bytes: int = MOST_BYTES,
) -> Gallery:
    """Collect the photos of a page with their outlines and outcomes.

    Args:
        truth: What is there; `None` if its file is gone.
        detections: What was found; `None` if its file is gone.
        matches: The evaluation's.
        photos: Folder where the file names of the truth start; `None` if it is not known.
        threshold: Score at which "worst" is measured.
        most: Most photos.
        most_bytes: Most bytes of pictures and outlines.
    """
    source = detections if truth is None else truth  # not `or`: a dataset without objects is false
    if source is None:
        return Gallery(notes=("No gallery: neither the truth nor the detections file could be read.",))
    groups = by_photo(matches)
    named = {key[1]: key for key in groups}
    keys = [_key(image, groups, named) for image in source.images]
    chosen = choose([tally(groups.get(key, ()), threshold).quality for key in keys], most)
    found = Finder(detections, source)
    side = _side(source, photos, chosen, most_bytes)
    result: list[dict[str, Any]] = []
    missing: list[str] = []
    cut = 0
    spent = 0
    for position in chosen:
        image = source.images[position]
        entry = _entry(image, side)
        shown = (entry["h"], entry["w"])
        rows = groups.get(keys[position], [])
        if truth is not None:
            entry["truth"] = _truth_objects(truth, position, rows, shown)
        if detections is not None:
            entry["dets"], left = _detected_objects(detections, found.position(image), rows, shown)
            entry["cut"] = left
            cut += left
        picture, reason = _picture(photos, image, shown)
        entry["src"], entry["why"] = picture, reason
        if reason and photos is not None:
            missing.append(f"{image.file_name} {reason}")
        cost = len(picture or "") + sum(len(o["d"]) + 120 for o in entry["truth"] + entry["dets"])
        if result and spent + cost > most_bytes:
            continue
        spent += cost
        result.append(entry)
    return Gallery(
        photos=tuple(result),
        total=len(source.images),
        rule=_rule(len(result), len(source.images), most),
        side=side,
        notes=tuple(_notes(truth, detections, photos, missing, cut)),
    )


def _key(image: Image, groups: Mapping[Key, list[Match]], named: Mapping[str, Key]) -> Key:
    exact = (image.id, image.file_name)
    return exact if exact in groups else named.get(image.file_name, exact)


def _rule(shown: int, total: int, most: int) -> str:
    if shown == total:
        return ""
    if total <= most:
        return f"{shown} of {total:,} photos, the worst first; {total - shown:,} are left out to keep the page small."
    return (
        f"{shown} of {total:,} photos: the worst, and a sample spread evenly over the rest; "
        f"{total - shown:,} are left out to keep the page small. All numbers on this page count every photo."
    )


def _notes(
    truth: Dataset | None, detections: Dataset | None, photos: Path | None, missing: list[str], cut: int
) -> list[str]:
    notes = []
    if truth is None:
        notes.append("The gallery shows no truth: its file could not be read.")
    if detections is None:
        notes.append("The gallery shows no detections: their file could not be read.")
    if photos is None:
        notes.append("Photos not found: the evaluation names no photo folder; outlines are drawn on a blank ground.")
    if missing:
        more = f", and {len(missing) - 5} more" if len(missing) > 5 else ""
        count = f"{len(missing)} photos" if len(missing) > 1 else "1 photo"
        notes.append(f"{count} could not be shown: {', '.join(missing[:5])}{more}.")
    if cut:
        notes.append(f"{cut:,} detections with the lowest scores are not drawn ({MOST_DETECTIONS} a photo at most).")
    return notes


class Finder:
    """Finds a photo of the truth among those of the detections: by file name, or by id if no name agrees."""

    def __init__(self, detections: Dataset | None, source: Dataset) -> None:
        images = detections.images if detections is not None else ()
        self.names = {image.file_name: i for i, image in enumerate(images)}
        self.ids = {image.id: i for i, image in enumerate(images)}
        self.by_name = bool(self.names.keys() & {image.file_name for image in source.images})

    def position(self, image: Image) -> int | None:
        """Return where the photo stands in the detections' images."""
        return self.names.get(image.file_name) if self.by_name else self.ids.get(image.id)


def _entry(image: Image, side: int) -> dict[str, Any]:
    scale = min(1.0, side / max(image.width, image.height))
    width, height = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return {"n": image.file_name, "w": width, "h": height, "full": [image.width, image.height]} | {
        "truth": [],
        "dets": [],
        "cut": 0,
    }


def objects_of(dataset: Dataset, position: int | None) -> range:
    """Return the positions of a photo's objects; none if the photo is not there."""
    if position is None:
        return range(0)
    first = dataset.first
    return range(int(first[position]), int(first[position + 1]))


def _drawn(dataset: Dataset, k: int, shown: pixels.Size) -> dict[str, Any]:
    rle, size = dataset.rle(k), dataset.size_of(k)
    box = [float(v) for v in dataset.boxes[k]]
    fx, fy = shown[1] / size[1], shown[0] / size[0]
    top = ((box[0] + box[2]) / 2 * fx, box[1] * fy)
    path = ""
    if rle:
        mask = pixels.decode(rle, size)
        if mask.any():
            top, path = top_of(mask, shown), outline(mask, shown)
    else:
        path = box_path(box, size, shown)
    return {
        "c": _name(dataset, int(dataset.category_ids[k])),
        "d": path,
        "b": [round(v * f, 1) for v, f in zip(box, (fx, fy, fx, fy), strict=True)],
        "p": [round(v, 1) for v in top],
    }


def _name(dataset: Dataset, category_id: int) -> str:
    return next((c.name for c in dataset.categories if c.id == category_id), str(category_id))


def _truth_objects(truth: Dataset, position: int, rows: list[Match], shown: pixels.Size) -> list[dict[str, Any]]:
    """Describe the objects of a photo; `s` is the score of the detection that hits it, if any does."""
    hits = {m["truth"]: m for m in rows if m.get("outcome") == "hit" and m.get("truth") is not None}
    result = []
    for k in objects_of(truth, position):
        match = hits.get(int(truth.ids[k]))
        entry = _drawn(truth, k, shown)
        if truth.crowd[k]:
            entry["crowd"] = True
        elif match is not None:
            score = number(match.get("score"))
            entry |= {"s": 1.0 if score is None else score, "i": _rounded(match.get("iou"))}
        result.append(entry)
    return result


def _detected_objects(
    detections: Dataset, position: int | None, rows: list[Match], shown: pixels.Size
) -> tuple[list[dict[str, Any]], int]:
    """Describe the detections of a photo, highest score first, and count those left out."""
    judged = {m["detection"]: m for m in rows if m.get("detection") is not None}
    scores = np.nan_to_num(detections.scores, nan=1.0)
    order = sorted(objects_of(detections, position), key=lambda k: -scores[k])
    result = []
    for k in order[:MOST_DETECTIONS]:
        match = judged.get(int(detections.ids[k]), {})
        entry = _drawn(detections, k, shown) | {"s": float(scores[k])}
        stated = match.get("outcome")
        if stated == "hit":
            entry |= {"o": "hit", "i": _rounded(match.get("iou"))}
        elif stated == "false alarm":
            entry["o"] = "alarm"
        else:
            entry["o"] = "crowd" if stated == "crowd" else "unjudged"
        result.append(entry)
    return result, max(0, len(order) - MOST_DETECTIONS)


def _rounded(value: Any) -> float | None:
    """Round an IoU for the page. Scores are not rounded: the advised threshold is one of them, to the last bit."""
    found = number(value)
    return None if found is None else round(found, 4)


def _side(source: Dataset, photos: Path | None, chosen: list[int], most_bytes: int) -> int:
    """Choose the largest picture side at which the chosen photos should fit, judged by up to six of them."""
    if photos is None or not chosen:
        return _SIDES[0]
    pictures = []
    for probe in sorted({round(v) for v in np.linspace(0, len(chosen) - 1, 6)}):
        try:
            pictures.append(read_photo(inside(photos, source.images[chosen[probe]].file_name)))
        except (UnreadableImage, UserError):
            continue
    if not pictures:
        return _SIDES[0]
    for side in _SIDES[:-1]:
        mean = sum(_coded_length(_jpeg(picture, side)) for picture in pictures) / len(pictures)
        if mean * len(chosen) < most_bytes * 0.8:  # the rest is for outlines
            return side
    return _SIDES[-1]


def _coded_length(data: bytes) -> int:
    return -(-len(data) // 3) * 4


def _jpeg(photo: NDArray[np.uint8], side: int) -> bytes:
    height, width = photo.shape[:2]
    scale = min(1.0, side / max(height, width))
    return _encoded(photo, (max(1, round(height * scale)), max(1, round(width * scale))))


def _encoded(photo: NDArray[np.uint8], shown: pixels.Size) -> bytes:
    picture = PillowImage.fromarray(photo)
    if picture.size != (shown[1], shown[0]):
        picture = picture.resize((shown[1], shown[0]), PillowImage.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def _picture(photos: Path | None, image: Image, shown: pixels.Size) -> tuple[str | None, str | None]:
    """Return a photo as a data address, or `None` and why there is none."""
    if photos is None:
        return None, "not found: the photo folder is not known"
    try:
        path = inside(photos, image.file_name)
        if not path.is_file():
            return None, "does not exist"
        photo = read_photo(path)
    except UserError as error:
        return None, f"is not shown: {error.problems[0].what}"
    except (UnreadableImage, OSError, ValueError) as error:
        return None, str(error)
    if photo.shape[:2] != image.size:
        height, width = photo.shape[:2]
        return None, f"is {width} x {height}, the truth says {image.width} x {image.height}"
    return "data:image/jpeg;base64," + base64.b64encode(_encoded(photo, shown)).decode("ascii"), None
