"""Which photo goes into which split: groups of photos that belong together never straddle two.

A photo's place is a hash of its name, or of what its group has in common, so that photos that are added later do not
move old ones; the few exceptions are counted and said. Where there are so few groups that a hash would leave their
shares to chance, all ways of dealing them out are tried.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from maskwright.errors import UserError
from maskwright.formats import Photo, plural, some
from maskwright.likeness import groups
from maskwright.settings import PrepareSettings
from maskwright.survey import Survey, number_of_text, place_of_key

FEWEST_GROUPS = 10
"""Folders or series of names are taken for groups that a hash may deal out if there are so many ..."""

LARGEST_GROUP = 0.2
"""... and none of them holds a larger share of the photos. Fewer stay whole if that gives fair shares, see `_dealt`."""

FEW_MEMBERS = 5
"""Few folders or series are looked at as groups if they have so many photos on average ..."""

MOST_IN_ONE = 0.8
"""... and no more than this share is in one of them: else the others are stray photos."""

BURST_S = 10
"""Photos whose names tell times no further apart than this were taken in one go."""

_TRAIN, _VAL, _TEST = range(3)
_FOLDERS, _SERIES = "folders", "series of names that differ in the last number"


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


def split_photos(
    photos: Collection[Photo],
    survey: Survey,
    categories: int,
    settings: PrepareSettings,
    alike: NDArray[np.int64] | None = None,
) -> Split:
    """Split photos anew.

    Args:
        photos: All of them, in order.
        survey: What is known of them.
        categories: How many there are.
        settings: `group`, `val_share` and `test_share` are used.
        alike: `(K, 2)` positions of photos that look alike; `None`: nobody looked.

    Raises:
        UserError: If the rule of `group` fits no photo.
    """
    notes: list[str] = []
    keys, grouping = _keys(photos, survey, settings.group)
    dealt: NDArray[np.int8] | None = None
    if settings.group is None and keys is None:
        few, notes = _few(survey, alike, categories, settings)
        keys, grouping, dealt = few or (*_bursts_of(survey), None)
    label = _labels(survey, keys, alike)
    number = len(photos) if label is None else int(label.max(initial=-1)) + 1
    sizes = None if label is None else np.bincount(label, minlength=number)
    if grouping:
        notes.append(grouping)
    if alike is not None and len(alike):
        mates = np.unique(alike[:, :2])
        notes.append(f"{plural(len(mates), 'photo')} look like another one; photos that do share a split")
    if dealt is not None:
        return Split(dealt, _how_dealt(dealt, number, settings), tuple(notes))
    places = _places(survey, keys, label, number)
    test, val = settings.test_share, settings.test_share + settings.val_share
    assigned = np.full(number, _TRAIN, dtype=np.int8)
    assigned[places < val] = _VAL
    assigned[places < test] = _TEST
    moved = _reach(assigned, places, sizes, _Members(survey, label, number, categories), settings)
    if moved:
        group_of = range(number) if label is None else label.tolist()
        names = some(photo.name for photo, group in zip(photos, group_of, strict=True) if group in moved)
        count = len(moved) if sizes is None else int(sizes[list(moved)].sum())
        notes.append(
            f"{plural(count, 'photo')} ({names}) did not go where the hash says, so that every"
            " category that can reaches every split; they may move when photos are added"
        )
    how = (
        f"split by a hash of each photo's name, {round(100 * (1 - val))} % train,"
        f" {round(100 * settings.val_share)} % val, {round(100 * test)} % test; adding photos never moves old ones"
    )
    if number < len(photos):
        how += f"; {plural(number, 'group')} of photos that belong together are never parted"
    return Split(assigned if label is None else assigned[label], how, tuple(notes))


# ── groups ───────────────────────────────────────────────────────────────────────────────────────────────────────────

# There may be millions of photos: of what is known of them, only what a step needs is in memory at a time.


def _keys(photos: Collection[Photo], survey: Survey, rule: str | None) -> tuple[NDArray[np.uint64] | None, str]:
    """Return `(N,)` a number for the group of each photo (0: it stands alone), and how groups were found, in words.

    `None` if every photo stands alone.
    """
    if rule == "none":
        return None, ""
    if rule == "folder":
        folders = plural(_counted(survey.folder[:])[0], "folder")
        return survey.folder[:], f"photos of one folder are a group, as you said: {folders}"
    if rule == "name":
        series = plural(_counted(survey.series[:])[0], "group")
        return survey.series[:], f"photos whose names differ in the last number are a group, as you said: {series}"
    if rule is not None:
        return _by_pattern(photos, rule)
    for keys, what in ((survey.folder, _FOLDERS), (survey.series, _SERIES)):
        count, largest = _counted(keys[:])
        if FEWEST_GROUPS <= count < len(keys) and largest <= LARGEST_GROUP * len(keys):
            return keys[:], f"photos are grouped by {what}: {plural(count, 'group')} (--group none: do not)"
    return None, ""


def _bursts_of(survey: Survey) -> tuple[NDArray[np.uint64] | None, str]:
    """Return groups of photos that were taken in one go, as `_keys` does."""
    bursts = _bursts(survey)
    if bursts is not None:
        count, largest = _counted(bursts[bursts > 0])
        if count and 2 * largest <= len(survey):  # else all were taken in one go
            return bursts, (
                f"photos whose names tell times within {BURST_S} s of each other are grouped: {plural(count, 'group')}"
                " (--group none: do not)"
            )
    return None, ""


def _counted(values: NDArray[np.uint64]) -> tuple[int, int]:
    """Return how many different values there are, and how often the most frequent one stands."""
    if not len(values):
        return 0, 0
    ordered = np.sort(values)
    starts = ordered[1:] != ordered[:-1]
    count = int(np.count_nonzero(starts)) + 1
    if count == len(values):
        return count, 1
    return count, int(np.diff(np.flatnonzero(starts), prepend=-1, append=len(values) - 1).max())


def _bursts(survey: Survey) -> NDArray[np.uint64] | None:
    """Return `(N,)` a number for each photo's burst; 0 where its name tells no time, or no other photo's is near.

    `None` if no name tells a time.
    """
    second = survey.second[:]
    timed = np.flatnonzero(second >= 0)
    if not len(timed):
        return None
    folder = survey.folder[:]
    timed = timed[np.lexsort((second[timed], folder[timed]))]
    keys = np.zeros(len(second), dtype=np.uint64)
    apart = (np.diff(second[timed]) > BURST_S) | (np.diff(folder[timed]) != 0)
    for burst in np.split(timed, np.flatnonzero(apart) + 1):
        if len(burst) > 1:
            keys[burst] = number_of_text(f"{folder[burst[0]]} {second[burst[0]]}")
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
            keys[n] = number_of_text((found.group(1) if pattern.groups else found.group()) or "")
    if without:
        raise UserError(
            f"the rule for groups fits {'no photo' if len(without) == len(photos) else 'not every photo'}",
            [f"{name}: no {rule!r} in it" for name in without],
            "give an expression that is found in every photo's name, its first group being what tells groups apart",
        )
    return keys, f"photos are grouped by {rule!r}, as you said: {plural(len(np.unique(keys)), 'group')}"


def _places(
    survey: Survey, keys: NDArray[np.uint64] | None, label: NDArray[np.int64] | None, number: int
) -> NDArray[np.float64]:
    """Return `(number,)` the place of each group: that of one of its members, which another hash chooses.

    The choice depends on the names alone, not on their order, and stays when members are added, unless one of them is
    chosen; and since it does not look at the places, groups are spread like single photos. All photos of a key have
    one place, so that a group that is known by its folder or series stays where it is whoever joins it.
    """
    own = survey.place[:]
    if keys is None and label is None:
        return own
    order = survey.order[:]
    if keys is not None:
        found, which = np.unique(keys, return_inverse=True)
        if (found > 0).any():
            places = np.array([place_of_key(str(key)) for key in found.tolist()])
            orders = np.array([number_of_text(str(key)) for key in found.tolist()], dtype=np.uint64)
            own, order = np.where(keys > 0, places[which], own), np.where(keys > 0, orders[which], order)
    if label is None:
        return own
    chosen = np.lexsort((order, label))
    result = np.zeros(number)
    result[label[chosen[::-1]]] = own[chosen[::-1]]  # of each group the first in order is written last
    return result


def _labels(
    survey: Survey, keys: NDArray[np.uint64] | None, alike: NDArray[np.int64] | None
) -> NDArray[np.int64] | None:
    """Return `(N,)` the number of each photo's group; equal keys, equal files and photos that look alike are joined.

    `None` if every photo stands alone.
    """
    links: list[NDArray[np.int64]] = [] if alike is None else [alike[:, :2]]
    for values in (survey.digest[:], keys):
        if values is not None and not _all_differ(values):
            real = np.flatnonzero(values)
            order = real[np.argsort(values[real], kind="stable")]
            same = values[order[1:]] == values[order[:-1]]
            links.append(np.stack([order[:-1][same], order[1:][same]], axis=1))
    if not any(map(len, links)):
        return None
    return groups(np.concatenate(links), len(survey))


def _all_differ(values: NDArray[np.uint64]) -> bool:
    ordered = np.sort(values)
    return not (ordered[1:] == ordered[:-1]).any()


# ── few groups ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _few(
    survey: Survey, alike: NDArray[np.int64] | None, categories: int, settings: PrepareSettings
) -> tuple[tuple[NDArray[np.uint64], str, NDArray[np.int8]] | None, list[str]]:
    """Find folders or series that are few but can stay whole.

    Returns:
        Their keys, how they were found in words, and the split of each photo, `(N,)` int8; `None` if there are none.
        And of what looks like groups and is not kept together, why not.
    """
    folder = survey.folder[:]
    folder = np.where(folder > 0, folder, np.uint64(number_of_text("")))  # photos in no folder are together, too
    candidates = [(folder, _FOLDERS, "folder")]
    if not (survey.second[:] >= 0).any():  # else the times tell what belongs together
        candidates.append((survey.series[:], _SERIES, "name"))
    doubts: list[str] = []
    known = 1
    for keys, what, option in candidates:
        count, largest = _counted(keys)
        if count == known or FEW_MEMBERS * count > len(keys) or largest > MOST_IN_ONE * len(keys):
            continue
        known = count  # series within folders, as many as these, are the same groups
        if count >= FEWEST_GROUPS:
            why = f"one of them holds {round(100 * largest / len(keys))} % of the photos"
        else:
            label = _labels(survey, keys, alike)
            assert label is not None
            number = int(label.max()) + 1
            members = _Members(survey, label, number, categories)
            dealt, why = _dealt(_places(survey, keys, label, number), np.bincount(label), members, settings)
            if dealt is not None:
                told = f"photos are grouped by {what}: {plural(count, 'group')} (--group none: do not)"
                return (keys, told, dealt[label]), doubts
        if why:
            doubts.append(
                f"the photos seem to be of {count} {what}, which are not kept together, since {why}: scores may be too"
                f" good; --group {option} keeps them together"
            )
    return None, doubts


def _dealt(
    places: NDArray[np.float64], sizes: NDArray[np.int64], members_of: _Members, settings: PrepareSettings
) -> tuple[NDArray[np.int8] | None, str]:
    """Deal whole groups out so that the shares are as near as can be to those wanted; try every way there is.

    Train gets at least half of the photos (if it is to have so many), each other split at least half of its share, and
    small categories reach the splits that they can, as in `_reach`. Of ways equally good, the hash decides.

    Args:
        places: `(number,)` of each group; fewer than `FEWEST_GROUPS`.
        sizes: `(number,)` photos in each.
        members_of: Which groups each category is in.
        settings: `val_share` and `test_share` are used.

    Returns:
        `(number,)` the split of each group, or `None` and why there is none; empty if the groups are the categories.
    """
    wanted, number = _wanted(settings), len(places)
    order = np.argsort(places, kind="stable")  # the test split first, as by a hash
    column = np.argsort(order)
    spread = [tuple(sorted(column[members].tolist())) for members in members_of.each()]
    if sum(len(columns) == 1 for columns in spread) == len(spread) - 1 > 0:  # the last are all groups
        return None, ""
    if number < len(wanted):
        return None, f"{len(wanted)} splits need as many that share no photos, not even ones that look alike"
    ways = np.array(list(product(sorted(wanted, reverse=True), repeat=number)), dtype=np.int8)
    total = int(sizes.sum())
    share = {_TRAIN: 1 - settings.val_share - settings.test_share, _VAL: settings.val_share, _TEST: settings.test_share}
    least = {_TRAIN: min(0.5, share[_TRAIN]), _VAL: share[_VAL] / 2, _TEST: share[_TEST] / 2}
    photos = {split: (ways == split) @ sizes[order] for split in wanted}
    fair = np.all([photos[split] >= least[split] * total for split in wanted], axis=0)
    if not fair.any():
        return None, "whole ones would leave less than half of the photos to train, or next to none to another split"
    for columns in set(spread):
        for split in wanted[: len(columns)]:
            fair &= (ways[:, columns] == split).any(axis=1)
    if not fair.any():
        return None, "whole ones would leave a split without photos of a category"
    off = sum(np.abs(photos[split] - share[split] * total) for split in wanted if split != _TRAIN)
    best = int(np.argmin(np.where(fair, off, np.inf)))
    return ways[best, column], ""


def _how_dealt(splits: NDArray[np.int8], number: int, settings: PrepareSettings) -> str:
    shares = [
        f"{round(100 * np.mean(splits == split))} % {name}"
        for split, name in zip((_TRAIN, _VAL, _TEST), ("train", "val", "test"), strict=True)
    ]
    test, val = settings.test_share, settings.val_share
    return (
        f"{plural(number, 'group')} of photos that belong together, never parted: {', '.join(shares)}, as near to"
        f" {round(100 * (1 - val - test))}, {round(100 * val)} and {round(100 * test)} % as whole groups come; photos"
        " that are added may move groups"
    )


def _wanted(settings: PrepareSettings) -> Sequence[int]:
    """Return the splits that are to have photos."""
    shares = {_TRAIN: 1.0, _VAL: settings.val_share, _TEST: settings.test_share}
    return [split for split, share in shares.items() if share > 0]


# ── small categories ─────────────────────────────────────────────────────────────────────────────────────────────────


class _Members:
    """Which groups each category is in; one more category stands for photos of any kind."""

    def __init__(self, survey: Survey, label: NDArray[np.int64] | None, number: int, categories: int) -> None:
        codes = np.empty(len(survey.categories), dtype=np.int64)
        done = 0
        for pairs in survey.categories.chunks():
            group = pairs[:, 1] if label is None else label[pairs[:, 1]]
            codes[done : done + len(pairs)] = pairs[:, 0] * number + group
            done += len(pairs)
        codes.sort()
        if label is not None:
            codes = codes[np.diff(codes, prepend=-1) != 0]
        self._codes, self._number = codes, number
        self._firsts = np.searchsorted(codes, np.arange(categories + 1) * number).tolist()

    def each(self) -> Iterator[NDArray[np.int64]]:
        """Yield the groups of each category that has some, the rarest first: it has least choice."""
        counts = [*np.diff(self._firsts).tolist(), self._number]
        for category in sorted(range(len(counts)), key=counts.__getitem__):
            if category == len(counts) - 1:
                yield np.arange(self._number)
            elif counts[category]:
                first = self._firsts[category]
                yield self._codes[first : first + counts[category]] - category * self._number


def _reach(
    assigned: NDArray[np.int8],
    places: NDArray[np.float64],
    sizes: NDArray[np.int64] | None,
    members_of: _Members,
    settings: PrepareSettings,
) -> set[int]:
    """Move groups, in place, until every category that can reaches every split; returns the groups that were moved.

    A category needs two groups for train and val, and three for train, val and test. Of the groups that may move, the
    one whose place is nearest to the split's share goes, since it is the last that the hash would have left out.
    """
    wanted = _wanted(settings)
    edge = {_TEST: settings.test_share, _VAL: settings.test_share + settings.val_share, _TRAIN: 1.0}
    moved: set[int] = set()
    for members in members_of.each():
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
                best = min(
                    free,
                    key=lambda group: (sizes is not None and sizes[group] > 1, abs(places[group] - edge[split]), group),
                )
                assigned[best] = split
                moved.add(best)
    return moved
