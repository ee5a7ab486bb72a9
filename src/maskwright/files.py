"""Files: atomic writes, hashes, provenance, and the one image reader (EXIF orientation applied once)."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as PillowImage
from PIL import ImageOps, UnidentifiedImageError

from maskwright import jpeg, png
from maskwright.errors import Problem, UserError

PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
"""What counts as a picture file, lower case."""

MOST_PIXELS = 150_000_000
"""A picture that declares more is refused before a pixel is decoded: so large a photo is decoded, turned upright and
copied to an array in under 2 GB."""

MOST_COLOURED = 60_000_000
"""The same for masks in colour, on which more is done."""

MOST_BYTES = 500_000_000
"""A picture file of more bytes is refused: 150 megapixels in colour take less, even uncompressed."""

MOST_AT_ONCE = 50_000_000
"""Masks up to so many pixels are inflated as a whole, which is faster and takes more memory."""

_OPENING = threading.Lock()
_BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError)
"""What Pillow raises on a damaged file, depending on the format and on where the damage is."""

_COLOURED = frozenset({"RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "LA", "La", "PA"})
_EXIF_ORIENTATION = 0x0112
_TURNED = frozenset({5, 6, 7, 8})  # EXIF orientations that exchange width and height


class UnreadableImage(Exception):
    """A picture file that cannot be used; the text says why, without the path."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for writing that appears whole when the block ends, or not at all.

    Args:
        path: Where the file shall be; an existing one is replaced. Its folder is made if need be.

    Raises:
        UserError: If it cannot be written (no space, no right); nothing is left behind.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    except OSError as error:
        raise _cannot_write(path, error) from None
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(temporary, 0o666 & ~_umask())  # mkstemp makes private files; this one is the user's
        os.replace(temporary, path)
    except OSError as error:
        raise _cannot_write(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a fresh folder to fill; it takes its name when the block ends well, and is removed otherwise.

    Args:
        path: Where the folder shall be.
        overwrite: Replace what is there; without it an existing folder is refused.

    Yields:
        The temporary folder, beside `path` (so that the final step is one rename on one file system).

    Raises:
        UserError: If the folder exists and may not be replaced, or cannot be written.
    """
    path = Path(os.path.abspath(path))
    refuse_existing(path, overwrite=overwrite)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    except OSError as error:
        raise _cannot_write(path, error) from None
    try:
        os.chmod(temporary, 0o777 & ~_umask())
        yield temporary
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old"))
            os.replace(path, old / "old")
            try:
                os.replace(temporary, path)
            except BaseException:
                os.replace(old / "old", path)
                raise
            finally:
                shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except UserError as error:  # of a file inside: the user knows the folder by the name that it would have had
        raise UserError(
            [
                Problem(p.what, tuple(line.replace(str(temporary), str(path)) for line in p.where), p.fix)
                for p in error.problems
            ]
        ) from None
    except OSError as error:
        if error.filename is not None and not Path(os.fsdecode(error.filename)).is_relative_to(path.parent):
            raise UserError(
                "a file cannot be used; nothing was left half-done",
                [f"{os.fsdecode(error.filename)}: {error.strerror}"],
                "check that it exists and may be read, then run the command again",
            ) from None
        raise _cannot_write(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists, unless it may be replaced; an empty folder does not count.

    Raises:
        UserError: With `--overwrite` as the fix.
    """
    if overwrite or not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    raise UserError("the output exists already", [str(path)], "name another output, or: --overwrite")


def refuse_input(out: Path, *read: Path) -> None:
    """Refuse an output that is, or holds, a file or folder that the stage reads: replacing it would delete the input.

    Raises:
        UserError: With another name as the fix; `--overwrite` does not help.
    """
    place = out.resolve()
    held = dict.fromkeys(path for path in read if path.resolve().is_relative_to(place))
    if held:
        raise UserError(
            "the output must not be the input or hold it: replacing it would delete the input",
            [f"{out} and {path}" for path in held if held.keys().isdisjoint(path.parents)],
            "name another output",
        )


def _cannot_write(path: Path, error: OSError) -> UserError:
    if error.errno in _NO_SPACE:
        do = "free some space"
    elif error.errno in _WRONG_PLACE:
        do = "choose another place"
    else:
        do = "free some space or choose another place"
    return UserError(
        "the output cannot be written; nothing was left half-done",
        [f"{path}: {error.strerror or error}"],
        f"{do}, then run the command again",
    )


_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_WRONG_PLACE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENAMETOOLONG,
    }
)


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN is refused, since JSON has no word for it.

    Halves of characters, which names of files and text of other JSON may have, become JSON's own escapes.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    with atomic_file(path) as handle:
        handle.write(text.encode(errors="backslashreplace"))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as hex digits."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_of(content: bytes) -> str:
    """Return the SHA-256 of bytes as hex digits."""
    return hashlib.sha256(content).hexdigest()


def content_of(path: str | Path) -> bytes:
    """Read a picture file whole, to be hashed and decoded from memory.

    Raises:
        UnreadableImage: If it cannot be read, is empty, or is larger than `MOST_BYTES`.
    """
    try:
        file = os.open(path, _READING)  # a file object takes as long as reading a small file
        try:
            size = os.fstat(file).st_size
            if size > MOST_BYTES:
                raise UnreadableImage(f"has {size:,} bytes; at most {MOST_BYTES:,} are read")
            content = os.read(file, size + 1)
            if len(content) != size or not size:  # no plain file, or not all of it in one go
                pieces = [content]
                while content and sum(map(len, pieces)) <= MOST_BYTES:  # what is no file, such as a device, has no end
                    content = os.read(file, 1 << 20)
                    pieces.append(content)
                content = b"".join(pieces)
        finally:
            os.close(file)
    except OSError as error:
        raise UnreadableImage(f"cannot be opened ({error.strerror})") from None
    if len(content) > MOST_BYTES:
        raise UnreadableImage(f"has no end; at most {MOST_BYTES:,} bytes are read")
    return content


_READING = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Put `source` at `target` as a hard link where the file system allows, else as a copy."""
    real = os.path.realpath(source) if os.path.islink(source) else source
    for _ in range(2):
        try:
            os.link(real, target)
            return
        except FileNotFoundError:  # mostly the folder; to ask for each file whether it is there would take longer
            os.makedirs(os.path.dirname(target), exist_ok=True)
        except OSError:
            break
    os.makedirs(os.path.dirname(target), exist_ok=True)
    shutil.copy2(source, target)


def put_photo(source: str | Path, target: str | Path) -> None:
    """Put a photo into an output that is still being made, by `link_or_copy`.

    Raises:
        UserError: If it cannot be.
    """
    try:
        link_or_copy(source, target)
    except OSError as error:
        raise UserError(
            "a photo cannot be put into the output; nothing was left half-done",
            [f"{source}: {error.strerror or error}"],
            "check that it is still there and that the disk has space, then run the command again",
        ) from None


def is_file(path: Path) -> bool:
    """Tell whether there is a file of this name, also if no file could have it (too long, a zero byte)."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_text(name: str) -> bool:
    """Tell whether a name can be written as UTF-8: halves of characters, which JSON and file names can have, cannot."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def real(path: Path) -> Path:
    """Return where a path leads when all links are followed; a link that leads to itself is left as it is."""
    return Path(os.path.realpath(path))  # `Path.resolve` raises on such links before Python 3.13


def provenance() -> dict[str, str]:
    """Return what made an output: our version, Python's, and the time in UTC."""
    import platform
    from datetime import datetime, timezone

    from maskwright import __version__

    return {
        "maskwright": __version__,
        "python": platform.python_version(),
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def is_side_file(path: Path) -> bool:
    """Tell the files that systems leave beside photos: hidden ones, Zone.Identifier, Thumbs.db, desktop.ini.

    Example:
        >>> is_side_file(Path("photos/x.jpg:Zone.Identifier")), is_side_file(Path("photos/x.jpg"))
        (True, False)
    """
    name = path.name
    return (
        name.startswith(".")
        or (":" in name and path.suffix.lower() not in PHOTO_SUFFIXES)  # but 'at 10:30.jpg' is a photo
        or name.endswith("Zone.Identifier")
        or name.lower() in {"thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx"}
        or "__MACOSX" in path.parts
    )


def photo_files(folder: Path) -> list[Path]:
    """Return every picture file under a folder, recursively, by name; side files are left out.

    Links to files count, also those to nothing, so that reading them says so; links to folders: `linked_folders`.
    """
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in PHOTO_SUFFIXES
        and not is_side_file(path.relative_to(folder))
        and (path.is_file() or (path.is_symlink() and not path.exists()))
    )


def linked_folders(folder: Path) -> list[Path]:
    """Return the links to folders under a folder, by name, which `photo_files` does not follow (circles)."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_symlink() and path.is_dir() and not is_side_file(path.relative_to(folder))
    )


def image_size(path: Path) -> tuple[int, int]:
    """Read the upright `(height, width)` of a picture, from its header where the format puts the orientation there.

    A PNG may hold its orientation behind the pixels, so Pillow decodes one that has none in front.

    Raises:
        UnreadableImage: If it is not a picture, or declares an absurd size.
    """
    with _opened(path) as image:
        width, height = image.size
        try:
            turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
        except _BROKEN as error:
            raise UnreadableImage(_damage(error)) from None
        if image.format == "TIFF":  # Pillow's TIFF reader states the upright size itself
            return height, width
        return (width, height) if turned else (height, width)


def stored_size(path: Path) -> tuple[int, int]:
    """Read the `(height, width)` of a picture as stored, EXIF orientation not applied."""
    with _opened(path) as image:
        width, height = image.size
        if image.format == "TIFF" and image.getexif().get(_EXIF_ORIENTATION) in _TURNED:
            return width, height  # see image_size
        return height, width


def orientation_of(path: Path) -> int:
    """Read the EXIF orientation of a picture, 1..8 (1: upright, or it has none).

    Raises:
        UnreadableImage: As `image_size`.
    """
    with _opened(path) as image:
        try:
            turn = image.getexif().get(_EXIF_ORIENTATION, 1)
        except _BROKEN as error:
            raise UnreadableImage(_damage(error)) from None
        return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def verify_photo(path: Path, content: bytes | None = None) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Look for damage in a photo as cheaply as shows it, and return what its header says.

    Of JPEG, a header that can be read and the mark of the end show that nothing was cut off; everything else is
    decoded. (`check` decodes every photo.)

    Args:
        path: The file.
        content: All of it, if it was read already.

    Returns:
        The upright `(height, width)`, the stored `(height, width)`, and the EXIF orientation 1..8 (1: upright).

    Raises:
        UnreadableImage: As `read_photo`.
    """
    if content is not None and _ends_whole(content):
        plain = jpeg.header(content)
        if plain is not None and plain.size[0] * plain.size[1] <= MOST_PIXELS:
            orientation = plain.orientation if 1 <= plain.orientation <= 8 else 1
            return (plain.size[::-1] if orientation in _TURNED else plain.size), plain.size, orientation
    with _opened(path, content) as image:
        width, height = image.size
        try:
            turn = image.getexif().get(_EXIF_ORIENTATION, 1)
            if image.format not in {"JPEG", "MPO"}:
                image.load()
            elif not _ends_whole(path if content is None else content):
                image.draft("L", (max(width // 8, 1), max(height // 8, 1)))
                image.load()
        except _BROKEN as error:
            raise UnreadableImage(_damage(error)) from None
        orientation = turn if isinstance(turn, int) and 1 <= turn <= 8 else 1
        size, other = (height, width), ((width, height) if orientation in _TURNED else (height, width))
        return (size, other, orientation) if image.format == "TIFF" else (other, size, orientation)  # see image_size


def _ends_whole(file: Path | bytes) -> bool:
    """Tell whether a JPEG file ends with the mark of its end; some cameras write zeros behind it."""
    if isinstance(file, Path):
        with file.open("rb") as handle:
            handle.seek(max(0, os.fstat(handle.fileno()).st_size - 64))
            file = handle.read()
    return file[-64:].rstrip(b"\0").endswith(b"\xff\xd9")


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Read a photo upright.

    Returns:
        `(H, W, 3)` RGB uint8; transparency is laid over black, 16-bit grey is scaled to 8.

    Raises:
        UnreadableImage: If it is not a picture, is cut off, or declares an absurd size.
    """
    with _opened(path) as image:
        return rgb(_upright(image))


def read_reduced(path: Path, least: int) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read a photo upright, and no larger than is needed where that saves work.

    A JPEG is decoded at 1/2, 1/4 or 1/8 of its size, each pixel the mean of those that it stands for, as long as the
    longer side keeps `least` pixels; the file is still read to its end, so that damage shows. Other formats: full size.

    Args:
        path: The photo.
        least: Pixels of the longer side.

    Returns:
        As `read_photo`, and the photo's own upright `(height, width)`.

    Raises:
        UnreadableImage: As `read_photo`.
    """
    with _opened(path) as image:
        stored = image.size
        try:
            turned = image.getexif().get(_EXIF_ORIENTATION) in _TURNED
            if image.format in {"JPEG", "MPO"}:
                share = least / max(stored)
                image.draft(image.mode, (math.ceil(stored[0] * share), math.ceil(stored[1] * share)))
        except _BROKEN as error:
            raise UnreadableImage(_damage(error)) from None
        reduced = image.size != stored
        upright = _upright(image)
        if reduced:
            return rgb(upright), (stored if turned else stored[::-1])
        return rgb(upright), (upright.height, upright.width)


def read_grey(path: Path, least: int | None = None) -> tuple[NDArray[np.uint8], tuple[int, int], int]:
    """Read a photo upright and grey, as cheaply as shows damage.

    Args:
        path: The photo.
        least: A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep so many pixels, which
            still reads the file to its end; `None`: full size.

    Returns:
        `(h, w)` uint8, upright; the photo's upright `(height, width)`; its EXIF orientation 1..8 (1: upright).

    Raises:
        UnreadableImage: As `read_photo`.
    """
    with _opened(path) as image:
        width, height = image.size
        try:
            turn = image.getexif().get(_EXIF_ORIENTATION, 1)
            tiff = image.format == "TIFF"  # Pillow's TIFF reader states the upright size itself
            if image.format in {"JPEG", "MPO"}:
                image.draft("L", (width, height) if least is None else (least, least))
        except _BROKEN as error:
            raise UnreadableImage(_damage(error)) from None
        upright = _upright(image)
        if upright.mode != "L":
            upright = PillowImage.fromarray(rgb(upright)).convert("L")
        orientation = turn if isinstance(turn, int) and 1 <= turn <= 8 else 1
        turned = orientation in _TURNED and not tiff
        return np.asarray(upright), ((width, height) if turned else (height, width)), orientation


def read_raw(path: Path, content: bytes | None = None) -> tuple[NDArray[Any], PillowImage.Image]:
    """Read a mask image upright with its values as stored (palette indices, 16 bits, alpha).

    Args:
        path: The file.
        content: All of it, if it was read already.

    Returns:
        `(H, W)` or `(H, W, C)` array with the file's own dtype, and the Pillow image (mode and palette).

    Raises:
        UnreadableImage: As `read_photo`.
    """
    if content is None:
        content = content_of(path)
    with _opened(path, png.stored(content, MOST_AT_ONCE) or content) as image:
        width, height = image.size
        if image.mode in _COLOURED and width * height > MOST_COLOURED:
            raise UnreadableImage(
                f"declares {width:,} x {height:,} pixels in colour; at most {MOST_COLOURED:,} of a mask are read"
            )
        upright = _upright(image)
        return np.asarray(upright), upright


def rgb(image: PillowImage.Image) -> NDArray[np.uint8]:
    """Turn any Pillow image into `(H, W, 3)` RGB uint8."""
    if image.mode in {"I", "I;16", "I;16B", "I;16L", "F"}:
        values = np.asarray(image, dtype=np.float64)
        scaled = np.clip(values / 257.0 if values.max(initial=0) > 255 else values, 0, 255).round().astype(np.uint8)
        return np.repeat(scaled[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        black = PillowImage.new("RGBA", image.size, (0, 0, 0, 255))
        image = PillowImage.alpha_composite(black, image.convert("RGBA"))
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _upright(image: PillowImage.Image) -> PillowImage.Image:
    try:
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image
    except _BROKEN as error:
        raise UnreadableImage(_damage(error)) from None


def _damage(error: BaseException) -> str:
    """Say in our words why a picture cannot be decoded; Pillow's differ from format to format and say little."""
    if isinstance(error, MemoryError):
        return "cannot be decoded (there is not enough memory)"
    if isinstance(error, EOFError) or "truncated" in str(error).lower():
        return "cannot be decoded (the file is cut off)"
    return "cannot be decoded (the file is damaged)"


@contextlib.contextmanager
def _opened(path: Path, content: bytes | None = None) -> Iterator[PillowImage.Image]:
    try:
        if not (len(content) if content is not None else path.stat().st_size):
            raise UnreadableImage("is empty (0 bytes)")
        # Pillow's own limit (a warning from 89 megapixels on) gives way to ours, which is checked below and names the
        # size. Only the header is read here. The lock is for threads, since the limit is global.
        with _OPENING:
            limit, PillowImage.MAX_IMAGE_PIXELS = PillowImage.MAX_IMAGE_PIXELS, None
            try:
                image = PillowImage.open(path if content is None else io.BytesIO(content))
            finally:
                PillowImage.MAX_IMAGE_PIXELS = limit
    except UnidentifiedImageError:
        raise UnreadableImage("is not a picture that can be read") from None
    except _BROKEN as error:
        reason = getattr(error, "strerror", None)
        raise UnreadableImage(f"cannot be opened ({reason})" if reason else _damage(error)) from None
    with image:
        width, height = image.size
        if width * height > MOST_PIXELS:
            raise UnreadableImage(f"declares {width:,} x {height:,} pixels; at most {MOST_PIXELS:,} in all are read")
        yield image
