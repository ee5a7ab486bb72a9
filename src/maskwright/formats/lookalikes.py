"""Inputs that look like a form that is read, but are not: say what they are, and what to do.

Asked only where no form was found. Looks at names, and at a few files of each ending.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maskwright.dataset import read_json
from maskwright.errors import UserError
from maskwright.files import PHOTO_SUFFIXES, is_side_file

MOST_NAMES = 20_000
"""So many names are looked at."""

LOOKED_AT = 4
"""So many files of each ending are opened."""

HEAD_BYTES = 65_536
MOST_JSON_BYTES = 32 * 2**20
"""A larger JSON file is told by its head only."""

_COCO = "export as COCO instances with masks (not boxes)"
_DRAW = (
    "a box does not tell which pixels are the object: take the export with polygons or masks, or draw the outlines, for"
    " example in labelme"
)
_MASKS = (
    "write each photo's masks as PNG: a 16-bit image with value n for object n in a folder masks, named after the"
    " photos in a folder images; then: --coding ids"
)


@dataclass(frozen=True)
class Kind:
    """Something that is no form of ours: what it is, in one sentence, and what to do."""

    what: str
    fix: str


OCHUMAN = Kind(
    "the JSON file is like COCO, but each image holds its own annotations (OCHuman's form)",
    "use the COCO files of the same download (ochuman_coco_format_*.json), or convert it with OCHumanApi's"
    " toCocoFormart",
)
RESULTS = Kind(
    "the JSON file is a list of COCO results (detections), without photos and categories",
    "name the COCO file of the photos; results are read by: maskwright evaluate TRUTH RESULTS",
)
PANOPTIC = Kind(
    "the JSON file is COCO panoptic: its masks are in PNG files, by colour",
    "use the instances file of the same dataset, or convert it with panopticapi's panoptic2detection_coco_format.py",
)
CAPTIONS = Kind(
    "the JSON file has captions, not objects", "use the instances file of the same dataset (instances_*.json)"
)
NO_CATEGORIES = Kind(
    "the JSON file is like COCO, but lacks the list of 'categories'",
    'add it: "categories": [{"id": 1, "name": "..."}], with the ids that the annotations use',
)
DATUMARO = Kind("the JSON file is Datumaro's own form", "convert it: datum convert -if datumaro -f coco_instances")
SUPERVISELY = Kind("the JSON files are Supervisely's own form", f"in Supervisely {_COCO} (its app Export to COCO)")
SUPERANNOTATE = Kind("the JSON files are SuperAnnotate's own form", f"convert them: in SuperAnnotate {_COCO}")
CITYSCAPES = Kind(
    "the JSON files are Cityscapes polygons, which lie one over another",
    "use the *_gtFine_instanceIds.png files of the same download, beside or instead of the polygons",
)
CREATEML = Kind("the JSON file is Apple's CreateML form: boxes, not masks", _DRAW)
SCALABEL = Kind("the JSON file is BDD100K's form (Scalabel)", "convert it: python -m bdd100k.label.to_coco -m ins_seg")
GEOJSON = Kind(
    "the JSON file is GeoJSON, whose coordinates may be degrees of the earth",
    f"convert it to the photos' pixels, and {_COCO}",
)
DARWIN = Kind("the JSON files are V7 Darwin's own form", f"in V7 {_COCO}")
LABELBOX = Kind("the file is an export of Labelbox, whose masks are on its servers", f"in Labelbox {_COCO}")
VOTT = Kind("the JSON file is VoTT's own form", f"in VoTT {_COCO}")
VOC_BOXES = Kind("the XML files are Pascal VOC annotations with boxes, not masks", _DRAW)
LABELME_XML = Kind(
    "the XML files are of the old LabelMe web page (MIT)",
    "convert them to labelme's JSON (one file a photo, 'shapes' with 'points'), or draw the masks as images",
)
CVAT_VIDEO = Kind(
    "the XML file is CVAT for video: tracks over frames",
    "in CVAT export the task as 'CVAT for images 1.1' or as 'COCO 1.0', with the frames as images",
)
BOX_CSV = Kind("the CSV file has boxes, not masks", _DRAW)
VIA_CSV = Kind(
    "the CSV file is an export of VIA (VGG Image Annotator)", "in VIA export the annotations as JSON; that is read"
)
RLE_CSV = Kind(
    "the CSV file has run lengths of one object a line, as in Kaggle's competitions",
    "decode them to one mask image an object (pairs of start and length, column by column, starting at 1), named"
    " <photo>_<category>_<n>.png in a folder masks beside images",
)
OPEN_IMAGES = Kind(
    "the CSV file is Open Images' list of mask images",
    "unpack the mask images and rename them <photo>_<category>_<n>.png, in a folder masks beside images",
)
BSDS = Kind(
    "the files are segmentations of the Berkeley set (BSDS): several people's cuts of a photo into regions, no objects",
    "pick the regions that are objects and write them as mask images: value n for object n, 0 elsewhere",
)
MATLAB = Kind("the masks are in MATLAB files (.mat)", f"open them with scipy.io.loadmat and {_MASKS}")
NUMPY = Kind("the masks are in NumPy files", f"open them with numpy.load and {_MASKS}")
HDF5 = Kind("the data is in HDF5 files", f"open them with h5py, write the photos as files, and {_MASKS}")
TFRECORD = Kind(
    "the data is in TFRecord files", f"read them with tensorflow_datasets, write the photos as files, and {_MASKS}"
)
TABLES = Kind(
    "the data is in table files (Parquet, Arrow, LMDB, pickle)",
    f"read them with the library that wrote them, write the photos as files, and {_MASKS}",
)
MEDICAL = Kind(
    "the pictures are medical volumes (DICOM, NIfTI, NRRD, MetaImage)",
    f"write the slices as PNG photos, for example with SimpleITK, and {_MASKS}",
)
ARCHIVE = Kind("the data is in an archive", "unpack it and name the folder")
VIDEO = Kind(
    "the input is video",
    "extract the frames that are annotated, for example: ffmpeg -i VIDEO images/%06d.png, and mark the objects in them",
)
CAMERA = Kind(
    "the photos are in a camera's or phone's own format that is not read",
    "convert them to JPEG or PNG, upright and at full size",
)
LABEL_IDS = Kind(
    "the masks are semantic (Cityscapes labelIds): they tell each pixel's category, not which object it is",
    "use the *_gtFine_instanceIds.png files of the same download; in labelIds objects that touch are one",
)
SEMANTIC = Kind(
    "the masks are semantic: they tell each pixel's category, not which object it is, so that objects that touch cannot"
    " be told apart",
    "use instance masks of the same photos if there are such; if objects of a category never touch, write one 0/255"
    " image for each photo and category, and: --coding binary --parts separate",
)
KITTI = Kind("the text files are KITTI or DOTA labels: boxes, not masks", _DRAW)
PIXEL_LINES = Kind(
    "the text files are like YOLO labels, but in pixels",
    "divide x by the photo's width and y by its height, so that all coordinates are 0 to 1",
)

_SUFFIXES: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (BSDS, (".seg",)),
    (MATLAB, (".mat",)),
    (NUMPY, (".npy", ".npz")),
    (HDF5, (".h5", ".hdf5", ".hdf", ".he5")),
    (TFRECORD, (".tfrecord", ".tfrecords", ".tfrec", ".record")),
    (TABLES, (".parquet", ".arrow", ".feather", ".mdb", ".lmdb", ".pkl", ".pickle", ".joblib")),
    (MEDICAL, (".dcm", ".dicom", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")),
    (VIDEO, (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv")),
    (CAMERA, (".heic", ".heif", ".avif", ".jxl", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2")),
    (ARCHIVE, (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z", ".rar")),
)


def explain(place: Path) -> UserError | None:
    """Say what an input is in which no form was found, and what to do; `None` if that is not known either.

    Args:
        place: The folder or file that the user named.
    """
    files = _files(place)
    by_suffix: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        by_suffix[_suffix(path.name)].append(path)
    looks: tuple[tuple[str, Callable[[Path], Kind | None]], ...] = (
        (".json", _json_kind),
        (".ndjson", lambda path: LABELBOX if b'"data_row"' in _head(path) else None),
        (".xml", _xml_kind),
        (".csv", _csv_kind),
        (".txt", _text_kind),
    )
    for suffix, look in looks:
        for path in by_suffix[suffix][:LOOKED_AT]:
            kind = look(path)
            if kind is not None:
                same = [other for other in by_suffix[suffix] if other == path or other.parent == path.parent]
                return _error(kind, [path, *(other for other in same if other != path)])
    by_name = _semantic(files)
    if by_name is not None:
        return by_name
    for kind, suffixes in _SUFFIXES:
        found = [path for suffix in suffixes for path in by_suffix[suffix]]
        if found:
            return _error(BSDS if kind is MATLAB and _is_bsds(found[0]) else kind, found)
    return None


def _error(kind: Kind, files: Sequence[Path]) -> UserError:
    return UserError(kind.what, [str(path) for path in files], kind.fix)


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    found: list[Path] = []
    for here, folders, names in os.walk(place):
        folders[:] = sorted(name for name in folders if not is_side_file(Path(name)))
        found += [Path(here, name) for name in sorted(names) if not is_side_file(Path(name))]
        if len(found) >= MOST_NAMES:
            break
    return found[:MOST_NAMES]


def _suffix(name: str) -> str:
    """Return a file's ending, both parts of `.nii.gz` and `.tar.gz`.

    Example:
        >>> _suffix("a.b.NII.gz"), _suffix("a.json"), _suffix("train.tfrecord-00000-of-00012")
        ('.nii.gz', '.json', '.tfrecord')
    """
    name = name.lower()
    numbered = re.search(r"\.(?:tfrecords?|record)(?=-\d+-of-\d+$)", name)
    if numbered:
        return numbered[0]
    parts = name.rsplit(".", 2)
    if len(parts) == 3 and parts[2] in {"gz", "bz2", "xz"} and parts[1] in {"nii", "tar"}:
        return f".{parts[1]}.{parts[2]}"
    return f".{parts[-1]}" if len(parts) > 1 else ""


def _head(path: Path) -> bytes:
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as handle:
            return handle.read(HEAD_BYTES)
    except OSError:
        return b""


def _first(value: Any) -> dict[str, Any]:
    """Return the first entry of a list if it is an object; else an empty one."""
    return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}


def _json_kind(path: Path) -> Kind | None:
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MOST_JSON_BYTES:
            return _json_head_kind(_head(path))
        document = read_json(path)
    except (OSError, UserError):
        return None
    if isinstance(document, list):
        return _list_kind(_first(document))
    return _object_kind(document) if isinstance(document, dict) else None


def _json_head_kind(head: bytes) -> Kind | None:
    """Tell a file that is too large to be parsed here by its first bytes."""
    if re.match(rb'\s*\[\s*\{[^{}]*"(?:image_id|category_id)"', head) and b'"score"' in head:
        return RESULTS
    if re.search(rb'"images"\s*:\s*\[\s*\{[^\[\]]*"annotations"\s*:\s*\[', head):
        return OCHUMAN
    if b'"keypoint_visible"' in head or b'"outer"' in head:
        return OCHUMAN
    return PANOPTIC if b'"segments_info"' in head else None


def _list_kind(row: dict[str, Any]) -> Kind | None:
    if "image_id" in row and ("score" in row or "category_id" in row):
        return RESULTS
    if "coordinates" in _first(row.get("annotations")):
        return CREATEML
    if "data_row" in row or "External ID" in row:
        return LABELBOX
    if "name" in row and ("box2d" in _first(row.get("labels")) or "poly2d" in _first(row.get("labels"))):
        return SCALABEL
    return None


def _object_kind(document: dict[str, Any]) -> Kind | None:
    images, annotations = document.get("images"), document.get("annotations")
    if isinstance(_first(images).get("annotations"), list):
        return OCHUMAN
    if "segments_info" in _first(annotations):
        return PANOPTIC
    if "caption" in _first(annotations):
        return CAPTIONS
    if isinstance(images, list) and isinstance(annotations, list) and "categories" not in document:
        return NO_CATEGORIES
    if "dm_format_version" in document or ("items" in document and "categories" in document):
        return DATUMARO
    thing = _first(document.get("objects"))
    if "classTitle" in thing or "geometryType" in thing or ("objects" in document and "tags" in document):
        return SUPERVISELY
    if "imgHeight" in document and "objects" in document:
        return CITYSCAPES
    if "instances" in document and "metadata" in document:
        return SUPERANNOTATE
    if document.get("type") == "FeatureCollection":
        return GEOJSON
    if "item" in document and isinstance(annotations, list):
        return DARWIN
    if "asset" in document and "regions" in document:
        return VOTT
    if "frames" in document and "name" in document:
        return SCALABEL
    return None


def _xml_kind(path: Path) -> Kind | None:
    head = _head(path)
    if b"<annotations" in head and b"<track" in head:
        return CVAT_VIDEO
    if b"<annotation" in head and b"<polygon" in head and b"<pt>" in head:
        return LABELME_XML
    if b"<annotation" in head and b"<bndbox" in head:
        return VOC_BOXES
    return None


def _csv_kind(path: Path) -> Kind | None:
    line = _head(path).decode("utf-8-sig", "replace").split("\n", 1)[0].lower()
    names = {name.strip().strip("\"'# ") for name in re.split(r"[,;\t]", line)}
    if "region_shape_attributes" in names:
        return VIA_CSV
    if names & {"encodedpixels", "rle", "segmentation_rle", "rle_mask", "annotation"} and len(names) > 1:
        return RLE_CSV
    if "maskpath" in names:
        return OPEN_IMAGES
    corners = ({"xmin", "ymin", "xmax", "ymax"}, {"x1", "y1", "x2", "y2"}, {"bbox_x", "bbox_y"}, {"bbox"})
    if any(corner <= names for corner in corners):
        return BOX_CSV
    return None


def _text_kind(path: Path) -> Kind | None:
    lines = [line.split() for line in _head(path).decode("utf-8", "replace").splitlines()[:3] if line.strip()]
    if not lines:
        return None
    words = lines[-1] if len(lines) > 2 and lines[0][0].lower().startswith(("imagesource", "gsd")) else lines[0]
    numbers = sum(re.fullmatch(r"-?\d+(\.\d+)?", word) is not None for word in words)
    if len(words) in {15, 16} and numbers >= len(words) - 1 and not words[0][:1].isdigit():
        return KITTI
    if len(words) in {9, 10} and numbers in {8, 9} and not re.fullmatch(r"[\d.-]+", words[8]):
        return KITTI
    if len(words) >= 7 and len(words) % 2 and numbers == len(words) and words[0].isdigit():
        return PIXEL_LINES
    return None


def _is_bsds(path: Path) -> bool:
    return any("bsds" in part.lower() or part.lower() == "groundtruth" for part in path.parts)


def _semantic(files: Sequence[Path]) -> UserError | None:
    """Tell semantic masks by the names that well-known sets give them."""
    pictures = [path for path in files if path.suffix.lower() in PHOTO_SUFFIXES]
    stems = {path.stem for path in pictures}
    label_ids = [path for path in pictures if re.search(r"_(label(?:Train)?Ids|gtFine_color)$", path.stem)]
    if label_ids and not any(stem.endswith("_instanceIds") for stem in stems):
        return _error(LABEL_IDS, label_ids)
    for pattern in (r"_L$", r"_seg$", r"_(?:label|semantic|labels|trainids)$"):  # CamVid, ADE20K, others
        marked = [path for path in pictures if re.search(pattern, path.stem)]
        if marked and all(re.sub(pattern, "", path.stem) in stems for path in marked[:LOOKED_AT]):
            return _error(SEMANTIC, marked)
    return None
