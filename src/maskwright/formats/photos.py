"""The photos that annotation files speak of: where they are, whether they can be read, whether the sizes agree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from maskwright.dataset import inside
from maskwright.errors import Problem, UserError
from maskwright.files import PHOTO_SUFFIXES, UnreadableImage, content_of, is_file, sha256_of, verify_photo
from maskwright.formats import PHOTO_NAMES, both_sizes, plural, subfolders, walk, wrong_frame
from maskwright.pixels import Size
from maskwright.settings import MaskFrame, PrepareSettings


@dataclass(frozen=True)
class Sight:
    """What one look at a photo file found.

    Attributes:
        path: The file.
        size: `(height, width)` of the frame that masks are in.
        other: `(height, width)` of the other frame: as stored (EXIF orientation not applied) where masks are upright.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        sha256: Of the file.
        fault: Why it cannot be used; empty if it can.
        frame: What masks are taken to be drawn on.
    """

    path: Path
    size: Size = (0, 0)
    other: Size = (0, 0)
    orientation: int = 1
    sha256: str = ""
    fault: str = ""
    frame: MaskFrame = "upright"

    @property
    def turn(self) -> int:
        """The EXIF orientation that masks have yet to be turned by; see `formats.Photo`."""
        return self.orientation if self.frame == "stored" else 1

    def unsure(self, size: Size | None) -> bool:
        """Tell whether masks of a size (`None`: not known) fit both frames, and nobody said which is meant."""
        return self.frame == "upright" and self.orientation != 1 and size in (None, self.other)


def sight(path: Path, frame: MaskFrame = "upright") -> Sight:
    """Look at a photo file; what is wrong with it is in the answer, not raised.

    Args:
        path: The file.
        frame: What its masks were drawn on.
    """
    try:
        content = content_of(path)
        upright, stored, orientation = verify_photo(path, content)
    except UnreadableImage as error:
        return Sight(path, fault=str(error), frame=frame)
    size, other = (upright, stored) if frame == "upright" else (stored, upright)
    return Sight(path, size, other, orientation, sha256_of(content), frame=frame)


def sight_problems(sights: Iterable[Sight]) -> list[Problem]:
    """Return the problem that photos cannot be read, if there are such."""
    bad = tuple(f"{one.path}: {one.fault}" for one in sights if one.fault)
    if not bad:
        return []
    return [Problem(f"{plural(len(bad), 'picture file')} cannot be read", bad, "replace these files")]


def size_problems(stated: Iterable[tuple[str, Size | None, Sight]]) -> list[Problem]:
    """Return the problems of photos whose size is not what their annotations were made for.

    Args:
        stated: For each photo how messages call it, the `(height, width)` that the annotation file gives (`None`: it
            gives none), and what the photo is.
    """
    turned: dict[MaskFrame, list[str]] = defaultdict(list)
    sized = []
    for name, size, one in stated:
        if size is None or one.fault or size == one.size:
            continue
        line = f"{name}: {size[1]} x {size[0]}, but {one.path} is"
        if size == one.other:
            turned[one.frame].append(f"{line} {both_sizes(one.size, one.other, one.orientation, one.frame)}")
        else:
            sized.append(f"{line} {one.size[1]} x {one.size[0]}")
    problems = []
    for frame, lines in turned.items():
        was = "photo was" if len(lines) == 1 else "photos were"
        problems.append(wrong_frame(f"{len(lines):,} {was} marked", lines, frame))
    if sized:
        has = "photo has" if len(sized) == 1 else "photos have"
        problems.append(
            Problem(
                f"{len(sized):,} {has} another size than the annotations say",
                tuple(sized),
                "use the photos that were marked, at their full size",
            )
        )
    return problems


def photo_folders(place: Path, settings: PrepareSettings) -> list[Path]:
    """Return the folders where the photos of annotations may be, most likely first.

    Args:
        place: The folder of the annotations.
        settings: `photos` names the folder, by path or by its name in `place`.
    """
    if settings.photos is not None:
        tops = [place / settings.photos, Path(settings.photos)]
        return [folder for folder in dict.fromkeys(tops) if folder.is_dir()]
    tops = [place, place.parent]
    named = [p for top in tops for name in PHOTO_NAMES for p in subfolders(top) if p.name.lower() == name]
    return [folder for folder in dict.fromkeys([place, *named, place.parent]) if folder.is_dir()]


@dataclass(frozen=True)
class Located:
    """Where photos are.

    Attributes:
        paths: One per name; `None` where the photo was not found.
        lost: A line for each photo that was not found, or found more than once.
        elsewhere: Names of photos that were found by their file name in another folder than the annotations say.
    """

    paths: tuple[Path | None, ...]
    lost: tuple[str, ...] = ()
    elsewhere: tuple[str, ...] = ()


def locate(names: Sequence[str], folders: Sequence[Path]) -> Located:
    """Find photos by the names that an annotation file gives them.

    A name is tried as a path in each folder; then by its last part, if just one file of the folders has that name.

    Raises:
        UserError: If a name leads outside of the folders.
    """
    unsafe: list[str] = []
    for name in names:
        try:
            inside(Path(), name)
        except UserError as error:
            unsafe += error.problems[0].where
    if unsafe:
        raise UserError(
            "file names in a data file must stay inside its folder",
            unsafe,
            "make the names relative to the photo folder, without '..'",
        )
    paths: list[Path | None] = []
    by_name: dict[str, set[Path]] | None = None
    lost, elsewhere = [], []
    for name in names:
        direct = next((folder / name for folder in folders if is_file(folder / name)), None)
        if direct is not None:
            paths.append(direct)
            continue
        if by_name is None:
            by_name = defaultdict(set)
            for number, folder in enumerate(folders):
                # The last folder may be far up: only the files in it itself are looked at.
                deep = number == 0 or len(folders) == 1
                found = walk(folder)[0] if deep else [p for p in folder.iterdir() if p.suffix.lower() in PHOTO_SUFFIXES]
                for path in found:
                    by_name[path.name].add(path)
        same = sorted(by_name.get(name.replace("\\", "/").rpartition("/")[2], ()))
        if len(same) == 1:
            elsewhere.append(name)
            paths.append(same[0])
            continue
        paths.append(None)
        if same:
            lost.append(f"{name}: found more than once: {' and '.join(str(p) for p in same[:3])}")
        else:
            searched = ", ".join(str(folder) for folder in folders)
            lost.append(f"{name}: not found in {searched}" if searched else f"{name}: there is no folder to search")
    return Located(tuple(paths), tuple(lost), tuple(elsewhere))
