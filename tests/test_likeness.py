import io
import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance
from scipy import ndimage

from maskwright import likeness
from maskwright.files import UnreadableImage
from maskwright.likeness import (
    ALIKE,
    COARSE_MOST,
    FINE_MOST,
    FLAT,
    SIZE,
    alike,
    alike_of,
    confirmed,
    fingerprint,
    fingerprint_of,
    groups,
    near_pairs,
    small_of,
    stack,
)

SHARED = Path(__file__).parents[2] / "shared"


@cache
def scene(seed, size=(120, 160)):
    """Return a picture with shapes of all sizes, different for each seed."""
    rng = np.random.default_rng(seed)
    picture = np.zeros(size)
    for sigma in (20, 8, 3, 1):
        layer = ndimage.gaussian_filter(rng.standard_normal(size), sigma)
        picture += layer / layer.std()
    picture = (picture - picture.min()) / np.ptp(picture)
    return Image.fromarray((picture * 220 + 10).astype(np.uint8))


def jpeg(image, quality):
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("L")


def crop(image, share):
    w, h = image.size
    return image.crop((int(w * share), int(h * share), w - int(w * share), h - int(h * share)))


COPIES = {
    "quality 30": lambda image: jpeg(image, 30),
    "half size": lambda image: image.resize((image.width // 2, image.height // 2)),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.15),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.85),
    "cropped": lambda image: crop(image, 0.015),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_a_candidate_and_is_confirmed(name):
    for seed in range(5):
        one = np.asarray(scene(seed))
        other = np.asarray(COPIES[name](scene(seed)))
        pairs = near_pairs(stack([fingerprint_of(one), fingerprint_of(other)]))
        assert pairs[:, :2].tolist() == [[0, 1]]
        assert alike_of(small_of(one), small_of(other)) >= ALIKE


def test_different_pictures_are_no_pairs():
    pictures = [np.asarray(scene(seed)) for seed in range(40)]
    assert near_pairs(stack([fingerprint_of(p) for p in pictures])).tolist() == []
    likenesses = [alike_of(small_of(a), small_of(b)) for a, b in itertools.pairwise(pictures)]
    assert max(likenesses) < 0.7


def test_a_thing_moved_on_a_table_makes_another_photo():
    table = np.asarray(scene(0)).astype(float) * 0.1 + 100
    one, other = table.copy(), table.copy()
    one[30:50, 20:80] += 100
    other[70:90, 75:135] += 100
    assert alike_of(small_of(one.astype(np.uint8)), small_of(other.astype(np.uint8))) < ALIKE


def test_a_turned_photo_is_read_upright(tmp_path):
    upright = scene(3)
    upright.save(tmp_path / "a.jpg", quality=95)
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.jpg", quality=95, exif=exif)
    a, b = tmp_path / "a.jpg", tmp_path / "b.jpg"
    assert len(near_pairs(stack([fingerprint(a), fingerprint(b)]))) == 1
    assert alike(a, b) > 0.95


def test_a_reduced_decode_gives_nearly_the_same(tmp_path):
    scene(1, (480, 640)).save(tmp_path / "large.jpg", quality=90)
    full = np.frombuffer(fingerprint_of(np.asarray(scene(1, (480, 640)))), dtype=np.uint8)
    reduced = np.frombuffer(fingerprint(tmp_path / "large.jpg"), dtype=np.uint8)
    assert int(np.bitwise_count(full[1:] ^ reduced[1:]).sum()) <= 8


def test_flat_photos_match_nothing():
    rng = np.random.default_rng(0)
    dull = [np.clip(rng.normal(120, 2, (240, 320)), 0, 255).astype(np.uint8) for _ in range(3)]
    prints = stack([*(fingerprint_of(p) for p in dull), fingerprint_of(np.zeros((9, 9), np.uint8)), b""])
    assert (prints[:, 0] < FLAT).all()
    assert near_pairs(prints).shape == (0, 3)
    assert alike_of(small_of(np.zeros((9, 9), np.uint8)), small_of(np.zeros((9, 9), np.uint8))) == 0.0


def test_a_file_that_is_no_picture(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"no")
    with pytest.raises(UnreadableImage, match="is not a picture that can be read"):
        fingerprint(tmp_path / "x.jpg")


def brute(prints):
    found = set()
    for i in range(len(prints)):
        for j in range(i + 1, len(prints)):
            apart = np.bitwise_count(prints[i, 1:] ^ prints[j, 1:])
            if apart[:8].sum() <= COARSE_MOST and apart[8:].sum() <= FINE_MOST and apart.any():
                found.add((i, j, int(apart.sum())))
    return found


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.integers(2, 30))
def test_every_near_pair_is_found(seed, n):
    rng = np.random.default_rng(seed)
    prints = np.repeat(rng.integers(0, 256, (4, SIZE), dtype=np.uint8), n, axis=0)
    rng.shuffle(prints)
    bits = np.unpackbits(prints[:, 1:], axis=1)
    share = rng.choice([0.0, 0.05, 0.17, 0.3], len(prints))
    bits ^= rng.random(bits.shape) < share[:, None]
    prints[:, 1:] = np.packbits(bits, axis=1)
    prints[:, 0] = 200
    found = near_pairs(prints)
    unique = np.unique(prints, axis=0, return_index=True)[1]
    kept = {(i, j, d) for i, j, d in found.tolist() if d}
    assert kept <= brute(prints)
    assert {p for p in brute(prints) if p[0] in unique and p[1] in unique} <= kept
    assert (np.diff(found[:, 2]) >= 0).all()


def test_equal_fingerprints_are_a_chain():
    prints = np.full((5000, SIZE), 200, dtype=np.uint8)
    pairs = near_pairs(prints)
    assert len(pairs) == 4999
    assert set(groups(pairs, 5000).tolist()) == {0}


def test_a_crowd_that_is_nearly_equal_stays_joined_without_all_pairs(monkeypatch):
    monkeypatch.setattr(likeness, "_CROWD", 100)
    monkeypatch.setattr(likeness, "_NEXT", 8)
    prints = np.full((1500, SIZE), 200, dtype=np.uint8)
    prints[:, -2:] = np.arange(1500, dtype=np.uint16).view(np.uint8).reshape(-1, 2)
    pairs = near_pairs(prints)
    assert len(pairs) < 1500 * 40 < 1500 * 1499 / 2
    assert set(groups(pairs, 1500).tolist()) == {0}


def test_many_candidates_are_compared_in_pieces(monkeypatch):
    rng = np.random.default_rng(1)
    prints = rng.integers(0, 256, (300, SIZE), dtype=np.uint8)
    prints[:, 0], prints[:, 1:7] = 200, 7
    whole = near_pairs(prints)
    monkeypatch.setattr(likeness, "_CHUNK", 50)
    assert near_pairs(prints).tolist() == whole.tolist()


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25))
def test_groups_are_the_connected_parts(pairs):
    labels = groups(np.array(pairs, dtype=np.int64).reshape(-1, 2), 20)
    known = list(range(20))
    for i, j in pairs:
        known = [known[i] if label == known[j] else label for label in known]
    assert [known.index(label) for label in known] == [labels.tolist().index(label) for label in labels.tolist()]
    firsts = [label for n, label in enumerate(labels.tolist()) if label not in labels[:n]]
    assert firsts == list(range(len(firsts)))


def test_groups_of_nothing():
    assert groups(np.zeros((0, 3), dtype=np.int64), 0).tolist() == []


def test_confirmation_drops_false_pairs_and_can_skip_what_is_joined(tmp_path):
    paths = []
    for n, seed in enumerate((1, 1, 1, 2)):
        paths.append(tmp_path / f"{n}.jpg")
        scene(seed).save(paths[-1], quality=90 - n)
    pairs = np.array([[0, 1, 2], [1, 2, 2], [0, 2, 3], [2, 3, 60]])
    assert (confirmed(pairs, paths) >= ALIKE).tolist() == [True, True, True, False]
    spanning = confirmed(pairs, paths, spanning=True)
    assert (spanning >= ALIKE).tolist() == [True, True, False, False]
    assert spanning[2] == 0


@pytest.mark.shared
def test_real_photos_of_similar_scenes_are_no_pairs():
    folder = SHARED / "data" / "fruits_nuts" / "images"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    paths = sorted(folder.iterdir())
    pairs = near_pairs(stack([fingerprint(path) for path in paths]))
    assert (confirmed(pairs, paths) >= ALIKE).sum() == 0
