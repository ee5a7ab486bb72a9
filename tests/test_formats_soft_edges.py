"""Soft edges whose cut matters: told by `prepare` in every form of mask images, stored, and found by `check`."""

import json

import numpy as np
import pytest
from PIL import Image, ImageFilter

import maskwright as mw
from maskwright import pixels
from maskwright.errors import UserError
from maskwright.formats.coding import Decision, look
from maskwright.formats.soft_edges import cut_off
from maskwright.prepare import prepare, story_of

SIZE = (40, 60)
HALF = Decision("binary", "bright")


def blob(at=(10, 15), side=12, top=255):
    mask = np.zeros(SIZE, dtype=np.uint8)
    mask[at[0] : at[0] + side, at[1] : at[1] + side] = top
    return mask


def blurred(mask, px=2.0):
    return np.asarray(Image.fromarray(mask).filter(ImageFilter.GaussianBlur(px)))


def below_half(mask):
    return float((mask[mask > 0] < 128).mean())


def save(array, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def photos(folder, names):
    for seed, name in enumerate(names):
        save(np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8), folder / f"{name}.jpg")


def found(path, array, decision=HALF, rles=None):
    values = look(save(array, path))
    return cut_off("m", values, decision, [values.rle] if rles is None else rles)


def test_the_share_below_half_where_it_matters(tmp_path):
    soft = blurred(blob())
    assert found(tmp_path / "a.png", soft) == (("m", pytest.approx(below_half(soft))),)
    assert found(tmp_path / "a.png", soft, None) == found(tmp_path / "a.png", soft)
    thin = blob(side=24)
    thin[9, 15:39] = 60  # a line of soft pixels: 4 % of all
    assert found(tmp_path / "b.png", thin) == ()
    assert found(tmp_path / "c.png", blob()) == ()


def test_it_does_not_matter_where_the_cut_is_not_at_half_or_nothing_is_left(tmp_path):
    soft = blurred(blob())
    assert found(tmp_path / "a.png", soft, Decision("binary", "as you said", least_top=20)) == ()
    assert found(tmp_path / "a.png", soft, Decision("ids", "as you said")) == ()
    assert found(tmp_path / "a.png", soft, rles=[pixels.encode(np.zeros(SIZE, dtype=bool))]) == ()
    assert found(tmp_path / "a.jpg", soft) == ()  # noise of JPEG is below half everywhere


def test_masks_of_one_low_value_are_not_soft(tmp_path):
    """0 and 100, which are binary if the user says so, are cut at half of 100."""
    photos(tmp_path / "raw/rgb", ["a"])
    save(blob(top=100), tmp_path / "raw/mask/a.png")
    made = prepare(tmp_path / "raw", out=tmp_path / "DATA", coding="binary")
    assert not any("soft edges" in note for note in made.notes)
    assert story_of(made.folder)["soft masks"] == {"count": 0, "examples": []}


def folders(raw, masks):
    """Write one mask image a photo; return their paths."""
    photos(raw / "rgb", masks)
    return {name: save(mask, raw / "mask" / f"{name}.png") for name, mask in masks.items()}


def same_folder(raw, masks):
    photos(raw, masks)
    return {name: save(mask, raw / f"{name}_mask.png") for name, mask in masks.items()}


def category_folders(raw, masks):
    photos(raw / "images", masks)
    for name in masks:  # what makes it this form
        save(blob((25, 40)), raw / "masks/bolt" / f"{name}.png")
    return {name: save(mask, raw / "masks/nut" / f"{name}.png") for name, mask in masks.items()}


def instance_files(raw, masks):
    photos(raw / "shapes", masks)
    for name in masks:
        save(blob((25, 40)), raw / "annotations" / f"{name}_nut_0.png")
    return {name: save(mask, raw / "annotations" / f"{name}_nut_1.png") for name, mask in masks.items()}


@pytest.mark.parametrize("form", [folders, same_folder, category_folders, instance_files])
def test_a_soft_mask_that_is_larger_than_its_photo_is_refused_in_words(tmp_path, form):
    paths = form(tmp_path / "raw", {"a": blob(), "b": blurred(blob())})
    save(np.pad(blurred(blob()), ((0, 20), (0, 0))), paths["b"])
    with pytest.raises(UserError, match="1 mask image has another shape than the photo"):
        prepare(tmp_path / "raw", out=tmp_path / "DATA", form=form.__name__.replace("_", "-"))


@pytest.mark.parametrize("form", [folders, same_folder, category_folders, instance_files])
def test_every_form_of_mask_images_tells_stores_and_lets_check_find_it(tmp_path, form):
    hard, soft, softer = blob(), blurred(blob(), 1.2), blurred(blob())
    paths = form(tmp_path / "raw", {"a": hard, "b": soft, "c": softer})
    form_name = form.__name__.replace("_", "-")
    made = prepare(tmp_path / "raw", out=tmp_path / "DATA", val_share=0, test_share=0, form=form_name)
    (note,) = [note for note in made.notes if "soft edges" in note]
    assert (
        "it matters where soft edges are cut: of the pixels that are not 0, more than 5% are below half and so" in note
    )
    assert f"{paths['b']}: {below_half(soft):.0%}, {paths['c']}: {below_half(softer):.0%}" in note
    shares = {name: round(below_half(mask), 3) for name, mask in (("b", soft), ("c", softer))}
    assert story_of(made.folder)["soft masks"] == {
        "count": 2,
        "examples": [
            {"photo": f"train/{name}.jpg", "mask": str(paths[name]), "below half": shares[name]} for name in ("c", "b")
        ],
    }
    fates = json.loads((made.folder / "prepare.json").read_text())["files"]
    assert {fate["file"]: fate["below half"] for fate in fates if "below half" in fate} == {
        str(paths[name]): share for name, share in shares.items()
    }

    finding = next(finding for finding in mw.check(made.folder).problems if finding.code == "soft-masks")
    assert (finding.severity, finding.count) == ("note", 2)
    train = made.folder / "train"
    assert str(finding.problem) == (
        "in 2 mask images it mattered where soft edges were cut: more than 5% of the pixels that are not 0 were below"
        " half, and belong to no object\n"
        f"  {train}/c.jpg: {shares['c']:.0%} of {paths['c']}\n"
        f"  {train}/b.jpg: {shares['b']:.0%} of {paths['b']}\n"
        "fix: look at them: if these pixels are object, export the masks without smooth edges and prepare again"
    )
    dataset = made.split("train")
    (image,) = [image for image in dataset.images if image.file_name == "c.jpg"]
    drawn = [dataset.annotation(k).id for k in range(len(dataset)) if dataset.annotation(k).image_id == image.id]
    assert finding.examples[0].annotations == tuple(drawn)
    assert (finding.examples[0].split, finding.examples[0].photo) == ("train", "c.jpg")


def test_of_many_the_worst_are_named_and_all_are_counted(tmp_path):
    widths = {f"p{n:02d}": 0.7 + n / 10 for n in range(14)}
    folders(tmp_path / "raw", {name: blurred(blob(), width) for name, width in widths.items()})
    made = prepare(tmp_path / "raw", out=tmp_path / "DATA", val_share=0, test_share=0, near_duplicates=False)
    told = story_of(made.folder)["soft masks"]
    assert (told["count"], len(told["examples"])) == (14, 12)
    shares = [example["below half"] for example in told["examples"]]
    assert shares == sorted(shares, reverse=True)
    finding = next(finding for finding in mw.check(made.folder).problems if finding.code == "soft-masks")
    assert (finding.count, len(finding.examples)) == (14, 12)
    assert finding.problem.where[-1] == f"(all 14: `below half` in {made.folder / 'prepare.json'})"


@pytest.mark.parametrize(
    "story",
    [None, "", "{", "[]", '{"form": "folders"}', '{"soft masks": 3}', '{"soft masks": {"count": "x"}}', "\xff"],
)
def test_a_story_that_says_nothing_of_it_is_no_finding(tmp_path, story):
    folders(tmp_path / "raw", {"a": blob(), "b": blurred(blob())})
    made = prepare(tmp_path / "raw", out=tmp_path / "DATA", val_share=0, test_share=0)
    path = made.folder / "prepare.json"
    path.unlink()
    if story is not None:
        path.write_bytes(story.encode("latin-1"))
    assert [finding.code for finding in mw.check(made.folder).problems] == ["no-val"]


def test_the_story_is_read_without_the_fates_of_files(tmp_path):
    folders(tmp_path / "raw", {"a": blob()})
    made = prepare(tmp_path / "raw", out=tmp_path / "DATA")
    whole = json.loads((made.folder / "prepare.json").read_text())
    assert len(whole["files"]) == 2
    assert story_of(made.folder) == whole | {"files": []}
    (made.folder / "prepare.json").write_text(json.dumps(whole))  # as another tool may write it
    assert story_of(made.folder) == whole
