"""The report: collect what an evaluation points at, and write it as one HTML file that opens offline."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from maskwright.dataset import Dataset, from_coco, read_json
from maskwright.errors import UserError
from maskwright.files import atomic_file, provenance, refuse_existing, refuse_input
from maskwright.report.advice import advise
from maskwright.report.evidence import gather
from maskwright.report.gallery import Gallery, build_gallery
from maskwright.report.outcomes import Tally, steps, tally
from maskwright.report.scored import Cut, cut_of, scored_of
from maskwright.report.training import Training, number, read_training
from maskwright.shards import meant_by

METRICS = (
    ("AP", "AP", "Mean over IoU 0.50 to 0.95 in steps of 0.05"),
    ("AP50", "AP50", "A hit needs an IoU of 0.50"),
    ("AP75", "AP75", "A hit needs an IoU of 0.75"),
    ("APs", "AP small", "Objects below 32 x 32 pixels"),
    ("APm", "AP medium", "Objects of 32 x 32 to 96 x 96 pixels"),
    ("APl", "AP large", "Objects above 96 x 96 pixels"),
    ("AR1", "AR, 1 per photo", "Share found with one detection per photo"),
    ("AR10", "AR, 10 per photo", "Share found with ten detections per photo"),
    ("AR100", "AR, {most} per photo", "Share found with {most} detections per photo"),
    ("ARs", "AR small", "Share found of objects below 32 x 32 pixels"),
    ("ARm", "AR medium", "Share found of objects of 32 x 32 to 96 x 96 pixels"),
    ("ARl", "AR large", "Share found of objects above 96 x 96 pixels"),
)
"""COCO's twelve numbers: key, name, meaning."""


def report(
    evaluation: str | Path | Mapping[str, Any] | Any,
    out: str | Path,
    *,
    run: str | Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] | None = None,
) -> Path:
    """Write an evaluation as one HTML page that opens offline and shows numbers, curves, photos and advice.

    Files that the evaluation names and that are gone (photos, truth, detections, run) leave a gap that the page names.

    Args:
        evaluation: Path of evaluation.json, its content as a dict, or an `Evaluation`.
        out: The HTML file to write.
        run: Run folder for the training curves and the plan; the one that the evaluation names if not given.
        overwrite: Replace `out` if it exists.
        say: Called with every line of output; nothing is printed without it.

    Returns:
        The path of the page.

    Raises:
        UserError: If the evaluation cannot be read, `out` exists or is one of the inputs, or a `run` that was given is
            none.
    """
    out = Path(out)
    refuse_existing(out, overwrite=overwrite)
    content, name = _load(evaluation)
    stated_paths = [content.get(key) for key in ("truth", "detections", "photos", "run")]
    read = [Path(path) for path in (evaluation, run, *stated_paths) if isinstance(path, str | Path)]
    shards = [file for path in stated_paths[:2] if isinstance(path, str) for file in meant_by(Path(path))]
    refuse_input(out, *read, *shards)
    if run is not None:
        _refuse_no_run(Path(run))
    stated = content.get("run")
    folder = Path(run) if run is not None else Path(stated) if isinstance(stated, str) else None
    training = read_training(folder)
    page, notes = render(content, training, out, name)
    with atomic_file(out) as handle:
        handle.write(page.encode("utf-8", "replace"))  # a file name may hold bytes that are not text
    if say is not None:
        for note in notes:
            say(note)
        say(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB); open it in any browser")
    return out


def _refuse_no_run(run: Path) -> None:
    """Refuse a run that was given and is none; one that an evaluation names may be gone."""
    if not run.is_dir():
        raise UserError("the run folder does not exist", [str(run)], "check the path, or leave --run out")
    if not (run / "run.json").is_file():
        raise UserError(
            "the folder is not a run: run.json is not there",
            [str(run)],
            "name a folder that `maskwright train` wrote, or leave --run out",
        )
    if not isinstance(read_json(run / "run.json"), dict):
        raise UserError("run.json is damaged", [f"{run / 'run.json'}: no object"], "copy the run again")


def render(content: Mapping[str, Any], training: Training, out: Path, name: str) -> tuple[str, tuple[str, ...]]:
    """Return the page and what it lacks.

    Args:
        content: As in evaluation.json.
        training: What the run tells.
        out: Where the page will be; paths are shown relative to it where that is short.
        name: What to call the evaluation.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    notes: list[str] = []
    truth = _dataset(content, "truth", None, notes)
    detections = _dataset(content, "detections", truth, notes)
    scored, cut = scored_of(content, training), cut_of(content, detections, training)
    least = 0.0 if cut.score is None else cut.score
    counts = tally(content["matches"], least)
    photos = content.get("photos")
    folder = Path(photos) if isinstance(photos, str) else None
    gallery = build_gallery(truth, detections, content["matches"], folder, least)
    evidence = gather(content, truth, detections, training, cut, scored)
    notes += [*gallery.notes, *training.notes]

    style, script = _asset("page.css"), _asset("page.js")
    environment = Environment(
        loader=PackageLoader("maskwright.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"typed": _typed, "score": _score, "thousands": _thousands, "percent": _percent}
    page = environment.get_template("page.html.j2").render(
        policy=_policy(style, script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(_embedded(_data(content, training, gallery, cut, counts))),
        title=_title(content),
        counts={key: int(number((content.get("counts") or {}).get(key)) or 0) for key in _COUNTS},
        metrics=evidence.metrics,
        interval=evidence.interval,
        interval_words=_interval_words(evidence.interval, evidence.photos, asked=None in _intervals(content)),
        scored=scored,
        kind="segm" if evidence.metrics.get("segm/AP") is not None else "bbox",
        cut=cut,
        best=_best(content) if cut.origin != "best" else None,
        iou=number(content.get("iou")) or 0.5,
        tally=counts,
        advice=advise(evidence),
        gallery=gallery,
        curves=_drawn_curves(content),
        training=training,
        rows=_metric_rows(content),
        categories=_category_rows(content),
        notes=notes,
        sources=_sources(content, training, out, name),
        made=provenance(),
    )
    return page, tuple(notes)


_COUNTS = ("photos", "objects", "crowd", "detections")


def _load(evaluation: Any) -> tuple[Mapping[str, Any], str]:
    name = "the evaluation"
    if isinstance(evaluation, str | Path):
        name = str(evaluation)
        content = read_json(Path(evaluation))
    elif isinstance(evaluation, Mapping):
        content = evaluation
    else:
        content = evaluation.json() if callable(getattr(evaluation, "json", None)) else None
    lacking = [key for key in ("metrics", "matches") if not isinstance(content, Mapping) or key not in content]
    if lacking:
        raise UserError(
            "this is not an evaluation",
            [f"{name}: {' and '.join(repr(key) for key in lacking)} missing"],
            "make one: maskwright evaluate TRUTH DETECTIONS -o evaluation.json",
        )
    if not isinstance(content["metrics"], Mapping) or not _is_matches(content["matches"]):
        raise UserError(
            "this is not an evaluation",
            [f"{name}: 'metrics' must be an object and 'matches' a list of objects"],
            "make one: maskwright evaluate TRUTH DETECTIONS -o evaluation.json",
        )
    return content, name


def _is_matches(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, Mapping) for item in value)


def _dataset(content: Mapping[str, Any], key: str, truth: Dataset | None, notes: list[str]) -> Dataset | None:
    """Read the truth or detections file that an evaluation names; a bare list of results borrows the truth's photos."""
    path = content.get(key)
    if not isinstance(path, str):
        notes.append(f"The evaluation names no {key} file.")
        return None
    try:
        if not Path(path).is_file():
            return Dataset.load(path)  # shards, which are complete COCO files; or it says what is wrong
        document = read_json(Path(path))
        if isinstance(document, list) and truth is not None:
            empty = truth.select(np.zeros(len(truth), dtype=np.bool_))
            document = {**empty.coco(), "annotations": document}
        return from_coco(document, path)
    except UserError as error:
        problem = error.problems[0]
        notes.append(f"The {key} file cannot be read: {problem.what} ({'; '.join(problem.where[:1])}).")
        return None


def _asset(name: str) -> str:
    return resources.files("maskwright.report").joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Return a Content-Security-Policy that allows this style, this script and embedded pictures, and no network."""

    def digest(text: str) -> str:
        return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'"

    return (
        f"default-src 'none'; img-src data:; style-src {digest(style)}; script-src {digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _embedded(value: Any) -> str:
    """Write JSON so that it can stand in a script element: nothing in it can end the element or start a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data(content: Mapping[str, Any], training: Training, gallery: Gallery, cut: Cut, counts: Tally) -> dict[str, Any]:
    return {
        "threshold": cut.score,
        "inUse": cut.origin in {"masks", "run"},
        "best": None if (best := _best(content)) is None else best["score"],
        "iou": number(content.get("iou")) or 0.5,
        "objects": counts.objects,
        "at": [counts.hits, counts.false_alarms],
        "steps": steps(content["matches"]),
        "total": gallery.total,
        "photos": gallery.photos,
        "curves": _drawn_curves(content),
        "operating": [
            {key: number(point.get(key)) for key in ("score", "precision", "recall", "f1")}
            for point in content.get("operating") or ()
        ],
        "losses": training.losses,
        "validations": training.validations,
    }


def _drawn_curves(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the precision-recall curves of masks, or of boxes where there are none; rounded, for the page."""
    curves = [curve for curve in content.get("curves") or () if isinstance(curve, Mapping)]
    kinds = {curve.get("kind") for curve in curves}
    kind = "segm" if "segm" in kinds else "bbox"
    result = []
    for curve in curves:
        if curve.get("kind") == kind and number(curve.get("iou")) is not None:
            columns = {
                key: [None if number(v) is None else round(float(v), 4) for v in curve.get(key) or ()]
                for key in ("recall", "precision", "scores")
            }
            category = curve.get("category")
            result.append({"category": None if category is None else str(category), "iou": curve["iou"]} | columns)
    return result


def _title(content: Mapping[str, Any]) -> str:
    names = [str(category.get("name")) for category in content.get("categories") or ()]
    if not names:
        return "Evaluation"
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more categories"


def _best(content: Mapping[str, Any]) -> dict[str, float | None] | None:
    """Return the threshold with the best F1 on the scored photos, with its precision and recall."""
    stated = content.get("threshold")
    if not isinstance(stated, Mapping) or number(stated.get("score")) is None:
        return None
    return {key: number(stated.get(key)) for key in ("score", "precision", "recall")}


def _intervals(content: Mapping[str, Any]) -> list[Any]:
    return list((content.get("intervals") or {}).values())


def _interval_words(interval: tuple[float, float] | None, photos: int, *, asked: bool = False) -> str:
    if interval is None and asked:
        return (
            "No interval: with fewer than five photos that show an object, redrawing them tells nothing. Other photos "
            "may well give quite another score. Read this as a first impression, not as a measurement."
        )
    if interval is None:
        return "No interval was computed, so it is not known how much of this is luck of the draw."
    width = interval[1] - interval[0]
    few = f"{photos} photo" + ("" if photos == 1 else "s")
    if photos < 10:
        return (
            f"With only {few} even the interval is a rough guess: other photos may well give a score outside it. "
            "Read this as a first impression, not as a measurement."
        )
    if width > 0.2:
        return f"That is wide: {few} are too few to tell a good result from a lucky one."
    if width > 0.1:
        return f"That is fairly wide: differences of a few hundredths mean nothing with {few}."
    return f"That is narrow enough to compare settings by differences above about {width / 2:.2f}."


def _metric_rows(content: Mapping[str, Any]) -> list[tuple[str, str, float | None, float | None]]:
    most = int(number(content.get("max_detections")) or 100)
    metrics = content["metrics"]
    return [
        (
            name.format(most=most),
            meaning.format(most=most),
            number(metrics.get(f"segm/{key}")),
            number(metrics.get(f"bbox/{key}")),
        )
        for key, name, meaning in METRICS
    ]


_CATEGORY_COLUMNS = ("segm/AP", "segm/AP50", "segm/AP75", "segm/AR100", "bbox/AP", "bbox/AP50")


def _category_rows(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return one row per category, the lowest AP first."""
    rows = []
    for category in content.get("categories") or ():
        metrics = category.get("metrics") or {}
        rows.append(
            {
                "name": str(category.get("name")),
                "objects": int(number(category.get("objects")) or 0),
                "detections": int(number(category.get("detections")) or 0),
                "values": [number(metrics.get(key)) for key in _CATEGORY_COLUMNS],
            }
        )
    return sorted(rows, key=lambda row: (row["values"][0] is None, row["values"][0] or 0.0))


def _sources(content: Mapping[str, Any], training: Training, out: Path, name: str) -> list[tuple[str, str]]:
    made = content.get("maskwright")
    made = made if isinstance(made, Mapping) else {}
    rows = [("Evaluation", _short(name, out))]
    rows += [
        (label, _short(str(content[key]), out))
        for label, key in (("Truth", "truth"), ("Detections", "detections"), ("Photos", "photos"), ("Run", "run"))
        if content.get(key)
    ]
    if training.train_photos is not None:
        rows.append(("Trained on", f"{training.train_photos:,} photos"))
    if made.get("made"):
        rows.append(("Evaluated", f"{made['made']} by Maskwright {made.get('maskwright', '')}"))
    return rows


def _short(path: str, out: Path) -> str:
    """Show a path from the page's folder if it is near, else its last two parts: a page may be passed on."""
    if not os.path.isabs(path):
        return path
    near = os.path.relpath(path, out.absolute().parent)
    return near if not near.startswith(os.path.join("..", "..")) else os.path.join("…", *Path(path).parts[-2:])


def _typed(text: str) -> Any:
    """Set what stands in backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _thousands(value: int) -> str:
    return f"{value:,}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"
