"""What the names of folders tell of splits, and what is said where not every photo lies in a split."""

from __future__ import annotations

from collections.abc import Iterable

from maskwright.formats import SPLIT_NAMES, plural, some


def split_and_category(name: str) -> tuple[str | None, str | None]:
    """Read a folder name as split and category.

    Example:
        >>> split_and_category("hammer_validate"), split_and_category("test"), split_and_category("misc")
        (('val', 'hammer'), ('test', None), (None, None))
    """
    split = SPLIT_NAMES.get(name.lower())
    if split:
        return split, None
    for joint in "_-. ":
        head, found, tail = name.rpartition(joint)
        if found and head and tail.lower() in SPLIT_NAMES:
            return SPLIT_NAMES[tail.lower()], head
    return None, None


def first_folder_split(name: str) -> tuple[str | None, str]:
    """Return the split that the first folder of a name tells, and the rest of the name.

    Example:
        >>> first_folder_split("train/a/1.jpg"), first_folder_split("a/1.jpg")
        (('train', 'a/1.jpg'), (None, 'a/1.jpg'))
    """
    first, slash, rest = name.partition("/")
    split = split_and_category(first)[0] if slash else None
    return (None, name) if split is None else (split, rest)


def cut_split(name: str, place: str = "") -> tuple[str, str]:
    """Return a photo's name without the first folder if that tells a split, and its place with it.

    The place keeps what the name loses, so that photos of equal names stay apart where they come into one split.

    Example:
        >>> cut_split("train/a/1.jpg"), cut_split("train/1.jpg", "raw"), cut_split("a/1.jpg", "raw")
        (('a/1.jpg', 'train'), ('1.jpg', 'raw/train'), ('a/1.jpg', 'raw'))
    """
    split, short = first_folder_split(name)
    first = "" if split is None else name.partition("/")[0]
    return short, "/".join(part for part in (place, first) if part)


def splits_text(splits: Iterable[str | None]) -> str:
    """Say which splits the folders give; empty if not every photo has one."""
    have = set(splits)
    if None in have or not have:
        return ""
    return f"splits are kept as the folders give them ({', '.join(s for s in ('train', 'val', 'test') if s in have)})"


def kept_splits(photos: Iterable[tuple[str, str | None]]) -> tuple[str, list[str]]:
    """Say whether photos keep the splits that their folders give: they do if every photo has one.

    Args:
        photos: The name of each, and its split.

    Returns:
        Which splits are kept, in words, empty if the photos are to be split anew; and a note where splits are there
        and not used.

    Example:
        >>> kept_splits([("a.jpg", "train"), ("b.jpg", None)])
        ('', ['1 photo in no split folder (b.jpg): all photos are split anew'])
    """
    have: set[str | None] = set()
    bare: list[str] = []
    for name, split in photos:
        have.add(split)
        if split is None:
            bare.append(name)
    if bare and len(have) > 1:
        return "", [split_anew(len(bare), bare)]
    return splits_text(have), []


def split_anew(count: int, names: Iterable[str]) -> str:
    """Say that splits are not used, since so many photos lie in none; `names` are those of some of them."""
    return f"{plural(count, 'photo')} in no split folder ({some(names)}): all photos are split anew"
