"""Work on run lengths: parts and objects are those of the pixels; masks with very many runs are not taken apart."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from maskwright import pixels
from maskwright.errors import UserError
from maskwright.formats import runs
from maskwright.formats.scattered import Scattered
from maskwright.prepare import prepare

SIZE = (24, 32)


def checkerboard(size=SIZE):
    return (np.add.outer(np.arange(size[0]), np.arange(size[1])) & 1).astype(bool)


def blobs():
    mask = np.zeros(SIZE, dtype=bool)
    mask[2:8, 2:8] = mask[12:20, 12:20] = True
    return mask


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


@pytest.fixture
def frayed(monkeypatch):
    """Take masks of more than 100 bytes for frayed: a checkerboard of this size, and not two squares."""
    monkeypatch.setattr(runs, "MOST_BYTES", 100)
    assert runs.is_frayed(pixels.encode(checkerboard()))
    assert not runs.is_frayed(pixels.encode(blobs()))


def told(root, tmp_path, **settings):
    said = []
    prepare(root, out=tmp_path / "DATA", say=said.append, near_duplicates=False, **settings)
    return "\n".join(said)


def fails(root, tmp_path, **settings):
    with pytest.raises(UserError) as caught:
        prepare(root, out=tmp_path / "DATA", near_duplicates=False, **settings)
    assert not (tmp_path / "DATA").exists()
    return str(caught.value).replace(f"{root}/", "")


shapes = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(arrays(np.bool_, shapes))
def test_parts_of_runs_are_parts_of_pixels(mask):
    size = mask.shape
    rle = pixels.encode(mask)
    wanted = pixels.parts(mask)
    assert runs.part_areas(rle, size).tolist() == [int(part.sum()) for part in wanted]
    found = runs.part_rles(rle, size)
    assert sorted(found) == sorted(pixels.encode(part) for part in wanted)


@given(st.lists(arrays(np.bool_, shapes), max_size=6))
def test_parts_of_many_masks_are_those_of_each(masks):
    """Law: whatever the sizes, empty masks and masks that touch the border where the next one begins included."""
    found = runs.parts_of_masks([(pixels.encode(mask), mask.shape) for mask in masks])
    assert [areas.tolist() for areas in found] == [[int(part.sum()) for part in pixels.parts(mask)] for mask in masks]


def test_parts_of_a_mask_of_another_size_are_refused():
    with pytest.raises(ValueError, match="an RLE does not have as many pixels as its mask"):
        runs.parts_of_masks(
            [(pixels.encode(np.eye(4, dtype=bool)), (4, 4)), (pixels.encode(np.eye(4, dtype=bool)), (4, 5))]
        )


@given(arrays(np.uint16, shapes, elements=st.integers(0, 6)))
def test_objects_of_an_id_image_are_its_values(ids):
    found = runs.objects_of_ids(ids)
    assert [value for value, _ in found] == [int(v) for v in np.unique(ids) if v]
    assert all(rle == pixels.encode(ids == value) for value, rle in found)


@given(st.lists(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))), max_size=8), st.integers(0, 40))
def test_batches_give_what_all_at_once_give(masks, most):
    """Law: however many bytes are looked at together, parts are those of each mask; frayed ones have none."""
    rles = [pixels.encode(mask) for mask in masks]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "BATCH_BYTES", most)
        patch.setattr(runs, "MOST_BYTES", 12)
        found = runs.parts_of_masks([(rle, mask.shape) for rle, mask in zip(rles, masks, strict=True)])
    wanted = [
        None if len(rle) > 12 else [int(part.sum()) for part in pixels.parts(mask)]
        for rle, mask in zip(rles, masks, strict=True)
    ]
    assert [None if areas is None else areas.tolist() for areas in found] == wanted


def test_no_more_than_a_batch_is_joined(monkeypatch):
    seen = []
    monkeypatch.setattr(runs, "BATCH_BYTES", 50)
    monkeypatch.setattr(
        pixels, "runs_of_masks", lambda rles, real=pixels.runs_of_masks: seen.append(rles) or real(rles)
    )
    rles = [pixels.encode(blobs())] * 7
    assert len({tuple(areas) for areas in runs.parts_of_masks([(rle, SIZE) for rle in rles])}) == 1
    assert [rle for batch in seen for rle in batch] == rles
    assert len(seen) > 2
    assert all(sum(map(len, batch)) <= 50 for batch in seen)


def test_a_frayed_mask_is_not_split():
    rle = pixels.encode(checkerboard((1500, 1500)))
    assert runs.part_areas(rle, (1500, 1500)) is None
    with pytest.raises(UserError, match=r"parts cannot each be an object\n  a mask of 1500 x 1500 pixels\nfix: leave"):
        runs.part_rles(rle, (1500, 1500))


def test_very_many_parts_are_told_apart_quickly():
    mask = np.zeros((240, 240), dtype=bool)
    mask[::2, ::2] = True
    found = runs.part_rles(pixels.encode(mask), mask.shape)
    assert len(found) == 120 * 120
    assert pixels.union(found, mask.shape) == pixels.encode(mask)


@given(
    arrays(np.uint16, st.tuples(st.integers(0, 9), st.integers(0, 9)), elements=st.sampled_from([0, 1, 2, 700, 65535])),
    st.sampled_from([0, 256]),
)
def test_objects_of_an_id_image_are_its_values_in_either_way(ids, few):
    """Law: whether values are encoded one by one, as in noise of few values, or all runs are dealt out."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_FEW", few)
        found = runs.objects_of_ids(ids)
    assert found == [(v, pixels.encode(ids == v)) for v in np.unique(ids).tolist() if v]


def test_a_noisy_id_image_takes_twenty_bytes_a_pixel_at_most():
    """One of 49 megapixels took 4 GB."""
    ids = checkerboard((1000, 1000)).astype(np.uint8) + np.uint8(1)
    tracemalloc.start()
    try:
        found = runs.objects_of_ids(ids)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert [value for value, _ in found] == [1, 2]
    assert peak < 20 * ids.size


def test_values_that_are_frayed_lie_in_several_places(frayed):
    found = Scattered()
    for n in range(3):
        found.add(f"{n}.png", [pixels.encode(checkerboard()), pixels.encode(~checkerboard())], SIZE)
    assert found.seen.counts["half"] == 3


@pytest.mark.parametrize("folder", ["mask", "masks/nut"])
def test_parts_of_frayed_masks_are_not_counted_which_is_said(tmp_path, frayed, folder):
    mostly = ~np.zeros(SIZE, dtype=bool)
    mostly[1::2, 1::2] = False
    for name, mask in (("a", checkerboard()), ("b", mostly), ("c", mostly), ("d", blobs())):
        save(np.full((*SIZE, 3), 80, np.uint8), tmp_path / "raw/rgb" / f"{name}.jpg")
        save(mask.astype(np.uint8) * 255, tmp_path / "raw" / folder / f"{name}.png")
    said = told(tmp_path / "raw", tmp_path)
    where = tmp_path / "raw" / folder
    kind = "masks" if folder == "mask" else "mask images"
    assert (
        f"note: 3 {kind} with so many specks or holes that the parts were not counted ({where}/a.png, {where}/b.png,"
        f" {where}/c.png); if that is dithering or noise, export masks without it"
    ) in said
    assert f"1 of 4 masks have several large parts ({where}/d.png; 2 large parts in all)" in said
    (where / "d.png").unlink()
    (tmp_path / "raw/rgb/d.jpg").unlink()
    prepared = prepare(tmp_path / "raw", out=tmp_path / "DATA", overwrite=True, near_duplicates=False)
    (note,) = [note for note in prepared.notes if "covers more than half" in note]
    assert note.startswith(f"in 2 of 3 masks the object covers more than half of the photo ({where}/b.png,")


def test_frayed_masks_cannot_be_separated(tmp_path, frayed):
    for name, mask in (("a", checkerboard()), ("b", blobs()), ("c", checkerboard())):
        save(np.full((*SIZE, 3), 80, np.uint8), tmp_path / "raw/rgb" / f"{name}.jpg")
        save(mask.astype(np.uint8) * 255, tmp_path / "raw/mask" / f"{name}.png")
    assert fails(tmp_path / "raw", tmp_path, parts="separate") == (
        "masks have so many specks or holes that their parts cannot each be an object\n"
        "  mask/a.png: an object of 'object'\n"
        "  mask/c.png: an object of 'object'\n"
        "fix: leave out --parts separate; if that is dithering or noise, export masks without it"
    )


def test_colours_and_classes_whose_parts_would_be_objects_are_refused(tmp_path, frayed):
    save(np.full((*SIZE, 3), 80, np.uint8), tmp_path / "colours/images/a.jpg")
    save(checkerboard().astype(np.uint8)[..., None] * np.uint8([230, 25, 75]), tmp_path / "colours/masks/a.png")
    (tmp_path / "list.json").write_text('{"nut": "#e6194b"}')
    words = "has a colour or value in so many specks or holes that its parts cannot each be an object"
    said = fails(tmp_path / "colours", tmp_path, form="colours", colours=str(tmp_path / "list.json"))
    assert f"masks/a.png: {words}" in said
    save(np.full((*SIZE, 3), 80, np.uint8), tmp_path / "voc/JPEGImages/a.jpg")
    save(checkerboard().astype(np.uint8), tmp_path / "voc/SegmentationClass/a.png")
    assert f"SegmentationClass/a.png: {words}" in fails(tmp_path / "voc", tmp_path, form="voc")


def test_a_small_bomb_takes_little_memory(tmp_path):
    """A checkerboard of 12 kB has nine million runs; counting its parts took 950 MB, and 5 GB at a side of 7000."""
    save(checkerboard((3000, 3000)).astype(np.uint8) * 255, tmp_path / "raw/mask/a.png")
    save(np.full((3000, 3000, 3), 80, np.uint8), tmp_path / "raw/rgb/a.jpg")
    program = (
        "import re, sys; from pathlib import Path; from maskwright.prepare import prepare;"
        "prepare(sys.argv[1], out=sys.argv[2], near_duplicates=False);"
        "print(re.search(r'VmHWM:\\s*([0-9]+)', Path('/proc/self/status').read_text())[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "raw", tmp_path / "DATA"], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 400_000  # kB; that of getrusage would have that of the process before it, too
