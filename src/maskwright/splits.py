"""Which photo goes into which split: groups of photos that belong together never straddle two.

A photo's place is a hash of its name, or of what its group has in common, so that photos that are added later do not
move old ones; the few exceptions are counted and said.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from array import array
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone

import numpy as np
from numpy.typing import NDArray

from maskwright.errors import UserError
from maskwright.formats import Photo, plural, some
from maskwright.likeness import groups
from maskwright.settings import PrepareSettings

FEWEST_GROUPS = 10
"""Folders or series of names are taken for groups only if there are so many: else nothing could be split."""

LARGEST_GROUP = 0.2
"""... and if none of them holds a larger share of the photos."""

BURST_S = 10
"""Photos whose names tell times no further apart than this were taken in one go."""

_TIME = re.compile(r"(?<!\d)((?:19|20)\d{2})[-_.]?(\d{2})[-_.]?(\d{2})[-_. tT]?(\d{2})[-_.:h]?(\d{2})[-_.:m]?(\d{2})")
_FRAME = re.compile(r"[-_. ]*(?:frame|img|image|f|t)?[-_. ]*\d+$", re.IGNORECASE)
_TRAIN, _VAL, _TEST = range(3)


@dataclass(frozen=True)
class Split:
    """How photos are split.

    Attributes:
        splits: `(N,)` int8, the position of each photo's split in `SPLITS`.
        how: The rule, in words.
        notes: What the user should know: groups that were found, photos that were moved.
    """

    splits: NDArray[np.int8]
    how: str
    notes: tuple[str, ...]


def place_of(name: str) -> float:
    """Return a photo's fixed place in 0..1, which decides its split.

    It depends on nothing but the name without its ending, so photos that are added later never move old ones, and a
    photo that is saved in another format stays where it is.

    Example:
        >>> place_of("a/1.jpg") == place_of("a/1.png") != place_of("a/2.jpg")
        True
    """
    return _place(name.rpartition(".")[0] or name)


def _place(key: str) -> float:
    text = unicodedata.normalize("NFC", key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def split_photos(
    photos: Collection[Photo],
    categories: Sequence[str],
    settings: PrepareSettings,
    alike: NDArray[np.int64] | None = None,
) -> Split:
    """Split photos anew.

    Args:
        photos: All of them, in order.
        categories: Names of all categories.
        settings: `group`, `val_share` and `test_share` are used.
        alike: `(K, 2)` positions of photos that look alike; `None`: nobody looked.

    Raises:
        UserError: If the rule of `group` fits no photo.
    """
    notes: list[str] = []
    heads = _Heads.of(photos, categories)
    keys, grouping = _keys(photos, heads, settings.group)
    label = _labels(heads, keys, alike)
    number = int(label.max(initial=-1)) + 1
    sizes = np.bincount(label, minlength=number)
    if grouping:
        notes.append(grouping)
    if alike is not None and len(alike):
        mates = np.unique(alike[:, :2])
        notes.append(f"{plural(len(mates), 'photo')} look like another one; photos that do share a split")
    places = _places(heads, keys, label, number)
    test, val = settings.test_share, settings.test_share + settings.val_share
    assigned = np.where(places < test, _TEST, np.where(places < val, _VAL, _TRAIN)).astype(np.int8)
    moved = _reach(assigned, places, sizes, _pairs(heads, label, len(categories)), settings)
    if moved:
        names = some(photo.name for photo, group in zip(photos, label.tolist(), strict=True) if group in moved)
        notes.append(
            f"{plural(int(sizes[list(moved)].sum()), 'photo')} ({names}) did not go where the hash says, so that every"
            " category that can reaches every split; they may move when photos are added"
        )
    how = (
        f"split by a hash of each photo's name, {round(100 * (1 - val))} % train,"
        f" {round(100 * settings.val_share)} % val, {round(100 * test)} % test; adding photos never moves old ones"
    )
    if number < len(photos):
        how += f"; {plural(number, 'group')} of photos that belong together are never parted"
    return Split(assigned[label], how, tuple(notes))


# ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Heads:
    """What grouping needs of every photo, as numbers: there may be millions, and they are read from disk only once.

    Attributes:
        folder: `(N,)` uint64, a number for the folder.
        series: `(N,)` uint64, a number for the name without the number at its end: the video that a frame is of.
        second: `(N,)` int64, the time that the name tells, in seconds; -1: none.
        place: `(N,)` float64, see `place_of`.
        order: `(N,)` uint64, another hash of the name.
        digest: `(N,)` uint64, the first bits of the file's SHA-256; 0: not known.
        categories: `(K, 2)` int64, category and photo, each pair once; crowds do not count.
    """

    folder: NDArray[np.uint64]
    series: NDArray[np.uint64]
    second: NDArray[np.int64]
    place: NDArray[np.float64]
    order: NDArray[np.uint64]
    digest: NDArray[np.uint64]
    categories: NDArray[np.int64]

    @staticmethod
    def of(photos: Collection[Photo], categories: Sequence[str]) -> _Heads:
        """Go through the photos."""
        count = len(photos)
        folder, series, order, digest = (np.zeros(count, dtype=np.uint64) for _ in range(4))
        second, place = np.full(count, -1, dtype=np.int64), np.zeros(count)
        number_of = {name: number for number, name in enumerate(categories)}
        pairs = array("q")
        last, last_number = "", 0
        for n, photo in enumerate(photos):
            stem = photo.name.rpartition(".")[0] or photo.name
            full = f"{photo.place}/{stem}"
            above = full.rpartition("/")[0]
            if above != last:
                last, last_number = above, _number(above)
            folder[n], series[n] = last_number, _number(_FRAME.sub("", full))
            second[n] = _second(photo.name)
            place[n], order[n] = _place(stem), _number(stem)
            digest[n] = int(photo.sha256[:16] or "0", 16)
            for category in {number_of[mark.category] for mark in photo.marks if not mark.crowd}:
                pairs.append(category)
                pairs.append(n)
        return _Heads(folder, series, second, place, order, digest, np.frombuffer(pairs, dtype=np.int64).reshape(-1, 2))


def _number(key: str) -> int:
    """Return a number above 0 for a text, which hardly any other text has."""
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") | 1


def _second(name: str) -> int:
    """Return the time that a name tells, in seconds; -1 if it tells none."""
    found = _TIME.search(name)
    if found is None:
        return -1
    try:
        year, month, day, hour, minute, second = (int(part) for part in found.groups())
        return max(-1, int(datetime(year, month, day, hour, minute, second, tzinfo=timezone.utc).timestamp()))
    except ValueError:  # digits that are no date
        return -1


def _keys(photos: Collection[Photo], heads: _Heads, rule: str | None) -> tuple[NDArray[np.uint64], str]:
    """Return `(N,)` a number for the group of each photo (0: it stands alone), and how groups were found, in words."""
    alone = np.zeros(len(photos), dtype=np.uint64)
    if rule == "none":
        return alone, ""
    if rule == "folder":
        folders = plural(len(np.unique(heads.folder)), "folder")
        return heads.folder, f"photos of one folder are a group, as you said: {folders}"
    if rule == "name":
        series = plural(len(np.unique(heads.series)), "group")
        return heads.series, f"photos whose names differ in the last number are a group, as you said: {series}"
    if rule is not None:
        return _by_pattern(photos, rule)
    for keys, what in ((heads.folder, "folders"), (heads.series, "series of names that differ in the last number")):
        count = np.unique(keys, return_counts=True)[1]
        if FEWEST_GROUPS <= len(count) < len(keys) and count.max() <= LARGEST_GROUP * len(keys):
            return keys, f"photos are grouped by {what}: {plural(len(count), 'group')} (--group none: do not)"
    keys = _bursts(heads)
    count = np.unique(keys[keys > 0], return_counts=True)[1]
    if len(count) and 2 * count.max() <= len(photos):  # else all were taken in one go
        return keys, (
            f"photos whose names tell times within {BURST_S} s of each other are grouped: {plural(len(count), 'group')}"
            " (--group none: do not)"
        )
    return alone, ""


def _bursts(heads: _Heads) -> NDArray[np.uint64]:
    """Return `(N,)` a number for each photo's burst; 0 where its name tells no time, or no other photo's is near."""
    keys = np.zeros(len(heads.second), dtype=np.uint64)
    timed = np.flatnonzero(heads.second >= 0)
    timed = timed[np.lexsort((heads.second[timed], heads.folder[timed]))]
    if not len(timed):
        return keys
    apart = (np.diff(heads.second[timed]) > BURST_S) | (np.diff(heads.folder[timed]) != 0)
    for burst in np.split(timed, np.flatnonzero(apart) + 1):
        if len(burst) > 1:
            keys[burst] = _number(f"{heads.folder[burst[0]]} {heads.second[burst[0]]}")
    return keys


def _by_pattern(photos: Collection[Photo], rule: str) -> tuple[NDArray[np.uint64], str]:
    try:
        pattern = re.compile(rule)
    except re.error as error:
        raise UserError(
            "the rule for groups is not a regular expression",
            [f"--group {rule!r}: {error}"],
            "give folder, name, none, or an expression such as '(clip\\d+)_'",
        ) from None
    keys = np.zeros(len(photos), dtype=np.uint64)
    without = []
    for n, photo in enumerate(photos):
        found = pattern.search(photo.name)
        if found is None:
            without.append(photo.name)
        else:
            keys[n] = _number((found.group(1) if pattern.groups else found.group()) or "")
    if without:
        raise UserError(
            f"the rule for groups fits {'no photo' if len(without) == len(photos) else 'not every photo'}",
            [f"{name}: no {rule!r} in it" for name in without],
            "give an expression that is found in every photo's name, its first group being what tells groups apart",
        )
    return keys, f"photos are grouped by {rule!r}, as you said: {plural(len(np.unique(keys)), 'group')}"


def _places(heads: _Heads, keys: NDArray[np.uint64], label: NDArray[np.int64], number: int) -> NDArray[np.float64]:
    """Return `(number,)` the place of each group: that of one of its members, which another hash chooses.

    The choice depends on the names alone, not on their order, and stays when members are added, unless one of them is
    chosen; and since it does not look at the places, groups are spread like single photos. All photos of a key have
    one place, so that a group that is known by its folder or series stays where it is whoever joins it.
    """
    own, order = heads.place.copy(), heads.order.copy()
    found, which = np.unique(keys, return_inverse=True)
    if (found > 0).any():
        places = np.array([_place(str(key)) for key in found.tolist()])
        orders = np.array([_number(str(key)) for key in found.tolist()], dtype=np.uint64)
        own, order = np.where(keys > 0, places[which], own), np.where(keys > 0, orders[which], order)
    chosen = np.lexsort((order, label))
    result = np.zeros(number)
    result[label[chosen[::-1]]] = own[chosen[::-1]]  # of each group the first in order is written last
    return result


def _labels(heads: _Heads, keys: NDArray[np.uint64], alike: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return `(N,)` the number of each photo's group; equal keys, equal files and photos that look alike are joined."""
    links: list[NDArray[np.int64]] = [] if alike is None else [alike[:, :2]]
    for values in (heads.digest, keys):
        real = np.flatnonzero(values)
        order = real[np.argsort(values[real], kind="stable")]
        same = values[order[1:]] == values[order[:-1]]
        links.append(np.stack([order[:-1][same], order[1:][same]], axis=1))
    pairs = np.concatenate(links)
    return groups(pairs, len(keys)) if len(pairs) else np.arange(len(keys))


# ── small categories ─────────────────────────────────────────────────────────────────────────────────────────────────


def _pairs(heads: _Heads, label: NDArray[np.int64], categories: int) -> NDArray[np.int64]:
    """Return `(K, 2)` which category is in which group; one more category stands for photos of any kind."""
    count = int(label.max(initial=0)) + 1
    codes = heads.categories[:, 0] * count + label[heads.categories[:, 1]]
    codes = np.unique(np.concatenate([codes, categories * count + label]))
    return np.stack(np.divmod(codes, count), axis=1)


def _reach(
    assigned: NDArray[np.int8],
    places: NDArray[np.float64],
    sizes: NDArray[np.int64],
    pairs: NDArray[np.int64],
    settings: PrepareSettings,
) -> set[int]:
    """Move groups, in place, until every category that can reaches every split; returns the groups that were moved.

    A category needs two groups for train and val, and three for train, val and test. Of the groups that may move, the
    one whose place is nearest to the split's share goes, since it is the last that the hash would have left out.
    """
    wanted = [_TRAIN]
    wanted += [_VAL] if settings.val_share > 0 else []
    wanted += [_TEST] if settings.test_share > 0 else []
    edge = {_TEST: settings.test_share, _VAL: settings.test_share + settings.val_share, _TRAIN: 1.0}
    moved: set[int] = set()
    firsts = np.searchsorted(pairs[:, 0], np.unique(pairs[:, 0]))
    # The rarest category first: it has least choice.
    for members in sorted(np.split(pairs[:, 1], firsts[1:]), key=len):
        for count, split in enumerate(wanted, 1):
            have = assigned[members]
            if (have == split).any() or len(members) < count:
                continue
            # What is learned from comes first: for train the last group of another split may go.
            fewest = 0 if split == _TRAIN else 1
            free = [
                int(group)
                for group in members
                if int(group) not in moved and int((have == assigned[group]).sum()) > fewest
            ]
            if free:
                best = min(free, key=lambda group: (sizes[group] > 1, abs(places[group] - edge[split]), group))
                assigned[best] = split
                moved.add(best)
    return moved
