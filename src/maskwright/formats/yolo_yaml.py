"""YOLO's data.yaml: category names, and which photos are for training, validation and testing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from maskwright.errors import UserError
from maskwright.files import real
from maskwright.formats import SPLIT_NAMES, plural, some
from maskwright.formats.plain_yaml import NotPlain, Value, read

MOST_BYTES = 4 * 2**20
_KEYS = frozenset({"names", "nc", "path", "train", "val", "valid", "test", "kpt_shape"})


@dataclass(frozen=True)
class Description:
    """What a data.yaml says.

    Attributes:
        path: The file.
        names: Category names by id.
        base: What its paths start from, as it says.
        lists: Folders or lists of photos, by split.
        pose: Whether the labels are keypoints.
    """

    path: Path
    names: dict[int, str]
    base: str
    lists: dict[str, list[str]]
    pose: bool


@dataclass(frozen=True)
class Lists:
    """The photos that a data.yaml lists.

    Attributes:
        photos: All of them; `None` if it lists none that are there.
        splits: The split of each; `None` if the photos are to be split anew.
        files: Text files with lists of photos.
        notes: What the user should know.
    """

    photos: frozenset[Path] | None
    splits: dict[Path, str] | None
    files: tuple[Path, ...]
    notes: tuple[str, ...]


def describe(path: Path) -> Description | None:
    """Read a data.yaml; `None` if the file has no category names, and so is something else.

    Raises:
        UserError: If it has names that cannot be used.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            return None
        text = path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return None
    if not any(line.startswith(("names:", "names :", '"names"', "'names'")) for line in text.splitlines()):
        return None
    try:
        values = read(text, _KEYS)
    except NotPlain as error:
        raise UserError(
            "the data.yaml cannot be read",
            [f"{path}: {error}"],
            "write it plainly: names as a list or as 'id: name' lines, paths as text",
        ) from None
    names = _names(values.get("names", ""), path)
    count = values.get("nc", "")
    if isinstance(count, str) and count.isdigit() and int(count) != len(names):
        raise UserError(
            "the data.yaml contradicts itself", [f"{path}: nc is {count}, and there are {len(names)} names"], "mend it"
        )
    base = values.get("path", "")
    lists: dict[str, list[str]] = {}
    for key in ("train", "val", "valid", "test"):
        value = values.get(key, "")
        entries = [value] if isinstance(value, str) else list(value) if isinstance(value, list) else []
        lists.setdefault(SPLIT_NAMES[key], []).extend(entry for entry in entries if entry)
    return Description(path, names, base if isinstance(base, str) else "", lists, "kpt_shape" in values)


def _names(value: Value, path: Path) -> dict[int, str]:
    wrong: list[str] = []
    names: dict[int, str] = {}
    if isinstance(value, list):
        names = dict(enumerate(value))
    elif isinstance(value, dict):
        for key, name in value.items():
            if key.isdecimal() and len(key) < 10:
                names[int(key)] = name
            else:
                wrong.append(f"{path}: {key!r} is no category id; ids are whole numbers from 0")
    elif value:
        wrong.append(f"{path}: names is {value[:40]!r}, and must be a list")
    wrong += [f"{path}: the name of category {key} is empty" for key, name in names.items() if not name.strip()]
    wrong += [f"{path}: {name!r} stands {n} times" for name, n in Counter(names.values()).items() if n > 1 and name]
    if not names and not wrong:
        wrong.append(f"{path}: names is empty")
    if wrong:
        raise UserError("category names must be there and differ", wrong, "correct the names in the data.yaml")
    return names


def listed(description: Description, pictures: Sequence[Path], top: Path) -> Lists:
    """Find the photos that a data.yaml lists; its paths only choose among the pictures that are there.

    Paths are often those of another machine, or start with `../` (Roboflow): what counts is where they end.

    Args:
        description: The data.yaml.
        pictures: Every picture.
        top: The folder that they were listed from.

    Raises:
        UserError: If a folder is outside, or training photos are not there but others are.
    """
    name = description.path.name
    folder = description.path.parent
    by_parts = {path.relative_to(folder if path.is_relative_to(folder) else top).parts: path for path in pictures}
    folders: dict[tuple[str, ...], list[Path]] = {}
    for parts, path in by_parts.items():
        for end in range(len(parts)):
            folders.setdefault(parts[:end], []).append(path)
    chosen: dict[str, set[Path]] = {}
    files: list[Path] = []
    absent: dict[str, list[str]] = {}
    outside: list[str] = []
    for split, entries in description.lists.items():
        for entry in entries:
            if entry.lower().endswith(".txt"):
                file = _list_file(entry, description, folder)
                lines = _lines(file) if file is not None else []
                matches = [_match(line, description, by_parts) for line in lines]
                found = [by_parts[match] for match in matches if match is not None]
                if file is not None:
                    files.append(file)
                if found and len(found) < len(lines):
                    absent.setdefault(split, []).append(f"{plural(len(lines) - len(found), 'photo')} of {entry}")
            else:
                place = _match(entry, description, folders)
                found = folders[place] if place is not None else []
            if found:
                chosen.setdefault(split, set()).update(found)
            elif _is_elsewhere(entry, description, folder):
                outside.append(f"{description.path}: {split}: {entry}")
            else:
                absent.setdefault(split, []).append(entry)
    if outside:
        raise UserError(
            "the data.yaml leads to folders outside of its own",
            outside,
            "name the folder that holds all of it, with the data.yaml in it",
        )
    if "train" in absent and chosen:
        raise UserError(
            "the data.yaml names photos for training that are not there",
            [f"{description.path}: train: {entry}" for entry in absent["train"]],
            "add the photos or correct the paths",
        )
    notes = [f"{name} names {split} photos that are not there: {some(absent[split])}" for split in absent]
    if not chosen:
        return Lists(None, None, tuple(files), tuple(notes))
    if chosen.get("test") and chosen.get("test") == chosen.get("val"):
        notes.append(f"{name} gives the same photos for val and test; they are taken for val")
        del chosen["test"]
    everything = frozenset(path for paths in chosen.values() for path in paths)
    double = sum(len(paths) for paths in chosen.values()) - len(everything)
    if double:
        notes.append(
            f"{name} gives {plural(double, 'photo')} to several splits ({', '.join(chosen)}): all photos are split anew"
        )
        return Lists(everything, None, tuple(files), tuple(notes))
    splits = {path: split for split, paths in chosen.items() for path in paths}
    return Lists(everything, splits, tuple(files), tuple(notes))


def _parts(text: str) -> tuple[bool, list[str]]:
    """Return whether a path may start anywhere (absolute, or upwards), and its parts that name something."""
    text = text.replace("\\", "/")
    anywhere = text.startswith(("/", "../", "~")) or text[1:2] == ":" or "/../" in text
    return anywhere, [part for part in PurePosixPath(text).parts if part not in {"/", "..", ".", "~"}]


def _match(text: str, description: Description, known: Container[tuple[str, ...]]) -> tuple[str, ...] | None:
    """Return the longest end of a path that is known; a plain path must be there with all its parts."""
    anywhere, parts = _parts(text)
    before = _parts(description.base)[1]
    for start in range(len(before)):
        if (*before[start:], *parts) in known:
            return (*before[start:], *parts)
    for start in range(len(parts) if anywhere else 1):
        rest = tuple(parts[start:])
        if start and len(rest) == 1 and rest[0].lower() not in SPLIT_NAMES and "." not in rest[0]:
            continue  # 'images' alone may be anything
        if rest in known:
            return rest
    return None


def _list_file(entry: str, description: Description, folder: Path) -> Path | None:
    parts = _match(entry, description, _FilesOf(folder))
    return None if parts is None else folder.joinpath(*parts)


class _FilesOf(Container[tuple[str, ...]]):
    """The files of a folder, looked up one by one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __contains__(self, parts: object) -> bool:
        if not isinstance(parts, tuple) or not parts:
            return False
        try:
            path = self._folder.joinpath(*parts)
            return path.is_file() and real(path).is_relative_to(real(self._folder))
        except (OSError, ValueError):
            return False


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError):
        raise UserError(
            "a list of photos cannot be read", [str(path)], "save it as plain text, one photo a line"
        ) from None


def _is_elsewhere(entry: str, description: Description, folder: Path) -> bool:
    """Tell whether a path that is not in the folder exists outside of it."""
    try:
        path = real(folder / description.base / entry)
        return path.exists() and not path.is_relative_to(real(folder))
    except (OSError, ValueError):
        return False
