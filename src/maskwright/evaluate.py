"""Evaluate: truth and detections in, the COCO numbers and every match out.

Photos and categories are brought into one order first, so that no id of either file can matter; then everything comes
from one matching (`matching.py`) by COCO's arithmetic (`scoring.py`), which tests hold to pycocotools.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from maskwright import matching, scoring
from maskwright.alignment import Aligned, align
from maskwright.boundary import boundary_overlaps
from maskwright.dataset import Dataset, collector_paused, from_coco, from_results, read_json
from maskwright.errors import Problem, UserError
from maskwright.files import provenance, refuse_existing, refuse_input, write_json
from maskwright.settings import EvaluateSettings
from maskwright.shards import meant_by, photos_beside, refuse_folder

Kind = Literal["segm", "bbox"]

KINDS: tuple[Kind, ...] = ("segm", "bbox")
"""Masks and boxes, in the order in which they are printed."""

BOUNDARY = ("AP", "AP50", "AP75")
"""Numbers of boundary AP, where it is asked for."""

USUAL_LIMIT = 100
"""COCO counts so many detections of a photo and category; more only where a photo has more objects."""

LEVEL = 0.95
"""Share of the resamples inside an interval."""


@dataclass(frozen=True)
class Evaluation:
    """How good detections are; the fields are those of evaluation.json. Undefined numbers are `None`.

    Attributes:
        truth: Absolute path of the truth, `None` for a dataset in memory.
        detections: Absolute path of the detections, `None` for a dataset in memory.
        photos: Folder of the photos, if known.
        run: Run folder that made the detections, if they name one.
        counts: `photos`, `objects` (without crowds), `crowd`, `detections`.
        max_detections: How many detections of a photo and category count; above 100 only if a photo has more objects.
        metrics: COCO's twelve numbers of masks (`segm/AP`, `segm/AP50`, ...) and boxes (`bbox/AP`, ...); with the
            setting `boundary` also `boundary/AP`, `boundary/AP50`, `boundary/AP75`, see `maskwright.boundary`.
        intervals: `segm/AP` (`bbox/AP` where there are no masks): `low`, `high`, `level`, `resamples`; `None` with
            fewer than `scoring.LEAST_PHOTOS` photos that show an object; empty where none is asked for.
        categories: For each: `id`, `name`, `objects`, `detections`, `metrics`.
        threshold: The score with the best F1 at `iou`: `score`, `f1`, `precision`, `recall`, `iou`. It is chosen on
            the very photos that are scored.
        used: The same at the score from which on the detections were written as mask images, if their file names it;
            precision is `None` if no detection reaches it.
        curves: Precision and score at COCO's 101 recall points, for IoU 0.5 and 0.75, per category and as their mean.
        operating: Precision, recall and F1 against the least score, at `iou`.
        iou: IoU from which a detection is a hit, in `threshold`, `operating`, `matches` and `per_photo`.
        made: Provenance.
    """

    truth: str | None
    detections: str | None
    photos: str | None
    run: str | None
    counts: Mapping[str, int]
    max_detections: int
    metrics: Mapping[str, float | None]
    intervals: Mapping[str, Mapping[str, float] | None]
    categories: tuple[Mapping[str, Any], ...]
    threshold: Mapping[str, float] | None
    used: Mapping[str, float | None] | None
    curves: tuple[Mapping[str, Any], ...]
    operating: tuple[Mapping[str, float], ...]
    iou: float
    made: Mapping[str, str]
    _matched: _Matched = field(repr=False)

    @cached_property
    def matches(self) -> tuple[dict[str, Any], ...]:
        """Every detection and every missed object, photo by photo.

        Each has `photo`, `image_id`, `category`, `truth` and `detection` (annotation ids), `iou`, `score` and
        `outcome`: `hit`, `miss`, `false alarm`, or `crowd` (a detection of a crowd, which is neither).
        """
        return tuple(self._matched.rows())

    @cached_property
    def per_photo(self) -> tuple[dict[str, Any], ...]:
        """For each photo: `photo`, `image_id`, and counts of `objects`, `detections`, `hits`, `misses`, `false_alarms`.

        All detections count here, whatever their score.
        """
        return tuple(self._matched.counts())

    def json(self) -> dict[str, Any]:
        """Return the content of evaluation.json."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in {"made", "_matched"}}
        lists = ("categories", "curves", "operating")
        result = {"maskwright": dict(self.made)} | plain | {name: list(plain[name]) for name in lists}
        return result | {"matches": list(self.matches), "per_photo": list(self.per_photo)}

    def table(self) -> str:
        """Return COCO's familiar twelve lines, for masks and for boxes; `n/a` where a number is undefined."""
        lines = []
        for kind in KINDS:
            values = [self.metrics[f"{kind}/{name}"] for name in scoring.NAMES]
            lines.append("masks (segm)" if kind == "segm" else "boxes (bbox)")
            if all(value is None for value in values):
                lines.append(" n/a")
                continue
            for name, value in zip(scoring.NAMES, values, strict=True):
                lines.append(_coco_line(name, value, self.max_detections))
        if "boundary/AP" in self.metrics:
            lines.append("edges (boundary)")
            for name in BOUNDARY:
                lines.append(_coco_line(name, self.metrics[f"boundary/{name}"], self.max_detections))
        return "\n".join(lines)


def evaluate(
    truth: str | Path | Dataset,
    detections: str | Path | Dataset,
    out: str | Path | None = None,
    *,
    photos: str | Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
    **settings: Any,
) -> Evaluation:
    """Score detections against truth: COCO's numbers, an interval, the best threshold, every match.

    The numbers are pycocotools' for the same masks and boxes. Areas of detections are always taken from their masks
    (or, for the box numbers, from their boxes), whatever `area` the file states; areas of true objects are the file's,
    as COCO has it. Photos of two complete COCO files are paired by file name, categories by name; the ids of a bare
    list of results are those of the truth.

    Args:
        truth: A COCO file, or shards of one, as `Dataset.load` takes them; or a dataset.
        detections: A complete COCO file whose annotations have scores, or shards of one; a bare COCO list of results;
            or a dataset.
        out: The JSON file to write; nothing is written if not given.
        photos: Folder of the photos, for the report; found beside a prepared dataset if not given.
        overwrite: Replace `out` if it exists.
        say: Called with lines about the result.
        **settings: See `EvaluateSettings`.

    Returns:
        The evaluation.

    Raises:
        UserError: If a file cannot be read, there is no object to find, or detections have no score, or name photos or
            categories that the truth does not have.
    """
    chosen = EvaluateSettings.parse(settings)
    tell = say or (lambda _text: None)
    if out is not None:
        named = [Path(path) for path in (truth, detections) if isinstance(path, str | Path)]
        read = [file for path in named for file in meant_by(path)]
        refuse_input(Path(out), *read, *([] if photos is None else [Path(photos)]))
        refuse_existing(Path(out), overwrite=overwrite)
    with collector_paused():
        true, truth_path = _read_truth(truth)
        found, found_path = _read_detections(detections, true)
    folder = _photo_folder(photos, true, truth_path)
    aligned = align(
        true,
        found,
        str(truth) if truth_path else "the truth",
        str(detections) if found_path else "the detections",
        by_id=found.images is true.images,
    )
    for note in aligned.notes:
        tell(note)
    result = _evaluated(true, found, aligned, chosen, (truth_path, found_path, folder), tell)
    tell(result.table())
    for line in _summary(result):
        tell(line)
    if out is not None:
        write_json(Path(out), result.json())
        tell(f"wrote {out}")
    return result


def _evaluated(
    true: Dataset,
    found: Dataset,
    aligned: Aligned,
    chosen: EvaluateSettings,
    paths: tuple[Path | None, Path | None, Path | None],
    tell: Callable[[str], None],
) -> Evaluation:
    truth = matching.truth_columns(aligned.truth_photo, aligned.truth_category, true.crowd)
    ours = matching.found_columns(aligned.found_photo, aligned.found_category, found.scores)
    objects = np.flatnonzero(~true.crowd)
    most = int(np.bincount(true.image_index[objects]).max())
    limit = max(USUAL_LIMIT, most)
    if limit > USUAL_LIMIT:
        tell(f"a photo has {most} objects: the limit of detections per photo and category is {limit}, not 100")
    categories = len(true.categories)
    overlaps, areas = _overlaps(true, found, aligned, truth, ours, min(float(scoring.IOUS[0]), chosen.iou))
    results = {
        kind: scoring.scores(truth, ours, overlaps[kind], true.areas[truth.source], areas[kind], categories, limit)
        for kind in overlaps
    }
    metrics: dict[str, float | None] = {f"{kind}/{name}": None for kind in KINDS for name in scoring.NAMES}
    for kind, result in results.items():
        metrics |= {f"{kind}/{name}": value for name, value in result.metrics().items()}
    if chosen.boundary:
        metrics |= _boundary(true, found, aligned, truth, ours, overlaps, areas, limit)
    kind = next(kind for kind in KINDS if kind in results)
    intervals: dict[str, dict[str, float] | None] = {}
    if chosen.bootstrap and not scoring.enough_for_an_interval(truth):
        intervals[f"{kind}/AP"] = None
    elif chosen.bootstrap:
        everything = results[kind].everything
        limits = scoring.interval(ours, truth, everything, len(true.images), chosen.bootstrap, chosen.seed, LEVEL)
        if limits is not None:
            low, high = limits
            extras: dict[str, float] = {"level": LEVEL, "resamples": chosen.bootstrap}
            intervals[f"{kind}/AP"] = {"low": low, "high": high} | extras
    matched, ious = matching.match(truth, ours, overlaps[kind], np.array([chosen.iou]), truth.crowd)
    table = _Matched(true, found, truth, ours, matched[0], ious[0])
    best, points = scoring.operating(ours.score, table.hit, ~table.in_crowd, len(objects))
    origin = found.info.get("maskwright")
    origin = origin if isinstance(origin, Mapping) else {}
    run, stated = origin.get("run"), origin.get("threshold")
    used: dict[str, float | None] | None = None
    if isinstance(stated, int | float) and not isinstance(stated, bool) and math.isfinite(stated):
        at = scoring.operating_at(float(stated), ours.score, table.hit, ~table.in_crowd, len(objects))
        used = at | {"iou": chosen.iou}
    truth_path, found_path, folder = (None if path is None else str(path.resolve()) for path in paths)
    return Evaluation(
        truth=truth_path,
        detections=found_path,
        photos=folder,
        run=None if run is None else str(run),
        counts={
            "photos": len(true.images),
            "objects": len(objects),
            "crowd": int(true.crowd.sum()),
            "detections": len(found),
        },
        max_detections=limit,
        metrics=metrics,
        intervals=intervals,
        categories=tuple(_per_category(true, truth, ours, results)),
        threshold=None if best is None else _point(best) | {"iou": chosen.iou},
        used=used,
        curves=tuple(_curves(true, kind, results[kind])),
        operating=tuple(_point(point) for point in points),
        iou=chosen.iou,
        made=provenance(),
        _matched=table,
    )


def _overlaps(
    true: Dataset,
    found: Dataset,
    aligned: Aligned,
    truth: matching.Truth,
    ours: matching.Found,
    least: float,
) -> tuple[dict[Kind, matching.Overlaps], dict[Kind, NDArray[np.float64]]]:
    """Return the overlaps and the detections' areas of each kind that can be scored."""
    overlaps: dict[Kind, matching.Overlaps] = {}
    areas: dict[Kind, NDArray[np.float64]] = {}
    if aligned.masks:
        measured = None
        if true.measured is not None and found.measured is not None:
            measured = true.measured[truth.source], found.measured[ours.source]
        overlaps["segm"], areas["segm"] = matching.mask_overlaps(
            truth,
            ours,
            _in_order(true.rles(), truth.source),
            _in_order(found.rles(), ours.source),
            aligned.sizes,
            least,
            measured,
        )
    boxes_true, boxes_found = _xywh(true.boxes[truth.source]), _xywh(found.boxes[ours.source])
    overlaps["bbox"] = matching.box_overlaps(truth, ours, boxes_true, boxes_found, least)
    areas["bbox"] = boxes_found[:, 2] * boxes_found[:, 3]
    return overlaps, areas


def _boundary(
    true: Dataset,
    found: Dataset,
    aligned: Aligned,
    truth: matching.Truth,
    ours: matching.Found,
    overlaps: Mapping[Kind, matching.Overlaps],
    areas: Mapping[Kind, NDArray[np.float64]],
    limit: int,
) -> dict[str, float | None]:
    """Return the numbers of boundary AP; `None` each where there are no masks."""
    if "segm" not in overlaps:
        return {f"boundary/{name}": None for name in BOUNDARY}
    pairs = boundary_overlaps(
        truth,
        ours,
        _in_order(true.rles(), truth.source),
        _in_order(found.rles(), ours.source),
        aligned.sizes,
        overlaps["segm"],
        float(scoring.IOUS[0]),
    )
    scores = scoring.scores(
        truth, ours, pairs, true.areas[truth.source], areas["segm"], len(true.categories), limit
    ).metrics()
    return {f"boundary/{name}": scores[name] for name in BOUNDARY}


def _in_order(rles: list[bytes], order: NDArray[np.int64]) -> list[bytes]:
    return [rles[k] for k in order.tolist()]


def _xywh(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give boxes back their file's `x y width height`.

    `x2 - x1` can differ from the width in the file by the last bit, which decides where an area or an IoU lies exactly
    on a limit; the width with few decimals that leads to the same `x2` is the one that was written.
    """
    sides = boxes[:, 2:] - boxes[:, :2]
    short = np.round(sides, 9)
    return np.hstack([boxes[:, :2], np.where(boxes[:, :2] + short == boxes[:, 2:], short, sides)])


def _point(point: scoring.Operating) -> dict[str, float]:
    return {"score": point.score, "precision": point.precision, "recall": point.recall, "f1": point.f1}


def _per_category(
    true: Dataset, truth: matching.Truth, ours: matching.Found, results: Mapping[Kind, scoring.Scores]
) -> Iterable[dict[str, Any]]:
    objects = np.bincount(truth.category[~truth.crowd], minlength=len(true.categories))
    detections = np.bincount(ours.category, minlength=len(true.categories))
    for k, category in enumerate(true.categories):
        metrics: dict[str, float | None] = {f"{kind}/{name}": None for kind in KINDS for name in scoring.NAMES}
        for kind, result in results.items():
            metrics |= {f"{kind}/{name}": value for name, value in result.metrics(k).items()}
        yield {
            "id": category.id,
            "name": category.name,
            "objects": int(objects[k]),
            "detections": int(detections[k]),
            "metrics": metrics,
        }


def _curves(true: Dataset, kind: Kind, result: scoring.Scores) -> Iterable[dict[str, Any]]:
    """Yield precision against recall: first the mean of the categories that have objects, then each of these."""
    defined = np.flatnonzero(~np.isnan(result.recall[0, :, 0]))
    names: list[tuple[str | None, NDArray[np.int64]]] = [(None, defined)]
    names += [(true.categories[k].name, np.array([k])) for k in defined.tolist()]
    for iou in (0.5, 0.75):
        t = int(np.argmin(np.abs(scoring.IOUS - iou)))
        for name, chosen in names:
            scores = result.score[t][:, chosen]
            # A mean score means something only where every category reaches the recall.
            shown = [None if np.isnan(value) else value for value in scores.mean(axis=1).tolist()]
            yield {
                "category": name,
                "kind": kind,
                "iou": iou,
                "recall": scoring.RECALLS.round(2).tolist(),
                "precision": result.precision[t, :, chosen, 0].mean(axis=0).tolist(),
                "scores": shown,
            }


@dataclass(frozen=True)
class _Matched:
    """The matches at one IoU, in columns; the rows are made only where they are asked for."""

    true: Dataset
    found: Dataset
    truth: matching.Truth
    ours: matching.Found
    partner: NDArray[np.int64]
    iou: NDArray[np.float64]

    @cached_property
    def in_crowd(self) -> NDArray[np.bool_]:
        """`(D,)` bool, detections whose best partner is a crowd."""
        inside = self.partner >= 0
        inside[inside] = self.truth.crowd[self.partner[inside]]
        return inside

    @cached_property
    def hit(self) -> NDArray[np.bool_]:
        """`(D,)` bool."""
        return (self.partner >= 0) & ~self.in_crowd

    @cached_property
    def missed(self) -> NDArray[np.int64]:
        """Positions in `truth` of the objects that no detection hits."""
        missed = ~self.truth.crowd
        missed[self.partner[self.hit]] = False
        return np.flatnonzero(missed)

    @cached_property
    def place(self) -> NDArray[np.int64]:
        """For each photo in the order of ids, its position in the truth's file."""
        return np.argsort([image.id for image in self.true.images], kind="stable")

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows by photo as the truth lists them; detections by falling score, then misses."""
        images, place = self.true.images, self.place.tolist()
        names = [category.name for category in self.true.categories]
        outcome = np.where(self.partner < 0, "false alarm", np.where(self.in_crowd, "crowd", "hit"))
        true_ids = np.append(self.true.ids[self.truth.source], 0)[self.partner]
        keyed: list[tuple[tuple[int, float], dict[str, Any]]] = []
        columns = (
            self.ours.photo,
            self.ours.category,
            true_ids,
            self.found.ids[self.ours.source],
            self.iou,
            self.ours.score,
            outcome,
        )
        for photo, category, true_id, found_id, iou, score, what in zip(*(c.tolist() for c in columns), strict=True):
            image = images[place[photo]]
            row = {
                "photo": image.file_name,
                "image_id": image.id,
                "category": names[category],
                "truth": None if what == "false alarm" else true_id,
                "detection": found_id,
                "iou": None if what == "false alarm" else iou,
                "score": score,
                "outcome": what,
            }
            keyed.append(((place[photo], -score), row))
        for g in self.missed.tolist():
            position = place[int(self.truth.photo[g])]
            image = images[position]
            row = {
                "photo": image.file_name,
                "image_id": image.id,
                "category": names[int(self.truth.category[g])],
                "truth": int(self.true.ids[self.truth.source[g]]),
                "detection": None,
                "iou": None,
                "score": None,
                "outcome": "miss",
            }
            keyed.append(((position, np.inf), row))
        keyed.sort(key=lambda item: item[0])
        return [row for _, row in keyed]

    def counts(self) -> list[dict[str, Any]]:
        """Return the counts of each photo, as the truth lists them."""

        def per_photo(photo: NDArray[np.int64]) -> list[int]:
            counted = np.empty(len(self.place), dtype=np.int64)
            counted[self.place] = np.bincount(photo, minlength=len(self.place))
            return counted.tolist()

        columns = {
            "objects": per_photo(self.truth.photo[~self.truth.crowd]),
            "detections": per_photo(self.ours.photo),
            "hits": per_photo(self.ours.photo[self.hit]),
            "misses": per_photo(self.truth.photo[self.missed]),
            "false_alarms": per_photo(self.ours.photo[self.partner < 0]),
        }
        return [
            {"photo": image.file_name, "image_id": image.id} | {name: values[i] for name, values in columns.items()}
            for i, image in enumerate(self.true.images)
        ]


def _read_truth(truth: str | Path | Dataset) -> tuple[Dataset, Path | None]:
    if isinstance(truth, Dataset):
        data, path, name = truth, None, "the truth"
    else:
        path, name = Path(truth), str(truth)
        document = _content(path)
        if isinstance(document, list):
            raise UserError(
                "the truth is a bare list of results, not a COCO dataset",
                [name],
                "give the truth first, then the detections: maskwright evaluate TRUTH DETECTIONS",
            )
        data = document if isinstance(document, Dataset) else from_coco(document, name)
    if not (~data.crowd).any():
        crowds = f"; {len(data):,} crowds, which are not scored" if len(data) else ""
        raise UserError(
            "the truth has no objects, so there is nothing to score against",
            [f"{name}: {len(data.images):,} photos, 0 objects{crowds}"],
            "name the file with the annotations of these photos",
        )
    return data, path


def _read_detections(detections: str | Path | Dataset, true: Dataset) -> tuple[Dataset, Path | None]:
    if isinstance(detections, Dataset):
        data, path, name = detections, None, "the detections"
    else:
        path, name = Path(detections), str(detections)
        document = _content(path)
        if isinstance(document, list):
            try:
                data = from_results(document, true, name)
            except UserError:
                _check_results(document, true, name)  # says more where it is the ids or the scores
                raise
        else:
            data = document if isinstance(document, Dataset) else from_coco(document, name)
    without = np.flatnonzero(np.isnan(data.scores))
    if len(without):
        raise UserError(
            "detections need a score, to be ranked by",
            [
                f"{name}: annotation {data.ids[k]} of {data.images[int(data.image_index[k])].file_name}"
                for k in without.tolist()
            ],
            "give each a score (1 if they are all sure); if this file is the truth, name it first",
        )
    return data, path


def _check_results(rows: list[Any], true: Dataset, name: str) -> None:
    """Refuse a bare list that names photos or categories that the truth does not have, or has no scores."""
    dicts = [(n, row) for n, row in enumerate(rows) if isinstance(row, dict)]  # others are named by the reader
    images, categories = {image.id for image in true.images}, {category.id for category in true.categories}
    problems = []
    photos = [f"{name}: result[{n}]: image_id {i}" for n, i in _strangers(dicts, "image_id", images)]
    if photos:
        fix = "the image_id of a result is the id of the photo in the truth; or give a complete COCO file"
        problems.append(Problem("detections name photos that the truth does not have", tuple(photos), fix))
    kinds = [f"{name}: result[{n}]: category_id {i}" for n, i in _strangers(dicts, "category_id", categories)]
    if kinds:
        known = ", ".join(f"{category.id} {category.name}" for category in true.categories)
        fix = f"the truth has: {known}; or give a complete COCO file"
        problems.append(Problem("detections name categories that the truth does not have", tuple(kinds), fix))
    bare = [f"{name}: result[{n}]" for n, row in dicts if row.get("score") is None]
    if bare:
        problems.append(
            Problem(
                "detections need a score, to be ranked by", tuple(bare), "give each a score (1 if they are all sure)"
            )
        )
    if problems:
        raise UserError(problems)


def _strangers(rows: list[tuple[int, Any]], key: str, known: set[int]) -> list[tuple[int, Any]]:
    """Return number and value of the rows whose value is not known; values of other types are named by the reader."""
    return [(n, row[key]) for n, row in rows if type(row.get(key)) is int and row[key] not in known]


def _content(path: Path) -> Any:
    """Return what a JSON file says, a COCO dataset or a bare list of results; or the dataset that shards hold."""
    refuse_folder(path)
    return read_json(path) if path.is_file() else Dataset.load(path)


def _photo_folder(photos: str | Path | None, true: Dataset, truth_path: Path | None) -> Path | None:
    """Return the folder of the photos: what was given, what the dataset knows, or what prepare laid beside it."""
    if photos is not None:
        if not Path(photos).is_dir():
            raise UserError("the photo folder does not exist", [str(photos)], "check the path, or leave --photos away")
        return Path(photos)
    return true.folder if true.folder is not None or truth_path is None else photos_beside(truth_path)


def _working(point: Mapping[str, float | None], more: str = "") -> str:
    """Return a threshold and what it leads to, in words."""
    shown = {name: "n/a" if value is None else f"{value:.3f}" for name, value in point.items()}
    numbers = f"precision {shown['precision']}, recall {shown['recall']}, F1 {shown['f1']}"
    return f"{shown['score']}{more}: {numbers} at IoU {point['iou']:g}"


def _coco_line(name: str, value: float | None, limit: int) -> str:
    """Return one line as pycocotools prints it."""
    title = "Average Precision" if name.startswith("AP") else "Average Recall"
    iou = {"AP50": "0.50", "AP75": "0.75"}.get(name, "0.50:0.95")
    area = {"s": "small", "m": "medium", "l": "large"}.get(name[-1], "all")
    most = {"AR1": 1, "AR10": 10}.get(name, limit)
    number = "n/a" if value is None else f"{value:0.3f}"
    return f" {title:<18} ({name[:2]}) @[ IoU={iou:<9} | area={area:>6s} | maxDets={most:>3d} ] = {number}"


def _summary(result: Evaluation) -> list[str]:
    """Return what stands below the table."""
    lines = []
    for name, limits in result.intervals.items():
        if limits is None:
            lines.append(f"{name} has no interval: fewer than {scoring.LEAST_PHOTOS} photos with objects")
            continue
        low, high = limits["low"], limits["high"]
        lines.append(
            f"{name} lies between {low:.3f} and {high:.3f} in {limits['level']:.0%} of "
            f"{limits['resamples']:,} resamples of the photos"
        )
    if result.used is not None:
        lines.append(f"from the score in use, {_working(result.used)}")
    if result.threshold is None:
        lines.append(f"no detection is a hit at IoU {result.iou:g}: there is no threshold to recommend")
    else:
        chosen = "" if result.used is None else " (chosen on these very photos)"
        lines.append(f"best score threshold {_working(result.threshold, chosen)}")
    if len(result.categories) > 1:
        width = max(len(category["name"]) for category in result.categories)
        for category in result.categories:
            numbers = (category["metrics"][f"{kind}/AP"] for kind in KINDS)
            segm, bbox = ("n/a" if value is None else f"{value:.3f}" for value in numbers)
            counts = f"{category['objects']:,} objects, {category['detections']:,} detections"
            lines.append(f"{category['name']:<{width}}  segm/AP {segm}  bbox/AP {bbox}  ({counts})")
    return lines
