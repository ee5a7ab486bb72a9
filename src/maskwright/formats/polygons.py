"""COCO JSON with polygons, for tools that read no run lengths; it is read back as any other COCO file.

Outlines run along the pixels' edges, holes included (see `tracing`), and every object is rasterised again here by
COCO's own rule and compared, so what is said about exactness was measured.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from maskwright import pixels
from maskwright.dataset import SPLITS, Dataset, coco_annotation, coco_category, coco_image
from maskwright.files import atomic_file
from maskwright.formats import Written
from maskwright.pixels import Size
from maskwright.tracing import flat, outlines

SHOWN = 5
"""How many objects that differ are named."""


def write(dataset: Dataset, folder: Path) -> Written:
    """Write `instances.json` (`instances_train.json` where the photos' folder is a split) with polygons.

    Each connected part of an object is one polygon. Crowds stay run lengths, uncompressed, as COCO has them; an object
    of which the file gives only the box keeps just that.

    Args:
        dataset: Truth or detections.
        folder: Where the file goes.
    """
    split = dataset.folder.name if dataset.folder is not None and dataset.folder.name in SPLITS else ""
    target = folder / f"instances{'_' if split else ''}{split}.json"
    exact = drawn = crowds = boxes = 0
    wrong: list[tuple[float, str]] = []
    with atomic_file(target) as handle:
        head = {
            "info": dict(dataset.info),
            "licenses": [dict(item) for item in dataset.licenses],
            "categories": [coco_category(category) for category in dataset.categories],
            "images": [coco_image(image) for image in dataset.images],
        }
        handle.write(_json(head)[:-1] + b',"annotations":[')
        for k, annotation in enumerate(dataset.annotations()):
            image = dataset.images[int(dataset.image_index[k])]
            row = coco_annotation(annotation, image.size)
            rle = annotation.rle
            if not rle:
                boxes += 1
            elif annotation.crowd:
                crowds += 1
                row["segmentation"] = {"size": list(image.size), "counts": pixels.runs(rle).tolist()}
            else:
                drawn += 1
                row["segmentation"], same = traced(rle, image.size)
                exact += same == 1
                if same < 1:
                    wrong.append((same, f"{image.file_name}, annotation {annotation.id}: IoU {same:.4f}"))
            handle.write((b",\n" if k else b"\n") + _json(row))
        handle.write(b"\n]}\n")
    notes = [f"polygons that COCO's rasteriser turns into the same pixels (IoU 1): {exact:,} of {drawn:,}"]
    if wrong:
        lines = [line for _, line in sorted(wrong)]
        more = f"; and {len(lines) - SHOWN:,} more" if len(lines) > SHOWN else ""
        notes.append(f"objects that differ, worst first: {'; '.join(lines[:SHOWN])}{more}")
    if crowds:
        notes.append(f"crowds kept as run lengths, as in COCO's own files: {crowds:,}")
    if boxes:
        notes.append(f"objects of which the file gives only the box, written without a mask: {boxes:,}")
    return Written(files=1, objects=len(dataset), notes=tuple(notes))


def traced(rle: bytes, size: Size) -> tuple[list[list[int]], float]:
    """Return the polygons of a mask, and their IoU with it when COCO's rasteriser draws them.

    Example:
        >>> import numpy as np
        >>> traced(pixels.encode(np.ones((2, 3), dtype=bool)), (2, 3))
        ([[0, 0, 3, 0, 3, 2, 0, 2]], 1.0)
    """
    polygons = [flat(polygon) for polygon in outlines(rle, size)]
    if not polygons:
        return [], 0.0
    again = pixels.from_polygons(polygons, size)
    return polygons, 1.0 if again == rle else float(pixels.iou([again], [rle], size)[0, 0])


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
