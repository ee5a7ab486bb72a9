"""How a training begins or goes on: the run folder, what it was begun with, and what may be another way now."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from maskwright.checkpoint import read_progress, remove_fragments
from maskwright.dataset import SPLITS, Dataset, read_json
from maskwright.devices import Place
from maskwright.errors import UserError
from maskwright.files import atomic_folder, sha256, write_json
from maskwright.models.start import beginning
from maskwright.outputs import irreplaceable, refuse_existing_folder
from maskwright.plan import Machine, Plan, Reason, cache_of
from maskwright.run import Run
from maskwright.settings import WEIGHTS_BY_NAME, TrainSettings
from maskwright.shards import split_files

MAY_CHANGE = ("devices", "on", "workers", "micro_batch", "tracker", "log_every", "preflight")
"""Settings that say how a training is done and not what it learns; a resumed one may be given others."""


def read_split(run: Run, split: str) -> Dataset:
    """Read a split of a run's data.

    Raises:
        UserError: If there is none.
    """
    found = Dataset.read_split(Path(run.data), split)
    if found is None:
        raise UserError(f"the data has no {split} split", [run.data], "prepare the data again")
    return found


def plan_json(made: Plan) -> dict[str, Any]:
    """Return a plan as `plan.json`: its `settings` are a settings file for another training."""
    values = made.model_dump(mode="json")
    values["settings"] = {k: v for k, v in values["settings"].items() if v is not None}
    return values


def new_run(out: Path, data: Path, made: Plan, fingerprint: dict[str, str]) -> Run:
    """Return the run of a plan; nothing is written."""
    truth = Dataset.read_split(data, "train")
    assert truth is not None  # check() has seen it
    architecture = made.settings.architecture or "maskrcnn-nano"
    sizes = {
        "categories": len(truth.categories),
        "anchor_sizes": made.anchor_sizes,
        "detections_per_photo": made.detections_per_photo,
        **({"mask_side": made.mask_side} if made.mask_side != 28 else {}),
        **beginning(architecture, made.settings.backbone, made.settings.weights or "imagenet"),
    }
    return Run(
        path=out,
        architecture=architecture,
        sizes=sizes,
        categories=truth.categories,
        side=made.settings.side or 384,
        short_side=made.settings.short_side,
        data=str(data.resolve()),
        fingerprint=fingerprint,
    )


def gone_on(out: Path, data: Path) -> Run:
    """Return the run that goes on, with its data where it is now: it may have been moved since. Nothing is written.

    Args:
        out: The run folder.
        data: The data folder as it was given now, which `resumed_plan` has found to be the same.
    """
    return replace(Run.read(out), data=str(data.resolve()))


def agreed(first: tuple[Run, Plan], own: tuple[Run, Plan]) -> tuple[Run, Plan]:
    """Return the first process's run and plan, with what is about this process's machine from its own.

    Processes that others started have each planned for the machine that they are on, and must train by one plan.
    """
    (run, made), (own_run, own_made) = first, own
    settings = made.settings.model_copy(update={"workers": own_made.settings.workers})
    made = made.model_copy(update={"settings": settings, "cache_mb": own_made.cache_mb})
    return replace(run, path=own_run.path, data=own_run.data), made


def write_beginning(run: Run, made: Plan, facts: Mapping[str, Any], tested: Mapping[str, Any] | None) -> None:
    """Make the run folder, whole or not at all: from the moment that it is there, the training can be gone on with.

    Args:
        run: The run; a folder or file in its place is replaced.
        made: The plan.
        facts: Of the data, as JSON.
        tested: What the pre-flight found, as JSON; `None` if there was none.
    """
    if run.path.is_file() or run.path.is_symlink():
        run.path.unlink()
    with atomic_folder(run.path, overwrite=True) as folder:
        write_json(folder / "plan.json", plan_json(made))
        write_json(folder / "facts.json", dict(facts))
        if tested is not None:
            write_json(folder / "preflight.json", dict(tested))
        write_json(folder / "run.json", run.json())


def write_going_on(run: Run, made: Plan) -> Run:
    """Write that a training goes on, and by which plan; when nothing can be refused any more.

    Args:
        run: The run; it is `gone_on`.
        made: The plan.

    Returns:
        The run as it is then.
    """
    write_json(run.path / "plan.json", plan_json(made))
    remove_fragments(run.path)
    return run.write(state="training")


def bytes_of(dataset: Dataset) -> NDArray[np.int64]:
    """Return, `(photos,)`, the sizes of a split's photo files in bytes; -1 where there is none."""
    return np.fromiter((_bytes(dataset.photo_path(image)) for image in dataset.images), np.int64, len(dataset.images))


def _bytes(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def fingerprint_of(data: Path, left_out: Mapping[str, int] | None = None) -> dict[str, str]:
    """Return what tells one training set from another: per split a hash of its annotation files and its photos' sizes.

    Sizes in bytes stand for the photos' content: a photo that was replaced nearly always has another one, and reading a
    million photos to make sure would delay every start by hours.

    Args:
        data: The data folder.
        left_out: Photos (`split/file_name`) that the training does without, and the bytes that they had: whatever is
            there now, the hash is the one that it was.
    """
    found = {}
    known = {data / name: size for name, size in (left_out or {}).items()}
    for split in SPLITS:
        paths = split_files(data, split)
        if split == "test" or not paths:
            continue
        digest = hashlib.sha256("".join(map(sha256, paths)).encode())
        without = {photo for photo in known if photo.is_relative_to(data / split)}
        for photo in sorted(without.union((data / split).rglob("*"))):
            if photo in known or photo.is_file():
                size = known[photo] if photo in known else photo.stat().st_size
                digest.update(f"{photo.relative_to(data).as_posix()} {size}\n".encode())
        found[split] = digest.hexdigest()
    return found


def resumable(out: Path) -> bool:
    """Tell whether a folder holds a training that can go on, if only from its first step."""
    return (out / "run.json").is_file() and (out / "plan.json").is_file()


def how_to_begin(out: Path) -> str:
    """Say what to do where there is no training to go on with."""
    if not out.exists():
        return "leave --resume out"
    held = irreplaceable(out, "train", overwrite=False)
    return "start anew: --overwrite" if held is None else "leave --resume out, and name another output"


def refuse_no_run(out: Path) -> None:
    """Refuse to go on with what is no training.

    Raises:
        UserError: If a folder is not `resumable`.
    """
    if not resumable(out):
        raise UserError(
            "there is nothing to go on with: the run has no checkpoint",
            [str(out)],
            how_to_begin(out),
        )


def refuse_gone(out: Path, data: Path) -> None:
    """Refuse to go on where the data folder has no dataset.

    Args:
        out: The run folder.
        data: The data folder as it was given now.

    Raises:
        UserError: Saying where the run's data was, if that is another place.
    """
    if not any(split_files(data, split) for split in SPLITS):
        raise UserError(
            "the folder has no dataset, and a run goes on with the data that it began with",
            [f"{data}: annotations/instances_train.json is not there", *_was_at(Run.read(out), data)],
            "name the folder where that data is now, or start anew with other data: --overwrite",
        )


def _was_at(run: Run, data: Path) -> list[str]:
    """Return, as lines of a message, where the run's data was, if that is another place than the one given now."""
    if not run.data or Path(run.data) == data.resolve():
        return []
    gone = not any(split_files(Path(run.data), split) for split in SPLITS)
    return [f"the data was at {run.data}{', which is gone' if gone else ''}"]


def refuse_begun(out: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists, as `refuse_existing_folder` does, and say of a training that it can go on.

    Raises:
        UserError: With `--overwrite` as the fix, and `--resume` where that works.
    """
    where = None if overwrite else _stands_at(out)
    if where is not None:
        raise UserError(
            f"the output holds a training that {where}",
            [str(out)],
            "go on with it: --resume; or start anew: --overwrite; or name another output",
        )
    refuse_existing_folder(out, "train", overwrite=overwrite)


def _stands_at(out: Path) -> str | None:
    """Say at which step a training that is not finished stands; `None` of anything else, or if it is damaged."""
    if not resumable(out):
        return None
    try:
        run, step = Run.read(out), read_progress(out).step
        steps = Plan.model_validate(read_json(out / "plan.json")).steps
    except (ValidationError, UserError):
        return None
    if run.state == "finished":
        return None
    # One that was killed tells of itself what one tells that is running.
    how = "stopped at" if run.state == "interrupted" else "is not finished, and was last saved at"
    return f"{how} step {step}{'' if steps is None else f' of {steps}'}"


def mark_of(out: Path) -> tuple[int, int, bytes] | None:
    """Return what tells a run folder's `run.json` from any that is written later; `None` if there is none."""
    try:
        with (out / "run.json").open("rb") as handle:
            status = os.fstat(handle.fileno())
            return status.st_ino, status.st_mtime_ns, handle.read()
    except OSError:
        return None


def started_again(out: Path, here: Place, settings: Mapping[str, Any]) -> bool:
    """Tell whether torchrun or SLURM have started again what trains this run, which then goes on.

    Processes that come or go are no failure to torchrun, which does not count them; so the run knows its job. One that
    was given the same name for another training (the former is finished, or has other settings) is not meant.

    Args:
        out: The run folder.
        here: Of this process.
        settings: Those that the user gives.
    """
    if not resumable(out):
        return False
    if not here.job:
        return here.again
    try:
        run = Run.read(out)
    except UserError:
        return False
    if run.job != here.job:
        return False
    return here.again or (here.by == "torchrun" and run.state != "finished" and begun_with(out, settings))


def begun_with(out: Path, settings: Mapping[str, Any]) -> bool:
    """Tell whether a folder holds a training that was begun with exactly these settings, and can go on.

    Args:
        out: The run folder.
        settings: Those that the user gives.
    """
    if not resumable(out):
        return False
    try:
        made = Plan.model_validate(read_json(out / "plan.json"))
    except (ValidationError, UserError):
        return False
    began = made.settings.model_dump()
    given = {name for name, reason in made.reasons.items() if reason.source == "user"} & set(began)
    return given - set(MAY_CHANGE) == set(settings) - set(MAY_CHANGE) and all(
        _same(name, began[name], value) for name, value in settings.items() if name not in MAY_CHANGE
    )


def _same(name: str, one: Any, other: Any) -> bool:
    """Tell whether two values of a setting are the same one, as two ways to write a path are."""
    if name == "weights" and None not in (one, other) and not {one, other} & set(WEIGHTS_BY_NAME):
        return Path(one).resolve() == Path(other).resolve()
    return bool(one == other)


def where_it_began(out: Path, said: TrainSettings, here: Place) -> TrainSettings:
    """Return what was said, with `on` as the run began if that was not: what Ray trained goes on there.

    Processes that others have started for it train it all the same.

    Args:
        out: The run folder.
        said: What was said now.
        here: Of this process.
    """
    if said.on is not None:
        return said
    try:
        made = Plan.model_validate(read_json(out / "plan.json"))
    except (ValidationError, UserError):
        return said  # `resumed_plan` tells what is wrong with it
    if made.settings.on != "ray":
        return said
    return said.model_copy(update={"on": "here" if here.several else "ray"})


def resumed_plan(out: Path, data: Path, said: TrainSettings, fingerprint: dict[str, str], machine: Machine) -> Plan:
    """Return the plan that a run began with, with those of `MAY_CHANGE` that were given now.

    Args:
        out: The run folder.
        data: The data folder as it was given now.
        said: What was said now.
        fingerprint: Of the data as it is now.
        machine: What it goes on on; processes that others have started are the devices.

    Raises:
        UserError: If the data or a given setting is not what the run began with: the result would be neither training.
    """
    run = Run.read(out)
    try:
        made = Plan.model_validate(read_json(out / "plan.json"))
    except ValidationError as error:
        wrong = [f"{out / 'plan.json'}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise UserError("plan.json is damaged", wrong, "start anew: --overwrite") from None
    began = made.settings.model_dump()
    now = said.model_dump(exclude_none=True)
    other = [
        f"{name} is {value!r} now, the run began with {began[name]!r}"
        for name, value in now.items()
        if not _same(name, began[name], value) and name not in MAY_CHANGE
    ]
    if other:
        raise UserError(
            "a run goes on with the settings that it began with", other, "leave them out, or start anew: --overwrite"
        )
    changed = [
        f"{data}: the {split} split differs"
        for split in fingerprint
        if fingerprint[split] != (run.fingerprint or {}).get(split)
    ]
    if changed or set(fingerprint) != set(run.fingerprint or {}):
        changed = changed or [f"{data}: splits {sorted(fingerprint)}, began with {sorted(run.fingerprint or {})}"]
        raise UserError(
            "a run goes on with the data that it began with",
            [*changed, *_was_at(run, data)],
            "give the old data back, or start anew: --overwrite",
        )
    if machine.started and "devices" not in now:
        now["devices"] = machine.started
    if machine.interactive and not machine.started and said.on != "ray" and "devices" not in now:
        now["devices"] = 1  # it cannot start processes
    given = {name: now[name] for name in MAY_CHANGE if name in now and now[name] != began[name]}
    if given.get("devices", 0) > (made.settings.batch_size or 1):
        raise UserError(
            "every device must get a photo",
            [f"a batch of {made.settings.batch_size} photos over {given['devices']} devices"],
            f"--devices {made.settings.batch_size}, or fewer",
        )
    reasons = {name: Reason(source="user", why=f"since it goes on; it began with {began[name]}") for name in given}
    share = made.reasons.get("micro_batch")
    if "devices" in given and "micro_batch" not in now and (share is None or share.source != "user"):
        given["micro_batch"] = math.ceil((made.settings.batch_size or 1) / given["devices"])
        why = f"all of a device's share, since it goes on; it began with {began['micro_batch']}"
        reasons["micro_batch"] = Reason(source="derived", why=why)
    workers = made.reasons.get("workers")
    if "workers" not in now and machine.cores != began["workers"] and (workers is None or workers.source != "user"):
        given["workers"] = machine.cores
        why = f"{machine.cores} cores, since it goes on; it began with {began['workers']}"
        reasons["workers"] = Reason(source="derived", why=why)
    settings = made.settings.model_copy(update=given)
    memory, why = cache_of(machine, settings.devices or 1)
    reasons["cache_mb"] = Reason(source="derived", why=why)
    return made.model_copy(update={"settings": settings, "cache_mb": memory, "reasons": {**made.reasons, **reasons}})
