"""Run + photos -> detections and mask images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from maskwright.dataset import Dataset, Image, default_info
from maskwright.detections import LEAST_SCORE, Detections, detect_photo, detect_photos
from maskwright.errors import UserError
from maskwright.files import (
    PHOTO_SUFFIXES,
    UnreadableImage,
    atomic_folder,
    image_size,
    is_text,
    linked_folders,
    read_photo,
    refuse_input,
)
from maskwright.formats import plural, some, unreadable_names
from maskwright.masks import told, write_mask_images
from maskwright.models import Segmenter
from maskwright.outputs import photos_apart, refuse_existing_folder
from maskwright.run import Run
from maskwright.settings import PredictSettings
from maskwright.shards import coco_files, means_coco, meant_by, photos_beside

__all__ = ["Detections", "Model", "load", "predict"]


class Model:
    """A trained segmenter in memory; call it with a photo.

    Args:
        run: A run folder.
        device: `cpu` or `cuda`.
    """

    def __init__(self, run: Run, device: str = "cpu") -> None:
        self.run = run
        self.network = run.network(device)
        self.names = tuple(c.name for c in run.categories)

    def __call__(
        self, photo: str | Path | NDArray[np.uint8], score: float | None = None, test_time_flip: bool = False
    ) -> Detections:
        """Find the objects of a photo.

        Args:
            photo: A path, or `(H, W, 3)` uint8 RGB, upright.
            score: Least score; what validation advised if not given.
            test_time_flip: Look at the photo mirrored too, and merge what is found; takes twice the time.

        Raises:
            UserError: If the file cannot be read, or the array has another form.
        """
        if isinstance(photo, str | Path):
            try:
                array = read_photo(Path(photo))
            except UnreadableImage as error:
                raise UserError("a photo cannot be read", [f"{photo} {error}"], "replace it") from None
        else:
            array = np.asarray(photo)
            if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or not array.size:
                raise UserError(
                    "a photo in memory is an array (H, W, 3) of uint8, RGB",
                    [f"shape {array.shape}, dtype {array.dtype}"],
                    "convert it: grey by np.repeat, floats of 0..1 by (255 * x).astype(np.uint8)",
                )
        least = self.run.threshold if score is None else score
        network, run = cast(Segmenter, self.network), self.run
        least = max(least, LEAST_SCORE)
        return detect_photo(network, array, run.side, self.names, least, run.short_side, test_time_flip=test_time_flip)


def load(run: str | Path, device: str | None = None) -> Model:
    """Load a trained segmenter.

    Args:
        run: A folder that `train` wrote.
        device: `cpu` or `cuda`; the GPU if there is one and nothing is said.

    Raises:
        UserError: If the folder is not a run, or has no weights yet.
    """
    return Model(Run.read(run), device or _device())


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def predict(
    run: str | Path,
    photos: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    progress: bool = False,
    **settings: Any,
) -> Dataset:
    """Find the objects of photos and write them: `OUT/detections.json` and `OUT/masks/`.

    `detections.json` holds every detection from a score of 0.02 on, for evaluation; the mask images hold those from the
    `score` setting on, for the next program. It is a complete COCO file, in which every annotation has a score.

    Args:
        run: A folder that `train` wrote.
        photos: A photo, a folder of photos (subfolders are searched too, but for mask images that `predict` or `masks`
            wrote), a COCO JSON file or shards of one, or a prepared data folder with the `split` setting.
        out: The folder to make.
        overwrite: Replace it if it exists and `predict` made it.
        say: Called with each line of text.
        progress: Show a live progress bar.
        **settings: Those of `PredictSettings`.

    Returns:
        The detections.

    Raises:
        UserError: If the run or the photos cannot be used; every photo that cannot be read is named.
    """
    tell = say or (lambda _text: None)
    said = PredictSettings.parse(settings)
    refuse_input(Path(out), Path(run), *meant_by(Path(photos)))
    model = load(run)
    chosen = find_photos(Path(photos), said.split, tell)
    refuse_input(Path(out), *sorted({path.parent for _, path in chosen}))
    refuse_existing_folder(Path(out), "predict", overwrite=overwrite)
    threshold = model.run.threshold if said.score is None else said.score
    origin = "given" if said.score is not None else "advised by the run's validation"
    links = linked_folders(Path(photos)) if said.split is None and Path(photos).is_dir() else []
    if links:
        tell(f"warning: {_not_followed(links)}")
    tell(f"{plural(len(chosen), 'photo')}; masks from a score of {threshold:.2f} on ({origin})")
    info = default_info(f"detections of {Path(run).name}")
    info["maskwright"] = {"run": str(Path(run).resolve()), "threshold": threshold, "least_score": LEAST_SCORE}
    if said.test_time_flip:
        info["maskwright"]["test_time_flip"] = True
    with atomic_folder(Path(out), overwrite=overwrite) as folder, _bar(len(chosen), progress) as tick:
        found = detect_photos(
            cast(Segmenter, model.network),
            chosen,
            model.run.side,
            model.run.categories,
            LEAST_SCORE,
            tick,
            info,
            model.run.short_side,
            said.test_time_flip,
        )
        found.write(folder / "detections.json")
        shown = found.select(found.scores >= threshold)
        (folder / "masks").mkdir()  # it is there even if nothing was found
        written = write_mask_images(shown, folder / "masks", said.form, categories=model.run.categories)
    for line in told(written, said.form):
        tell(line)
    with_any = len(set(shown.image_index.tolist()))
    counts = f"{plural(len(shown), 'object')} in {with_any:,} of {plural(len(chosen), 'photo')}"
    tell(f"{counts}; {plural(len(found), 'detection')} in all: {out}")
    return found


def find_photos(
    photos: Path, split: str | None = None, say: Callable[[str], None] | None = None
) -> list[tuple[Image, Path]]:
    """Return the photos that a path means, each with its COCO entry, ids from 1 in order of name.

    Args:
        photos: A photo, a folder, a COCO JSON file or shards of one, or a prepared data folder with `split`.
        split: Of a prepared data folder.
        say: Told how many pictures are left out, since they lie in folders that `predict` or `masks` made.

    Raises:
        UserError: If there are none, or some cannot be read; every one is named.
    """
    if split is not None:
        dataset = Dataset.read_split(photos, split)
        if dataset is None:
            raise UserError(f"the data folder has no {split} split", [str(photos)], "name another split")
        return [(image, dataset.photo_path(image)) for image in dataset.images]
    coco = means_coco(photos)
    if not photos.exists() and not coco:
        raise UserError("the photos do not exist", [str(photos)], "check the path")
    files, left_out = photos_apart(photos) if photos.is_dir() else ([photos], [])
    if coco and not (photos.is_dir() and files):
        dataset = Dataset.load(photos, photos_beside(photos) or coco_files(photos)[0].parent)
        return [(image, dataset.photo_path(image)) for image in dataset.images]
    root = photos if photos.is_dir() else photos.parent
    if not files:
        links = [_not_followed(found) for found in [linked_folders(photos)] if found]
        links += [_left_out(left_out)] if left_out else []
        raise UserError(
            "the folder has no photos", [str(photos), *links], f"photos end in {', '.join(sorted(PHOTO_SUFFIXES))}"
        )
    if left_out and say is not None:
        say(_left_out(left_out))
    unwritable = [repr(str(path)) for path in files if not is_text(path.relative_to(root).as_posix())]
    if unwritable:
        raise unreadable_names(unwritable)
    result: list[tuple[Image, Path]] = []
    wrong: list[str] = []
    for path in files:
        try:
            height, width = image_size(path)
        except UnreadableImage as error:
            wrong.append(f"{path} {error}")
            continue
        result.append((Image(len(result) + 1, path.relative_to(root).as_posix(), width, height), path))
    if wrong:
        raise UserError("some photos cannot be read", wrong, "replace or remove them")
    return result


def _not_followed(links: Sequence[Path]) -> str:
    what = "1 link to a folder is" if len(links) == 1 else f"{len(links):,} links to folders are"
    return f"{what} not followed ({some(str(path) for path in links)})"


def _left_out(pictures: Sequence[Path]) -> str:
    places = some(sorted({str(path.parent) for path in pictures}))
    are = "is" if len(pictures) == 1 else "are"
    return f"{plural(len(pictures), 'picture')} in former outputs {are} left out ({places})"


def _bar(total: int, shown: bool) -> Any:
    from contextlib import contextmanager

    @contextmanager
    def bar() -> Any:
        if not shown:
            yield None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as progress:
            task = progress.add_task("detecting", total=total)
            yield lambda: progress.advance(task)

    return bar()
