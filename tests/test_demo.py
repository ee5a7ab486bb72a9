"""The sample world: what it contains, and that it is the same world every time."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

import maskwright as mw
from maskwright.demo import gripper as grippers
from maskwright.demo import hammers
from maskwright.demo.noise import SIDE, cut, field, sample
from maskwright.demo.picture import Picture, picture
from maskwright.demo.planes import _TEXTURES
from maskwright.demo.raster import blurred, moved
from maskwright.demo.render import Canvas, Light, Part, Pose
from maskwright.demo.shapes import Bar, Box, Disc, Plate, Shape, regular, smooth

PICTURES = 24


@pytest.fixture(scope="module")
def pictures() -> list[Picture]:
    return [picture(0, 0, index) for index in range(PICTURES)]


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def holes(mask: np.ndarray) -> int:
    """Count the holes of at least six pixels."""
    label, count = ndimage.label(~mask)
    border = set(np.concatenate([label[0], label[-1], label[:, 0], label[:, -1]]).tolist())
    sizes = np.bincount(label.ravel())
    return sum(1 for k in range(1, count + 1) if k not in border and sizes[k] >= 6)


def parts(mask: np.ndarray) -> int:
    """Count the parts of at least thirty pixels."""
    return int((np.bincount(ndimage.label(mask, np.ones((3, 3)))[0].ravel())[1:] >= 30).sum())


def test_layout_counts_and_sizes(tmp_path: Path) -> None:
    said: list[str] = []
    out = mw.demo(tmp_path / "world", train=3, val=2, test=1, size=96, say=said.append)
    assert out == tmp_path / "world"
    assert list(hashes(out)) == [
        ".maskwright",
        "hammer_test/mask/0000.png",
        "hammer_test/rgb/0000.jpg",
        "hammer_train/mask/0000.png",
        "hammer_train/mask/0001.png",
        "hammer_train/mask/0002.png",
        "hammer_train/rgb/0000.jpg",
        "hammer_train/rgb/0001.jpg",
        "hammer_train/rgb/0002.jpg",
        "hammer_validate/mask/0000.png",
        "hammer_validate/mask/0001.png",
        "hammer_validate/rgb/0000.jpg",
        "hammer_validate/rgb/0001.jpg",
    ]
    with Image.open(out / "hammer_train/rgb/0000.jpg") as photo, Image.open(out / "hammer_train/mask/0000.png") as mask:
        assert (photo.mode, photo.size, photo.format) == ("RGB", (96, 96), "JPEG")
        assert (mask.mode, mask.size, mask.format) == ("L", (96, 96), "PNG")
        assert np.unique(np.asarray(mask)).tolist() == [0, 255]
    assert said[0] == "hammer_train: 3 pictures of 96 x 96"
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_default_counts_are_those_of_the_tutorial() -> None:
    from maskwright.settings import DemoSettings

    chosen = DemoSettings()
    assert (chosen.train, chosen.val, chosen.test, chosen.size) == (200, 40, 40, 331)


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    settings_ = {"train": 2, "val": 1, "test": 0, "size": 64}
    first = hashes(mw.demo(tmp_path / "a", seed=4, **settings_))
    assert hashes(mw.demo(tmp_path / "b", seed=4, **settings_)) == first
    other = hashes(mw.demo(tmp_path / "c", seed=5, **settings_))
    assert all(other[name] != first[name] for name in first if name != ".maskwright")


def test_a_picture_does_not_depend_on_what_else_is_drawn(tmp_path: Path) -> None:
    few = hashes(mw.demo(tmp_path / "few", train=2, val=1, test=0, size=64))
    many = hashes(mw.demo(tmp_path / "many", train=3, val=1, test=1, size=64))
    assert few == {name: many[name] for name in few}
    assert not (tmp_path / "few/hammer_test").exists()


def test_picture_five_alone_is_picture_five_of_a_set(pictures: list[Picture]) -> None:
    alone = picture(0, 0, 5)
    assert np.array_equal(alone.photo, pictures[5].photo)
    assert np.array_equal(alone.mask, pictures[5].mask)


def test_splits_differ(pictures: list[Picture]) -> None:
    assert not np.array_equal(picture(0, 1, 0).photo, pictures[0].photo)
    assert not np.array_equal(picture(0, 2, 0).mask, pictures[0].mask)


def test_every_hammer_is_of_a_sensible_size(pictures: list[Picture]) -> None:
    areas = np.array([p.mask.mean() for p in pictures])
    assert areas.min() > 0.01
    assert areas.max() < 0.25
    longest = []
    for p in pictures:
        y, x = np.nonzero(p.mask)
        longest.append(np.hypot(np.ptp(x), np.ptp(y)) / 331)
    assert 0.7 < np.median(longest) < 1.1
    assert min(longest) > 0.25


def test_some_masks_have_holes_and_some_have_parts(pictures: list[Picture]) -> None:
    assert sum(holes(p.mask) > 0 for p in pictures) >= 3
    several = sum(parts(p.mask) > 1 for p in pictures)
    assert PICTURES // 3 < several < PICTURES


def test_no_mask_has_dust(pictures: list[Picture]) -> None:
    for p in pictures:
        sizes = np.bincount(ndimage.label(p.mask, np.ones((3, 3)))[0].ravel())[1:]
        assert (sizes < 3).sum() <= 3


def test_hammers_can_be_told_from_what_is_behind(pictures: list[Picture]) -> None:
    # Along a mask's edge the photo changes more than at the same edge moved elsewhere.
    stronger = 0
    for p in pictures:
        grey = p.photo.astype(float).mean(axis=2)
        steep = ndimage.gaussian_gradient_magnitude(grey, 1)
        edge = p.mask ^ ndimage.binary_erosion(p.mask)
        stronger += steep[edge].mean() > 1.3 * steep[~p.mask].mean()
    assert stronger >= 0.85 * PICTURES


def test_photos_are_exposed_like_photos(pictures: list[Picture]) -> None:
    for p in pictures:
        assert p.photo.shape == (331, 331, 3)
        assert 40 < p.photo.mean() < 215
        assert p.photo.std() > 12
        assert (p.photo == 255).all(axis=2).mean() < 0.2


def test_kinds_vary(pictures: list[Picture]) -> None:
    assert len({p.kind for p in pictures}) >= 7
    assert len({p.gripper for p in pictures}) >= 4


@pytest.mark.parametrize("side", [64, 200, 500])
def test_other_sizes_show_the_same_world(side: int, pictures: list[Picture]) -> None:
    drawn = picture(0, 0, 3, side)
    assert drawn.photo.shape == (side, side, 3)
    wanted = np.asarray(Image.fromarray(pictures[3].mask).resize((side, side), Image.Resampling.NEAREST))
    assert (drawn.mask & wanted).sum() / (drawn.mask | wanted).sum() > 0.85


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    mw.demo(tmp_path / "world", train=1, val=1, test=0, size=64)
    with pytest.raises(mw.UserError) as caught:
        mw.demo(tmp_path / "world", train=1, val=0, test=0, size=64)
    assert str(caught.value) == (
        f"the output exists already\n  {tmp_path / 'world'}\nfix: name another output, or: --overwrite"
    )
    mw.demo(tmp_path / "world", train=1, val=0, test=0, size=64, overwrite=True)
    assert list(hashes(tmp_path / "world")) == [
        ".maskwright",
        "hammer_train/mask/0000.png",
        "hammer_train/rgb/0000.jpg",
    ]


@pytest.mark.parametrize("overwrite", [False, True])
def test_real_hammers_of_the_same_layout_are_never_replaced(tmp_path: Path, overwrite: bool) -> None:
    (tmp_path / "world" / "hammer_train" / "rgb").mkdir(parents=True)
    (tmp_path / "world" / "hammer_train" / "rgb" / "0001.jpg").write_text("keep me")
    with pytest.raises(mw.UserError, match=r"is no former output of demo.*\n  .*world: hammer_train\nfix: name"):
        mw.demo(tmp_path / "world", train=1, val=0, test=0, size=64, overwrite=overwrite)
    assert list(hashes(tmp_path / "world")) == ["hammer_train/rgb/0001.jpg"]


def test_nothing_is_left_if_drawing_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("maskwright.demo.picture")  # `maskwright.demo` by name is the verb

    def stop(*_: object) -> Picture:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "picture", stop)
    with pytest.raises(KeyboardInterrupt):
        mw.demo(tmp_path / "world", train=1)
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_are_named(tmp_path: Path) -> None:
    with pytest.raises(mw.UserError) as caught:
        mw.demo(tmp_path / "world", trian=3, size=10)
    assert "trian; did you mean 'train'?" in str(caught.value)
    assert "size (--size) is 10: input should be greater than or equal to 64" in str(caught.value)
    assert not (tmp_path / "world").exists()


# The parts that the world is made of.


@pytest.mark.parametrize("kind", list(hammers._HEADS))
def test_every_head_is_drawn_at_every_yaw(kind: str) -> None:
    pose = Pose.at(165, 165, 0.0, 2.5)
    canvas = Canvas(331, Light.random(np.random.default_rng(0)))
    for k, yaw in enumerate((-0.9, 0.0, 0.9)):
        head = hammers._HEADS[kind](np.random.default_rng(k), hammers._Turned(yaw, 1.0))
        covered = canvas.silhouette(head, pose)
        _, x = np.nonzero(covered)
        assert covered.sum() > 80  # in grid points of 4 x 4 pixels
        assert x.min() * 4 > 165 + 2.5 * 20  # a head is at the head's end of the handle


@pytest.mark.parametrize("kind", list(grippers._KINDS))
def test_every_gripper_covers_what_it_holds(kind: str) -> None:
    canvas = Canvas(331, Light.random(np.random.default_rng(0)))
    hand = grippers.gripper(np.random.default_rng(1), kind)
    assert hand.kind == kind
    front = canvas.silhouette(hand.front, Pose.at(165, 165, 0.0, 2.0))
    assert front[35:48, 36:60].mean() > 0.25
    assert front[:, -1].any()  # its arm leaves the picture


@pytest.mark.parametrize("make", _TEXTURES, ids=lambda make: make.__name__)
def test_every_texture_is_a_possible_surface(make: object) -> None:
    drawn = make(np.random.default_rng(3), 160)  # type: ignore[operator]
    assert drawn.colour.shape == (3, 160, 160)
    assert drawn.colour.dtype == np.float32
    assert drawn.colour.min() >= 0
    assert drawn.colour.max() <= 1
    assert drawn.relief is None or drawn.relief.dtype == np.float32


def test_a_hole_shows_what_is_behind() -> None:
    from maskwright.demo.materials import Material

    canvas = Canvas(331, Light.random(np.random.default_rng(0)))
    grey = Material((0.4, 0.4, 0.4))
    ring = [Part(Disc((40, 40)), grey), Part(Disc((15, 15)), None)]
    layer = canvas.draw(ring, Pose.at(165.5, 165.5, 0, 1))
    assert layer is not None
    assert layer.cover[layer.cover.shape[0] // 2, layer.cover.shape[1] // 2] == 0
    assert layer.cover.sum() == pytest.approx(np.pi * (40**2 - 15**2), rel=0.01)


def test_what_is_out_of_sight_is_not_drawn() -> None:
    canvas = Canvas(64, Light.random(np.random.default_rng(0)))
    from maskwright.demo.materials import Material

    assert canvas.draw([Part(Disc((5, 5)), Material((0.4, 0.4, 0.4)))], Pose.at(-200, 20, 0, 1)) is None


@settings(max_examples=30, deadline=None)
@given(
    x=st.floats(100, 230), y=st.floats(100, 230), angle=st.floats(0, 6.3), long=st.floats(30, 80), half=st.floats(3, 12)
)
def test_cover_is_the_area_of_the_shape(x: float, y: float, angle: float, long: float, half: float) -> None:
    from maskwright.demo.materials import Material

    canvas = Canvas(331, Light.random(np.random.default_rng(0)))
    bar = Bar([(-long / 2, half), (long / 2, half)])
    layer = canvas.draw([Part(bar, Material((0.4, 0.4, 0.4)))], Pose.at(x, y, angle, 1.0))
    assert layer is not None
    assert layer.cover.sum() == pytest.approx(2 * half * long, rel=0.02)
    assert 0 <= layer.cover.min() <= layer.cover.max() <= 1 + 1e-6
    assert np.isfinite(layer.soft).all()
    assert np.isfinite(layer.hard).all()


SHAPES: list[Shape] = [
    Bar([(-20, 4), (0, 6), (20, 3)], 2.0),
    Bar([(-20, 4), (20, 5)], 4.0, ends=(3, 3), bulge=2),
    Disc((12, 8)),
    Disc((12, 12), 0.5),
    Box((30, 14), 3),
    Plate([regular(6, 12)], [regular(12, 5)]),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: type(s).__name__)
def test_slopes_are_those_of_the_height(shape: Shape) -> None:
    rng = np.random.default_rng(0)
    u1, v1, u2, v2 = shape.bounds
    u, v = (rng.uniform(a, b, 4000).astype(np.float32) for a, b in ((u1, u2), (v1, v2)))
    here, right, below = (shape.surface(u + du, v + dv, 12.0) for du, dv in ((0, 0), (0.2, 0), (0, 0.2)))
    # Near the outline slopes are cut off, and at a ridge they jump; everywhere else they are what the height does.
    inside = here.depth > 1.2
    assert inside.sum() > 300
    for moved_, slope in ((right, here.slope_u), (below, here.slope_v)):
        off = np.abs((moved_.z - here.z) / 0.2 - slope)[inside]
        assert np.median(off) < 0.12


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(1, 20), st.floats(-10, 10)),
        min_size=2,
        max_size=8,
    )
)
def test_smooth_curve_passes_and_never_overshoots(steps: list[tuple[float, float]]) -> None:
    places = np.cumsum([step for step, _ in steps])
    knots = [(float(place), value) for place, (_, value) in zip(places, steps, strict=True)]
    at, values = smooth(knots, 2000)
    assert values.min() >= min(v for _, v in knots) - 1e-4
    assert values.max() <= max(v for _, v in knots) + 1e-4
    assert values[0] == pytest.approx(knots[0][1], abs=1e-4)
    assert np.interp(places[-1], at, values) == pytest.approx(knots[-1][1], abs=1e-4)


def test_noise_is_periodic_and_normed() -> None:
    for kind in ("white", "fine", "cloud", "soft", "grain"):
        values = field(kind)  # type: ignore[arg-type]
        assert values.shape == (SIDE, SIDE)
        assert abs(float(values.mean())) < 1e-3
        assert float(values.std()) == pytest.approx(1, abs=1e-3)
    u, v = np.array([3.25, 700.5], np.float32), np.array([9.75, 2.0], np.float32)
    assert sample("soft", u, v) == pytest.approx(sample("soft", u + SIDE, v - SIDE), abs=1e-3)


@pytest.mark.parametrize("stretch", [(1, 1), (4, 1), (1, 7), (3, 2)])
def test_cuts_have_the_size_that_is_asked_for(stretch: tuple[int, int]) -> None:
    piece = cut(np.random.default_rng(0), "cloud", 333, stretch)
    assert piece.shape == (333, 333)
    assert piece.dtype == np.float32


def test_blur_keeps_the_sum_and_widens_by_its_radius() -> None:
    y, x = np.mgrid[0:161, 0:161] - 80
    spot = np.exp(-(x * x + y * y) / (2 * 4.0**2)).astype(np.float32)
    for radius in (1.0, 2.5, 6.0, 14.0):
        soft = blurred(spot, radius)
        assert float(soft.sum()) == pytest.approx(float(spot.sum()), rel=0.03)
        assert float(np.sqrt((soft * x * x).sum() / soft.sum())) == pytest.approx(np.hypot(4, radius), rel=0.12)


def test_moving_moves_and_repeats_the_border() -> None:
    spot = np.zeros((101, 101), np.float32)
    spot[50, 50] = 1
    assert np.argwhere(moved(spot, 7, -3)).tolist() == [[47, 57]]
    assert moved(spot, 500, 0).sum() == 0
    spot[:, 0] = 2
    assert (moved(spot, 4, 0)[:, :5] == 2).all()
