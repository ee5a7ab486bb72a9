import numpy as np
import pytest
from PIL import Image as PillowImage
from scipy import ndimage

from maskwright import likeness, pixels, suspects
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.facts import SplitView
from maskwright.files import read_grey
from maskwright.prepare import prepare
from maskwright.suspects import photo_findings

SIZE = (120, 160)


def shape(seed, size=SIZE):
    """Return a mask of one slanted shape, away from the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    cy, cx = size[0] * rng.uniform(0.25, 0.4), size[1] * rng.uniform(0.2, 0.4)
    a = rng.uniform(0, np.pi)
    along, across = (x - cx) * np.cos(a) + (y - cy) * np.sin(a), -(x - cx) * np.sin(a) + (y - cy) * np.cos(a)
    return (along / rng.uniform(18, 28)) ** 2 + (across / rng.uniform(7, 12)) ** 2 < 1


def photo(mask, seed):
    rng = np.random.default_rng(seed)
    ground = ndimage.gaussian_filter(rng.standard_normal(mask.shape), 6)
    picture = ground / ground.std() * 25 + 100 + 70 * mask
    return np.clip(picture, 0, 255).astype(np.uint8)


def world(folder, seeds, change=lambda mask: mask, orientation=1, size=SIZE, store=None):
    """Write photos of one shape each, and return their dataset with the masks as `change` makes them."""
    folder.mkdir(parents=True, exist_ok=True)
    images, annotations = [], []
    for n, seed in enumerate(seeds):
        mask = shape(seed, size)
        picture = PillowImage.fromarray(photo(mask, seed))
        if store is not None:
            picture = picture.transpose(store)
        exif = PillowImage.Exif()
        if orientation != 1:
            exif[0x0112] = orientation
        picture.save(folder / f"{n}.jpg", quality=92, exif=exif)
        images.append(Image(n + 1, f"{n}.jpg", size[1], size[0]))
        annotations.append(Annotation(n + 1, n + 1, 1, pixels.encode(change(mask))))
    return Dataset.build([Category(1, "tool")], images, annotations, folder=folder)


def found(**splits):
    return {f.code: f for f in photo_findings({name: SplitView(name, d) for name, d in splits.items()})}


def test_nothing_is_wrong_with_sound_photos(tmp_path):
    train, val = world(tmp_path / "train", range(14)), world(tmp_path / "val", range(20, 30))
    assert found(train=train, val=val) == {}


def test_masks_that_are_shifted_by_one(tmp_path):
    train = world(tmp_path / "train", range(14), lambda mask: np.roll(mask, 1, axis=1))
    findings = found(train=train, val=world(tmp_path / "val", range(20, 32)))
    assert list(findings) == ["masks-shifted"]
    finding = findings["masks-shifted"]
    assert finding.problem.what == (
        "the masks lie beside the edges of the objects, by the same step throughout the split"
    )
    assert finding.problem.where[0].startswith("train: the edges are about 1.0 px left and 0.")
    assert finding.problem.fix == (
        "move the masks back, or export them again at the photo's size: counting from 1 instead of 0, or a resize in"
        " between, does this"
    )
    assert (finding.count, len(finding.examples)) == (1, 12)
    assert finding.examples[0].annotations


@pytest.mark.parametrize(
    ("orientation", "size", "store", "drawn"),
    [
        (3, SIZE, PillowImage.Transpose.ROTATE_180, lambda mask: mask[::-1, ::-1]),
        (6, (140, 140), PillowImage.Transpose.ROTATE_90, np.rot90),
        (8, (140, 140), PillowImage.Transpose.ROTATE_270, lambda mask: np.rot90(mask, -1)),
    ],
)
def test_the_orientation_applied_to_the_photos_alone(tmp_path, orientation, size, store, drawn):
    """The masks were drawn over the stored picture, and their size tells nothing."""
    train = world(tmp_path / "train", range(6), drawn, orientation, size, store)
    val = world(tmp_path / "val", range(20, 26), orientation=orientation, size=size, store=store)
    findings = found(train=train, val=val)
    assert list(findings) == ["exif-one-side"]
    finding = findings["exif-one-side"]
    assert str(finding.problem).startswith(
        "in 6 photos the masks fit the edges of the picture only when turned: the camera's orientation was applied to"
        " one side alone\n  train: "
    )
    turn = {3: "turned by 180 degrees", 6: "turned right by 90 degrees", 8: "turned left by 90 degrees"}[orientation]
    assert f"{turn}, the masks of 6 photos with orientation {orientation} meet edges " in finding.problem.where[0]
    assert finding.problem.fix == (
        "prepare again with --mask-frame stored, which turns the masks as their photos are (without it, if it was"
        " given)"
    )
    assert {e.split for e in finding.examples} == {"train"}
    assert "along the masks as they stand" in finding.examples[0].note


def test_polygons_of_the_stored_frame_that_fit_the_upright_one(tmp_path):
    """An upright photo of 120 x 160 was stored as 160 x 120; its polygons, in that frame, fit within both."""

    def stored(mask):
        turned = np.rot90(mask)
        out = np.zeros(mask.shape, dtype=bool)
        h, w = min(turned.shape[0], out.shape[0]), min(turned.shape[1], out.shape[1])
        out[:h, :w] = turned[:h, :w]
        return out

    size = (160, 160 - 20)
    train = world(tmp_path / "train", range(8), stored, 6, size, PillowImage.Transpose.ROTATE_90)
    assert "exif-one-side" in found(train=train)


def test_too_few_photos_with_an_orientation_to_be_sure(tmp_path):
    train = world(
        tmp_path / "train", range(3), lambda mask: mask[::-1, ::-1], 3, SIZE, PillowImage.Transpose.ROTATE_180
    )
    findings = found(train=train)
    assert list(findings) == ["exif-unsure"]
    finding = findings["exif-unsure"]
    assert finding.severity == "note"
    assert finding.problem.what == (
        "3 photos carry a camera's orientation, and whether the masks were drawn with it cannot be told from the edges"
    )
    assert "where the masks are turned by 180 degrees" in finding.problem.where[0]
    assert finding.problem.fix == (
        "look at the masks over the photos: maskwright check DATA --html; where they lie turned, prepare again with"
        " --mask-frame stored"
    )


def test_what_the_finding_advises_mends_it(tmp_path):
    turn = PillowImage.Transpose.ROTATE_90
    train = world(tmp_path / "train", range(6), np.rot90, 6, (140, 140), turn)
    train.write(tmp_path / "instances_train.json")
    made = {f: prepare(tmp_path, out=tmp_path.with_name(f"data-{f}"), mask_frame=f) for f in ("upright", "stored")}
    assert list(found(train=made["upright"].split("train"))) == ["exif-one-side"]
    assert found(train=made["stored"].split("train")) == {}


def test_masks_of_untagged_photos_that_are_mirrored(tmp_path):
    findings = found(train=world(tmp_path / "train", range(12), lambda mask: mask[:, ::-1]))
    assert list(findings) == ["masks-turned"]
    assert str(findings["masks-turned"].problem).startswith(
        "in 12 photos the masks fit the edges of the picture only when turned or mirrored\n"
        "  train: mirrored left-right, the masks of 12 photos meet edges "
    )
    assert findings["masks-turned"].problem.fix == (
        "find out which tool turned the photos or the masks, and export both from it again"
    )


def test_tagged_photos_beyond_the_sample_are_looked_at_too(tmp_path, monkeypatch):
    monkeypatch.setattr(suspects, "EDGE_PHOTOS", 6)
    plain = world(tmp_path / "train", range(14))
    for n in range(1, 14, 2):  # the sample takes the even ones first
        picture = PillowImage.open(tmp_path / "train" / f"{n}.jpg").transpose(PillowImage.Transpose.ROTATE_180)
        exif = PillowImage.Exif()
        exif[0x0112] = 3
        picture.save(tmp_path / "train" / f"{n}.jpg", exif=exif)
    assert found(train=plain) == {}
    turned = [shape(n) if n % 2 == 0 else shape(n)[::-1, ::-1] for n in range(14)]
    wrong = Dataset.build(
        plain.categories,
        plain.images,
        [Annotation(n + 1, n + 1, 1, pixels.encode(mask)) for n, mask in enumerate(turned)],
        folder=plain.folder,
    )
    assert list(found(train=wrong)) == ["exif-one-side"]


def test_photos_that_look_like_one_of_another_split(tmp_path):
    train, val = world(tmp_path / "train", range(4)), world(tmp_path / "val", range(20, 24))
    again = PillowImage.open(tmp_path / "train" / "2.jpg").resize((80, 60))
    again.resize((160, 120)).save(tmp_path / "val" / "1.jpg", quality=40)
    findings = found(train=train, val=val)
    assert list(findings) == ["near-leak"]
    finding = findings["near-leak"]
    assert finding.problem.what == "1 photo looks like a photo of another split: scores will be too good"
    assert finding.problem.where[0] == "val: 1 of 4 photos (25%)"
    assert finding.problem.where[1].startswith(f"{tmp_path}/train/2.jpg ~ {tmp_path}/val/1.jpg (likeness 0.9")
    assert finding.problem.fix == (
        "put photos that look alike into one split; new splits that do: maskwright prepare DATA -o NEW --resplit"
    )
    example = finding.examples[0]
    assert (example.split, example.photo) == ("val", "1.jpg")
    assert (example.other_split, example.other_photo) == ("train", "2.jpg")


def test_a_limit_on_looks_is_told(tmp_path, monkeypatch):
    train, val = world(tmp_path / "train", range(4)), world(tmp_path / "val", range(4))
    for n in range(4):
        PillowImage.open(tmp_path / "val" / f"{n}.jpg").save(tmp_path / "val" / f"{n}.jpg", quality=60)
    assert found(train=train, val=val)["near-leak"].count == 4
    monkeypatch.setattr(suspects, "LOOKS", 1)
    monkeypatch.setattr(suspects, "PORTION", 1)
    findings = found(train=train, val=val)
    assert findings["near-leak"].count == 1
    assert str(findings["not-compared"].problem) == (
        "3 pairs of photos that may be alike were not compared: the nearest pairs were, up to a limit\n"
        "  in two splits: 3 pairs\n"
        "fix: count on more photos that look alike than are named; for new splits all pairs are compared: maskwright"
        " prepare DATA -o NEW --resplit"
    )
    assert (findings["not-compared"].severity, findings["not-compared"].count) == ("note", 3)


def test_a_limit_on_looks_is_told_where_no_look_found_anything(tmp_path, monkeypatch):
    train, val = world(tmp_path / "train", range(4)), world(tmp_path / "val", range(4))
    for n in range(4):
        PillowImage.open(tmp_path / "val" / f"{n}.jpg").save(tmp_path / "val" / f"{n}.jpg", quality=60)
    monkeypatch.setattr(suspects, "LOOKS", 1)
    monkeypatch.setattr(suspects, "PORTION", 1)
    monkeypatch.setattr(likeness, "ALIKE", 1.1)  # no pair is
    findings = found(train=train, val=val)
    assert list(findings) == ["not-compared"]
    assert findings["not-compared"].problem.where == ("in two splits: 3 pairs",)


def test_pairs_of_photos_that_leak_anyway_need_no_look(tmp_path, monkeypatch):
    train, val = world(tmp_path / "train", range(2)), world(tmp_path / "val", range(2))
    picture = PillowImage.open(tmp_path / "train" / "0.jpg")
    for name, quality in (("train/1.jpg", 80), ("val/0.jpg", 60), ("val/1.jpg", 50)):  # four pairs of two splits
        picture.save(tmp_path / name, quality=quality)
    monkeypatch.setattr(suspects, "LOOKS", 2)
    monkeypatch.setattr(suspects, "PORTION", 1)
    findings = found(train=train, val=val)
    assert findings["near-leak"].count == 2
    assert "not-compared" not in findings


def test_a_limit_on_looks_within_a_split_is_told(tmp_path, monkeypatch):
    train = world(tmp_path / "train", range(8))
    for n in range(4):
        PillowImage.open(tmp_path / "train" / f"{n}.jpg").save(tmp_path / "train" / f"{n + 4}.jpg", quality=60)
    assert found(train=train)["near-photos"].count == 4
    monkeypatch.setattr(suspects, "LOOKS", 3)
    findings = found(train=train)
    assert findings["near-photos"].count == 3
    assert findings["not-compared"].problem.where == ("in one split: 1 pair",)
    assert findings["not-compared"].problem.what.startswith("1 pair of photos that may be alike was not compared")


def test_photos_that_are_joined_by_others_need_no_look(tmp_path, monkeypatch):
    train = world(tmp_path / "train", range(4))
    picture = PillowImage.open(tmp_path / "train" / "0.jpg")
    for n, quality in ((1, 70), (2, 50), (3, 35)):
        picture.save(tmp_path / "train" / f"{n}.jpg", quality=quality)
    prints = [likeness.fingerprint_of(read_grey(tmp_path / "train" / f"{n}.jpg")[0]) for n in range(4)]
    assert len(likeness.near_pairs(likeness.stack(prints))) == 6
    monkeypatch.setattr(suspects, "LOOKS", 5)
    findings = found(train=train)
    assert findings["near-photos"].count == 3
    assert "not-compared" not in findings


def test_photos_that_show_nothing(tmp_path):
    train = world(tmp_path / "train", range(3))
    PillowImage.new("RGB", (160, 120), (200, 200, 200)).save(tmp_path / "train" / "1.jpg")
    findings = found(train=train)
    assert list(findings) == ["blank-photo"]
    assert str(findings["blank-photo"].problem) == (
        "1 photo shows nothing: all of one colour\n"
        f"  {tmp_path}/train/1.jpg: 1 object in the annotation file\n"
        "fix: look at it: a failed export or a covered lens; remove it from the annotation file"
    )
    assert findings["blank-photo"].examples[0].photo == "1.jpg"


def test_equal_and_alike_photos_of_one_split_are_notes(tmp_path):
    train = world(tmp_path / "train", range(6))
    (tmp_path / "train" / "4.jpg").write_bytes((tmp_path / "train" / "0.jpg").read_bytes())
    PillowImage.open(tmp_path / "train" / "1.jpg").save(tmp_path / "train" / "5.jpg", quality=50)
    findings = found(train=train)
    assert list(findings) == ["photo-twice", "near-photos"]
    assert str(findings["photo-twice"].problem) == (
        "1 photo repeats another of the same split, byte by byte\n"
        f"  {tmp_path}/train/0.jpg = {tmp_path}/train/4.jpg\n"
        "fix: keep one of each: the others only count double"
    )
    assert str(findings["near-photos"].problem).startswith(
        f"1 photo looks like another of the same split\n  {tmp_path}/train/1.jpg ~ {tmp_path}/train/5.jpg (likeness"
    )
    assert findings["near-photos"].problem.fix == (
        "leave them if they are frames of one scene; keep them in one split, and count on fewer different photos"
    )
    assert {f.severity for f in findings.values()} == {"note"}


def test_a_photo_in_all_three_splits_is_one_leak(tmp_path):
    splits = {name: world(tmp_path / name, range(at, at + 2)) for name, at in (("train", 0), ("val", 10), ("test", 20))}
    for name in ("val", "test"):
        (tmp_path / name / "1.jpg").write_bytes((tmp_path / "train" / "0.jpg").read_bytes())
    finding = found(**splits)["photo-leak"]
    assert finding.count == 1
    assert finding.problem.where == (
        "val: 1 of 2 photos (50%)",
        "test: 1 of 2 photos (50%)",
        f"{tmp_path}/train/0.jpg = {tmp_path}/val/1.jpg = {tmp_path}/test/1.jpg",
    )


@pytest.mark.parametrize("flat", [False, True])
def test_equal_files_beyond_the_sample_are_equal(tmp_path, monkeypatch, flat):
    """Of equal files one may be decoded in full and another at a part of its size: their fingerprints differ then."""
    monkeypatch.setattr(suspects, "EDGE_PHOTOS", 1)  # of each split the first one is decoded in full
    size = (160, 200)
    train, val = world(tmp_path / "train", range(3), size=size), world(tmp_path / "val", range(20, 23), size=size)
    if flat:  # a gentle ramp: too flat to have a fingerprint, not blank
        ramp = np.tile(np.linspace(100, 106, 200), (160, 1)) + np.random.default_rng(0).normal(0, 1, (160, 200))
        PillowImage.fromarray(ramp.astype(np.uint8)).save(tmp_path / "train" / "0.jpg", quality=92)
    content = (tmp_path / "train" / "0.jpg").read_bytes()
    for name in ("val/2.jpg", "train/1.jpg"):
        (tmp_path / name).write_bytes(content)
    whole, reduced = (
        likeness.fingerprint_of(read_grey(tmp_path / "train" / "0.jpg", side)[0]) for side in (None, 2 * likeness.SIDE)
    )
    assert whole != reduced  # else this tests nothing
    findings = found(train=train, val=val)
    assert list(findings) == ["photo-leak", "photo-twice"]
    a, b = tmp_path / "train" / "0.jpg", tmp_path / "train" / "1.jpg"
    assert findings["photo-leak"].problem.where == ("val: 1 of 3 photos (33%)", f"{a} = {b} = {tmp_path}/val/2.jpg")
    assert findings["photo-twice"].problem.where == (f"{a} = {b}",)


def test_only_files_of_one_length_are_read_again(tmp_path, monkeypatch):
    train, val = world(tmp_path / "train", range(4)), world(tmp_path / "val", range(20, 24))
    lengths = [p.stat().st_size for p in tmp_path.rglob("*.jpg")]
    (tmp_path / "val" / "3.jpg").write_bytes((tmp_path / "train" / "0.jpg").read_bytes())
    assert len(set(lengths)) == len(lengths)
    hashed = []
    monkeypatch.setattr(suspects, "sha256", lambda path: hashed.append(path) or "same")
    assert found(train=train, val=val)["photo-leak"].count == 1
    assert sorted(hashed) == [tmp_path / "train" / "0.jpg", tmp_path / "val" / "3.jpg"]


def test_masks_drawn_on_a_coarse_grid(tmp_path):
    def coarse(mask):
        return np.repeat(np.repeat(mask[::2, ::2], 2, axis=0), 2, axis=1)

    train = world(tmp_path / "train", range(12), coarse, size=(240, 320))
    findings = found(train=train)
    assert list(findings) == ["coarse-masks"]
    n = findings["coarse-masks"].count
    assert n >= 10
    assert str(findings["coarse-masks"].problem) == (
        f"{n} masks were drawn on a coarser grid than the photo's pixels and scaled up\n"
        f"  {n} of 12 masks looked at\n"
        "fix: export the masks at the full size of the photo"
    )
    assert findings["coarse-masks"].examples[0].annotations


def test_splits_whose_masks_are_drawn_differently(tmp_path):
    def rough(mask):
        y, x = np.nonzero(mask)
        out = np.zeros_like(mask)
        out[y.min() : y.max() + 1, x.min() : x.max() + 1] = True
        out[y.min() : y.min() + 9, x.min() : x.min() + 5] = False
        return out

    train = world(tmp_path / "train", range(20))
    val = world(tmp_path / "val", range(40, 60), rough)
    finding = found(train=train, val=val)["style-differs"]
    assert finding.problem.what == (
        "masks are drawn in different ways in different splits: scores then measure the drawing, too"
    )
    assert finding.problem.where[0].startswith("tool: straight runs of the outline are ")
    assert finding.problem.fix == "look at some of each side by side, and draw them by one rule"
    assert "style-differs" not in found(train=train, val=world(tmp_path / "other", range(40, 60)))
