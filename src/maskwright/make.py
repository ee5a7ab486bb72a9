"""The whole job: the stages in order, redoing only what is stale.

Each stage has a record in `WORK/make.json`: what it was given (files, settings, our version) and what it left. A stage
is kept while both are unchanged. What a later stage is given is the content that the former one made, not its time: if
prepare has to run again and makes the same dataset, nothing is trained again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from maskwright import __version__
from maskwright.dataset import SPLITS
from maskwright.errors import UserError
from maskwright.files import is_side_file, refuse_input, sha256, write_json
from maskwright.formats import plural
from maskwright.outputs import Verb, irreplaceable
from maskwright.settings import MakeSettings, PrepareSettings, Settings, TrainSettings
from maskwright.settings_file import stored
from maskwright.shards import coco_files, means_coco, split_files

STAGES = ("prepare", "train", "predict", "evaluate", "report")
"""The stages that leave something, in order; check runs before train and leaves nothing."""

Say = Callable[[str], None]

_Read = Callable[[str, int | None], str | None]
"""Returns a digest of files, `None` if there are none; given where their names start, and when the stage began."""


@dataclass(frozen=True)
class Made:
    """What a make left, and what it had to do for it.

    Attributes:
        data: The dataset, `WORK/data/`.
        run: The trained segmenter, `WORK/run/`.
        predictions: `WORK/predictions/` with `detections.json` and `masks/`.
        evaluation: `WORK/evaluation.json`.
        report: `WORK/report.html`.
        split: The split that was scored: `test`, or `val` where no test photo has an object.
        metrics: The COCO numbers by key (`segm/AP` ...); `None` where undefined.
        done: The stages that ran, in order.
        kept: The stages whose former result was kept, in order.
    """

    data: Path
    run: Path
    predictions: Path
    evaluation: Path
    report: Path
    split: str
    metrics: Mapping[str, float | None]
    done: tuple[str, ...]
    kept: tuple[str, ...]


def make(
    raw: str | Path,
    out: str | Path,
    *,
    masks: str | Path | None = None,
    overwrite: bool = False,
    say: Say | None = None,
    progress: bool = False,
    settings: str | Path | None = None,
    **typed: Any,
) -> Made:
    """Do the whole job: prepare, check, train, predict, evaluate, report.

    A stage whose input, settings and output are what they were is kept. Training that was interrupted goes on where it
    was, if its settings and data are the same.

    Args:
        raw: Photos and masks, as for `prepare`; must exist.
        out: The work folder: new, empty, or of a former make.
        masks: The masks, if they are not in `raw`.
        overwrite: Do every stage again, and accept a folder that holds other things (they are left alone;
            where they have the name of a stage's folder, they are refused).
        say: Called with every line for the user.
        progress: Show a progress bar while training and predicting.
        settings: A JSON file of settings: a run's `plan.json`, or what `settings_from` wrote; must exist.
        **typed: `MakeSettings`: those of `prepare` and `train`, and `score` for the mask images; they win over the
            file's.

    Returns:
        Where everything is, and the metrics.

    Raises:
        UserError: If the folder holds something else, if training shall start from weights that a stage would replace,
            if there is nothing to score on, or as the stages say.
    """
    values, fitted = stored(settings, typed, MakeSettings)
    wanted = MakeSettings.parse(values)
    tell = say or (lambda _line: None)
    for name, what in fitted.items():
        tell(f"{name}: {what}")
    raw, work = Path(raw), Path(out)
    masks = None if masks is None else Path(masks)
    _refuse_misplaced(raw, work)
    data, run, predictions = work / "data", work / "run", work / "predictions"
    for left in (data, run, predictions):  # the weights to start from must outlive the stages that replace these
        refuse_input(left, *wanted.files())
    _refuse_foreign(work, overwrite=overwrite)
    evaluation, page = work / "evaluation.json", work / "report.html"
    book = _Book.open(work, anew=overwrite, say=tell)
    prepare_settings, train_settings = _said(wanted, PrepareSettings), _said(wanted, TrainSettings)

    sources = _sources(raw, masks, wanted.photos)
    given: dict[str, Any] = {
        "settings": prepare_settings,
        "place of the photos and masks": [os.path.abspath(raw), masks and str(masks)],
        "photos and masks": _listing(sources, leave_out=work),
    }
    with book.stage("prepare", given, [data], partial(_read_elsewhere, data, sources)) as turn:
        if turn.needed:
            from maskwright.prepare import prepare

            prepare(raw, masks, data, overwrite=True, say=say, **prepare_settings)
            book.made("prepare", _content(data))
    split = _split_to_score(data)

    given = {"settings": train_settings, "dataset": book.content("prepare")}
    with book.stage("train", given, [run / "run.json", run / "plan.json", run / "weights"]) as turn:
        if turn.needed:
            from maskwright.beginning import begun_with
            from maskwright.check import check
            from maskwright.train import train

            check(data, say=say)
            # A training goes on only with the very files and settings that it began with; what lies there may be an
            # older one, if this one was interrupted before its first step.
            resume = turn.interrupted and "prepare" not in book.done and (run / "resume.safetensors").is_file()
            resume = resume and (begun_with(run, train_settings) or not (run / "plan.json").is_file())
            if resume:
                tell("train: it was interrupted and goes on")
            train(data, run, overwrite=not resume, resume=resume, say=say, progress=progress, **train_settings)
            book.made("train", _weights(run))

    predict_settings: dict[str, Any] = {} if wanted.score is None else {"score": wanted.score}
    if wanted.test_time_flip:
        predict_settings["test_time_flip"] = True
    given = {"settings": predict_settings, "run": book.content("train"), "split": split}
    with book.stage("predict", given, [predictions]) as turn:
        if turn.needed:
            from maskwright.predict import predict

            predict(run, data, predictions, overwrite=True, say=say, progress=progress, split=split, **predict_settings)
            book.made("predict", sha256(predictions / "detections.json"))

    given = {"dataset": book.content("prepare"), "detections": book.content("predict"), "split": split}
    with book.stage("evaluate", given, [evaluation]) as turn:
        if turn.needed:
            from maskwright.evaluate import evaluate

            truth = data / "annotations" / f"instances_{split}.json"
            evaluate(truth, predictions / "detections.json", evaluation, photos=data / split, overwrite=True, say=say)
            book.made("evaluate", sha256(evaluation))

    given = {"evaluation": book.content("evaluate"), "run": book.content("train")}
    with book.stage("report", given, [page]) as turn:
        if turn.needed:
            from maskwright.report import report

            report(evaluation, page, run=run, overwrite=True, say=say)
            book.made("report", sha256(page))

    result = json.loads(evaluation.read_bytes())
    tell(_headline(result, split))
    tell(f"report: {page}")
    return Made(
        data=data,
        run=run,
        predictions=predictions,
        evaluation=evaluation,
        report=page,
        split=split,
        metrics=result["metrics"],
        done=tuple(book.done),
        kept=tuple(stage for stage in STAGES if stage not in book.done),
    )


@dataclass(frozen=True)
class _Turn:
    """Whether a stage must run, and whether it was begun before with the same input and settings and did not end."""

    needed: bool
    interrupted: bool


@dataclass
class _Book:
    """The records of the stages, in `WORK/make.json`; paths in it are relative, so that WORK can be moved.

    A record is `{"given": ..., "left": digest or null, "content": digest}`; `left` is null while the stage runs, which
    tells an interrupted one. That of prepare has `"read"` too: a digest of the files that it found in other places than
    those that are looked at before it runs, and from where their names start; or null if there are none.
    """

    work: Path
    records: dict[str, dict[str, Any]]
    anew: bool
    say: Say
    done: list[str] = field(default_factory=list)

    @staticmethod
    def open(work: Path, *, anew: bool, say: Say) -> _Book:
        """Read the records of a former make; a folder that holds something else is refused unless `anew`."""
        path = work / "make.json"
        records: dict[str, dict[str, Any]] = {}
        if path.is_file():
            try:
                records = dict(json.loads(path.read_bytes())["stages"])
            except (ValueError, KeyError, TypeError):
                say(f"{path} cannot be read; every stage is done again")
        elif work.exists() and not work.is_dir():
            raise UserError("the output is a file, not a folder", [str(work)], "name another output folder")
        elif work.is_dir() and any(work.iterdir()) and not anew:
            names = sorted(entry.name for entry in work.iterdir())
            raise UserError(
                "the output folder holds something that is not of a former make",
                [f"{work}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}"],
                "name another output folder, or: --overwrite (which leaves other files alone)",
            )
        return _Book(work, records, anew, say)

    @contextlib.contextmanager
    def stage(
        self, name: str, given: dict[str, Any], outputs: list[Path], read: _Read | None = None
    ) -> Iterator[_Turn]:
        """Tell whether the stage must run; when the block ends well, what it left is recorded.

        Args:
            name: The stage.
            given: What it depends on, as JSON values; the keys are words for the user.
            outputs: What it leaves, and what must not have changed since.
            read: What else it has read, which only it could find, and must not have changed since.
        """
        given = json.loads(json.dumps({"Maskwright": __version__, **given}))
        reason = self._why_stale(name, given, outputs, read)
        if reason is None:
            self.say(f"{name}: nothing has changed, kept")
            yield _Turn(needed=False, interrupted=False)
            return
        self.say(f"{name}: {reason}")
        started, started_ns, here = time.monotonic(), time.time_ns(), os.getcwd()
        former = self.records.get(name, {"given": None, "left": None})
        interrupted = former["given"] == given and former["left"] is None and not self.anew
        self.records[name] = {"given": given, "left": None, "content": None}
        fresh = not self.work.exists()
        self._save()
        try:
            yield _Turn(needed=True, interrupted=interrupted)
        except BaseException:
            if fresh and [entry.name for entry in self.work.iterdir()] == ["make.json"]:
                (self.work / "make.json").unlink()  # a mistyped input shall not leave an empty work folder
                self.work.rmdir()
            raise
        if read is not None:
            digest = read(here, started_ns)
            self.records[name]["read"] = digest and {"from": here, "digest": digest}
        self.records[name]["left"] = _listing(outputs)
        self.done.append(name)
        self._save()
        self.say(f"{name}: done in {_duration(time.monotonic() - started)}")

    def made(self, name: str, content: str) -> None:
        """Note the digest of what the running stage made; stages that use it are stale when it differs."""
        self.records[name]["content"] = content

    def content(self, name: str) -> str:
        """Return the digest of what a stage made."""
        return str(self.records[name]["content"])

    def _why_stale(self, name: str, given: dict[str, Any], outputs: list[Path], read: _Read | None) -> str | None:
        record = self.records.get(name)
        if self.anew:
            return "done again, as asked"
        if record is None:
            return "not done yet"
        changed = [_change(key, record["given"].get(key), value) for key, value in given.items()]
        reasons = [text for text in changed if text]
        if reasons:
            return f"done again, since {' and '.join(reasons)}"
        if record["left"] is None:
            return "it did not come to its end"
        if record["left"] != _listing(outputs):
            names = ", ".join(str(path.relative_to(self.work)) for path in outputs)
            return f"done again, since its output changed ({names})"
        if read is not None:
            if "read" not in record:
                return "done again, since it was not written down what it had read"
            known = record["read"]
            if known is not None and read(known["from"], None) != known["digest"]:
                return "done again, since the photos and masks changed"
        return None

    def _save(self) -> None:
        write_json(self.work / "make.json", {"maskwright": __version__, "stages": self.records})


def _refuse_misplaced(raw: Path, work: Path) -> None:
    """Refuse a work folder inside the input: the next make would take its own results for photos."""
    inside = raw.is_dir() and Path(os.path.realpath(work)).is_relative_to(os.path.realpath(raw))
    if inside:
        raise UserError(
            "the output folder lies inside the folder of photos and masks",
            [f"{work} is in {raw}"],
            "name an output folder beside it",
        )


def _refuse_foreign(work: Path, *, overwrite: bool) -> None:
    """Refuse, before any stage, folders in the place of stages' outputs that the stages have not made."""
    places: tuple[tuple[str, Verb], ...] = (("data", "prepare"), ("run", "train"), ("predictions", "predict"))
    held = [irreplaceable(work / name, verb, overwrite=overwrite) for name, verb in places]
    if any(held):
        raise UserError([problem for problem in held if problem is not None])


def _said(wanted: Settings, model: type[Settings]) -> dict[str, Any]:
    """Return those settings of a stage that the user gave."""
    return {name: value for name, value in wanted.model_dump(exclude_unset=True).items() if name in model.model_fields}


def _sources(raw: Path, masks: Path | None, photos: str | None) -> list[Path]:
    """Return the places where prepare is sent to: RAW, its folder if it is a file, masks and photos kept elsewhere."""
    sources = [raw]
    if raw.is_file() or (not raw.is_dir() and means_coco(raw)):
        sources += dict.fromkeys(file.parent for file in coco_files(raw))
    for other in (masks, photos):
        if other is not None and Path(other).exists():
            sources.append(Path(other))
        elif other is not None and means_coco(Path(other)):
            sources += coco_files(Path(other))
    return sources


def _listing(paths: Iterable[Path], *, leave_out: Path | None = None) -> str:
    """Return a digest of the names, sizes and times of all files at some places.

    Times and sizes are what `make` has gone by for decades: reading every photo each time would take minutes. Hidden
    files and those that systems leave beside photos do not count.
    """
    skipped = None if leave_out is None else os.path.realpath(leave_out)
    found = []
    for number, place in enumerate(paths):
        for path in _files(place, skipped):
            status = path.stat()
            name = path.relative_to(place).as_posix()
            found.append([number, name, status.st_size, status.st_mtime_ns])
    return _digest(sorted(found))


def _read_elsewhere(data: Path, sources: Sequence[Path], here: str, started_ns: int | None) -> str | None:
    """Return a digest of the files that prepare has read and that lie in none of its sources; `None` if all do.

    They are photos that it looked for beside an annotation file, or behind links to folders. They are known when it has
    run; one that was changed since it began may have been read before, and must not pass for the one that was read.

    Args:
        data: What it made, with the fates of all files.
        sources: Whose files are listed already.
        here: Where relative names that it has read start.
        started_ns: When prepare began, if it has just ended.
    """
    from maskwright.prepare import fates_of

    tops = [os.path.realpath(source) for source in sources if source.is_dir()]
    listed: dict[str, bool] = {}
    digest = hashlib.sha256()
    found = False
    for fate in fates_of(data):
        if fate["fate"] != "used":
            continue
        path = os.path.join(here, fate["file"])
        folder = os.path.dirname(path)
        if folder not in listed:
            listed[folder] = any(_is_listed(os.path.realpath(folder), top) for top in tops)
        if listed[folder]:
            continue
        found = True
        state: Any = None  # gone, as a photo that was in an annotation file is
        with contextlib.suppress(OSError):
            status = os.stat(path)
            fresh = started_ns is not None and status.st_mtime_ns >= started_ns
            state = "not known" if fresh else [status.st_size, status.st_mtime_ns]
        digest.update(json.dumps([fate["file"], state]).encode())
    return digest.hexdigest() if found else None


def _is_listed(folder: str, top: str) -> bool:
    """Tell whether `_files` comes through a folder on its way through another; both with all links followed."""
    rest = Path(folder)
    return rest.is_relative_to(top) and not any(part.startswith(".") for part in rest.relative_to(top).parts)


def _files(place: Path, skipped: str | None) -> Iterator[Path]:
    if place.is_file():
        yield place
    for folder, folders, names in os.walk(place):
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and (skipped is None or os.path.realpath(os.path.join(folder, name)) != skipped)
        ]
        for name in names:
            path = Path(folder, name)
            if not is_side_file(Path(name)) and path.exists():  # a link to nowhere is for prepare to report
                yield path


def _content(data: Path) -> str:
    """Return a digest of what training sees of a dataset: objects, categories, photos; not its info, date or shards."""
    parts: list[Any] = []
    for split in SPLITS:
        documents = [json.loads(path.read_bytes()) for path in split_files(data, split)]
        if documents:
            rows = [[item for document in documents for item in document[key]] for key in ("images", "annotations")]
            parts.append([split, documents[0]["categories"], *rows])
            parts.append(_listing([data / split]))
    return _digest(parts)


def _weights(run: Path) -> str:
    """Return a digest of a run: the weights that predict uses, and what it knows of them."""
    best = run / "weights" / "best.safetensors"  # absent where no photo could be validated on
    used = best if best.is_file() else run / "weights" / "last.safetensors"
    return _digest([sha256(used), sha256(run / "run.json")])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _split_to_score(data: Path) -> str:
    """Return `test` if it has an object, else `val`; to find out after the training would be late."""
    for split in ("test", "val"):
        for path in split_files(data, split):
            if not all(item["iscrowd"] for item in json.loads(path.read_bytes())["annotations"]):
                return split
    raise UserError(
        "there is nothing to score on: neither the test nor the validation split has an object",
        [str(data)],
        "add photos, or a test or validation folder, or give more to these splits: --val-share 0.3 --test-share 0.3",
    )


def _change(key: str, old: Any, new: Any) -> str | None:
    """Say in words what changed, or `None`."""
    if old == new:
        return None
    if key == "settings":
        old, new = old or {}, new or {}
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        return f"its settings changed ({', '.join(names)})"
    if key == "Maskwright":
        return f"it was made with Maskwright {old}"
    return f"the {key} changed"


def _headline(result: Mapping[str, Any], split: str) -> str:
    """Return the headline numbers in one line."""
    from maskwright.scoring import LEAST_PHOTOS

    metrics = result["metrics"]
    intervals = result.get("intervals", {})
    interval = intervals.get("segm/AP")
    spread = f" ({interval['level']:.0%} interval {interval['low']:.3f} to {interval['high']:.3f})" if interval else ""
    if "segm/AP" in intervals and interval is None:
        spread = f" (no interval: fewer than {LEAST_PHOTOS} photos with objects)"
    photos = plural(result["counts"]["photos"], f"{'test' if split == 'test' else 'validation'} photo")
    return (
        f"{photos}: segm AP {_number(metrics['segm/AP'])}{spread}, "
        f"AP50 {_number(metrics['segm/AP50'])}; bbox AP {_number(metrics['bbox/AP'])}"
    )


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds) // 60} min {int(seconds) % 60} s"
