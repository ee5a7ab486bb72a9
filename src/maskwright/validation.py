"""How a training scores the validation photos, and what it makes of the scores: the best weights, and when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from maskwright.average import smoothed
from maskwright.batches import UNREADABLE_SHARE
from maskwright.checkpoint import Progress
from maskwright.dataset import Dataset
from maskwright.detections import detect_photos
from maskwright.diagnosis import Cause, swapped_in_validation
from maskwright.errors import UserError
from maskwright.evaluate import Evaluation, evaluate
from maskwright.files import UnreadableImage, read_photo
from maskwright.models import Segmenter
from maskwright.run import Run
from maskwright.usable import part_of


@dataclass(frozen=True)
class Validated:
    """What a validation found.

    Attributes:
        result: The scores.
        best: Whether these are the best weights so far; as long as nothing is found, the last ones are.
        ap: Segm AP, 0 where it is undefined.
        smoothed: The same, smoothed over the validations.
        cause: What is likely wrong, if anything is.
    """

    result: Evaluation
    best: bool
    ap: float
    smoothed: float
    cause: Cause | None


def scorable(val: Dataset) -> bool:
    """Tell whether a split has an object to score against; crowds are not scored."""
    return bool((~val.crowd).any())


def validate(
    network: nn.Module, val: Dataset, run: Run, at: Progress, tell: Callable[[str], None]
) -> tuple[Validated | None, Dataset]:
    """Score a network on the validation photos, without those that cannot be read any more.

    Args:
        network: In evaluation mode.
        val: The validation split.
        run: Which the network is of: sides of its input, categories.
        at: Where the training stands; not changed.
        tell: Told which photos are left out, and if those that are left have no object.

    Returns:
        What was found, `None` if there is no object to score against; and the split without what was left out, for the
        validations to come.

    Raises:
        UserError: If more photos than the limit cannot be read, or one has not the size that the data state.
    """
    if not scorable(val):
        return None, val
    try:
        return _scored(network, val, run, at), val
    except UserError:
        before = [name.removeprefix("val/") for name in at.left_out if name.startswith("val/")]
        part = readable_part(val, tell, before)
        if part is val:
            raise
    return (_scored(network, part, run, at) if scorable(part) else None), part


def _scored(network: nn.Module, val: Dataset, run: Run, at: Progress) -> Validated:
    photos = [(image, val.photo_path(image)) for image in val.images]
    found = detect_photos(cast(Segmenter, network), photos, run.side, run.categories, short_side=run.short_side)
    result = evaluate(val, found, bootstrap=0)
    defined = result.metrics["segm/AP"]
    ap = defined if defined is not None else 0.0
    now = smoothed(at.smoothed_ap, ap)
    best = now > at.best_ap or now == at.best_ap == 0
    return Validated(result, best, ap, now, swapped_in_validation(val, found, run.categories))


def readable_part(val: Dataset, tell: Callable[[str], None], before: Sequence[str] = ()) -> Dataset:
    """Return the validation split without the photos that cannot be read any more, naming them.

    Args:
        val: The split, without those that were left out before.
        tell: Told which are left out, once the count is known, and if the others have no object.
        before: `file_name` of those that were left out before; they count.

    Raises:
        UserError: If they are more than the limit, or no photo is left.
    """
    wrong: list[str] = []
    good: list[int] = []
    for index, image in enumerate(val.images):
        try:
            read_photo(val.photo_path(image))
            good.append(index)
        except UnreadableImage as error:
            wrong.append(f"{val.photo_path(image)} {error}")
    if not wrong:
        return val
    lost, photos = len(before) + len(wrong), len(before) + len(val.images)
    if lost > max(1, UNREADABLE_SHARE * photos) or not good:
        raise UserError(
            f"too many validation photos cannot be read: {lost} of {photos}",
            [*wrong, *(f"{(val.folder or Path()) / name} was left out before" for name in before)],
            "give them back (is a disk or a network folder gone?) and go on: --resume",
        )
    for line in wrong:
        tell(f"warning: a validation photo cannot be read and is left out from now on: {line}")
    part = part_of(val, good)
    if not scorable(part):
        tell(
            "warning: the validation photos that are left have no object: nothing is scored any more, and the training"
            " goes on; the best weights so far are kept, the last ones if there are none"
        )
    return part
