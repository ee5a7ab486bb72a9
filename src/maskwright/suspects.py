"""What the photo files tell: damage, leaks between splits, and masks that do not fit the picture.

Every photo is decoded once: a JPEG at a part of its size, which still reads the file to its end; of each split at most
300 photos with objects, evenly chosen, in full, to hold the masks against the edges in them. Photos that carry a
camera's orientation and were not among those are opened again, at most 300 of a split.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskwright import edges, likeness, pixels
from maskwright.dataset import SPLITS, Image
from maskwright.errors import UserError
from maskwright.facts import Example, Finding, SplitView
from maskwright.files import UnreadableImage, read_grey, sha256
from maskwright.findings import Notes

EDGE_PHOTOS = 300
"""So many photos of a split, at most, are decoded in full and held against their masks."""

EDGE_OBJECTS = 30
"""So many objects of one photo, at most, evenly chosen."""

LOOKS = 10_000
"""So many pairs of candidates, at most, get the closer look, the nearest first."""

PORTION = 256
"""Photos in work at once, and pairs looked at between two looks at what is known by then."""

BLANK = 2
"""Up to this contrast (quarters of a grey level), a photo shows nothing."""

_ORDER = {split: place for place, split in enumerate(SPLITS)}
_TURNS = {
    2: "mirrored left-right",
    3: "turned by 180 degrees",
    4: "mirrored up-down",
    5: "mirrored along the falling diagonal",
    6: "turned right by 90 degrees",
    7: "mirrored along the rising diagonal",
    8: "turned left by 90 degrees",
}


@dataclass(frozen=True)
class _Job:
    """A photo to look at: position `i` in its split."""

    view: SplitView
    i: int
    path: Path

    @property
    def image(self) -> Image:
        return self.view.d.images[self.i]


@dataclass(frozen=True)
class _Style:
    """How one mask is drawn: mean length of the straight runs of its outline, and whether none of them is short."""

    k: int
    run_px: float
    coarse: bool


@dataclass(frozen=True)
class _Seen:
    """What one look at a photo gave; `fault` is a rule and its line."""

    job: _Job
    fault: tuple[str, str] | None = None
    fingerprint: bytes = b""
    orientation: int = 1
    fit: edges.Fit | None = None
    styles: tuple[_Style, ...] = ()


def photo_findings(views: Mapping[str, SplitView], left_out: Collection[str] = ()) -> tuple[Finding, ...]:
    """Find what is wrong with photo files, and what only a look at them shows about the masks.

    Args:
        views: By split name.
        left_out: Photos (`split/file_name`) that are not looked at.

    Returns:
        Findings in the order of the rules: photos that are absent, unreadable or of another size; equal and alike
        photos, within and across splits; masks that fit their photo only when turned or moved.
    """
    notes = Notes()
    jobs = [job for view in views.values() for job in _jobs(view, left_out, notes)]
    chosen = {name: _evenly(_with_objects(view), EDGE_PHOTOS) for name, view in views.items()}
    seen = list(_looked_at(jobs, chosen))
    again = {name: _evenly([s.job.i for s in seen if _turned_unmeasured(s, name)], EDGE_PHOTOS) for name in views}
    second = [s.job for s in seen if s.job.i in again[s.job.view.name] and _turned_unmeasured(s, s.job.view.name)]
    for s in seen:
        if s.fault:
            notes.add(s.fault[0], [s.fault[1]])
            notes.show(s.fault[0], Example(split=s.job.view.name, photo=s.job.image.file_name))
        elif s.fingerprint[0] <= BLANK:
            drawn = int(s.job.view.first[s.job.i + 1] - s.job.view.first[s.job.i])
            objects = f"{drawn:,} object{'s' if drawn != 1 else ''}"
            notes.add("blank-photo", [f"{_name(s)}: {objects} in the annotation file"], 1, drawn)
            notes.show("blank-photo", Example(split=s.job.view.name, photo=s.job.image.file_name, note=objects), drawn)
    sound = [s for s in seen if not s.fault or s.fault[0] == "photo-size"]
    _leaks(sound, views, notes)
    _fits([s for s in seen if s.fit] + [s for s in _looked_at(second, again) if s.fit], notes)
    _styles([s for s in seen if s.styles], notes)
    return notes.findings()


def _jobs(view: SplitView, left_out: Collection[str], notes: Notes) -> Iterator[_Job]:
    for i, image in enumerate(view.d.images):
        if left_out and f"{view.name}/{image.file_name}" in left_out:
            continue
        shown = Example(split=view.name, photo=image.file_name)
        try:
            path = view.d.photo_path(image)
        except UserError as error:
            notes.add("photo-outside", error.problems[0].where)
            notes.show("photo-outside", shown)
            continue
        if path.is_file():
            yield _Job(view, i, path)
        else:
            notes.add("photo-missing", [str(path)])
            notes.show("photo-missing", shown)


def _with_objects(view: SplitView) -> list[int]:
    drawn = view.objects[np.isin(view.objects, view.with_mask)]
    return [int(i) for i in np.unique(view.d.image_index[drawn])]


def _evenly(items: Sequence[int], most: int) -> frozenset[int]:
    if len(items) <= most:
        return frozenset(items)
    return frozenset(items[int(place)] for place in np.linspace(0, len(items) - 1, most).round())


def _turned_unmeasured(s: _Seen, split: str) -> bool:
    return s.job.view.name == split and s.orientation != 1 and s.fit is None and not s.fault


def _looked_at(jobs: Iterable[_Job], chosen: Mapping[str, frozenset[int]]) -> Iterator[_Seen]:
    """Look at photos in threads, in order, a few at a time so that a million jobs take no memory."""
    rest = iter(jobs)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        while some := list(islice(rest, PORTION)):
            yield from pool.map(lambda job: _look(job, job.i in chosen[job.view.name]), some)


def _look(job: _Job, measure: bool) -> _Seen:
    image, path = job.image, job.path
    try:
        grey, size, orientation = read_grey(path, None if measure else 2 * likeness.SIDE)
    except UnreadableImage as error:
        return _Seen(job, ("photo-unreadable", f"{path} {error}"))
    mark = likeness.fingerprint_of(grey)
    if size != image.size:
        text = f"{path} is {size[1]} x {size[0]}, the annotation file says {image.width} x {image.height}"
        return _Seen(job, ("photo-size", text), mark, orientation)
    if not measure:
        return _Seen(job, None, mark, orientation)
    d, view = job.view.d, job.view
    ks = np.arange(view.first[job.i], view.first[job.i + 1])
    ks = ks[~d.crowd[ks] & (view.areas[ks] > 0)]
    outlines, styles = [], []
    for k in sorted(_evenly(ks.tolist(), EDGE_OBJECTS)):
        x1, y1, x2, y2 = (int(v) for v in view.boxes[k])
        if not (rle := d.rle(k)):
            continue
        found = edges.outline(pixels.crop(rle, image.size, (x1, y1, x2, y2)), x1, y1, image.size)
        outlines.append(found)
        if len(found.steps) >= 100:
            # Scaled up by a whole factor, an outline has no run of one pixel; a rectangle has few runs of any length.
            coarse = found.runs >= 24 and found.short <= 0.02 * found.runs
            styles.append(_Style(k, len(found.steps) / found.runs, coarse))
    return _Seen(job, None, mark, orientation, edges.fit(grey, outlines), tuple(styles))


# Leaks


def _leaks(seen: Sequence[_Seen], views: Mapping[str, SplitView], notes: Notes) -> None:
    """Note equal and alike photos."""
    seen = sorted(seen, key=lambda s: _ORDER.get(s.job.view.name, 9))
    split = np.array([_ORDER.get(s.job.view.name, 9) for s in seen], dtype=np.int64)
    by_length: dict[int, list[int]] = defaultdict(list)  # fingerprints tell nothing: one file decoded twice has two
    for n, s in enumerate(seen):
        by_length[s.job.path.stat().st_size].append(n)
    same: dict[str, list[int]] = defaultdict(list)
    for members in by_length.values():
        if len(members) > 1:
            for n in members:
                same[sha256(seen[n].job.path)].append(n)
    one = np.arange(len(seen))  # of equal photos, the first
    leaked: dict[int, int] = {}
    for members in same.values():
        one[members] = members[0]
        across = {int(split[n]): n for n in reversed(members)}  # the first of each split
        for n in members:
            if n == members[0]:
                continue
            if split[n] != split[members[0]]:
                leaked[n] = members[0]
            elif seen[n].job.path != seen[first := across[int(split[n])]].job.path:  # else listed twice
                _note_pair(notes, "photo-twice", seen[first], seen[n], " = ", 1.0)
        if len(across) > 1:
            notes.add("photo-leak", [" = ".join(_name(seen[n]) for n in members)])
            a, b = (across[place] for place in sorted(across)[:2])
            notes.show("photo-leak", _pair(seen[a], seen[b], "the same file"))
    _affected("photo-leak", leaked, seen, views, notes)

    pairs = likeness.near_pairs(likeness.stack([s.fingerprint for s in seen]))
    pairs = pairs[one[pairs[:, 0]] != one[pairs[:, 1]]]
    paths = [s.job.path for s in seen]
    crossing = split[pairs[:, 0]] != split[pairs[:, 1]]
    alike, unseen = _cross_pairs(pairs[crossing], paths, set(leaked))
    for (i, j), value in alike.items():
        _note_pair(notes, "near-leak", seen[i], seen[j], " ~ ", value)
    _affected("near-leak", {j: i for i, j in alike}, seen, views, notes)
    if unseen:
        notes.add("not-compared", [f"in two splits: {_pairs(unseen)}"], unseen)
    within, beyond = np.split(pairs[~crossing], [LOOKS])
    values = likeness.confirmed(within, paths, spanning=True)
    for (i, j, _), value in zip(within.tolist(), values.tolist(), strict=True):
        if value >= likeness.ALIKE:
            _note_pair(notes, "near-photos", seen[i], seen[j], " ~ ", value)
    joined = likeness.groups(within[values >= likeness.ALIKE], len(seen))
    if unseen := int((joined[beyond[:, 0]] != joined[beyond[:, 1]]).sum()):
        notes.add("not-compared", [f"in one split: {_pairs(unseen)}"], unseen)


def _pairs(n: int) -> str:
    return f"{n:,} pair{'s' if n != 1 else ''}"


def _cross_pairs(
    pairs: NDArray[np.int64], paths: Sequence[Path], known: set[int]
) -> tuple[dict[tuple[int, int], float], int]:
    """Find for each photo one of an earlier split that it looks like, and count the pairs left out as too many."""
    alike: dict[tuple[int, int], float] = {}
    done = set(known)
    looks = 0
    for start in range(0, len(pairs), PORTION):
        some = np.array([p for p in pairs[start : start + PORTION].tolist() if p[1] not in done], dtype=np.int64)
        if looks >= LOOKS:
            return alike, sum(j not in done for j in pairs[start:, 1].tolist())
        if not len(some):
            continue
        looks += len(some)
        for (i, j, _), value in zip(some.tolist(), likeness.confirmed(some, paths).tolist(), strict=True):
            if value >= likeness.ALIKE and j not in done:
                alike[i, j] = value
                done.add(j)
    return alike, 0


def _affected(
    code: str, leaked: Mapping[int, int], seen: Sequence[_Seen], views: Mapping[str, SplitView], notes: Notes
) -> None:
    """Say first how much of each split is affected: the number on which the worth of its scores depends."""
    for name, view in views.items():
        n = sum(seen[late].job.view.name == name for late in leaked)
        if n:
            total = len(view.d.images)
            notes.add(code, [f"{name}: {n:,} of {total:,} photos ({n / total:.0%})"], 0, 2.0)


def _name(s: _Seen) -> str:
    return s.job.view.photo(s.job.image)


def _pair(a: _Seen, b: _Seen, note: str) -> Example:
    return Example(
        split=b.job.view.name,
        photo=b.job.image.file_name,
        other_split=a.job.view.name,
        other_photo=a.job.image.file_name,
        note=note,
    )


def _note_pair(notes: Notes, code: str, a: _Seen, b: _Seen, sign: str, value: float) -> None:
    told = "the same file" if value == 1.0 else f"likeness {value:.2f}"
    notes.add(code, [f"{_name(a)}{sign}{_name(b)}" + ("" if value == 1.0 else f" ({told})")], 1, value)
    notes.show(code, _pair(a, b, told), value)


# Masks against edges


def _fits(seen: Sequence[_Seen], notes: Notes) -> None:
    """Note masks that fit better when turned or moved, over many photos."""
    by_tag: dict[tuple[str, int], list[_Seen]] = defaultdict(list)
    for s in seen:
        by_tag[s.job.view.name, s.orientation].append(s)
    wrong: set[tuple[str, int]] = set()
    for (name, tag), group in by_tag.items():
        fits = [s.fit for s in group if s.fit]
        found = [r for o in _TURNS if (r := edges.reading(fits, o)) and r.better]
        # Without a tag there is no reason to doubt, so more photos must speak.
        best = max(found, key=lambda r: r.ratio, default=None)
        if best and (tag != 1 or best.photos >= 10):
            wrong.add((name, tag))
            code = "exif-one-side" if best.orientation == tag else "masks-turned"
            said = (
                f"{name}: {_TURNS[best.orientation]}, the masks of {len(group):,} photos"
                + (f" with orientation {tag}" if tag != 1 else "")
                + f" meet edges {best.ratio:.1f} times as strong, in {best.wins:.0%} of them"
            )
            notes.add(code, [said], len(group), 2.0)
            _show_turned(notes, code, group, best.orientation)
        elif tag != 1 and (r := edges.reading(fits, tag)) and not r.worse:
            photos = f"{len(group):,} photo{'s' if len(group) != 1 else ''} with orientation {tag}"
            said = f"{name}: {photos}; the edges are {r.ratio:.2f} times as strong"
            notes.add("exif-unsure", [f"{said} where the masks are {_TURNS[tag]}"], len(group))
            _show_turned(notes, "exif-unsure", group, tag)
    by_split: dict[str, list[_Seen]] = defaultdict(list)
    for s in seen:
        if (s.job.view.name, s.orientation) not in wrong:
            by_split[s.job.view.name].append(s)
    for name, group in by_split.items():
        shift = edges.common_shift([s.fit for s in group if s.fit])
        if shift and shift.clear:
            notes.add(
                "masks-shifted",
                [
                    f"{name}: the edges are about {_way(shift.x, 'right', 'left')} and {_way(shift.y, 'down', 'up')}"
                    f" of the masks (+-{shift.error:.2f} px), and {shift.gain:.2f} times as strong there"
                    f" ({shift.photos:,} photos)"
                ],
            )
            for s in group[:: max(1, len(group) // 12)]:
                notes.show("masks-shifted", _whole(s, f"move by {shift.x:+.1f}, {shift.y:+.1f} px"))


def _way(px: float, plus: str, minus: str) -> str:
    return f"{abs(px):.1f} px {plus if px > 0 else minus}"


def _whole(s: _Seen, note: str) -> Example:
    d = s.job.view.d
    ids = d.ids[s.job.view.first[s.job.i] : s.job.view.first[s.job.i + 1]]
    return Example(split=s.job.view.name, photo=s.job.image.file_name, annotations=tuple(ids[:50].tolist()), note=note)


def _show_turned(notes: Notes, code: str, group: Sequence[_Seen], orientation: int) -> None:
    for s in group:
        if s.fit is None:
            continue
        stands, turned = float(s.fit.turned[0]), float(s.fit.turned[orientation - 1])
        if np.isfinite(stands + turned):
            note = f"grey steps of {stands:.0f} along the masks as they stand, {turned:.0f} {_TURNS[orientation]}"
            notes.show(code, _whole(s, note), turned / max(stands, 1e-9))


# Style


def _styles(seen: Sequence[_Seen], notes: Notes) -> None:
    """Note masks drawn on a coarse grid, and splits whose outlines are drawn differently."""
    measured = [(s, style) for s in seen for style in s.styles]
    coarse = [(s, style) for s, style in measured if style.coarse]
    if len(coarse) >= 5 and len(coarse) >= 0.05 * len(measured):
        notes.add("coarse-masks", [f"{len(coarse):,} of {len(measured):,} masks looked at"], len(coarse), 1.0)
        for s, style in coarse:
            ids = (int(s.job.view.d.ids[style.k]),)
            note = f"straight runs of {style.run_px:.1f} px"
            shown = Example(split=s.job.view.name, photo=s.job.image.file_name, annotations=ids, note=note)
            notes.show("coarse-masks", shown, style.run_px)
    runs: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    photos: dict[tuple[str, str], dict[int, _Seen]] = defaultdict(dict)
    for s, style in measured:
        names = s.job.view.names
        name = names[int(s.job.view.d.category_ids[style.k])]
        runs[name][s.job.view.name].append(style.run_px)
        photos[name, s.job.view.name][s.job.i] = s
    for name, by_split in runs.items():
        large = {split: np.array(values) for split, values in by_split.items() if len(values) >= 20}
        quartiles = {split: np.percentile(values, (25, 50, 75)) for split, values in large.items()}
        order = sorted(quartiles, key=lambda split: float(quartiles[split][1]))
        if len(order) < 2:
            continue
        low, high = order[0], order[-1]
        if quartiles[high][0] > quartiles[low][2] and quartiles[high][1] >= 1.5 * quartiles[low][1]:
            notes.add(
                "style-differs",
                [
                    f"{name}: straight runs of the outline are {quartiles[high][1]:.1f} px long in {high},"
                    f" {quartiles[low][1]:.1f} px in {low}"
                ],
            )
            for a, b in zip(
                islice(photos[name, low].values(), 6), islice(photos[name, high].values(), 6), strict=False
            ):
                notes.show("style-differs", _pair(a, b, name))
