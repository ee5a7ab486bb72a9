"""Masks and photos that are mirrored, turned or shifted against each other: how that is seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PillowImage
from torch import Tensor
from torch.nn import functional

STRIDE = 8
"""Pixels of the network's input per cell of the features that a picture is judged by."""

MOST_FEATURES = 64
"""Features that are fitted, as many as maskrcnn-nano has; of a network with more, those directions in which they differ
most. With hundreds, a copy of the masks that is wrong would fit a small photo nearly as well."""

AS_GIVEN = "as they are"

TURNS: dict[str, Callable[[Any], Any]] = {
    "as they are": lambda m: m,
    "mirrored left-right": lambda m: m[..., ::-1],
    "upside down": lambda m: m[..., ::-1, :],
    "turned by 180 degrees": lambda m: m[..., ::-1, ::-1],
    "with x and y exchanged": lambda m: m.swapaxes(-1, -2),
    "turned by 90 degrees clockwise": lambda m: m.swapaxes(-1, -2)[..., ::-1],
    "turned by 90 degrees counterclockwise": lambda m: m.swapaxes(-1, -2)[..., ::-1, :],
    "with x and y exchanged and turned by 180 degrees": lambda m: m.swapaxes(-1, -2)[..., ::-1, ::-1],
}
"""What can happen to masks, `(..., H, W)`, that a reader or an EXIF tag turns against their photos."""


def drawn_back(canvas: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Scale a photo or mask on the network's canvas back to its photo's size.

    Args:
        canvas: `(H, W, 3)` or `(H, W)` uint8; the photo stands in its middle, as large as it fits.
        size: `(height, width)` of the photo.
    """
    scale = min(canvas.shape[0] / size[0], canvas.shape[1] / size[1])
    height, width = size[0] * scale, size[1] * scale
    left, top = (canvas.shape[1] - width) / 2, (canvas.shape[0] - height) / 2
    box = (max(left, 0), max(top, 0), min(left + width, canvas.shape[1]), min(top + height, canvas.shape[0]))
    picture = PillowImage.fromarray(canvas)
    return np.asarray(picture.resize((size[1], size[0]), PillowImage.Resampling.BILINEAR, box=box))


def is_thick(mask: NDArray[np.uint8]) -> bool:
    """Tell whether at least half of an object, `(H, W)` uint8 0/1, is two pixels or more from its edge."""
    inner = mask[2:-2, 2:-2] & mask[:-4, 2:-2] & mask[4:, 2:-2] & mask[2:-2, :-4] & mask[2:-2, 4:]
    return bool(2 * inner.sum() >= mask.sum())


def photo_turn(seen: NDArray[np.uint8], plain: NDArray[np.uint8]) -> str:
    """Return which turn of a photo is nearest to what is seen: a key of `TURNS`.

    Args:
        seen: `(H, W, 3)` uint8, what the network is given, at the photo's size.
        plain: `(H, W, 3)` uint8, the photo as its file has it.
    """
    # Small and grey is enough to tell a photo from its mirror image, and forgives the blur of scaling twice.
    small = [
        np.asarray(PillowImage.fromarray(p).convert("L").resize((64, 64)), dtype=np.float64) for p in (seen, plain)
    ]
    gaps = {name: float(np.abs(small[0] - turn(small[1])).mean()) for name, turn in TURNS.items()}
    best = min(gaps, key=lambda name: gaps[name])
    # A photo that is its own mirror image, or one grey, is as near to itself as to any other.
    return best if gaps[best] < gaps[AS_GIVEN] - 1.0 else AS_GIVEN


@torch.no_grad()
def picture_fit(
    look: Callable[[Tensor], Mapping[str, Tensor]],
    image: Tensor,
    masks: Tensor,
    inner: tuple[int, int] | None = None,
) -> dict[str, float] | None:
    """Tell how well masks, and turned and shifted copies of them, can be told from the picture.

    Within one photo a linear map of its features is fitted to the share of each cell that is object, by ridge
    regression in closed form; what it explains of the variance is returned. Features of a trained backbone change at
    the edges of things, so masks with other edges fit worse, whatever the objects are.

    Args:
        look: Gives features of `(1, 3, H, W)` RGB 0..255 by stride, of `"4"` and `"8"` pixels among others.
        image: `(3, H, W)` uint8 RGB, not augmented, on the network's device.
        masks: `(N, H, W)` uint8 0/1, N at least 1.
        inner: `(height, width)` of the photo, if it stands in the upper left corner of a frame: copies are turned in
            the photo, not in the frame.

    Returns:
        Share of the variance, 0..1, by name of the turn or shift; `None` if the photo has too few cells to tell, or
        its cells are all alike.
    """
    features = look(image[None].float())
    seen = torch.cat([functional.avg_pool2d(features["4"], 2), features["8"]], 1)[0].double().cpu()
    goal = functional.avg_pool2d(masks.cpu().amax(0)[None, None].double(), STRIDE)[0, 0]
    if inner is not None:
        rows, columns = inner[0] // STRIDE, inner[1] // STRIDE
        seen, goal = seen[:, :rows, :columns], goal[:rows, :columns]
    if goal.numel() < 4 * min(len(seen), MOST_FEATURES) or float(goal.var()) == 0:
        return None
    flat = seen.flatten(1).T
    flat = (flat - flat.mean(0)) / (flat.std(0) + 1e-6)
    if flat.shape[1] > MOST_FEATURES:
        alike = flat.float()  # 32 bits are enough to find the directions
        flat = flat @ torch.linalg.eigh((alike.T @ alike).double()).eigenvectors[:, -MOST_FEATURES:]
    flat = torch.cat([flat, torch.ones(len(flat), 1, dtype=flat.dtype)], 1)
    square = flat.T @ flat
    solver = torch.linalg.cholesky(square + 1e-3 * square.diagonal().mean() * torch.eye(len(square), dtype=flat.dtype))
    results = {}
    for name, copy in _copies(goal).items():
        y = copy.flatten()
        guess = flat @ torch.cholesky_solve((flat.T @ y)[:, None], solver)[:, 0]
        spread = float(((y - y.mean()) ** 2).sum())
        results[name] = 1 - float(((guess - y) ** 2).sum()) / spread if spread else 0.0
    return results


def _copies(goal: Tensor) -> dict[str, Tensor]:
    """Return the turned copies of `(H, W)`, scaled to its shape, and copies shifted by two cells."""
    size = goal.shape
    found = {}
    for name, turn in TURNS.items():
        turned = torch.from_numpy(np.ascontiguousarray(turn(goal.numpy())))
        if turned.shape != size:
            turned = functional.interpolate(turned[None, None], size=tuple(size), mode="area")[0, 0]
        found[name] = turned
    px = 2 * STRIDE
    for name, (down, right) in {"left": (0, -2), "right": (0, 2), "up": (-2, 0), "down": (2, 0)}.items():
        found[f"shifted by {px} pixels {name}"] = torch.roll(goal, (down, right), (0, 1))
    return found
