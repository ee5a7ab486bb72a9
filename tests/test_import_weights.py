"""A checkpoint becomes a run that detects what its own framework would; nothing in it is executed."""

import json
import math
import pickle
import sys

import numpy as np
import pytest
import torch
from torch.nn import functional
from torchvision.ops import nms, roi_align

import maskwright as mw
from maskwright.errors import UserError
from maskwright.framing import cv2_linear, frame_for
from maskwright.import_weights import coco_categories
from maskwright.run import Run
from stock_world import as_detectron2, as_mmdetection, as_torchvision, photo, reference
from tiny_world import write_data

NAMES = ["a", "b", "c"]
SIDES = {"side": 280, "short_side": 160}


class HistoryBuffer:
    """Stands for MMEngine's, which `weights_only` refuses."""

    def __init__(self):
        self.history = np.arange(3.0)


def imported(file, out, **more):
    said = []
    mw.import_weights(file, out, say=said.append, **(SIDES | more))
    return mw.load(out), "\n".join(said)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    base = tmp_path_factory.mktemp("weights")
    state = reference().state_dict()
    torch.save(state, base / "torchvision.pth")
    torch.save(reference("v2").state_dict(), base / "v2.pth")
    meta = {"CLASSES": tuple(NAMES), "config": "backbone=dict(type='ResNet', style='pytorch')"}
    torch.save({"meta": meta, "state_dict": as_mmdetection(state), "hub": HistoryBuffer()}, base / "mmdetection.pth")
    arrays = {k: v.numpy() for k, v in as_detectron2(state).items()}
    with (base / "detectron2.pkl").open("wb") as handle:
        pickle.dump({"model": arrays, "__author__": "Detectron2 Model Zoo"}, handle, protocol=2)
    return base


@pytest.mark.parametrize(("file", "heads"), [("torchvision.pth", "v1"), ("v2.pth", "v2")])
def test_a_run_of_torchvisions_weights_detects_what_torchvision_does(folder, tmp_path, file, heads):
    model, said = imported(folder / file, tmp_path / "run", categories="a, b, c")
    picture = photo(seed=5)
    expected = as_torchvision(reference(heads), picture)
    masks = (expected["masks"][:, 0] >= 0.5).numpy()
    keep = masks.any((1, 2))
    found = model(picture, score=0.05)
    assert len(found) == keep.sum() > 20
    np.testing.assert_allclose(found.boxes, expected["boxes"].numpy()[keep], atol=1e-4)
    np.testing.assert_allclose(found.scores, expected["scores"].numpy()[keep], atol=1e-4)
    assert (found.masks != masks[keep]).mean() < 1e-4
    assert [NAMES.index(n) + 1 for n in found.categories] == expected["labels"].numpy()[keep].tolist()
    assert "rebuilt" in said.splitlines()[2]
    run = Run.read(tmp_path / "run")
    assert (run.architecture, run.side, run.short_side, run.state) == (
        "maskrcnn-r50-fpn" if heads == "v1" else "maskrcnn-r50-fpn-v2",
        280,
        160,
        "finished",
    )
    assert run.sizes["conventions"]["origin"] == "torchvision"


def by_hand(network, picture, mean, std, clamp_low):
    """Return what MMDetection (or Detectron2) computes for a photo: boxes, scores, labels and masks.

    Written from their formulas; of the network only convolutions and linear layers are used. The photo is as large as
    the input, so that scaling does not matter here.
    """
    limit = math.log(1000 / 16)

    def decode(boxes, deltas, weights):
        w, h = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
        x, y = boxes[:, 0] + w / 2, boxes[:, 1] + h / 2
        dx, dy, dw, dh = (deltas / torch.tensor(weights)).unbind(1)
        low = -limit if clamp_low else -math.inf
        x, y = x + dx * w, y + dy * h
        w, h = w * dw.clamp(low, limit).exp(), h * dh.clamp(low, limit).exp()
        found = torch.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], 1)
        found[:, 0::2] = found[:, 0::2].clamp(0, width)
        found[:, 1::2] = found[:, 1::2].clamp(0, height)
        return found

    def pooled(boxes, side):
        scale = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
        level = torch.floor(torch.log2(scale / 56 + 1e-6)).clamp(0, 3).long()
        found = torch.zeros(len(boxes), 256, side, side)
        for k in range(4):
            rows = torch.where(level == k)[0]
            rois = torch.cat([torch.zeros(len(rows), 1), boxes[rows]], 1)
            found[rows] = roi_align(pyramid[k], rois, side, 1 / (4 * 2**k), 0, True)
        return found

    height, width = picture.shape[:2]
    x = (torch.from_numpy(picture.copy()).float() - torch.tensor(mean)) / torch.tensor(std)
    x = x.permute(2, 0, 1)[None]
    x = functional.pad(x, (0, -width % 32, 0, -height % 32))
    pyramid = list(network.backbone(x).values())
    boxes, scores, levels = [], [], []
    for k, features in enumerate(pyramid):
        stride, size = 4 * 2**k, 32 * 2**k
        hidden = functional.relu(network.rpn.head.conv[0][0](features))
        logit = network.rpn.head.cls_logits(hidden)[0].permute(1, 2, 0).reshape(-1)
        delta = network.rpn.head.bbox_pred(hidden)[0].permute(1, 2, 0).reshape(-1, 4)
        rows, columns = features.shape[-2:]
        base = torch.tensor([[s / r**0.5, s * r**0.5] for r in (0.5, 1.0, 2.0) for s in (size,)])
        base = torch.cat([-base / 2, base / 2], 1)
        at = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij"), -1).reshape(-1, 2)
        shift = at.flip(1).repeat(1, 2).float() * stride
        anchors = (shift[:, None] + base[None]).reshape(-1, 4)
        best = logit.sigmoid().sort(descending=True)[1][:1000]
        boxes.append(decode(anchors[best], delta[best], [1.0] * 4))
        scores.append(logit.sigmoid()[best])
        levels.append(torch.full_like(best, k))
    boxes, scores, levels = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
    keep = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
    boxes, scores, levels = boxes[keep], scores[keep], levels[keep]
    chosen = torch.cat(
        [torch.where(levels == k)[0][nms(boxes[levels == k], scores[levels == k], 0.7)] for k in range(5)]
    )
    proposals = boxes[chosen[scores[chosen].argsort(descending=True, stable=True)][:1000]]
    logits, deltas = network.roi_heads.box_predictor(network.roi_heads.box_head(pooled(proposals, 7)))
    probability = logits.softmax(1)
    found = []
    for label in range(1, probability.shape[1]):
        box = decode(proposals, deltas[:, 4 * label : 4 * label + 4], [10.0, 10.0, 5.0, 5.0])
        row = torch.where(probability[:, label] > 0.05)[0]
        row = row[nms(box[row], probability[row, label], 0.5)]
        found += [(probability[r, label].item(), label, box[r]) for r in row]
    found = sorted(found, key=lambda one: -one[0])[:100]
    windows = torch.stack([box for _, _, box in found])
    every = network.roi_heads.mask_predictor(network.roi_heads.mask_head(pooled(windows, 14))).sigmoid()
    masks = []
    for (_, label, box), mask in zip(found, every, strict=True):
        ys = (torch.arange(height) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
        xs = (torch.arange(width) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)[None]
        masks.append(functional.grid_sample(mask[None, label : label + 1], grid, align_corners=False)[0, 0] >= 0.5)
    return windows.numpy(), [s for s, _, _ in found], [c for _, c, _ in found], torch.stack(masks).numpy()


@torch.inference_mode()
@pytest.mark.parametrize(("file", "clamp_low"), [("mmdetection.pth", True), ("detectron2.pkl", False)])
def test_detections_follow_the_formulas_of_the_frameworks(folder, tmp_path, file, clamp_low):
    model, said = imported(folder / file, tmp_path / "run", categories="a,b,c")
    picture = photo(160, 250, seed=8)
    mean, std = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
    boxes, scores, labels, masks = by_hand(reference(), picture, mean, std, clamp_low)
    keep = masks.any((1, 2))
    found = model(picture, score=0.05)
    assert len(found) == keep.sum() > 20
    np.testing.assert_allclose(found.scores, np.array(scores)[keep], atol=1e-3)
    np.testing.assert_allclose(found.boxes, boxes[keep], atol=0.1)
    assert [NAMES.index(n) + 1 for n in found.categories] == np.array(labels)[keep].tolist()
    both = (found.masks & masks[keep]).sum((1, 2)) / (found.masks | masks[keep]).sum((1, 2))
    assert both.min() > 0.99
    assert "ignored" not in said


def test_the_origin_decides_the_arithmetic(folder, tmp_path):
    conventions = {}
    for file in ("torchvision.pth", "mmdetection.pth", "detectron2.pkl"):
        model, _ = imported(folder / file, tmp_path / file, categories="a,b,c")
        conventions[file] = model.network.conventions
    assert [c.origin for c in conventions.values()] == ["torchvision", "mmdetection", "detectron2"]
    assert all(c.exact for c in conventions.values())
    assert [c.resample for c in conventions.values()] == ["interpolate", "cv2", "pillow"]
    assert [c.norm for c in conventions.values()] == ["still", "still", "frozen"]
    assert not any(c.bgr for c in conventions.values())


def test_mmdetections_photos_are_scaled_as_opencv_does(folder, tmp_path):
    model, _ = imported(folder / "mmdetection.pth", tmp_path / "run")
    picture = photo(100, 140)
    large = cv2_linear(picture, (160, 224))
    framed, same = (frame_for(model.network, p, 280, 160) for p in (picture, large))
    assert torch.equal(framed.image, same.image)
    assert (framed.frame.inner, framed.frame.size) == ((160, 224), (100, 140))


def test_names_come_from_the_file_and_what_is_dropped_is_told(folder, tmp_path):
    model, said = imported(folder / "mmdetection.pth", tmp_path / "run")
    assert model.names == ("a", "b", "c")
    assert "dropped, as they are not weights (1): 1 x test_import_weights.HistoryBuffer" in said
    assert "backbone of style pytorch: its own config says so" in said
    account = json.loads((tmp_path / "run" / "import.json").read_text())
    assert account["reader"] == "restricted"
    assert account["dropped"] == {"test_import_weights.HistoryBuffer": 1}
    assert len(account["loaded"]) == len(model.network.state_dict())


def test_a_run_predicts_at_once(folder, tmp_path):
    data = write_data(tmp_path / "data", val=1, test=1)
    state = reference(classes=3, seed=1).state_dict()
    torch.save(state, tmp_path / "two.pth")
    mw.import_weights(tmp_path / "two.pth", tmp_path / "run", data=str(data), **SIDES)
    assert [c.name for c in Run.read(tmp_path / "run").categories] == ["hammer", "nut"]
    found = mw.predict(tmp_path / "run", data, tmp_path / "out", split="test", score=0.05)
    assert len(found) > 0
    assert (tmp_path / "out" / "detections.json").is_file()


def test_categories_must_be_those_of_the_network(folder, tmp_path):
    with pytest.raises(UserError) as caught:
        imported(folder / "torchvision.pth", tmp_path / "run")
    assert str(caught.value) == (
        "the file does not tell its categories\n"
        f"  {folder / 'torchvision.pth'} tells 3 categories apart\n"
        "fix: --categories NAME,NAME,... in the network's order, or --data DATA"
    )
    with pytest.raises(UserError, match=r"tells 3 apart, 2 are given: a, b"):
        imported(folder / "torchvision.pth", tmp_path / "run", categories="a,b")
    with pytest.raises(UserError, match="a is given twice"):
        imported(folder / "torchvision.pth", tmp_path / "run", categories=["a", "b", "a"])
    assert not (tmp_path / "run").exists()


def test_cocos_categories_have_their_ids():
    assert [(c.id, c.name) for c in coco_categories(80)][:12:11] == [(1, "person"), (13, "stop sign")]
    ninety = coco_categories(90)
    assert [c.id for c in ninety] == list(range(1, 91))
    assert len({c.name for c in ninety}) == 90
    assert coco_categories(81) is None


def test_a_backbone_alone_is_no_run(tmp_path):
    state = {k.removeprefix("backbone.body."): v for k, v in reference().state_dict().items() if ".body." in k}
    torch.save(state, tmp_path / "resnet50.pth")
    with pytest.raises(UserError, match="the file is not a whole Mask R-CNN") as caught:
        mw.import_weights(tmp_path / "resnet50.pth", tmp_path / "run")
    assert "a ResNet-50" in str(caught.value)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_run_is_never_replaced(folder, tmp_path, monkeypatch, overwrite):
    (tmp_path / "mine.txt").write_text("years of work")
    module = sys.modules["maskwright.import_weights"]
    monkeypatch.setattr(module, "read_checkpoint", lambda *_: pytest.fail("work was begun"))
    with pytest.raises(UserError, match=r"is no former output of import-weights.*\n  .*: mine.txt\nfix: name another"):
        mw.import_weights(folder / "torchvision.pth", tmp_path, overwrite=overwrite)
    assert (tmp_path / "mine.txt").read_text() == "years of work"


def test_a_file_that_lacks_a_part_is_refused(folder, tmp_path):
    state = reference().state_dict()
    del state["rpn.head.cls_logits.bias"]
    torch.save(state, tmp_path / "part.pth")
    with pytest.raises(UserError, match=r"rpn\.head\.cls_logits\.bias is missing"):
        imported(tmp_path / "part.pth", tmp_path / "run", categories="a,b,c")
