"""Test-time flips: a network sees a photo as it is and mirrored, and what it finds in the two becomes one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from maskwright.models import Segmenter

Found = dict[str, Tensor]

SAME_IOU = 0.5
"""Boxes of the two views that overlap so much, and are of one category, are of one object."""

ALONE = 0.5
"""A box that only one of the views has keeps this share of its score: the mean with a score of zero."""


def mirrored(image: Tensor, width: int) -> Tensor:
    """Mirror a photo left-right inside its frame, whose padding stays on the right.

    Args:
        image: `(..., H, W)`, the photo in the upper left corner.
        width: Of the photo, at most W.

    Example:
        >>> mirrored(torch.tensor([[1, 2, 3, 0, 0]]), 3).tolist()
        [[3, 2, 1, 0, 0]]
    """
    return torch.cat([image[..., :width].flip(-1), image[..., width:]], -1)


def mirrored_boxes(boxes: Tensor, width: int) -> Tensor:
    """Mirror boxes `(N, 4)` left-right in a photo of this width; in 64 bits, so that nothing is lost.

    Example:
        >>> mirrored_boxes(torch.tensor([[1.0, 2.0, 4.0, 8.0]]), 11).tolist()
        [[7.0, 2.0, 10.0, 8.0]]
    """
    x1, y1, x2, y2 = boxes.double().unbind(1)
    return torch.stack([width - x2, y1, width - x1, y2], 1)


def detect_twice(network: Segmenter, image: Tensor, inner: tuple[int, int], least_score: float, **more: bool) -> Found:
    """Detect in a photo and in its mirror image, as one batch of two.

    The boxes of the two are merged before there are masks. Then each view gives the mask of every merged box, so that
    both masks lie in one window cell upon cell, and their mean needs no resampling.

    Args:
        network: In evaluation mode.
        image: `(3, H, W)` on the network's device, as `detect` takes it.
        inner: `(height, width)` of the photo inside its padded frame.
        least_score: Detections below it are dropped.
        **more: As `detect` takes it.

    Returns:
        As `detect` for one photo, on the CPU: probabilities of masks are means over the views, and so are scores.
    """
    width = inner[1]
    most = getattr(getattr(network, "spec", None), "detections_per_photo", None)

    def between(views: list[Found]) -> list[Found]:
        device = views[0]["boxes"].device
        here, there = ({k: v.cpu() for k, v in view.items()} for view in views)
        both = merged(here, there | {"boxes": mirrored_boxes(there["boxes"], width)}, least_score, most)
        both["place"] = torch.arange(len(both["scores"]))
        pair = (both, both | {"boxes": mirrored_boxes(both["boxes"], width)})
        return [{k: v.to(device, views[0][k].dtype if k in views[0] else v.dtype) for k, v in p.items()} for p in pair]

    images = torch.stack([image, mirrored(image, width)])
    if getattr(network, "conventions", None) is None:
        images = images.contiguous(memory_format=torch.channels_last)
    here, there = network.detect(images, [inner, inner], least_score, between=between, **more)
    there |= {"boxes": mirrored_boxes(there["boxes"], width).to(there["boxes"].dtype)}
    return _mean({k: v.cpu() for k, v in here.items()}, {k: v.cpu() for k, v in there.items()})


def merged(one: Found, other: Found, least_score: float = 0.0, most: int | None = None) -> Found:
    """Merge boxes of two views of a photo; which view is which makes no difference.

    Boxes of one category that overlap by an IoU of at least `SAME_IOU` are paired, the nearest first. A pair becomes
    one box, the mean weighted by the scores, with the mean of the scores. A box without a partner keeps `ALONE` of its
    score.

    Args:
        one: `boxes` `(N, 4)`, `labels` `(N,)`, `scores` `(N,)`.
        other: The same of the other view, mirrored back.
        least_score: Boxes below it are dropped at the end.
        most: At most so many are returned.

    Returns:
        The same form, best score first; places and scores in 64 bits.
    """
    first, second = pairs(one, other)
    score, rival = one["scores"][first].double(), other["scores"][second].double()
    share = (score / (score + rival))[:, None]
    boxes = [share * one["boxes"][first].double() + (1 - share) * other["boxes"][second].double()]
    scores, labels = [(score + rival) / 2], [one["labels"][first]]
    for view, taken in ((one, first), (other, second)):
        alone = torch.ones(len(view["scores"]), dtype=torch.bool)
        alone[taken] = False
        boxes.append(view["boxes"][alone].double())
        scores.append(view["scores"][alone].double() * ALONE)
        labels.append(view["labels"][alone])
    every = {"boxes": torch.cat(boxes), "scores": torch.cat(scores), "labels": torch.cat(labels)}
    return _best_first(every, least_score, most)


def pairs(one: Found, other: Found) -> tuple[Tensor, Tensor]:
    """Return which boxes of two views are of one object, `(K,)` positions in each; none stands in two pairs."""
    overlap = box_iou(one["boxes"].double(), other["boxes"].double())
    overlap = torch.where(one["labels"][:, None] == other["labels"][None, :], overlap, 0.0)
    rows, columns = torch.where(overlap >= SAME_IOU)
    nearest = overlap[rows, columns].argsort(descending=True, stable=True)
    taken: dict[int, int] = {}
    for i, j in zip(rows[nearest].tolist(), columns[nearest].tolist(), strict=True):
        if i not in taken and j not in taken.values():
            taken[i] = j
    return torch.tensor(list(taken), dtype=torch.int64), torch.tensor(list(taken.values()), dtype=torch.int64)


def _mean(here: Found, there: Found) -> Found:
    """Make one of what two views say of the merged boxes, boxes mirrored back; what either drops is dropped."""
    where = {place: k for k, place in enumerate(there["place"].tolist())}
    kept = [(i, where[place]) for i, place in enumerate(here["place"].tolist()) if place in where]
    rows, others = (torch.tensor([k[side] for k in kept], dtype=torch.int64) for side in (0, 1))
    found: dict[str, Any] = {k: v[rows] for k, v in here.items() if k != "place"}
    found["masks"] = (found["masks"] + there["masks"][others].flip(-1)) / 2
    for name in ("boxes", "scores"):  # a network may take the boxes from its masks, so that they differ
        found[name] = (found[name] + there[name][others]) / 2
    return _best_first(found, 0.0, None)


def _best_first(found: Found, least_score: float, most: int | None) -> Found:
    order = found["scores"].argsort(descending=True, stable=True)
    order = order[found["scores"][order] >= least_score][:most]
    return {k: v[order] for k, v in found.items()}
