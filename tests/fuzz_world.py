"""Small valid inputs of every form; what is in them is in `fuzz_truth`, how they are damaged in `fuzz_damage`."""

import base64
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.formats import form_module
from maskwright.masks import WRITERS, write_mask_images

SIZE = (24, 32)
NAMES = ("a", "b", "c")


def photo(path: Path, seed: int, size: tuple[int, int] = SIZE) -> None:
    """Save a photo with texture, different for each seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Picture.fromarray(values).resize(size[::-1], Picture.Resampling.BICUBIC).save(path)


def squares(number: int, objects: int = 2) -> list[np.ndarray]:
    """Return the masks of a photo: squares with a hole that do not overlap."""
    masks = []
    for k in range(objects):
        mask = np.zeros(SIZE, dtype=np.uint8)
        y, x = 2 + number, 2 + 14 * k
        mask[y : y + 9, x : x + 9] = 1
        mask[y + 3 : y + 5, x + 3 : x + 5] = 0
        masks.append(mask)
    return masks


def dataset(objects: int = 2, categories: tuple[str, ...] = ("bolt", "nut")) -> Dataset:
    """Return the content of all inputs."""
    images, annotations = [], []
    for n, name in enumerate(NAMES, 1):
        images.append(Image(n, f"{name}.jpg", SIZE[1], SIZE[0]))
        for k, mask in enumerate(squares(n, objects)):
            annotations.append(Annotation(len(annotations) + 1, n, k % len(categories) + 1, pixels.encode(mask)))
    return Dataset.build([Category(n, name) for n, name in enumerate(categories, 1)], images, annotations)


def photos(folder: Path, size: tuple[int, int] = SIZE) -> None:
    for n, name in enumerate(NAMES):
        photo(folder / f"{name}.jpg", n, size)


def folders(root: Path) -> None:
    photos(root / "rgb")
    write_mask_images(dataset(1, ("hammer",)), root / "mask")


def ids(root: Path) -> None:
    photos(root / "images")
    write_mask_images(dataset(2, ("nut",)), root / "masks", "ids")
    (root / "masks/ids.json").unlink()


def splits(root: Path) -> None:
    for n, split in enumerate(("train", "val")):
        photo(root / f"nut_{split}/rgb/x.jpg", n)
        (root / f"nut_{split}/mask").mkdir()
        Picture.fromarray(squares(n)[0] * 255).save(root / f"nut_{split}/mask/x.png")


def same_folder(root: Path) -> None:
    photos(root)
    for n, name in enumerate(NAMES, 1):
        Picture.fromarray(squares(n)[0] * 255).save(root / f"{name}.png")


def instance_files(root: Path) -> None:
    photos(root / "images")
    write_mask_images(dataset(), root / "annotations", "instances")


def coco(root: Path) -> None:
    photos(root)
    dataset().write(root / "instances.json")


def coco_polygons(root: Path) -> None:
    photos(root / "images")
    document = dataset().coco()
    for row in document["annotations"]:
        x, y, w, h = row["bbox"]
        row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    (root / "annotations.json").write_text(json.dumps(document))


def coco_uncompressed(root: Path) -> None:
    """Write the masks as lists of run lengths, as COCO's own crowds have them; the second object of each is a crowd."""
    photos(root)
    document = dataset().coco()
    masks = [mask for n, _ in enumerate(NAMES, 1) for mask in squares(n)]
    for k, (row, mask) in enumerate(zip(document["annotations"], masks, strict=True)):
        column = [0, *mask.T.ravel().tolist()]  # down the columns, starting with ground
        ends = [at for at in range(1, len(column)) if column[at] != column[at - 1]]
        counts = np.diff([1, *ends, len(column)]).tolist()
        row.update(segmentation={"size": list(SIZE), "counts": counts}, iscrowd=k % 2)
    (root / "instances.json").write_text(json.dumps(document))


def via_photos() -> dict[str, dict]:
    """Return what VIA writes of the photos: version 2 has the regions of each in a list."""
    document = {}
    for n, name in enumerate(NAMES, 1):
        x, y = 2, 2 + n
        shape = {"name": "polygon", "all_points_x": [x, x + 9, x + 9, x], "all_points_y": [y, y, y + 9, y + 9]}
        rect = {"name": "rect", "x": 16, "y": y, "width": 9, "height": 9}
        regions = [
            {"shape_attributes": shape, "region_attributes": {"name": "bolt"}},
            {"shape_attributes": rect, "region_attributes": {"name": "nut"}},
        ]
        document[f"{name}.jpg1"] = {"filename": f"{name}.jpg", "size": 1, "regions": regions, "file_attributes": {}}
    return document


def via_1(root: Path) -> None:
    """Write the annotations of VIA 1: regions by their numbers."""
    photos(root)
    document = via_photos()
    for item in document.values():
        item.update(regions={str(k): region for k, region in enumerate(item["regions"])}, base64_img_data="")
    (root / "via_region_data.json").write_text(json.dumps(document))


def via(root: Path) -> None:
    photos(root)
    (root / "via.json").write_text(json.dumps(via_photos()))


def via_project(root: Path) -> None:
    """Write a project of VIA 2."""
    photos(root)
    options = {"bolt": "", "nut": ""}
    document = {
        "_via_settings": {"core": {"default_filepath": ""}, "project": {"name": "via_project"}},
        "_via_img_metadata": via_photos(),
        "_via_attributes": {"region": {"name": {"type": "dropdown", "options": options}}, "file": {}},
        "_via_data_format_version": "2.0.10",
        "_via_image_id_list": [f"{name}.jpg1" for name in NAMES],
    }
    (root / "via_project.json").write_text(json.dumps(document))


def cvat(root: Path) -> None:
    photos(root / "images")
    rows = []
    for n, name in enumerate(NAMES):
        y = 3 + n
        rows.append(
            f'<image id="{n}" name="{name}.jpg" width="{SIZE[1]}" height="{SIZE[0]}">'
            f'<polygon label="bolt" occluded="0" points="2.0,{y}.0;11.0,{y}.0;11.0,{y + 9}.0;2.0,{y + 9}.0"/>'
            f'<mask label="nut" occluded="0" rle="1, 3, 2, 2, 1" left="16" top="{y}" width="3" height="3" z_order="0"/>'
            "</image>"
        )
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("bolt", "nut"))
    (root / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version><meta><task><labels>{labels}'
        f"</labels></task></meta>{''.join(rows)}</annotations>"
    )


def label_studio(root: Path) -> None:
    """Write polygons in percent, their corners on those of pixels."""
    photos(root)
    values = []
    for n, _ in enumerate(NAMES, 1):
        top = 12.5 * n
        values.append(
            [
                {"points": [[x1, top], [x2, top], [x2, 75], [x1, 75]], "polygonlabels": [name], "closed": True}
                for name, x1, x2 in (("bolt", 6.25, 50), ("nut", 56.25, 87.5))
            ]
        )
    (root / "export.json").write_text(json.dumps(_tasks("polygonlabels", values)))


def label_studio_brush(root: Path) -> None:
    photos(root)
    values = [
        [
            {"format": "rle", "rle": brush(mask), "brushlabels": [name]}
            for name, mask in zip(("bolt", "nut"), squares(n), strict=True)
        ]
        for n, _ in enumerate(NAMES, 1)
    ]
    (root / "export.json").write_text(json.dumps(_tasks("brushlabels", values)))


def brush(mask: np.ndarray) -> list[int]:
    """Pack a mask as Label Studio's brush does: runs of one value, of lengths of 3, 4, 8 or 16 bits."""
    values = np.repeat(mask.ravel() * 255, 4)
    ends = [*(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)]
    sizes = (3, 4, 8, 16)
    bits = f"{len(values):032b}{7:05b}" + "".join(f"{size - 1:04b}" for size in sizes)
    for start, end in zip([0, *ends], ends, strict=False):
        which = next(k for k, size in enumerate(sizes) if end - start <= 1 << size)
        bits += f"1{which:02b}{end - start - 1:0{sizes[which]}b}{values[start]:08b}"
    bits += "0" * (-len(bits) % 8)
    return [int(bits[k : k + 8], 2) for k in range(0, len(bits), 8)]


def _tasks(kind: str, values: list[list[dict]]) -> list[dict]:
    """Return Label Studio's tasks for the regions of each photo."""
    tasks = []
    for n, (name, regions) in enumerate(zip(NAMES, values, strict=True), 1):
        results = [
            {
                "original_width": SIZE[1],
                "original_height": SIZE[0],
                "image_rotation": 0,
                "value": value,
                "id": f"r{n}{k}",
                "from_name": "label",
                "to_name": "image",
                "type": kind,
            }
            for k, value in enumerate(regions)
        ]
        tasks.append(
            {
                "id": n,
                "annotations": [{"id": n, "result": results, "was_cancelled": False}],
                "data": {"image": f"/data/upload/1/0123abcd-{name}.jpg"},
                "predictions": [],
            }
        )
    return tasks


def labelme(root: Path) -> None:
    written("labelme")(root)
    for path in root.rglob("*.json"):
        document = json.loads(path.read_text())
        document["imagePath"] = Path(document["imagePath"]).name  # the photo lies beside it, and not where it came from
        path.write_text(json.dumps(document))


def labelme_embedded(root: Path) -> None:
    """Write labelme files with the photo in them."""
    with tempfile.TemporaryDirectory() as spare:
        photos(Path(spare))
        labelme(root)
        for path in root.rglob("*.json"):
            document = json.loads(path.read_text())
            document["imageData"] = base64.b64encode((Path(spare) / document["imagePath"]).read_bytes()).decode()
            path.write_text(json.dumps(document))
        for path in root.rglob("*.jpg"):
            path.unlink()


LARGE = 4
"""So many times larger is what is saved as JPEG: it mixes colours up to three pixels from an edge."""


def colours_jpeg(root: Path) -> None:
    """Write the colours of categories as JPEG, with the list of them."""
    photos(root / "images", (LARGE * SIZE[0], LARGE * SIZE[1]))
    (root / "masks").mkdir()
    colours = {"bolt": (230, 25, 75), "nut": (60, 180, 75)}
    for n, name in enumerate(NAMES, 1):
        plane = np.zeros((*SIZE, 3), dtype=np.uint8)
        for colour, mask in zip(colours.values(), squares(n), strict=True):
            plane[mask > 0] = colour
        large = Picture.fromarray(plane.repeat(LARGE, axis=0).repeat(LARGE, axis=1))
        large.save(root / f"masks/{name}.jpeg", "JPEG", quality=75)
    (root / "colours.json").write_text(json.dumps({name: list(colour) for name, colour in colours.items()}))


PHOTOS_GO = {
    "voc": "JPEGImages",
    "labelme": ".",
    "instance-folders": "{stem}/images",
    "cityscapes": ".",
    "polygons": ".",
}
"""Where the photos of a written form are looked for; `images` if it is not here."""

MASKS_GO = dict.fromkeys(("categories", "instances", "ids", "category-folders", "colours", "trimap"), "masks")
"""Forms of mask images alone go beside the photos; the others hold both."""


def written(form: str, objects: int = 2, categories: tuple[str, ...] = ("bolt", "nut")) -> Callable[[Path], None]:
    """Return a function that writes a form with our own writer, the photos where the form looks for them."""

    def write(root: Path) -> None:
        with tempfile.TemporaryDirectory() as spare:
            photos(Path(spare))
            write_form(form, dataset(objects, categories), Path(spare), root)

    return write


def write_form(form: str, data: Dataset, photo_folder: Path, root: Path) -> tuple[str, ...]:
    """Write a dataset in a form, with its photos; returns the writer's notes."""
    target = root / MASKS_GO.get(form, ".")
    target.mkdir(parents=True, exist_ok=True)
    notes: tuple[str, ...] = ()
    if form in WRITERS:
        module, function = WRITERS[form].split(".")
        notes = getattr(form_module(module.replace("_", "-")), function)(
            replace(data, folder=photo_folder), target
        ).notes
    else:
        write_mask_images(data, target, form)
        (target / "ids.json").unlink(missing_ok=True)
    have = {path.name for path in root.rglob("*") if path.suffix in {".jpg", ".png"} and MASKS_GO.get(form) is None}
    for name in {image.file_name for image in data.images} - have:
        place = root / PHOTOS_GO.get(form, "images").format(stem=name.rpartition(".")[0])
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy2(photo_folder / name, place / name)
    return notes


INPUTS: dict[str, tuple[Callable[[Path], None], dict[str, str]]] = {
    "folders": (folders, {}),
    "folders, ids": (ids, {"coding": "ids"}),
    "folders, splits": (splits, {}),
    "same-folder": (same_folder, {}),
    "instance-files": (instance_files, {}),
    "coco": (coco, {}),
    "coco, polygons": (coco_polygons, {}),
    "coco, uncompressed": (coco_uncompressed, {}),
    "via": (via, {}),
    "via, version 1": (via_1, {}),
    "via, project": (via_project, {}),
    "cvat": (cvat, {}),
    "label-studio": (label_studio, {}),
    "label-studio, brush": (label_studio_brush, {}),
    "labelme": (labelme, {}),
    "labelme, photos inside": (labelme_embedded, {}),
    "yolo": (written("yolo"), {}),
    "voc": (written("voc"), {}),
    "category-folders": (written("category-folders"), {}),
    "instance-folders": (written("instance-folders"), {}),
    "cityscapes": (written("cityscapes"), {}),
    "colours": (written("colours"), {}),
    "colours, jpeg": (colours_jpeg, {}),
    "trimap": (written("trimap", 1, ("pet",)), {}),
}
"""How an input is written, and the settings that read it."""
