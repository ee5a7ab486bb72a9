"""Small masks become masks of the photo's size; boxes and sizes map back; detections show and save themselves."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Picture
from torch import nn

from maskwright import pixels
from maskwright.batches import DECODED, Frame
from maskwright.dataset import Category, Image
from maskwright.detections import Detections, detect_photo, detect_photos, paste
from maskwright.errors import UserError
from maskwright.files import read_reduced


class Fixed(nn.Module):
    """Finds the same boxes, given as shares of the photo, in every photo; each mask fills its box."""

    def __init__(self, boxes, scores, labels, fill=1.0):
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(1))
        self.boxes, self.scores, self.labels, self.fill = boxes, scores, labels, fill
        self.seen = []

    def detect(self, images, shapes, least_score=0.02):
        self.seen.append((tuple(images.shape), shapes, least_score))
        results = []
        for height, width in shapes:
            boxes = torch.tensor(self.boxes, dtype=torch.float32).reshape(-1, 4)
            boxes = boxes * torch.tensor([width, height, width, height])
            keep = torch.tensor(self.scores) >= least_score
            results.append(
                {
                    "boxes": boxes[keep],
                    "windows": boxes[keep],
                    "scores": torch.tensor(self.scores)[keep],
                    "labels": torch.tensor(self.labels)[keep],
                    "masks": torch.full((int(keep.sum()), 28, 28), self.fill),
                }
            )
        return results


def three():
    masks = np.zeros((3, 30, 40), dtype=bool)
    masks[0, 2:10, 3:20], masks[1, 15:25, 5:9], masks[2, 20:28, 20:38] = True, True, True
    return Detections(
        rles=tuple(pixels.encode(m) for m in masks),
        boxes=np.array([pixels.box(pixels.encode(m), (30, 40)) for m in masks]),
        scores=np.array([0.9, 0.5, 0.1]),
        categories=("hammer", "nut", "hammer"),
        size=(30, 40),
        photo=np.full((30, 40, 3), 60, dtype=np.uint8),
    ), masks


def pasted(mask, window, size, inner=None):
    return pixels.decode(paste(mask, window, Frame(size, inner or size)), size)


# Pasting


@settings(max_examples=80)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    inner=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    cells=st.sampled_from([1, 14, 28]),
    corners=st.tuples(*[st.floats(-40, 240, width=32)] * 4),
)
def test_a_mask_that_is_certain_fills_its_window_and_nothing_else(size, inner, cells, corners):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    found = pasted(torch.ones(cells, cells), (x1, y1, x2, y2), size, inner)
    sy, sx = size[0] / inner[0], size[1] / inner[1]
    xs, ys = np.arange(size[1]) + 0.5, np.arange(size[0]) + 0.5
    inside = ((ys >= y1 * sy) & (ys < y2 * sy))[:, None] & ((xs >= x1 * sx) & (xs < x2 * sx))[None]
    np.testing.assert_array_equal(found, inside)


@settings(max_examples=30)
@given(corners=st.tuples(*[st.floats(-40, 100, width=32)] * 4), probability=st.floats(0, 0.49))
def test_a_mask_below_one_half_is_nothing(corners, probability):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    assert not pasted(torch.full((28, 28), probability), (x1, y1, x2, y2), (50, 60)).any()


def test_a_mask_of_the_windows_own_size_is_put_there_as_it_is():
    mask = np.random.default_rng(0).random((28, 28)) < 0.5
    found = pasted(torch.from_numpy(mask.astype(np.float32)), (10, 5, 38, 33), (60, 50))
    np.testing.assert_array_equal(found[5:33, 10:38], mask)
    assert found.sum() == mask.sum()


def test_a_mask_is_cut_at_the_photos_border():
    mask = np.zeros((28, 28), dtype=np.float32)
    mask[14:, 14:] = 1
    found = pasted(torch.from_numpy(mask), (-14, -14, 14, 14), (40, 40))
    assert found[:14, :14].all()
    assert found.sum() == 14 * 14


def test_an_edge_lies_where_the_probability_is_one_half():
    ramp = torch.linspace(0, 1, 28)[None].repeat(28, 1)
    found = pasted(ramp, (0, 0, 280, 280), (280, 280))
    assert not found[:, :140].any()
    assert found[:, 140:].all()


# Detecting


def test_boxes_and_masks_are_in_pixels_of_the_photo():
    network = Fixed([[0.25, 0.5, 0.75, 1.0]], [0.8], [2])
    found = detect_photo(network, np.zeros((200, 400, 3), dtype=np.uint8), 128, ["hammer", "nut"])
    assert network.seen == [((1, 3, 64, 128), [(64, 128)], 0.02)]
    assert found.boxes.tolist() == [[100, 100, 300, 200]]
    assert found.boxes.dtype == found.scores.dtype == np.float64
    assert found.categories == ("nut",)
    assert found.scores.tolist() == pytest.approx([0.8])
    assert found.masks.shape == (1, 200, 400)
    assert found.masks[0, 100:200, 100:300].all()
    assert found.masks.sum() == 100 * 200
    assert found.size == (200, 400)


@settings(max_examples=20)
@given(size=st.tuples(st.integers(20, 300), st.integers(20, 300)), side=st.sampled_from([64, 96, 256]))
def test_boxes_and_masks_agree_for_photos_of_any_size(size, side):
    network = Fixed([[0.2, 0.3, 0.6, 0.9]], [0.8], [1])
    found = detect_photo(network, np.zeros((*size, 3), dtype=np.uint8), side, ["hammer"])
    scale = np.array([size[1], size[0]] * 2)
    np.testing.assert_allclose(found.boxes[0] / scale, [0.2, 0.3, 0.6, 0.9], atol=1e-5)
    np.testing.assert_allclose(pixels.box(found.rles[0], size), found.boxes[0], atol=0.51)


def test_a_detection_without_a_pixel_is_none():
    network = Fixed([[0.1, 0.1, 0.5, 0.5], [0.2, 0.2, 0.9, 0.9]], [0.9, 0.8], [1, 1], fill=0.1)
    found = detect_photo(network, np.zeros((64, 64, 3), dtype=np.uint8), 64, ["hammer"])
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.masks.shape == (0, 64, 64)


def photo_files(folder, count=2):
    entries = []
    for i in range(count):
        path = folder / f"{i}.png"
        Picture.new("RGB", (40 + i, 30)).save(path)
        entries.append((Image(i + 5, path.name, 40 + i, 30), path))
    return entries


def test_photos_become_a_dataset_with_a_score_for_every_object(tmp_path):
    network = Fixed([[0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 1.0]], [0.9, 0.3], [1, 2])
    ticks = []
    found = detect_photos(
        network,
        photo_files(tmp_path),
        64,
        [Category(4, "hammer"), Category(9, "nut")],
        tick=lambda: ticks.append(1),
        info={"description": "x"},
    )
    assert found.ids.tolist() == [1, 2, 3, 4]
    assert [image.id for image in found.images] == [5, 6]
    assert found.category_ids.tolist() == [4, 9, 4, 9]
    assert found.scores.tolist() == pytest.approx([0.9, 0.3] * 2)
    assert found.boxes[0].tolist() == [0, 0, 20, 15]
    assert found.info == {"description": "x"}
    assert len(ticks) == 2


@pytest.mark.parametrize("short_side", [None, 48])
def test_of_a_jpeg_that_is_decoded_smaller_all_is_in_pixels_of_the_file(tmp_path, short_side):
    noise = np.random.default_rng(0).integers(0, 256, (400, 640, 3)).astype(np.uint8)
    Picture.fromarray(noise).save(tmp_path / "a.jpg")
    network, sizes = Fixed([[0.25, 0.5, 0.75, 1.0]], [0.8], [1]), [(400, 640)]
    entries = [(Image(1, "a.jpg", 640, 400), tmp_path / "a.jpg")]
    assert read_reduced(tmp_path / "a.jpg", DECODED * 64)[0].shape == (100, 160, 3)
    found = detect_photos(network, entries, 64, [Category(1, "hammer")], short_side=short_side)
    assert [shapes for _, shapes, _ in network.seen] == [[(40, 64)]]
    assert found.boxes.tolist() == [[160, 200, 480, 400]]
    assert pixels.runs(found.rle(0)).sum() == 400 * 640
    assert found.mask(0)[200:400, 160:480].all()
    assert found.areas.tolist() == [200 * 320]
    assert [image.size for image in found.images] == sizes


@pytest.mark.parametrize("short_side", [None, 48])
def test_a_jpeg_that_is_decoded_smaller_is_scaled_by_the_files_own_sides(tmp_path, short_side):
    """413 of 640 are 41.3 of 64; decoded at a quarter, 104 of 160 would be 41.6."""
    Picture.new("RGB", (640, 413)).save(tmp_path / "a.jpg")
    assert read_reduced(tmp_path / "a.jpg", DECODED * 64)[0].shape == (104, 160, 3)
    network = Fixed([[0.25, 0.5, 0.75, 1.0]], [0.8], [1])
    entries = [(Image(1, "a.jpg", 640, 413), tmp_path / "a.jpg")]
    found = detect_photos(network, entries, 64, [Category(1, "hammer")], short_side=short_side)
    assert [shapes for _, shapes, _ in network.seen] == [[(41, 64)]]
    assert found.boxes[0].tolist() == pytest.approx([160, 206.5, 480, 413])


def test_a_photo_in_memory_may_be_a_smaller_one_of_a_size_that_is_stated():
    network, photo = Fixed([[0.25, 0.5, 0.75, 1.0]], [0.8], [1]), np.zeros((100, 160, 3), dtype=np.uint8)
    for short_side in (None, 48):
        found = detect_photo(network, photo, 64, ["hammer"], short_side=short_side, size=(400, 640))
        assert (found.size, found.photo) == ((400, 640), None)
        assert found.boxes.tolist() == [[160, 200, 480, 400]]
        assert found.masks.shape == (1, 400, 640)


@pytest.mark.parametrize(("short_side", "inner"), [(None, (40, 64)), (32, (32, 51))])
def test_photos_are_scaled_to_the_shorter_side_where_there_is_one(tmp_path, short_side, inner):
    Picture.new("RGB", (160, 100)).save(tmp_path / "a.png")
    network = Fixed([[0, 0, 1, 1]], [0.8], [1])
    entries = [(Image(1, "a.png", 160, 100), tmp_path / "a.png")]
    detect_photos(network, entries, 64, [Category(1, "hammer")], short_side=short_side)
    assert [shapes for _, shapes, _ in network.seen] == [[inner]]


def test_photos_without_objects_stay_in_the_list(tmp_path):
    found = detect_photos(Fixed([[0, 0, 1, 1]], [0.01], [1]), photo_files(tmp_path), 64, [Category(1, "hammer")])
    assert (len(found), len(found.images)) == (0, 2)


def test_a_photo_that_cannot_be_read_is_named(tmp_path):
    entries = photo_files(tmp_path)
    entries[1][1].write_bytes(b"x")
    with pytest.raises(UserError) as caught:
        detect_photos(Fixed([], [], []), entries, 64, [Category(1, "hammer")])
    assert str(caught.value) == (
        f"a photo cannot be read\n  {entries[1][1]} is not a picture that can be read\nfix: replace or remove it"
    )


def test_a_photo_of_another_size_is_named(tmp_path):
    entries = photo_files(tmp_path, 1)
    Picture.new("RGB", (30, 40)).save(entries[0][1])
    with pytest.raises(UserError) as caught:
        detect_photos(Fixed([], [], []), entries, 64, [Category(1, "hammer")])
    assert str(caught.value) == (
        "a photo's size is not the one its dataset states\n"
        f"  {entries[0][1]} is 30 x 40, stated 40 x 30\n"
        "fix: prepare the data again"
    )


# Detections


def test_masks_are_decoded_at_the_photos_size():
    found, masks = three()
    assert found.masks.dtype == bool
    np.testing.assert_array_equal(found.masks, masks)
    assert len(found) == 3


def test_above_keeps_those_of_at_least_the_score():
    found, masks = three()
    assert found.above(0.5).scores.tolist() == [0.9, 0.5]
    assert found.above(0.5).categories == ("hammer", "nut")
    np.testing.assert_array_equal(found.above(0.5).masks, masks[:2])
    none = found.above(0.95)
    assert (len(none), none.masks.shape, none.boxes.shape) == (0, (0, 30, 40), (0, 4))


def test_the_picture_changes_where_the_masks_are_and_nowhere_else():
    found, masks = three()
    picture = found.picture()
    changed = (picture != 60).any(axis=2)
    np.testing.assert_array_equal(changed, masks.any(axis=0))
    assert (found.photo == 60).all()  # the kept photo is not drawn into
    assert not np.array_equal(picture[5, 10], picture[20, 7])  # categories differ in colour


def test_without_a_kept_photo_the_ground_is_grey():
    found, _ = three()
    bare = Detections(found.rles, found.boxes, found.scores, found.categories, found.size)
    assert bare.picture()[0, 0].tolist() == [128, 128, 128]


def test_a_png_is_the_mask_of_all_objects(tmp_path):
    found, masks = three()
    assert found.save(tmp_path / "m.png") == tmp_path / "m.png"
    with Picture.open(tmp_path / "m.png") as picture:
        assert picture.mode == "L"
        np.testing.assert_array_equal(np.asarray(picture), masks.any(axis=0) * 255)


def test_a_png_without_objects_is_black(tmp_path):
    found, _ = three()
    found.above(1.0).save(str(tmp_path / "m.png"))
    with Picture.open(tmp_path / "m.png") as picture:
        assert (picture.size, np.asarray(picture).max()) == ((40, 30), 0)


@pytest.mark.parametrize("name", ["p.jpg", "P.JPEG"])
def test_a_jpg_is_the_drawn_photo(tmp_path, name):
    found, _ = three()
    found.save(tmp_path / name)
    with Picture.open(tmp_path / name) as picture:
        assert picture.format == "JPEG"
        difference = np.abs(np.asarray(picture).astype(int) - found.picture().astype(int))
    assert difference.mean() < 12


def test_other_suffixes_are_refused(tmp_path):
    found, _ = three()
    with pytest.raises(UserError) as caught:
        found.save(tmp_path / "m.gif")
    assert str(caught.value) == (
        f"detections are saved as .png (mask) or .jpg (drawn photo)\n  {tmp_path / 'm.gif'}\nfix: give such a name"
    )
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def backend(monkeypatch):
    """Return a function that has matplotlib take another backend at the next figure, until the test is over."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    former = mpl.rcParams._get_backend_or_none() or "agg"

    def take(name):
        monkeypatch.setattr(plt, "_backend_mod", None)  # none is loaded yet
        mpl.rcParams["backend"] = name

    yield take
    plt.close("all")
    plt.switch_backend(former)


def test_show_draws_the_photo_with_names_and_scores(tmp_path, monkeypatch, backend):
    # As notebooks have one: it draws as Agg does, and shows the picture itself.
    (tmp_path / "cell_of_a_notebook.py").write_text(
        "from matplotlib.backends.backend_agg import FigureCanvasAgg as FigureCanvas\n"
        "from matplotlib.backend_bases import FigureManagerBase as FigureManager\n"
        "shown = []\n"
        "def show(*args, **kwargs):\n"
        "    import matplotlib.pyplot as plt\n"
        "    shown.append(plt.gcf())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    backend("module://cell_of_a_notebook")
    found, _ = three()
    found.show()
    (figure,) = sys.modules["cell_of_a_notebook"].shown
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["hammer 0.90", "nut 0.50", "hammer 0.10"]
    np.testing.assert_array_equal(axes.images[0].get_array(), found.picture())


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("agg", "matplotlib's backend here is agg, which opens no window"),
        ("SVG", "matplotlib's backend here is svg, which opens no window"),
        ("tkagg", "Cannot load backend 'tkagg' which requires the 'tk' interactive framework"),
    ],
)
def test_without_a_display_show_says_what_to_do_instead(monkeypatch, backend, name, why):
    import matplotlib.pyplot as plt
    from matplotlib import cbook

    monkeypatch.setattr(cbook, "_get_running_interactive_framework", lambda: "headless")
    backend(name)
    found, _ = three()
    with pytest.raises(UserError) as caught:
        found.show()
    what, where, fix = str(caught.value).splitlines()
    assert what == "there is no display to show the photo on"
    assert where.lower().startswith(f"  {why.lower()}")
    assert fix == "fix: save it, and open the file: save('found.jpg')"
    assert plt.get_fignums() == []


def test_detections_are_told_in_one_short_line():
    found, _ = three()
    assert repr(found) == "Detections(3 objects: hammer 2, nut 1; 40x30)"
    assert repr(found.above(0.9)) == "Detections(1 object: hammer 1; 40x30)"
    assert repr(found.above(1.0)) == "Detections(no objects; 40x30)"
    names = ("a", "b", "c", "d", "e", "f", "g", "g")
    many = Detections((b"",) * 8, np.zeros((8, 4)), np.ones(8), names, (480, 640))
    assert repr(many) == "Detections(8 objects: g 2, a 1, b 1, c 1, d 1, 2 more categories; 640x480)"
