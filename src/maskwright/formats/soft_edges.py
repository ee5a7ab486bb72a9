"""Mask images with soft edges that are so wide that the area of an object depends on where they are cut."""

from __future__ import annotations

from collections.abc import Sequence

from maskwright import pixels
from maskwright.formats.coding import WEAK, Decision, Values


def cut_off(
    mask: str, values: Values, decision: Decision | None, rles: Sequence[bytes]
) -> tuple[tuple[str, float], ...]:
    """Return a mask image whose area depends on where its soft edges are cut, with the share that is cut off, or ().

    Args:
        mask: Its path.
        values: What `look` found in it.
        decision: What the values mean; `None`: they are binary, as the first look read them.
        rles: Its objects, of whatever size; where nothing is left of them, that is told otherwise.
    """
    if decision is not None and (decision.coding != "binary" or not decision.is_read(values)):
        return ()
    soft = values.kind != "colour" and values.top > 1 and values.changed and not values.lossy and values.weak > WEAK
    return ((mask, values.weak),) if soft and not all(map(pixels.is_empty, rles)) else ()


def told_cut_off(masks: str, shown: str) -> str:
    """Say that it matters where soft edges are cut; `masks` counts the mask images, `shown` names some."""
    return (
        f"in {masks} it matters where soft edges are cut: of the pixels that are not 0, more than {WEAK:.0%} are below"
        f" half and so belong to no object ({shown}); export masks without smooth edges if these pixels are object"
    )
