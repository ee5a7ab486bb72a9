"""A file of weights -> a run that predicts at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from maskwright.dataset import Category, Dataset
from maskwright.errors import UserError
from maskwright.files import atomic_folder, refuse_input, write_json
from maskwright.models.checkpoints import read_checkpoint
from maskwright.models.convert import ARCHITECTURE_OF, KINDS, Converted, converted
from maskwright.models.start import fill
from maskwright.models.stock import StockMaskRCNN, StockSpec
from maskwright.outputs import refuse_existing_folder
from maskwright.plan import ORIGIN_ANCHORS, ORIGIN_SIDES
from maskwright.run import LAST, Run
from maskwright.settings import ImportSettings

THRESHOLD = 0.5
"""Of the masks that predict draws, as no validation has advised one."""


def import_weights(
    file: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> Run:
    """Make a run of a Mask R-CNN that torchvision, MMDetection or Detectron2 trained; nothing in the file is executed.

    Args:
        file: `.pth`, `.pkl` or `.safetensors`; must exist.
        out: The run folder to make.
        overwrite: Replace a run that exists.
        say: Called with each line of text.
        **settings: Those of `ImportSettings`; `categories` may be a list of names.

    Returns:
        The run; `import.json` in it has the whole account of what was loaded and what was not.

    Raises:
        UserError: If the file is not a whole Mask R-CNN, or the categories cannot be told.
    """
    tell = say or (lambda _text: None)
    if isinstance(settings.get("categories"), list | tuple):
        settings["categories"] = ",".join(settings["categories"])
    said = ImportSettings.parse(settings)
    file, out = Path(file), Path(out)
    refuse_input(out, file)
    refuse_existing_folder(out, "import-weights", overwrite=overwrite)
    stored = read_checkpoint(file)
    found = converted(stored, said.style)
    architecture = ARCHITECTURE_OF.get(found.kind)
    if architecture is None or found.conventions is None or found.categories is None:
        what = KINDS[found.kind] if found.kind != "timm" else "of no network that is known"
        raise UserError(
            "the file is not a whole Mask R-CNN of torchvision, MMDetection or Detectron2",
            [f"{file} is {what}: {', '.join(sorted(found.tensors)[:4])}, ..."],
            "a backbone is trained on: maskwright train DATA -o RUN --architecture maskrcnn-r50-fpn --weights FILE",
        )
    names = _categories(found, file, said.categories, said.data)
    how = found.conventions if said.norm_eps is None else replace(found.conventions, norm_eps=said.norm_eps)
    sizes: dict[str, Any] = {
        "categories": len(names),
        "anchor_sizes": [list(level) for level in ORIGIN_ANCHORS],
        "detections_per_photo": 100,
        "backbone": None,
        "conventions": how.json(),
        "frozen_stages": 2,
    }
    heads: Literal["v1", "v2"] = "v2" if architecture.endswith("v2") else "v1"
    network = StockMaskRCNN(StockSpec.of(sizes, heads))
    account = fill(network, heads, file, str(file), found, stored)
    tell(account.table())
    short_side = said.short_side or min(said.side, ORIGIN_SIDES[0])
    run = Run(out, architecture, sizes, names, said.side, THRESHOLD, state="finished", short_side=short_side)
    with atomic_folder(out, overwrite=overwrite) as folder:
        made = replace(run, path=folder).write()
        made.save_weights(LAST, network.state_dict())
        write_json(folder / "import.json", {"file": str(file.resolve()), "reader": stored.reader, **account.json()})
    shown = ", ".join(c.name for c in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    tell(f"{out}: {architecture} with {how.origin}'s arithmetic, {len(names)} categories: {shown}")
    tell(f"next: maskwright predict {out} PHOTOS -o OUT")
    return replace(run, path=out)


def _categories(found: Converted, file: Path, given: str | None, data: str | None) -> tuple[Category, ...]:
    """Return the categories in order of label 1..C.

    Raises:
        UserError: If they are not as many as the heads tell apart, or not known.
    """
    count = found.categories
    assert count is not None
    if given is not None and data is not None:
        raise UserError("the categories are given twice", ["--categories and --data"], "give one of them")
    chosen: tuple[Category, ...] | None = None
    if data is not None:
        splits = (Dataset.read_split(Path(data), split) for split in ("train", "val", "test"))
        dataset = next((d for d in splits if d is not None), None)
        if dataset is None:
            raise UserError("the data folder has no split", [str(data)], "name a folder that prepare made")
        chosen = dataset.categories
    elif given is not None:
        names = [n.strip() for n in given.split(",")]
        chosen = tuple(Category(i + 1, name) for i, name in enumerate(names))
    elif found.names is not None and len(found.names) == count:
        chosen = tuple(Category(i + 1, name) for i, name in enumerate(found.names))
    else:
        chosen = coco_categories(count)
    if chosen is None:
        raise UserError(
            "the file does not tell its categories",
            [f"{file} tells {count} categories apart"],
            "--categories NAME,NAME,... in the network's order, or --data DATA",
        )
    names = [c.name for c in chosen]
    twice = sorted({n for n in names if names.count(n) > 1 or not n})
    if len(chosen) != count or twice:
        where = [f"{file} tells {count} apart, {len(chosen)} are given: {', '.join(names[:8])}"]
        where += [f"{name or 'an empty name'} is given twice" for name in twice]
        raise UserError(
            "the categories are not those of the network", where, "give as many as the network has, each once"
        )
    return chosen


def coco_categories(count: int) -> tuple[Category, ...] | None:
    """Return COCO's categories with its ids, where a network has as many: 80, or 90 with the ten that are not used.

    Example:
        >>> len(coco_categories(80)), coco_categories(80)[-1], coco_categories(90)[11], coco_categories(3)
        (80, Category(id=90, name='toothbrush'), Category(id=12, name='unused 12'), None)
    """
    if count not in (80, 90):
        return None
    from torchvision.models._meta import _COCO_CATEGORIES

    every = [(i, name) for i, name in enumerate(_COCO_CATEGORIES) if i]
    if count == 80:
        return tuple(Category(i, name) for i, name in every if name != "N/A")
    return tuple(Category(i, name if name != "N/A" else f"unused {i}") for i, name in every)
