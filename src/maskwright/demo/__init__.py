"""Draw the sample world: hammers held by robot grippers over cluttered tables, as photos and masks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from maskwright.files import atomic_folder
from maskwright.outputs import put_mark, refuse_existing_folder
from maskwright.settings import DemoSettings

_JPEG_QUALITY = 90


def demo(
    out: str | Path, *, overwrite: bool = False, say: Callable[[str], None] | None = None, **settings: Any
) -> Path:
    """Draw a sample world to try everything on, in the folder layout that `prepare` reads.

    Each picture shows exactly one hammer, held by a gripper that hides a part of it, so that its mask may have several
    parts; some handles have a hole, and so have their masks. A mask is what can be seen of the hammer. Every picture is
    drawn from its own seed, made of the world's seed, its split and its number: it is the same whatever else is drawn.

    Args:
        out: Folder to make. It gets `hammer_train`, `hammer_validate` and `hammer_test`, each with `rgb/NNNN.jpg` and
            `mask/NNNN.png` (8 bit, 0 or 255). A split of no pictures gets no folder.
        overwrite: Replace `out` if it exists and `demo` made it.
        say: Told what is done, line by line.
        **settings: See `DemoSettings`.

    Returns:
        The folder.

    Raises:
        UserError: If a setting is wrong, or the folder exists or cannot be written.
    """
    from PIL import Image

    from maskwright.demo.picture import picture

    chosen = DemoSettings.parse(settings)
    tell = say or (lambda line: None)
    out = Path(out)
    refuse_existing_folder(out, "demo", overwrite=overwrite)
    splits = (("hammer_train", chosen.train), ("hammer_validate", chosen.val), ("hammer_test", chosen.test))
    with atomic_folder(out, overwrite=overwrite) as folder:
        for split, (name, count) in enumerate(splits):
            if not count:
                continue
            rgb, mask = folder / name / "rgb", folder / name / "mask"
            rgb.mkdir(parents=True)
            mask.mkdir()
            for index in range(count):
                drawn = picture(chosen.seed, split, index, chosen.size)
                stem = f"{index:04d}"
                Image.fromarray(drawn.photo).save(rgb / f"{stem}.jpg", quality=_JPEG_QUALITY, subsampling=0)
                Image.fromarray(drawn.mask.astype("uint8") * 255).save(mask / f"{stem}.png")
            tell(f"{name}: {count} pictures of {chosen.size} x {chosen.size}")
        put_mark(folder, "demo")
    return out
