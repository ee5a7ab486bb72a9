"""The arithmetic that Mask R-CNN left open, as data.

Three frameworks train one network and compute it in three ways: how a photo is scaled, where anchors lie, how features
are read under a box, how a mask is put back. A checkpoint gives its own detections only with its own arithmetic, so
that is stored in the run beside the weights. Sources: the inference code of torchvision 0.29, MMDetection 2.x and 3.x
(`AnchorGenerator`, `delta2bbox`, `SingleRoIExtractor`, `_do_paste_mask`) and Detectron2 (`DefaultAnchorGenerator`,
`assign_boxes_to_levels`, `paste_masks_in_image`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (123.675, 116.28, 103.53)
IMAGENET_STD: Colour = (58.395, 57.12, 57.375)


@dataclass(frozen=True)
class Conventions:
    """How a Mask R-CNN computes.

    Args:
        origin: Whose arithmetic it is: `maskwright`, `torchvision`, `mmdetection` or `detectron2`; also of a network
            that began with weights from there and was trained here.
        mean: Per-channel mean of the input, RGB on the 0..255 scale.
        std: Per-channel divisor of the input, RGB on the 0..255 scale.
        unit: Photos are divided by 255 first, and `mean` and `std` with them: torchvision's order of rounding.
        bgr: The first convolution takes blue, green, red.
        resample: How a photo is scaled for detection: `smooth` as in training here; `interpolate` torch's bilinear
            without antialiasing, of the normalised photo in floats; `cv2` OpenCV's `INTER_LINEAR` of whole numbers;
            `pillow` its bilinear.
        stride_in_1x1: Bottlenecks of the backbone halve the map in their first 1x1 convolution, as in Caffe, not in the
            3x3 one.
        norm: Batch norms of the backbone: `frozen` (a fixed scale and shift), `still` (fixed statistics, learned scale
            and shift) or `live` (statistics of the batch).
        head_norm: The same of pyramid and heads, where they have any.
        norm_eps: What is added to the variance.
        anchors_rounded: Corners of the anchors at the origin are whole numbers.
        deltas_floored: Boxes cannot shrink by more than they can grow (1000 / 16) either.
        least_proposal: Least width and height of a proposal in pixels; 0: anything above zero.
        roi_aligned: RoIAlign counts from the middle of pixels.
        roi_sampling: Its sample points per cell and axis; 0: as many as the cell has pixels.
        level_side: The square root of the area of a box ...
        level_at: ... that is read at this level (2 is stride 4, 5 is stride 32).
        level_inside: Added to the ratio of sides before its logarithm.
        level_outside: Added to the level before it is rounded down.
        least_score: Detections up to it are dropped, whatever the caller asks for.
        least_side: Least width and height of a detection in pixels.
        paste: How a mask comes back to the photo: `cell` by the nearest cell at its rim, `padded` resized with a rim
            of zeros to whole pixels, `grid` by bilinear sampling that fades to zero outside.
        box_beta: Where the box losses turn from square to absolute; 0: they are absolute.
        hard_targets: Targets of the mask head are yes or no, not the share of a cell.
    """

    origin: str = "maskwright"
    mean: Colour = IMAGENET_MEAN
    std: Colour = IMAGENET_STD
    unit: bool = True
    bgr: bool = False
    resample: Literal["smooth", "interpolate", "cv2", "pillow"] = "smooth"
    stride_in_1x1: bool = False
    norm: Literal["frozen", "still", "live"] = "frozen"
    head_norm: Literal["still", "live"] = "live"
    norm_eps: float = 1e-5
    anchors_rounded: bool = True
    deltas_floored: bool = False
    least_proposal: float = 1e-3
    roi_aligned: bool = False
    roi_sampling: int = 2
    level_side: float = 224.0
    level_at: int = 4
    level_inside: float = 0.0
    level_outside: float = 1e-6
    least_score: float = 0.05
    least_side: float = 1e-2
    paste: Literal["cell", "padded", "grid"] = "padded"
    box_beta: float = 1 / 9
    hard_targets: bool = False

    def json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @property
    def exact(self) -> bool:
        """Whether detections shall be those of the origin to the last bit: photos are scaled as there.

        What is trained here sees photos scaled in our way, also where it began with weights from elsewhere, and is
        computed in the fastest way; `origin` then says whose arithmetic it keeps but for that.
        """
        return self.resample != "smooth"

    @staticmethod
    def of(values: Mapping[str, Any]) -> Conventions:
        """Make conventions of what `json` gave.

        Raises:
            ValueError: If there is a name that no convention has.
        """
        unknown = set(values) - {f.name for f in fields(Conventions)}
        if unknown:
            raise ValueError(f"unknown conventions: {', '.join(sorted(unknown))}")
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return Conventions(**given)


NATIVE = Conventions()
"""Of networks trained here: torchvision's, but photos are scaled as in training, which does not alias."""

TORCHVISION = Conventions(origin="torchvision", resample="interpolate")

MMDETECTION = Conventions(
    origin="mmdetection",
    unit=False,
    resample="cv2",
    norm="still",
    head_norm="still",
    anchors_rounded=False,
    deltas_floored=True,
    least_proposal=0.0,
    roi_aligned=True,
    roi_sampling=0,
    level_side=56.0,
    level_at=2,
    level_inside=1e-6,
    level_outside=0.0,
    least_side=0.0,
    paste="grid",
    box_beta=0.0,
    hard_targets=True,
)
"""MMDetection 2.x and 3.x, backbone of style `pytorch`."""

DETECTRON2 = Conventions(
    origin="detectron2",
    unit=False,
    resample="pillow",
    anchors_rounded=False,
    least_proposal=0.0,
    roi_aligned=True,
    roi_sampling=0,
    level_inside=2.220446049250313e-16,
    level_outside=0.0,
    least_side=0.0,
    paste="grid",
    box_beta=0.0,
    hard_targets=True,
)
"""Detectron2 with a backbone from torchvision."""

CAFFE: dict[str, Any] = {"std": (1.0, 1.0, 1.0), "bgr": True, "stride_in_1x1": True}
"""What differs where the backbone comes from Caffe (Detectron2's `R-50.pkl` of MSRA, MMDetection's style `caffe`)."""
