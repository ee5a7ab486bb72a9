"""Write COCO files photo by photo: memory stays the same however many photos there are, and output may be sharded.

The bytes are those of `Dataset.write` for the same content.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from maskwright.dataset import Annotation, Category, Dataset, Image, coco_annotation, coco_category, coco_image
from maskwright.files import atomic_file
from maskwright.shards import shard_name, shards_of

_BUFFER = 1 << 20


class CocoWriter:
    """Stream a COCO file, or shards of it, which appear whole when the `with` block ends, or not at all.

    Args:
        path: The file, such as `annotations/instances_train.json`; an existing one is replaced. With `shard` its name
            becomes `instances_train-00000-of-00012.json`, and shards of an earlier run that are not replaced go.
        categories: Of all photos; written in order of id, into every shard.
        info: COCO's `info` object.
        licenses: COCO's `licenses` list.
        shard: Photos per file; `None`: one file.

    Raises:
        UserError: When the block ends, if the files cannot be written; nothing is left behind.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with CocoWriter(Path(folder) / "d.json", [Category(1, "nut")], shard=1) as writer:
        ...         writer.photo(Image(1, "a.jpg", 4, 3), [])
        ...     print([path.name for path in Path(folder).iterdir()])
        ['d-00000-of-00001.json']
    """

    def __init__(
        self,
        path: str | Path,
        categories: Iterable[Category],
        info: Mapping[str, Any] | None = None,
        licenses: Sequence[Mapping[str, Any]] = (),
        *,
        shard: int | None = None,
    ) -> None:
        if shard is not None and shard < 1:
            raise ValueError(f"a shard holds at least one photo, not {shard}")
        self.path = Path(path)
        self.shard = shard
        self.categories = tuple(sorted(categories, key=lambda category: category.id))
        self._known = {category.id for category in self.categories}
        parts = {
            "info": dict(info or {}),
            "licenses": [dict(item) for item in licenses],
            "categories": [coco_category(category) for category in self.categories],
        }
        self._head = _json(parts)[:-1] + b',"images":['
        self._all = contextlib.ExitStack()
        self._file = contextlib.ExitStack()
        self._parts: list[Path] = []
        self._arrays: _Arrays | None = None

    def __enter__(self) -> CocoWriter:
        with contextlib.ExitStack() as stack:
            if self.shard is not None:
                stack.enter_context(_named_at_the_end(self.path, self._parts))
            stack.enter_context(self._file)
            self._start()
            self._all = stack.pop_all()
        return self

    def photo(self, image: Image, annotations: Iterable[Annotation]) -> None:
        """Write one photo and its objects.

        Args:
            image: Its id must not have been used before: this is not checked, since it would take memory without end.
            annotations: Their `image_id` is the photo's; areas and boxes that are `None` are taken from the masks.

        Raises:
            ValueError: If an annotation is of another photo, of an unknown category, or of nothing.
        """
        rows = []
        for annotation in annotations:
            if annotation.image_id != image.id:
                raise ValueError(f"annotation {annotation.id} names image {annotation.image_id}, not {image.id}")
            if annotation.category_id not in self._known:
                raise ValueError(f"annotation {annotation.id} names category {annotation.category_id}, not listed")
            rows.append(_json(coco_annotation(annotation, image.size)))
        self.rows(_json(coco_image(image)), 1, b",".join(rows))

    def rows(self, images: bytes, photos: int, objects: bytes) -> None:
        """Write photos that are rows already.

        Args:
            images: The photos as they stand in the file, with commas between them.
            photos: How many; they must fit into the shard that is being written.
            objects: Their objects in the same way; may be empty.
        """
        if self._arrays is None:
            raise ValueError("photos are written inside the `with` block")
        if self._arrays.photos == self.shard:
            self._start()
        if self.shard is not None and self._arrays.photos + photos > self.shard:
            raise ValueError(f"{photos} photos do not fit into a shard of {self.shard} that has {self._arrays.photos}")
        self._arrays.add(images, photos, objects)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._arrays = None
        self._all.__exit__(kind, error, trace)

    def _start(self) -> None:
        self._file.close()
        path = self.path
        if self.shard is not None:
            path = path.with_name(f".{path.stem}-{len(self._parts):05d}.part")
        self._arrays = self._file.enter_context(_coco_file(path, self._head))
        self._parts.append(path)


class _Arrays:
    """The two arrays of one COCO file in work."""

    def __init__(self, images: IO[bytes], annotations: IO[bytes]) -> None:
        self.photos = 0
        self._images, self._annotations = images, annotations
        self._bare = True

    def add(self, images: bytes, photos: int, objects: bytes) -> None:
        self._images.write(b"," + images if self.photos else images)
        self.photos += photos
        if objects:
            self._annotations.write(objects if self._bare else b"," + objects)
            self._bare = False


@contextlib.contextmanager
def _coco_file(path: Path, head: bytes) -> Iterator[_Arrays]:
    # Photos come first in the file and objects with them, so the objects wait in a file without a name.
    with atomic_file(path) as out, tempfile.TemporaryFile(dir=path.parent) as waiting:
        out.write(head)
        yield _Arrays(out, waiting)
        out.write(b'],"annotations":[')
        waiting.seek(0)
        shutil.copyfileobj(waiting, out, _BUFFER)
        out.write(b"]}")


@contextlib.contextmanager
def _named_at_the_end(path: Path, parts: list[Path]) -> Iterator[None]:
    """Give finished shards their names, which hold the total, when all are there; remove them if that fails."""
    try:
        yield
        names = [shard_name(path.stem, number, len(parts)) for number in range(len(parts))]
        for part, name in zip(parts, names, strict=True):
            part.replace(path.with_name(name))
        for old in shards_of(path.parent, path.stem):
            if old.name not in names:
                old.unlink()
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def write_shards(dataset: Dataset, folder: str | Path, stem: str, photos_per_shard: int) -> list[Path]:
    """Write a dataset as COCO files of so many photos each, which `Dataset.load` reads as one.

    Args:
        dataset: What to write; ids stay as they are.
        folder: Where; made if need be. Shards of this stem that are there already are replaced.
        stem: What the names begin with, such as `instances_train`.
        photos_per_shard: At least 1.

    Returns:
        The files, in order.
    """
    place = Path(folder) / f"{stem}.json"
    first = dataset.first.tolist()
    with CocoWriter(place, dataset.categories, dataset.info, dataset.licenses, shard=photos_per_shard) as writer:
        for i, image in enumerate(dataset.images):
            writer.photo(image, map(dataset.annotation, range(first[i], first[i + 1])))
    return shards_of(place.parent, stem)


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def _json(value: Any) -> bytes:
    return _encode(value).encode(errors="backslashreplace")  # halves of characters stay as JSON's own escapes
