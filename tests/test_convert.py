"""What a file holds is told by looking inside; names and layouts become ours."""

from pathlib import Path

import pytest
import torch

from maskwright.errors import UserError
from maskwright.models.checkpoints import Stored
from maskwright.models.conventions import DETECTRON2, MMDETECTION, TORCHVISION, Conventions
from maskwright.models.convert import converted, tensors_by_part
from stock_world import as_detectron2, as_mmdetection, reference

KEYS = Path(__file__).parents[2] / "shared" / "mmdetection-mask-rcnn-keys.txt"
HEADS = ("roi_heads.box_predictor.bbox_pred.", "roi_heads.mask_predictor.mask_fcn_logits.")


def stored(tensors, **values):
    return Stored(Path("file.pth"), dict(tensors), values)


@pytest.fixture(scope="module")
def state():
    return reference().state_dict()


@pytest.mark.parametrize("rename", [as_mmdetection, as_detectron2])
def test_other_names_and_layouts_come_back_to_torchvisions(state, rename):
    found = converted(stored(rename(state)))
    expected = {k: v for k, v in state.items() if k in found.tensors}
    missing = set(state) - set(found.tensors)
    assert {k.rsplit(".", 1)[1] for k in missing} <= {"num_batches_tracked"}
    assert found.ignored == ()
    assert found.categories == 3
    for name, value in found.tensors.items():
        skip = (4 if "bbox_pred" in name else 1) if name.startswith(HEADS) else 0  # the background's own are unused
        assert torch.equal(value[skip:] if skip else value, expected[name][skip:] if skip else expected[name]), name
        assert skip == 0 or (value[:skip] == 0).all()


@pytest.mark.shared
@pytest.mark.skipif(not KEYS.is_file(), reason="the list of MMDetection's keys is not there")
def test_every_key_of_mmdetection_has_its_place():
    lines = [line.split("\t") for line in KEYS.read_text().splitlines()]
    shapes = {name: tuple(int(n) for n in shape.strip("()").split(",") if n.strip()) for name, shape, _ in lines}
    found = converted(stored({name: torch.zeros(shape) for name, shape in shapes.items()}))
    assert found.kind == "mmdetection"
    assert found.ignored == ()
    ours = {k: v.shape for k, v in reference(classes=2).state_dict().items()}
    assert {k: v.shape for k, v in found.tensors.items()} == ours


def test_wrappers_and_prefixes_are_looked_through(state):
    plain = converted(stored(state))
    for names in (
        {f"model/{k}": v for k, v in state.items()} | {"optimizer/state/0": torch.zeros(1)},
        {f"module.{k}": v for k, v in state.items()},
    ):
        found = converted(stored(names))
        assert found.kind == "torchvision"
        assert set(found.tensors) == set(plain.tensors)
    assert converted(stored({"model/a": state["backbone.body.conv1.weight"], "x/y": torch.zeros(1)})).ignored == (
        "x/y",
    )


def test_the_second_version_of_torchvision_is_told_by_its_box_head():
    found = converted(stored(reference("v2").state_dict()))
    assert found.kind == "torchvision-v2"
    assert found.conventions.head_norm == "still"


def old_names(state):
    """Return names as torchvision's own COCO file has them, from before its heads were rewritten."""
    found = {}
    for name, value in state.items():
        if name.endswith("num_batches_tracked"):
            continue
        old = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        if "blocks" in old:
            old = old.replace(".0.weight", ".weight").replace(".0.bias", ".bias")
        for k in range(4):
            old = old.replace(f"roi_heads.mask_head.{k}.0.", f"roi_heads.mask_head.mask_fcn{k + 1}.")
        found[old] = value
    return found


def test_torchvisions_own_file_has_old_names_and_norms_without_an_epsilon(state):
    found = converted(stored(old_names(state)))
    assert found.kind == "torchvision"
    assert (found.conventions.norm, found.conventions.norm_eps) == ("frozen", 0.0)
    assert set(state) - set(found.tensors) == {k for k in state if k.endswith("num_batches_tracked")}
    new = converted(stored({k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}))
    assert (new.conventions.norm, new.conventions.norm_eps) == ("frozen", 1e-5)


@pytest.mark.parametrize(
    ("meta", "caffe", "names"),
    [
        ({"CLASSES": ["x", "y", "z"], "config": "style='pytorch'"}, False, ("x", "y", "z")),
        ({"config": "backbone=dict(style='caffe')", "CLASSES": "one"}, True, ("one",)),
        ({"dataset_meta": {"classes": ["p", "q", "r"]}, "cfg": 'style = "caffe"'}, True, ("p", "q", "r")),
        ({}, False, None),
    ],
)
def test_mmdetection_tells_style_and_names_in_its_meta(state, meta, caffe, names):
    found = converted(stored({f"state_dict/{k}": v for k, v in as_mmdetection(state).items()}, meta=meta))
    assert (found.conventions.bgr, found.conventions.stride_in_1x1) == (caffe, caffe)
    assert found.conventions.std == ((1.0, 1.0, 1.0) if caffe else MMDETECTION.std)
    assert found.names == names


def test_heads_without_categories_are_repeated_for_each(state):
    theirs = as_mmdetection(state)
    for kind in ("weight", "bias"):
        theirs[f"roi_head.bbox_head.fc_reg.{kind}"] = theirs[f"roi_head.bbox_head.fc_reg.{kind}"][:4]
        theirs[f"roi_head.mask_head.conv_logits.{kind}"] = theirs[f"roi_head.mask_head.conv_logits.{kind}"][:1]
    found = converted(stored(theirs)).tensors
    box = found["roi_heads.box_predictor.bbox_pred.weight"]
    assert box.shape == (16, 1024)
    assert all(torch.equal(box[4 * k : 4 * k + 4], theirs["roi_head.bbox_head.fc_reg.weight"]) for k in (1, 2, 3))
    assert found["roi_heads.mask_predictor.mask_fcn_logits.bias"].shape == (4,)


def test_the_style_of_detectron2_is_told_by_its_pixels_or_its_first_norm(state):
    theirs = as_detectron2(state)
    assert converted(stored(theirs)).conventions == DETECTRON2
    one = {"pixel_std": torch.ones(3, 1, 1), "pixel_mean": torch.zeros(3, 1, 1)}
    assert converted(stored(theirs | one)).conventions.bgr
    assert not converted(stored(theirs | {"pixel_std": torch.full((3, 1, 1), 58.0)})).conventions.bgr
    stem = "backbone.bottom_up.stem.conv1.norm."
    folded = {f"{stem}running_mean": torch.zeros(64), f"{stem}running_var": torch.ones(64) - 1e-5}
    assert converted(stored(theirs | folded)).conventions.bgr
    assert not converted(stored(theirs | folded), "pytorch").conventions.bgr


def backbone(state):
    return {k.removeprefix("backbone.body."): v for k, v in state.items() if k.startswith("backbone.body.")}


def test_backbones_alone_are_known_under_three_names(state):
    ours = backbone(state)
    plain = converted(stored(ours | {"fc.weight": torch.zeros(1000, 2048)}))
    assert (plain.kind, plain.conventions, plain.ignored) == ("resnet50", TORCHVISION, ("fc.weight",))
    theirs = {k.removeprefix("backbone.bottom_up."): v for k, v in as_detectron2(state).items() if "bottom_up" in k}
    again = converted(stored({f"model/{k}": v for k, v in theirs.items()}))
    assert again.kind == "resnet50"
    assert {k for k in ours if not k.endswith("tracked")} == set(again.tensors)
    caffe = {"conv1_w": ours["conv1.weight"], "res_conv1_bn_s": ours["bn1.weight"], "res_conv1_bn_b": ours["bn1.bias"]}
    caffe |= {
        "res2_0_branch1_w": ours["layer1.0.downsample.0.weight"],
        "res5_2_branch2c_w": ours["layer4.2.conv3.weight"],
    }
    caffe |= {"res2_0_branch1_bn_s": ours["layer1.0.downsample.1.weight"], "fc1000_w": torch.zeros(2)}
    caffe |= {"res3_1_branch2b_bn_b": ours["layer2.1.bn2.bias"]}
    found = converted(stored(caffe))
    assert found.kind == "resnet50-caffe"
    assert found.conventions.bgr
    assert found.ignored == ("fc1000_w",)
    assert torch.equal(found.tensors["layer1.0.downsample.1.weight"], ours["layer1.0.downsample.1.weight"])
    assert torch.equal(found.tensors["layer2.1.bn2.bias"], ours["layer2.1.bn2.bias"])
    assert (found.tensors["bn1.running_mean"] == 0).all()


def test_mmdetection_1_is_refused():
    with pytest.raises(UserError, match=r"weights of MMDetection 1\.x are not read"):
        converted(stored({"bbox_head.fc_cls.weight": torch.zeros(2, 4)}))


def test_a_file_without_tensors_is_refused():
    with pytest.raises(UserError, match="the file holds no weights"):
        converted(stored({}))


def test_conventions_come_back_from_json_and_unknown_ones_are_refused():
    for how in (TORCHVISION, MMDETECTION, DETECTRON2):
        assert Conventions.of(how.json()) == how
    with pytest.raises(ValueError, match="unknown conventions: colour"):
        Conventions.of({"colour": 1})


def test_parts_are_in_the_order_of_computation(state):
    parts = tensors_by_part(sorted(state))
    assert list(parts) == ["backbone", "pyramid", "proposals", "box head", "mask head"]
    assert sum(map(len, parts.values())) == len(state)
