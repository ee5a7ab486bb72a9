"""Inputs that are no form of ours: each gets a sentence that says what it is, and what to do."""

import json

import numpy as np
import pytest
from PIL import Image as Picture

from maskwright.errors import UserError
from maskwright.formats import lookalikes
from maskwright.formats.lookalikes import explain
from maskwright.prepare import prepare


def photo(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Picture.fromarray(np.zeros((6, 8, 3), dtype=np.uint8)).save(path)


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


BOX = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2]}
IMAGE = {"id": 1, "file_name": "a.jpg", "width": 8, "height": 6}
VOC = (
    "<annotation><filename>a.jpg</filename><object><name>x</name><bndbox><xmin>1</xmin></bndbox></object></annotation>"
)
OLD = "<annotation><filename>a.jpg</filename><object><polygon><pt><x>1</x><y>2</y></pt></polygon></object></annotation>"

TEXTS = {
    "ochuman.json": (
        {"images": [{"image_id": "1", "file_name": "a.jpg", "annotations": [{"bbox": [1, 1, 2, 2], "segms": {}}]}]},
        "the JSON file is like COCO, but each image holds its own annotations (OCHuman's form)",
    ),
    "results.json": (
        [{"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [1, 1, 2, 2]}],
        "the JSON file is a list of COCO results (detections), without photos and categories",
    ),
    "panoptic_val.json": (
        {
            "images": [IMAGE],
            "annotations": [{"image_id": 1, "file_name": "a.png", "segments_info": []}],
            "categories": [],
        },
        "the JSON file is COCO panoptic: its masks are in PNG files, by colour",
    ),
    "captions_val.json": (
        {"images": [IMAGE], "annotations": [{"id": 1, "image_id": 1, "caption": "a nut"}]},
        "the JSON file has captions, not objects",
    ),
    "half.json": (
        {"images": [IMAGE], "annotations": [BOX]},
        "the JSON file is like COCO, but lacks the list of 'categories'",
    ),
    "datumaro.json": ({"info": {}, "categories": {}, "items": []}, "the JSON file is Datumaro's own form"),
    "supervisely.json": (
        {"description": "", "tags": [], "size": {"height": 6, "width": 8}, "objects": [{"classTitle": "x"}]},
        "the JSON files are Supervisely's own form",
    ),
    "superannotate.json": ({"metadata": {}, "instances": []}, "the JSON files are SuperAnnotate's own form"),
    "x_gtFine_polygons.json": (
        {"imgHeight": 6, "imgWidth": 8, "objects": [{"label": "car", "polygon": [[1, 2]]}]},
        "the JSON files are Cityscapes polygons, which lie one over another",
    ),
    "createml.json": (
        [{"image": "a.jpg", "annotations": [{"label": "x", "coordinates": {"x": 1}}]}],
        "the JSON file is Apple's CreateML form: boxes, not masks",
    ),
    "bdd.json": ([{"name": "a.jpg", "labels": [{"poly2d": []}]}], "the JSON file is BDD100K's form (Scalabel)"),
    "frames.json": ({"name": "a", "frames": []}, "the JSON file is BDD100K's form (Scalabel)"),
    "geo.json": (
        {"type": "FeatureCollection", "features": []},
        "the JSON file is GeoJSON, whose coordinates may be degrees of the earth",
    ),
    "darwin.json": ({"version": "2.0", "item": {}, "annotations": []}, "the JSON files are V7 Darwin's own form"),
    "labelbox.json": (
        [{"data_row": {"id": "x"}}],
        "the file is an export of Labelbox, whose masks are on its servers",
    ),
    "labelbox.ndjson": (
        '{"data_row": {"id": "x"}}\n',
        "the file is an export of Labelbox, whose masks are on its servers",
    ),
    "vott.json": ({"asset": {}, "regions": []}, "the JSON file is VoTT's own form"),
    "a.xml": (VOC, "the XML files are Pascal VOC annotations with boxes, not masks"),
    "old.xml": (OLD, "the XML files are of the old LabelMe web page (MIT)"),
    "video.xml": (
        '<annotations><version>1.1</version><track id="0" label="x"></track></annotations>',
        "the XML file is CVAT for video: tracks over frames",
    ),
    "boxes.csv": (
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,8,6,x,1,1,2,2\n",
        "the CSV file has boxes, not masks",
    ),
    "train.csv": ("image_id,width,height,bbox,source\n", "the CSV file has boxes, not masks"),
    "via.csv": (
        "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes\n",
        "the CSV file is an export of VIA (VGG Image Annotator)",
    ),
    "stage1_train_labels.csv": (
        "ImageId,EncodedPixels\n1,3 2\n",
        "the CSV file has run lengths of one object a line, as in Kaggle's competitions",
    ),
    "open-images.csv": ("MaskPath,ImageID,LabelName,BoxID\n", "the CSV file is Open Images' list of mask images"),
    "seg/113016.seg": (
        "format ascii cr\ndate Mon\nwidth 8\nheight 6\nsegments 2\ndata\n0 0 0 7\n",
        "the files are segmentations of the Berkeley set (BSDS): several people's cuts of a photo into regions, no"
        " objects",
    ),
    "label_2/000001.txt": (
        "Car 0.00 0 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57\n",
        "the text files are KITTI or DOTA labels: boxes, not masks",
    ),
    "labelTxt/P0.txt": (
        "imagesource:GoogleEarth\ngsd:0.1\n2753 2408 2861 2385 2888 2468 2805 2502 plane 0\n",
        "the text files are KITTI or DOTA labels: boxes, not masks",
    ),
    "labels/a.txt": (
        "0 12 13 40 13 40 39 12 39\n",
        "the text files are like YOLO labels, but in pixels",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_annotation_files(tmp_path, name):
    content, said = TEXTS[name]
    photo(tmp_path / "photos" / "a.jpg")
    path = text(tmp_path / name, content)
    error = explain(tmp_path)
    assert isinstance(error, UserError)
    assert error.problems[0].what == said
    assert error.problems[0].where == (str(path),)
    assert error.problems[0].fix
    assert explain(path).problems[0].what == said


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a.mat", "the masks are in MATLAB files (.mat)"),
        (
            "BSDS500/groundTruth/train/1.mat",
            "the files are segmentations of the Berkeley set (BSDS): several people's cuts of a photo into regions, no"
            " objects",
        ),
        ("a.npy", "the masks are in NumPy files"),
        ("a.npz", "the masks are in NumPy files"),
        ("a.h5", "the data is in HDF5 files"),
        ("a.HDF5", "the data is in HDF5 files"),
        ("train.tfrecord", "the data is in TFRecord files"),
        ("train.tfrecord-00001-of-00002", "the data is in TFRecord files"),
        ("a.parquet", "the data is in table files (Parquet, Arrow, LMDB, pickle)"),
        ("a.nii.gz", "the pictures are medical volumes (DICOM, NIfTI, NRRD, MetaImage)"),
        ("a.dcm", "the pictures are medical volumes (DICOM, NIfTI, NRRD, MetaImage)"),
        ("a.mp4", "the input is video"),
        ("IMG_1.HEIC", "the photos are in a camera's or phone's own format that is not read"),
        ("a.zip", "the data is in an archive"),
        ("a.tar.gz", "the data is in an archive"),
    ],
)
def test_files_told_by_their_ending(tmp_path, name, said):
    path = text(tmp_path / name, "x")
    for place in (tmp_path, path):
        error = explain(place)
        assert error.problems[0].what == said
        assert error.problems[0].where == (str(path),)


@pytest.mark.parametrize(
    ("kind", "fix"),
    [
        (
            "OCHUMAN",
            "use the COCO files of the same download (ochuman_coco_format_*.json), or convert it with OCHumanApi's"
            " toCocoFormart",
        ),
        ("RESULTS", "name the COCO file of the photos; results are read by: maskwright evaluate TRUTH RESULTS"),
        (
            "VOC_BOXES",
            "a box does not tell which pixels are the object: take the export with polygons or masks, or draw the"
            " outlines, for example in labelme",
        ),
        (
            "NUMPY",
            "open them with numpy.load and write each photo's masks as PNG: a 16-bit image with value n for object n in"
            " a folder masks, named after the photos in a folder images; then: --coding ids",
        ),
        (
            "SEMANTIC",
            "use instance masks of the same photos if there are such; if objects of a category never touch, write one"
            " 0/255 image for each photo and category, and: --coding binary --parts separate",
        ),
        ("ARCHIVE", "unpack it and name the folder"),
    ],
)
def test_what_to_do(kind, fix):
    assert getattr(lookalikes, kind).fix == fix


def test_every_kind_says_what_to_do():
    kinds = [value for value in vars(lookalikes).values() if isinstance(value, lookalikes.Kind)]
    assert len(kinds) > 35
    assert all(kind.what and kind.fix and not kind.what.endswith(".") for kind in kinds)


def test_semantic_masks_of_cityscapes(tmp_path):
    photo(tmp_path / "leftImg8bit" / "x_leftImg8bit.png")
    photo(tmp_path / "gtFine" / "x_gtFine_labelIds.png")
    error = explain(tmp_path)
    assert error.problems[0].what == (
        "the masks are semantic (Cityscapes labelIds): they tell each pixel's category, not which object it is"
    )
    assert "use the *_gtFine_instanceIds.png files of the same download" in str(error)
    photo(tmp_path / "gtFine" / "x_gtFine_instanceIds.png")
    assert explain(tmp_path) is None


@pytest.mark.parametrize("mark", ["_L", "_seg", "_semantic"])
def test_semantic_masks_beside_their_photos(tmp_path, mark):
    photo(tmp_path / "a.png")
    photo(tmp_path / f"a{mark}.png")
    assert str(explain(tmp_path)).startswith(
        "the masks are semantic: they tell each pixel's category, not which object it is, so that objects that touch"
        " cannot be told apart\n"
    )


def test_large_files_are_told_by_their_head(tmp_path, monkeypatch):
    monkeypatch.setattr(lookalikes, "MOST_JSON_BYTES", 10)
    for name, kind in (("ochuman.json", "OCHUMAN"), ("results.json", "RESULTS"), ("panoptic_val.json", "PANOPTIC")):
        path = text(tmp_path / name, TEXTS[name][0])
        assert explain(path).problems[0].what == getattr(lookalikes, kind).what
    assert explain(text(tmp_path / "other.json", {"a": [1, 2, 3, 4]})) is None


def test_all_files_of_a_kind_are_counted(tmp_path):
    for n in range(9):
        text(tmp_path / f"{n}.xml", VOC)
    assert "... and 4 more" in str(explain(tmp_path))


def test_unknown_things_stay_unknown(tmp_path):
    photo(tmp_path / "a.jpg")
    text(tmp_path / "b.json", {"some": "thing"})
    text(tmp_path / "c.json", "{")
    text(tmp_path / "d.txt", "words about a photo\n")
    text(tmp_path / "e.xml", "<svg/>")
    text(tmp_path / "f.csv", "name,size\n")
    text(tmp_path / ".hidden" / "g.zip", "")
    assert explain(tmp_path) is None
    assert explain(tmp_path / "absent.json") is None


def test_prepare_says_it(tmp_path):
    photo(tmp_path / "raw" / "a.jpg")
    text(tmp_path / "raw" / "a.xml", VOC)
    with pytest.raises(UserError, match="the XML files are Pascal VOC annotations with boxes, not masks"):
        prepare(tmp_path / "raw", out=tmp_path / "data")
    assert not (tmp_path / "data").exists()
