"""A photo seen twice: mirroring is exact, two views become one set of boxes, and the masks stay where they were."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import roi_align

from maskwright.batches import FILL
from maskwright.detections import detect_photo
from maskwright.flips import ALONE, detect_twice, merged, mirrored, mirrored_boxes, pairs
from maskwright.models import ARCHITECTURES

RED = (220, 30, 30)


class Seeing(nn.Module):
    """Finds red blobs, each in a band of rows of its own; its boxes can be off to the right, and its score unsure.

    Without `off` and `shade` what it finds in a mirrored photo is the mirror image of what it finds in the photo.
    """

    def __init__(self, off=0.0, shade=0.0, bands=4):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.off, self.shade, self.bands = off, shade, bands
        self.seen = []

    def detect(self, images, shapes, least_score=0.02, *, between=None):
        self.seen.append(images)
        red = (images[:, 0].float() > 150) & (images[:, 1].float() < 100)
        results = []
        for one, (height, width) in zip(red, shapes, strict=True):
            assert not one[height:].any()
            assert not one[:, width:].any()
            boxes, scores = [], []
            for band in range(self.bands):
                top, bottom = band * height // self.bands, (band + 1) * height // self.bands
                ys, xs = torch.nonzero(one[top:bottom], as_tuple=True)
                if len(ys):
                    x1, x2 = int(xs.min()), int(xs.max()) + 1
                    boxes.append([x1 + self.off, top + int(ys.min()), x2 + self.off, top + int(ys.max()) + 1])
                    scores.append(0.9 - band / 8 - self.shade * (x1 + x2) / 2 / width)
            found = {
                "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                "scores": torch.tensor(scores, dtype=torch.float32),
                "labels": torch.ones(len(boxes), dtype=torch.int64),
            }
            order = found["scores"].argsort(descending=True, stable=True)
            results.append({k: v[order] for k, v in found.items()})
        if between is not None:
            results = between(results)
        for k, result in enumerate(results):
            result["windows"] = result["boxes"]
            index = torch.full((len(result["boxes"]), 1), float(k))
            places = torch.cat([index, result["boxes"]], 1)
            result["masks"] = roi_align(red[:, None].float(), places, 28, 1.0, 2, True)[:, 0]
        return results


def picture(height, width, rng, symmetric=False):
    """Return a photo with a red rectangle in some of four bands, none touching the border."""
    photo = np.full((height, width, 3), 200, dtype=np.uint8)
    for band in range(4):
        top, bottom = band * height // 4 + 1, (band + 1) * height // 4 - 1
        x1 = int(rng.integers(1, width // 2 - 2)) if symmetric else int(rng.integers(1, width - 7))
        x2 = width - x1 if symmetric else int(rng.integers(x1 + 3, min(width - 1, x1 + 20)))
        if rng.random() < 0.8:
            photo[top:bottom, x1:x2] = RED
    return photo


sizes = st.tuples(st.integers(32, 90), st.integers(33, 90))
seeds = st.integers(0, 2**32)


def detected(network, photo, flip=True):
    return detect_photo(network, photo, max(photo.shape[:2]), ["a", "b"], test_time_flip=flip)


# Mirroring


@given(st.integers(1, 9), st.integers(0, 4), seeds)
def test_only_the_photo_is_mirrored_and_twice_is_as_before(width, padding, seed):
    image = torch.randint(0, 256, (3, 4, width + padding), generator=torch.Generator().manual_seed(seed))
    once = mirrored(image, width)
    np.testing.assert_array_equal(once[..., :width].numpy(), image[..., :width].numpy()[..., ::-1])
    assert torch.equal(once[..., width:], image[..., width:])
    assert torch.equal(mirrored(once, width), image)


@given(st.lists(st.floats(-50, 3000, width=32), min_size=4, max_size=4), st.integers(1, 2048))
def test_boxes_mirrored_twice_are_as_before(box, width):
    boxes = torch.tensor([box])
    once = mirrored_boxes(boxes, width)
    assert (once[:, 2] - once[:, 0]).item() == pytest.approx((boxes[:, 2].double() - boxes[:, 0].double()).item())
    np.testing.assert_allclose(mirrored_boxes(once, width), boxes.double(), rtol=0, atol=1e-9)


# Boxes of two views


def view(*rows):
    """Return detections of rows `(x1, y1, x2, y2, label, score)`."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return {"boxes": table[:, :4], "labels": table[:, 4].long(), "scores": table[:, 5]}


def test_a_pair_is_averaged_by_score_and_a_lone_one_loses_half():
    found = merged(view((0, 0, 10, 10, 1, 0.6), (50, 50, 60, 60, 2, 0.9)), view((2, 0, 12, 12, 1, 0.2)))
    assert found["labels"].tolist() == [2, 1]
    np.testing.assert_allclose(found["scores"], [0.9 * ALONE, 0.4], rtol=1e-6)
    np.testing.assert_allclose(found["boxes"], [[50, 50, 60, 60], [0.5, 0, 10.5, 10.5]], rtol=1e-6)


def test_boxes_of_two_categories_are_no_pair_nor_those_that_hardly_overlap():
    first, second = pairs(view((0, 0, 10, 10, 1, 0.6)), view((0, 0, 10, 10, 2, 0.6), (4, 0, 14, 10, 1, 0.6)))
    assert (first.tolist(), second.tolist()) == ([], [])
    assert len(merged(view((0, 0, 10, 10, 1, 0.6)), view((0, 0, 10, 10, 2, 0.6)))["scores"]) == 2


def test_a_box_stands_in_one_pair_the_nearest():
    one = view((0, 0, 10, 10, 1, 0.9), (3, 0, 13, 10, 1, 0.1))
    first, second = pairs(one, view((3, 0, 13, 10, 1, 0.5)))
    assert (first.tolist(), second.tolist()) == ([1], [0])


def test_few_and_weak_ones_are_cut():
    one = view((0, 0, 10, 10, 1, 0.6), (20, 0, 30, 10, 1, 0.5), (40, 0, 50, 10, 1, 0.05))
    assert len(merged(one, view(), least_score=0.03)["scores"]) == 2
    np.testing.assert_allclose(merged(one, view(), most=1)["scores"], [0.3], rtol=1e-6)
    assert [len(v) for v in merged(view(), view()).values()] == [0, 0, 0]


rows = st.lists(
    st.builds(
        lambda x, y, w, h, label, score: (x, y, x + w, y + h, label, score),
        *[st.integers(0, 30)] * 2,
        *[st.integers(1, 30)] * 2,
        st.integers(1, 2),
        st.floats(0.03125, 1, width=32),
    ),
    max_size=6,
)


def as_set(found):
    return sorted(torch.cat([found["boxes"], found["labels"][:, None], found["scores"][:, None]], 1).tolist())


@settings(max_examples=150)
@given(rows, rows)
def test_which_view_is_which_makes_no_difference_and_nothing_is_lost(ones, others):
    one, other = view(*ones), view(*others)
    first, second = pairs(one, other)
    found = merged(one, other)
    assert len(found["scores"]) == len(ones) + len(others) - len(first)
    assert len(set(first.tolist())) == len(set(second.tolist())) == len(first)
    assert (found["scores"].diff() <= 0).all()
    total = (one["scores"].double().sum() + other["scores"].double().sum()) / 2
    assert found["scores"].sum().item() == pytest.approx(total.item())
    overlaps = {(i, j) for i, j in zip(first.tolist(), second.tolist(), strict=True)}
    back = {(i, j) for j, i in zip(*(v.tolist() for v in pairs(other, one)), strict=True)}
    if overlaps == back:  # among equal overlaps the order decides
        np.testing.assert_allclose(as_set(merged(other, one)), as_set(found), rtol=1e-9)


@given(rows)
def test_two_equal_views_are_one(ones):
    distinct = list({row[:5]: row for row in ones}.values())
    one = view(*distinct)
    np.testing.assert_allclose(as_set(merged(one, one)), as_set(view(*distinct)), rtol=1e-6)


# Photos


@settings(max_examples=40, deadline=None)
@given(sizes, seeds)
def test_a_network_that_sees_mirror_images_alike_finds_the_same_with_flips(size, seed):
    photo = picture(*size, np.random.default_rng(seed))
    plain, twice = detected(Seeing(), photo, flip=False), detected(Seeing(), photo)
    assert twice.rles == plain.rles
    assert twice.categories == plain.categories
    np.testing.assert_array_equal(twice.boxes, plain.boxes)
    np.testing.assert_allclose(twice.scores, plain.scores, rtol=1e-6)


@settings(max_examples=40, deadline=None)
@given(sizes, seeds)
def test_what_is_found_in_a_mirrored_photo_is_mirrored(size, seed):
    photo = picture(*size, np.random.default_rng(seed))
    network = Seeing(off=1.25, shade=0.25)
    here, there = detected(network, photo), detected(network, np.ascontiguousarray(photo[:, ::-1]))
    assert len(here) == len(there)
    for rle, mask in zip(here.masks, there.masks, strict=True):
        np.testing.assert_array_equal(mask, rle[:, ::-1])
    np.testing.assert_allclose(there.boxes, mirrored_boxes(torch.tensor(here.boxes), size[1]), rtol=0, atol=1e-4)
    np.testing.assert_allclose(there.scores, here.scores, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(sizes, seeds)
def test_a_symmetric_photo_has_symmetric_detections(size, seed):
    photo = picture(*size, np.random.default_rng(seed), symmetric=True)
    np.testing.assert_array_equal(photo, photo[:, ::-1])
    found = detected(Seeing(off=0.75), photo)
    for mask in found.masks:
        np.testing.assert_array_equal(mask, mask[:, ::-1])
    np.testing.assert_allclose(found.boxes[:, 0] + found.boxes[:, 2], size[1], rtol=0, atol=1e-4)


def test_an_error_to_one_side_cancels_out():
    photo = np.full((40, 61, 3), 200, dtype=np.uint8)
    photo[3:33, 20:37] = RED
    crooked = detected(Seeing(off=2, bands=1), photo, flip=False)
    np.testing.assert_allclose(crooked.boxes, [[22, 3, 39, 33]])
    np.testing.assert_allclose(detected(Seeing(off=2, bands=1), photo).boxes, [[20, 3, 37, 33]], rtol=1e-6)


def test_the_padding_stays_on_the_right_and_an_empty_photo_is_empty():
    network = Seeing()
    assert len(detected(network, np.full((40, 61, 3), 200, dtype=np.uint8))) == 0
    (images,) = network.seen
    assert images.shape == (2, 3, 64, 64)
    assert (images[:, :, :40, :61] == 200).all()
    assert (images[:, :, 40:] == FILL).all()
    assert (images[..., 61:] == FILL).all()


def test_without_flips_the_photo_is_seen_once():
    network = Seeing()
    detected(network, np.full((40, 61, 3), 200, dtype=np.uint8), flip=False)
    assert [tuple(images.shape) for images in network.seen] == [(1, 3, 64, 64)]


# Real networks

SIZES = {"categories": 2, "detections_per_photo": 12}
STOCK = SIZES | {"proposals_per_photo": 50, "channels": 32, "head_channels": 32, "backbone": "resnet18"}


@pytest.fixture(scope="module", params=["maskrcnn-nano", "maskrcnn-r50-fpn", "maskrcnn-r50-fpn-v2"])
def network(request):
    torch.manual_seed(3)
    built = ARCHITECTURES[request.param](SIZES if request.param == "maskrcnn-nano" else STOCK, "none").eval()
    with torch.no_grad():  # spread the scores
        for name, parameter in built.named_parameters():
            if name.endswith(("score.weight", "cls_score.weight")):
                parameter.mul_(20)
    return built


@torch.inference_mode()
def test_boxes_that_pass_through_unchanged_change_nothing(network):
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shapes = [(60, 96), (64, 90)]
    plain = network.detect(images, shapes, 0.02)
    seen = []

    def between(results):
        seen.extend(set(r) for r in results)
        return [r | {"place": torch.arange(len(r["scores"]))} for r in results]

    through = network.detect(images, shapes, 0.02, between=between)
    assert seen == [{"boxes", "labels", "scores"}] * 2
    for one, other in zip(plain, through, strict=True):
        assert len(one["scores"]) > 3
        assert sorted(other.pop("place").tolist()) == list(range(len(one["scores"])))
        assert all(torch.equal(one[k], other[k]) for k in one)


@torch.inference_mode()
def test_every_network_finds_the_mirror_image_in_a_mirrored_photo(network):
    inner = (60, 91)
    image = torch.full((3, 64, 96), FILL, dtype=torch.uint8)
    image[:, :60, :91] = torch.randint(0, 256, (3, 60, 91), generator=torch.Generator().manual_seed(1)).byte()
    here = detect_twice(network, image, inner, 0.02)
    there = detect_twice(network, mirrored(image, 91), inner, 0.02)
    assert 3 < len(here["scores"]) == len(there["scores"]) <= 12
    assert here["scores"].dtype == here["masks"].dtype == torch.float32
    assert (here["scores"].diff() <= 0).all()
    np.testing.assert_allclose(there["scores"], here["scores"], atol=1e-4)
    np.testing.assert_allclose(there["boxes"], mirrored_boxes(here["boxes"], 91), atol=1e-2)
    np.testing.assert_allclose(there["masks"], here["masks"].flip(-1), atol=1e-3)
