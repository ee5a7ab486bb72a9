"""Reading in pieces gives what reading the whole gives, for every way of writing JSON, or leaves the file to it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maskwright import pieces, pixels
from maskwright.dataset import Dataset, from_coco, read_json
from maskwright.errors import UserError
from maskwright.pieces import are_plain_polygons, check_polygons, read_in_pieces

SIZE = (20, 30)
RLE = pixels.encode(np.random.default_rng(0).random(SIZE) < 0.3)
SQUARE = [[1, 1, 9.5, 1, 9.25, 9, 1, 9]]
SEGMENTATIONS = [
    SQUARE,
    [*SQUARE, [12.01, 3, 15, 3, 15, 7.5]],
    [[-3, 0, 1e1, 0, 10, 8]],
    [],
    None,
    {"size": list(SIZE), "counts": RLE.decode()},
    {"counts": pixels.runs(RLE).tolist(), "size": list(SIZE)},
]


@st.composite
def documents(draw):
    images = [{"id": n, "file_name": f'Größe "{n}".png', "width": 30, "height": 20} for n in (5, 0, 9)]
    rows = []
    for n in range(draw(st.integers(0, 12))):
        row = {"id": n + 1, "image_id": draw(st.sampled_from([5, 0, 9])), "category_id": 3, "iscrowd": 0}
        row |= {"bbox": [1, 2, 3.5, 4], "area": 8.5, "segmentation": draw(st.sampled_from(SEGMENTATIONS))}
        row |= draw(st.sampled_from([{}, {"note": '}], "segmentation": [[1'}, {"parts": [{"a": 1}]}, {"x": "\\"}]))
        for key in draw(st.sets(st.sampled_from(["area", "id", "iscrowd"]))):
            del row[key]
        rows.append(dict(draw(st.permutations(list(row.items())))))
    document = {"info": {"year": 1}, "images": images, "categories": [{"id": 3, "name": "nut"}], "annotations": rows}
    return dict(draw(st.permutations(list(document.items()))))


STYLES = [{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}, {"sort_keys": True}]


@given(documents(), st.sampled_from(STYLES), st.integers(40, 3000))
def test_pieces_and_the_whole_agree(tmp_path_factory, document, style, block):
    path = tmp_path_factory.mktemp("p") / "d.json"
    path.write_text(json.dumps(document, **style), encoding="utf-8")
    whole = from_coco(read_json(path), str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "BLOCK", block)
        read = Dataset.read(path)
    assert read.coco() == whole.coco()
    assert read.rles() == whole.rles()
    np.testing.assert_array_equal(read.rle_bytes, whole.rle_bytes)
    np.testing.assert_array_equal(read.rle_ends, whole.rle_ends)
    np.testing.assert_array_equal(read.has_mask, np.diff(whole.rle_ends) > 0)
    chosen = np.arange(len(read)) % 2 == 0
    assert read.select(chosen).coco() == whole.select(chosen).coco()


def text(segmentation=SQUARE, **changes):
    row = {"id": 1, "image_id": 5, "category_id": 3, "segmentation": segmentation, "bbox": [0, 0, 1, 1], "area": 1}
    images = [{"id": 5, "file_name": "a.png", "width": 30, "height": 20}]
    categories = [{"id": 3, "name": "nut"}]
    return json.dumps({"images": images, "categories": categories, "annotations": [row | changes, row]})


def test_a_plain_file_is_taken(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(text())
    found = read_in_pieces(path)
    assert found is not None
    assert found.masks.outlined.tolist() == [True, True]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        text()[:-1],
        text() + "}",
        text().replace('"id": 1', '"id": "1"'),
        text(id=None),
        text(iscrowd=None),
        text(image_id=True),
        text(id=1 << 70),
        text(bbox=[]),
        text(area="2"),
        text(segmentation=[]),
        text(note="\ud800"),
        text().replace("[[1, 1, 9.5", "[[1, 01, 9.5"),
        text().replace("[[1, 1, 9.5", "[[1, 1 1, 9.5"),
        text().replace("[[1, 1, 9.5", "[[1, 1, 1e9"),
        text().replace("[[1, 1, 9.5", "[[1, 9.5"),
        text().replace("[[1, 1, 9.5", "[[1, 1, 99999"),
        text().replace('"annotations"', '"annotations": [], "annotations"'),
        text().replace('"categories"', '"categorie"'),
        text().replace('"id": 5', '"id": 6'),
        text(5),
        text([[1, 2, 3, 4]]),
        text([[1, 2, 3, 4, 5, None]]),
    ],
)
def test_what_is_not_plain_is_judged_by_the_careful_reader(tmp_path, content):
    path = tmp_path / "d.json"
    path.write_text(content)

    def outcome(read):
        try:
            return read().coco()
        except UserError as error:
            return str(error)

    assert outcome(lambda: Dataset.read(path)) == outcome(lambda: from_coco(read_json(path), str(path)))


numbers = st.one_of(
    st.floats(-999, 999).map(lambda v: repr(round(v, 2))),
    st.integers(-999, 999).map(str),
    st.sampled_from(["1e3", "1234", "-0", "0.50", "0.123456789", "-999.5555"]),
)


@given(st.lists(st.lists(numbers, min_size=4, max_size=8), min_size=1, max_size=3), st.sampled_from([", ", ",", " ,"]))
def test_plain_polygons_are_sound_json(polygons, comma):
    written = "[[" + ("]" + comma + "[").join(comma.join(polygon) for polygon in polygons) + "]]"
    if are_plain_polygons([written.encode()], 3):
        check_polygons(json.loads(written), SIZE)
        assert max(abs(v) for polygon in json.loads(written) for v in polygon) < 1000
    elif all(len(p) >= 6 and len(p) % 2 == 0 for p in polygons):
        assert {"1e3", "1234"} & {v for polygon in polygons for v in polygon} or "e" in written


@pytest.mark.parametrize(
    "wrong",
    [
        "[[1,2,3,4,5,6],7,[1,2,3,4,5,6]]",
        "[[1,2,3,4,5,6],7]",
        "[[1,2,3,4,5,6],7,8,9,[1,2,3,4,5,6]]",
        "[[[1,2,3,4,5,6]]]",
        "[[1,2,3,4,5,6],[[1,2,3,4,5,6]]]",
        "[[1,2,3,4,5,6],[]]",
        "[[]]",
        "[[1,2,3,\n4,5,6]]",
        "[[1,2,3,4,5,null]]",
        '[[1,2,3,4,5,"6"]]',
        "[[1,2,3,4,5,{}]]",
        "[[1,2,3,4,5,true]]",
    ],
)
def test_brackets_must_fit(wrong):
    json.loads(wrong)
    assert not are_plain_polygons([wrong.encode()], 3)
    assert not are_plain_polygons([b"[[1,2,3,4,5,6]]", wrong.encode()], 3)
