"""A photo and its masks stay together through every augmentation; every random choice follows from seed and step."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image as Picture

from maskwright import pixels
from maskwright.batches import (
    FILL,
    MEAN_FILL,
    NO_AUGMENTATION,
    Augmentation,
    Photos,
    batch_photos,
    frame_photo,
    kept_shape,
    make_batch,
    order,
    prefetch,
    sides_of,
)
from maskwright.crops import whole
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import UserError
from maskwright.settings import TrainSettings

RED, BLUE = (220, 30, 30), (40, 90, 160)
WILD = Augmentation(flip=True, turn=True, scale_jitter=2.0, colour_jitter=0.4)


def shape(height, width, thick=0.3):
    """Return an F, which looks different in every mirror and turn, in the middle of `(height, width)`."""
    mask = np.zeros((height, width), dtype=bool)
    top, left, h, w = height // 5, width // 4, height * 3 // 5, width // 2
    bar_w, bar_h = max(2, int(w * thick)), max(2, int(h * thick * 0.7))
    mask[top : top + h, left : left + bar_w] = True
    mask[top : top + bar_h, left : left + w] = True
    mask[top + h // 2 : top + h // 2 + bar_h, left : left + w * 3 // 4] = True
    return mask


def painted(mask):
    picture = np.empty((*mask.shape, 3), dtype=np.uint8)
    picture[:] = BLUE
    picture[mask] = RED
    return picture


def dataset(folder, photos):
    """Write photos, given as lists of `(mask, category id, crowd)` with red where any mask is."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for i, objects in enumerate(photos):
        union = np.any([mask for mask, _, _ in objects], axis=0)
        Picture.fromarray(painted(union)).save(folder / f"{i}.png")
        images.append(Image(i + 1, f"{i}.png", union.shape[1], union.shape[0]))
        for mask, category, crowd in objects:
            annotations.append(Annotation(len(annotations) + 1, i + 1, category, pixels.encode(mask), crowd))
    return Dataset.build([Category(3, "hammer"), Category(8, "nut")], images, annotations, folder=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="module")
def five(folder):
    """Five photos of differing sizes, one object each."""
    sizes = [(60, 80), (80, 60), (64, 64), (200, 300), (90, 90)]
    return dataset(folder / "five", [[(shape(h, w), 3 if i % 2 else 8, False)] for i, (h, w) in enumerate(sizes)])


def red(image):
    """Tell which pixels of a `(3, H, W)` image are nearer to red than to blue."""
    values = image.numpy().astype(int)
    return values[0] - values[2] > 35


def overlap(a, b):
    return (a & b).sum() / (a | b).sum()


def same(a, b):
    return (
        torch.equal(a.image, b.image)
        and torch.equal(a.boxes, b.boxes)
        and torch.equal(a.labels, b.labels)
        and torch.equal(a.masks, b.masks)
        and a.objects == b.objects
    )


# Photo and masks


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(40, 260), st.integers(40, 260)),
    canvas=st.sampled_from([(96, 96), (64, 128), (128, 96)]),
    flip=st.booleans(),
    turn=st.booleans(),
    scale=st.floats(1.0, 2.0),
    quarter=st.integers(0, 3),
    seed=st.integers(0, 10**6),
    step=st.integers(0, 10**6),
)
def test_masks_are_where_the_photo_shows_the_object(folder, size, canvas, flip, turn, scale, quarter, seed, step):
    data = dataset(folder / "law", [[(shape(*size), 3, False)]])
    how = Augmentation(flip=flip, turn=turn, scale_jitter=scale, colour_jitter=0.0)
    sample = Photos(data, canvas, how, seed).sample(0, step, 0, quarter)
    height, width = canvas if quarter % 2 == 0 else canvas[::-1]
    assert sample.image.shape == (3, height, width)
    assert sample.image.dtype == sample.masks.dtype == torch.uint8
    assert len(sample.masks) == len(sample.boxes) == len(sample.labels) == len(sample.objects)
    assume(len(sample.masks) == 1)
    mask = sample.masks[0].numpy().astype(bool)
    seen = red(sample.image)
    assert int(sample.masks.max()) == 1
    # Two rasterisations of one outline differ by less than a pixel of it.
    rim = mask & ~(np.roll(mask, 1, 0) & np.roll(mask, -1, 0) & np.roll(mask, 1, 1) & np.roll(mask, -1, 1))
    assert (mask ^ seen).sum() <= 0.6 * rim.sum() + 4
    if mask.sum() > 300:
        assert overlap(mask, seen) > 0.85
    ys, xs = np.nonzero(mask)
    assert sample.boxes[0].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_without_augmentation_a_photo_of_the_canvas_size_is_itself(folder):
    mask = shape(64, 96)
    data = dataset(folder / "identity", [[(mask, 3, False)]])
    sample = Photos(data, (64, 96), NO_AUGMENTATION, 0).sample(0, 5, 0)
    np.testing.assert_array_equal(sample.image.numpy().transpose(1, 2, 0), painted(mask))
    np.testing.assert_array_equal(sample.masks[0].numpy().astype(bool), mask)
    assert sample.labels.tolist() == [1]
    assert sample.boxes.dtype == torch.float32


def test_four_quarter_turns_are_the_four_turns_of_the_photo(folder):
    mask = shape(64, 96)
    photos = Photos(dataset(folder / "quarters", [[(mask, 3, False)]]), (64, 96), NO_AUGMENTATION, 0)
    for quarter in range(4):
        found = photos.sample(0, 0, 0, quarter).masks[0].numpy().astype(bool)
        np.testing.assert_array_equal(found, np.rot90(mask, -quarter))


def test_flip_mirrors_about_half_of_the_photos(folder):
    mask = shape(64, 96)
    data = dataset(folder / "flip", [[(mask, 3, False)]])
    how = Augmentation(flip=True, turn=False, tilt_degrees=0, scale_jitter=1.0, colour_jitter=0)
    photos = Photos(data, (64, 96), how, 0)
    found = [photos.sample(0, step, 0).masks[0].numpy().astype(bool) for step in range(40)]
    as_is = sum(np.array_equal(f, mask) for f in found)
    mirrored = sum(np.array_equal(f, mask[:, ::-1]) for f in found)
    assert as_is + mirrored == 40
    assert 10 <= mirrored <= 30


def test_outside_the_photo_is_grey(folder):
    data = dataset(folder / "wide", [[(shape(32, 128), 3, False)]])
    sample = Photos(data, (96, 96), NO_AUGMENTATION, 0).sample(0, 0, 0)
    assert torch.equal(sample.image[:, :30], torch.full((3, 30, 96), FILL, dtype=torch.uint8))
    assert int(sample.masks[:, :30].sum()) == 0


def test_colours_change_and_masks_do_not(folder):
    mask = shape(64, 64)
    data = dataset(folder / "colour", [[(mask, 3, False)]])
    how = Augmentation(flip=False, turn=False, tilt_degrees=0, scale_jitter=1.0, colour_jitter=0.5)
    photos = Photos(data, (64, 64), how, 0)
    samples = [photos.sample(0, step, 0) for step in range(4)]
    np.testing.assert_array_equal(samples[0].masks[0].numpy().astype(bool), mask)
    assert all(torch.equal(s.masks, samples[0].masks) for s in samples)
    assert len({s.image.numpy().tobytes() for s in samples}) == 4


def test_every_object_has_its_own_mask_label_and_place(folder):
    left, right = np.zeros((64, 64), dtype=bool), np.zeros((64, 64), dtype=bool)
    left[10:30, 5:25], right[30:60, 35:60] = True, True
    data = dataset(folder / "two", [[(left, 8, False), (right, 3, False)]])
    sample = Photos(data, (64, 64), NO_AUGMENTATION, 0).sample(0, 0, 0)
    assert sample.labels.tolist() == [2, 1]
    assert sample.boxes.tolist() == [[5, 10, 25, 30], [35, 30, 60, 60]]
    assert sample.objects == (0, 1)
    np.testing.assert_array_equal(sample.masks.numpy().astype(bool), [left, right])


def test_crowds_empty_masks_and_slivers_are_left_out(folder):
    object_, crowd, empty, sliver = (np.zeros((64, 64), dtype=bool) for _ in range(4))
    object_[10:30, 10:30], crowd[40:60, 40:60], sliver[0:2, 0:3] = True, True, True
    objects = [(crowd, 3, True), (empty, 3, False), (object_, 8, False), (sliver, 3, False)]
    data = dataset(folder / "crowd", [objects])
    sample = Photos(data, (64, 64), NO_AUGMENTATION, 0).sample(0, 0, 0)
    assert sample.objects == (2,)
    assert sample.labels.tolist() == [2]


def test_a_photo_without_objects_has_empty_targets_of_the_right_shape(folder):
    data = dataset(folder / "none", [[(np.zeros((64, 64), dtype=bool), 3, True)]])
    sample = Photos(data, (64, 96), WILD, 0).sample(0, 0, 0)
    assert sample.boxes.shape == (0, 4)
    assert sample.masks.shape == (0, 64, 96)
    assert sample.labels.dtype == torch.int64


# Random choices


def test_a_sample_follows_from_seed_step_and_slot_whatever_came_before(five):
    fresh = Photos(five, (64, 64), WILD, 7)
    used = Photos(five, (64, 64), WILD, 7)
    used.fill_cache(2)
    for step in range(3):
        used.sample(1, step, 0)
    assert len(used.cache) == 5
    assert same(fresh.sample(3, 11, 2, 1), used.sample(3, 11, 2, 1))
    assert not same(used.sample(3, 11, 2, 1), used.sample(3, 11, 3, 1))
    assert not same(used.sample(3, 11, 2, 1), used.sample(3, 12, 2, 1))
    assert not same(used.sample(3, 11, 2, 1), Photos(five, (64, 64), WILD, 8).sample(3, 11, 2, 1))


def test_photos_that_are_left_out_are_not_decoded(five):
    photos = Photos(five, (64, 64), WILD, 1)
    photos.left_out = {1}
    photos.fill_cache(1)
    assert sorted(photos.cache) == [0, 2, 3, 4]


def test_photos_can_be_done_without_if_one_with_an_object_is_left(folder):
    mask = shape(64, 64)
    data = dataset(folder / "without", [[(mask, 3, False)], [(mask, 8, False)], [(mask, 3, True)]])  # the last: a crowd
    photos = Photos(data, (64, 64), NO_AUGMENTATION, 0)
    assert [photos.can_do_without(some) for some in ([], [0], [1, 2], {0, 1}, [0, 1, 2])] == [True] * 3 + [False] * 2


def test_memory_that_is_not_there_changes_nothing_but_the_time(five):
    none, some = Photos(five, (64, 64), WILD, 1, memory_mb=0), Photos(five, (64, 64), WILD, 1)
    none.fill_cache(1)
    some.fill_cache(1)
    assert (len(none.cache), len(some.cache)) == (0, 5)
    assert same(none.sample(3, 0, 0), some.sample(3, 0, 0))


# Copy and paste


PASTE = Augmentation(flip=True, turn=False, scale_jitter=1.3, colour_jitter=0.0, copy_paste=1.0)


def test_without_pasting_a_sample_is_what_it_was(five):
    """The draws of pasting are its own: a sample that is left alone is the one without pasting."""
    plain = Photos(five, (64, 64), WILD, 5)
    some = Photos(five, (64, 64), replace(WILD, copy_paste=0.5), 5)
    alone = [step for step in range(40) if same(plain.sample(2, step, 1), some.sample(2, step, 1))]
    assert 10 <= len(alone) <= 30


def test_objects_of_another_photo_are_pasted_with_their_masks(five):
    photos = Photos(five, (64, 96), PASTE, 2)
    pasted = 0
    for step in range(30):
        index = step % 5
        sample = photos.sample(index, step, 0)
        masks = sample.masks.numpy().astype(bool)
        assert masks.sum(axis=0).max(initial=0) <= 1  # one object a photo: what is pasted takes pixels away
        own = [k for k in sample.objects if k == index]
        others = [k for k in sample.objects if k != index]
        assert list(sample.objects) == own + others
        pasted += len(others)
        assert sample.labels.tolist() == [photos.label_of[int(five.category_ids[k])] for k in sample.objects]
        for mask, box in zip(masks, sample.boxes.tolist(), strict=True):
            ys, xs = np.nonzero(mask)
            assert box == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
            inner = mask & np.roll(mask, 2, 0) & np.roll(mask, -2, 0) & np.roll(mask, 2, 1) & np.roll(mask, -2, 1)
            assert red(sample.image)[inner].mean() > 0.9 if inner.sum() > 20 else True
    assert pasted >= 20


def test_pasting_follows_from_seed_step_and_slot_whatever_came_before(five):
    fresh, used = Photos(five, (64, 64), PASTE, 7), Photos(five, (64, 64), PASTE, 7)
    used.fill_cache(2)
    used.sample(1, 3, 0)
    assert all(same(fresh.sample(i, 11, i), used.sample(i, 11, i)) for i in range(5))
    whole_batch = make_batch(used, 6, 4)
    shares = [make_batch(fresh, 6, 4, rank, 2) for rank in range(2)]
    assert torch.equal(whole_batch.images, torch.cat([share.images for share in shares]))
    assert whole_batch.objects == tuple(objects for share in shares for objects in share.objects)
    assert any(len(objects) > 1 for objects in whole_batch.objects)


def test_crowds_are_never_pasted_and_a_photo_never_gives_to_itself(folder):
    crowd, one = np.zeros((64, 64), dtype=bool), np.zeros((64, 64), dtype=bool)
    crowd[:30, :30], one[35:60, 35:60] = True, True
    data = dataset(folder / "crowds", [[(crowd, 3, True), (one, 3, False)], [(crowd, 3, True)], [(one, 8, False)]])
    photos = Photos(data, (64, 64), PASTE, 0)
    assert photos.givers.tolist() == [0, 2]
    seen = {(i, k) for i in range(3) for step in range(20) for k in photos.sample(i, step, 0).objects}
    assert seen == {(0, 1), (0, 3), (1, 1), (1, 3), (2, 1), (2, 3)}


def test_the_only_photo_with_objects_is_left_alone(folder):
    data = dataset(folder / "alone", [[(shape(64, 64), 3, False)]])
    plain = Photos(data, (64, 64), replace(PASTE, copy_paste=0.0), 0)
    assert all(same(Photos(data, (64, 64), PASTE, 0).sample(0, s, 0), plain.sample(0, s, 0)) for s in range(3))


def test_a_giver_that_cannot_be_read_gives_nothing_and_is_counted(folder):
    data = dataset(folder / "giver", [[(shape(64, 64), 3, False)], [(shape(64, 64), 8, False)]])
    path = folder / "giver" / "1.png"
    path.write_bytes(b"")
    photos = Photos(data, (64, 64), PASTE, 0)
    sample = photos.sample(0, 0, 0)
    assert same(sample, Photos(data, (64, 64), replace(PASTE, copy_paste=0.0), 0).sample(0, 0, 0))
    assert photos.left_out == {1}
    assert photos.unreadable == {1: f"{path} is empty (0 bytes)"}
    assert same(photos.sample(0, 1, 0), Photos(data, (64, 64), replace(PASTE, copy_paste=0.0), 0).sample(0, 1, 0))


def test_pasting_stays_inside_a_photo_that_keeps_its_shape(folder):
    data = dataset(folder / "kept", [[(shape(40, 90), 3, False)], [(shape(90, 40), 8, False)]])
    how = Augmentation(flip=True, tilt_degrees=0.0, scale_jitter=1.5, colour_jitter=0, copy_paste=1.0)
    photos, pasted = Photos(data, (64, 96), how, 0, sides=(48, 80)), 0
    for step in range(10):
        sample = photos.sample(0, step, 0)
        height, width = kept_shape((40, 90), (48, 80))
        for mask, k in zip(sample.masks.numpy(), sample.objects, strict=True):
            assert k == 0 or not (mask[height:].any() or mask[:, width:].any())
            pasted += k != 0
    assert pasted >= 5


def test_the_share_is_that_of_the_settings_and_older_plans_have_none():
    rest = {"flip": True, "turn": False, "scale_jitter": 1, "colour_jitter": 0}
    assert Augmentation.of(TrainSettings(**rest, copy_paste=0.3)).copy_paste == 0.3
    assert Augmentation.of(TrainSettings(**rest)).copy_paste == 0


@settings(max_examples=50)
@given(count=st.integers(1, 60), epoch=st.integers(0, 1000), seed=st.integers(0, 2**32))
def test_the_order_is_a_permutation_that_seed_and_epoch_decide(count, epoch, seed):
    assert sorted(order(count, epoch, seed)) == list(range(count))
    np.testing.assert_array_equal(order(count, epoch, seed), order(count, epoch, seed))


def test_epochs_and_seeds_differ_in_their_order():
    orders = {tuple(order(30, epoch, seed).tolist()) for epoch in range(5) for seed in range(5)}
    assert len(orders) == 25


@settings(max_examples=50)
@given(count=st.integers(1, 30), batch=st.integers(1, 12), seed=st.integers(0, 1000))
def test_every_epoch_shows_each_photo_once(count, batch, seed):
    steps = -(-3 * count // batch)
    seen = [photo for step in range(steps) for photo in batch_photos(count, batch, step, seed)]
    for epoch in range(3):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))


@pytest.mark.parametrize("world", [1, 2, 4])
def test_processes_share_the_batch_that_one_would_make(five, world):
    photos = Photos(five, (64, 96), WILD, 3)
    whole = make_batch(photos, 6, 4)
    shares = [make_batch(photos, 6, 4, rank, world) for rank in range(world)]
    assert whole.photos == tuple(photo for share in shares for photo in share.photos)
    assert torch.equal(whole.images, torch.cat([share.images for share in shares]))
    masks = [target["masks"] for share in shares for target in share.targets]
    assert all(torch.equal(a["masks"], b) for a, b in zip(whole.targets, masks, strict=True))
    assert whole.objects == tuple(objects for share in shares for objects in share.objects)


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_a_batch_of_repeated_photos(folder, world):
    objects = [[(shape(64, 96), 3, False)]] * 3 + [[(shape(64, 96), 8, False)]] + [[(shape(64, 96), 3, True)]] * 4
    data = dataset(folder / f"rare {world}", objects)
    photos = Photos(data, (64, 96), WILD, 3, repeat_rare=0.5)
    np.testing.assert_allclose(photos.factors, [*[(0.5 / 0.375) ** 0.5] * 3, 2, 1, 1, 1, 1])
    for step in (0, 5):
        whole = make_batch(photos, step, 6)
        shares = [make_batch(photos, step, 6, rank, world) for rank in range(world)]
        assert whole.photos == tuple(photo for share in shares for photo in share.photos)
        assert torch.equal(whole.images, torch.cat([share.images for share in shares]))
    seen = [p for step in range(50) for p in make_batch(photos, step, 6).photos]
    assert seen.count(3) == pytest.approx(2 * seen.count(7), abs=2)
    assert Photos(data, (64, 96), WILD, 3).factors is None


def test_a_batch_has_one_size_and_says_what_is_in_it(five):
    photos = Photos(five, (64, 96), WILD, 3)
    sizes = {tuple(make_batch(photos, step, 3).images.shape) for step in range(8)}
    assert sizes == {(3, 3, 64, 96), (3, 3, 96, 64)}  # wide and high canvases, turned as a whole
    batch = make_batch(photos, 0, 3)
    assert set(batch.targets[0]) == {"boxes", "labels", "masks", "windows"}
    assert batch.photos == tuple(batch_photos(5, 3, 0, 3))


# Errors


def test_a_photo_that_cannot_be_read_is_named(folder):
    data = dataset(folder / "broken", [[(shape(64, 64), 3, False)]])
    path = folder / "broken" / "0.png"
    path.write_bytes(b"")
    with pytest.raises(UserError) as caught:
        Photos(data, (64, 64), WILD, 0).sample(0, 0, 0)
    assert str(caught.value) == (
        f"a photo cannot be read\n  {path} is empty (0 bytes)\nfix: replace or remove it, then prepare again"
    )


def test_a_photo_of_another_size_is_named_when_the_cache_is_filled(folder):
    data = dataset(folder / "other", [[(shape(64, 64), 3, False)]])
    path = folder / "other" / "0.png"
    Picture.new("RGB", (50, 70)).save(path)
    with pytest.raises(UserError) as caught:
        Photos(data, (64, 64), WILD, 0).fill_cache(2)
    assert str(caught.value) == (
        "a photo's size is not the one its dataset states\n"
        f"  {path} is 50 x 70, the dataset says 64 x 64\n"
        "fix: prepare the data again"
    )


# Prefetching


def workers():
    return [t for t in threading.enumerate() if t.name == "maskwright-batches"]


def test_prefetch_gives_the_steps_in_order_from_the_start_on():
    batches = prefetch(lambda step: step * 10, 3)
    assert [next(batches) for _ in range(6)] == [30, 40, 50, 60, 70, 80]
    batches.close()
    assert workers() == []


def test_prefetch_raises_an_error_at_its_own_step_and_ends_its_thread():
    def make(step):
        if step == 4:
            raise UserError("photo 4 is broken")
        return step

    batches = prefetch(make, 0)
    assert [next(batches) for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(UserError, match="photo 4 is broken"):
        next(batches)
    assert workers() == []


def test_prefetch_makes_no_more_than_a_few_ahead():
    made = []
    batches = prefetch(lambda step: made.append(step) or step, 0, ahead=2)
    assert next(batches) == 0
    batches.close()
    assert made[0] == 0
    assert len(made) <= 5


def test_prefetch_that_is_never_used_starts_nothing():
    prefetch(lambda step: step, 0).close()
    assert workers() == []


# Detection


@settings(max_examples=60)
@given(height=st.integers(1, 400), width=st.integers(1, 400), side=st.sampled_from([64, 96, 100, 320]))
def test_a_photo_is_framed_in_the_upper_left_corner(height, width, side):
    tensor, frame = frame_photo(np.full((height, width, 3), 200, dtype=np.uint8), side)
    assert frame.size == (height, width)
    assert max(frame.inner) == side
    h, w = frame.inner
    assert [v % 32 for v in tensor.shape[1:]] == [0, 0]
    assert max(tensor.shape[1] - h, tensor.shape[2] - w) < 32
    assert torch.equal(tensor[:, :h, :w], torch.full((3, h, w), 200, dtype=torch.uint8))
    assert int((tensor[:, h:] != FILL).sum()) == int((tensor[:, :, w:] != FILL).sum()) == 0
    assert abs(h / w - height / width) <= (1 / w) * (1 + height / width) or 1 in (h, w)


def test_a_photo_of_the_right_size_is_framed_unchanged():
    photo = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    tensor, frame = frame_photo(photo, 96)
    assert frame.inner == (64, 96)
    np.testing.assert_array_equal(tensor.numpy().transpose(1, 2, 0), photo)


def test_a_large_jpeg_is_decoded_reduced_and_its_masks_stay_on_it(folder):
    mask = shape(1500, 2000)
    data = dataset(folder / "large", [[(mask, 3, False)]])
    picture = Picture.open(folder / "large" / "0.png")
    picture.save(folder / "large" / "0.jpg", quality=90)
    data = Dataset.build(data.categories, [Image(1, "0.jpg", 2000, 1500)], list(data.annotations()), folder=data.folder)
    photos = Photos(data, (96, 128), NO_AUGMENTATION, seed=0)
    sample = photos.sample(0, 0, 0)
    assert overlap(red(sample.image), sample.masks[0].numpy().astype(bool)) > 0.97
    small = Picture.fromarray(mask.astype(np.uint8) * 255).resize((128, 96), Picture.Resampling.BOX)
    assert overlap(sample.masks[0].numpy().astype(bool), np.asarray(small) >= 128) > 0.97


# Photos that keep their shape


@given(height=st.integers(1, 5000), width=st.integers(1, 5000))
def test_a_kept_shape_reaches_one_limit_and_exceeds_none(height, width):
    short, long = sorted(kept_shape((height, width), (800, 1333)))
    assert short <= 800
    assert long <= 1333
    assert short == 800 or long == 1333


def test_photos_keep_their_shape_and_are_padded_to_the_largest(tmp_path):
    sizes = [(60, 90), (100, 50), (30, 120)]
    data = dataset(tmp_path, [[(shape(*size), 3, False)] for size in sizes])
    photos = Photos(data, (64, 96), NO_AUGMENTATION, 0, sides=(48, 80))
    inner = [(48, 72), (80, 40), (20, 80)]
    samples = [photos.sample(i, 0, i) for i in range(3)]
    assert [tuple(s.image.shape) for s in samples] == [(3, 64, 96), (3, 96, 64), (3, 32, 96)]
    for sample, size, kept in zip(samples, sizes, inner, strict=True):
        assert kept_shape(size, (48, 80)) == kept
        outside = torch.ones(sample.image.shape[1:], dtype=torch.bool)
        outside[: kept[0], : kept[1]] = False
        assert (sample.image[:, outside] == torch.tensor(MEAN_FILL)[:, None]).all()
        assert not sample.masks[:, outside].any()
        expected = np.asarray(Picture.fromarray(shape(*size)).resize(kept[::-1])) > 0
        assert overlap(sample.masks[0, : kept[0], : kept[1]].numpy().astype(bool), expected) > 0.8
        assert overlap(red(sample.image), sample.masks[0].numpy().astype(bool)) > 0.8
    batch = make_batch(photos, 0, 3)
    assert batch.images.shape == (3, 3, 96, 96)
    for i, photo in enumerate(batch.photos):
        image, masks = samples[photo].image, samples[photo].masks
        found = whole(batch.targets[i], (96, 96))
        assert torch.equal(batch.images[i][:, : image.shape[1], : image.shape[2]], image)
        assert torch.equal(found[:, : masks.shape[1], : masks.shape[2]], masks)
        assert found.sum() == masks.sum()


def test_a_kept_photo_is_only_mirrored(tmp_path):
    data = dataset(tmp_path, [[(shape(64, 96), 3, False)]])
    how = Augmentation.of(TrainSettings(flip=True, turn=False, scale_jitter=1, colour_jitter=0, short_side=64, side=96))
    assert how.tilt_degrees == 0
    photos = Photos(data, (64, 96), how, 0, sides=(64, 96))
    plain = torch.from_numpy(painted(shape(64, 96)).transpose(2, 0, 1).copy())
    seen = {
        "plain" if torch.equal(s.image, plain) else "mirrored" if torch.equal(s.image, plain.flip(2)) else "other"
        for s in (photos.sample(0, step, 0) for step in range(12))
    }
    assert seen == {"plain", "mirrored"}


def test_the_sides_are_those_of_the_settings():
    assert sides_of(TrainSettings(side=1333, short_side=800)) == (800, 1333)
    assert sides_of(TrainSettings(side=384)) is None
