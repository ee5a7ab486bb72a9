"""Read every config of MMDetection without running it, and hold the result against mmengine's, which runs it.

    pip install mmengine                    # in an environment of its own: it brings OpenCV
    pip download --no-deps mmdet==3.3.0 && unzip -d mmdet3 mmdet-3.3.0-*.whl
    pip download --no-deps mmdet==2.28.2 && unzip -d mmdet2 mmdet-2.28.2-*.whl
    python benchmarks/mmdetection.py mmdet2/mmdet/.mim/configs mmdet3/mmdet/.mim/configs

Printed per folder: how many configs give the very same values, how many differ (must be 0), how many are refused and
for what, what a config takes to read; how many could be carried over into settings; and whether what is assumed of the
best known files, where they are not there, gives the settings that the files themselves give.
"""

from __future__ import annotations

import argparse
import collections
import os
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from mmengine.config import Config as Reference

from machine import describe
from maskwright.errors import UserError
from maskwright.mmdetection.config import read_config
from maskwright.mmdetection.zoo import facts_of
from maskwright.settings_from import settings_from


def plain(value: Any) -> Any:
    """Return a value without the order `_delete_`, which has been carried out (mmengine keeps some of them)."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items() if key != "_delete_"}
    if isinstance(value, list | tuple):
        return type(value)(plain(item) for item in value)
    return value


def compare(folder: Path, *, verbose: bool) -> None:
    same, different, neither, ours_s, theirs_s = 0, [], 0, 0.0, 0.0
    refused: collections.Counter[str] = collections.Counter()
    files = sorted(folder.rglob("*.py"))
    for file in files:
        began = time.perf_counter()
        try:
            ours: Any = read_config(file).values
        except UserError as error:
            ours = error
        between = time.perf_counter()
        try:
            theirs: Any = Reference.fromfile(file, import_custom_modules=False).to_dict()
        except Exception as error:
            theirs = error
        ended = time.perf_counter()
        if isinstance(ours, UserError):
            if isinstance(theirs, Exception):
                neither += 1
                continue
            refused[re.sub(r" \(.*", "", ours.problems[0].where[0].split(": ", 1)[-1])] += 1
            if verbose:
                print(f"refused: {file}\n{ours}\n")
        elif isinstance(theirs, Exception) or plain(ours) != plain(theirs):
            different.append(file)
        else:
            same, ours_s, theirs_s = same + 1, ours_s + between - began, theirs_s + ended - between
    print(f"{len(files)} configs: the same values {same}, different {len(different)}, refused {refused.total()}")
    print(f"  {neither} more are refused by both")
    print(f"  {ours_s / max(same, 1) * 1000:.1f} ms a config, mmengine {theirs_s / max(same, 1) * 1000:.1f} ms")
    for why, count in refused.most_common():
        print(f"  refused for {why}: {count}")
    for file in different:
        print(f"  DIFFERENT: {file}")


def carry(folder: Path) -> None:
    done, complete = 0, 0
    files = sorted(folder.rglob("*.py"))
    for file in files:
        try:
            moved = settings_from(file)
        except UserError:
            continue
        done += 1
        complete += {"batch_size", "side", "flip", "learning_rate"} <= moved.settings.keys() and bool(
            {"epochs", "steps"} & moved.settings.keys()
        )
    print(f"  carried over: {done}, of them {complete} with size, flips, batch, rate and length")


def check_assumptions(folder: Path) -> None:
    """Hold what is assumed of a file against what it says."""
    newer = (folder / "_base_/models/mask-rcnn_r50_fpn.py").is_file()
    mark = "env_cfg = dict()\n" if newer else "dist_params = dict()\ncheckpoint_config = dict()\n"
    known = [file for file in sorted(folder.rglob("*.py")) if facts_of(os.path.relpath(file, folder))]
    wrong = []
    for file in known:
        with tempfile.TemporaryDirectory() as name:
            there, absent = Path(name, "there.py"), Path(name, "absent.py")
            parent = os.path.relpath(file, name)
            there.write_text(f"_base_ = {parent!r}\n" + mark)
            absent.write_text(f"_base_ = '../datasets/{file.name}'\n" + mark)
            wrong += [file] if settings_from(there).settings != settings_from(absent).settings else []
    print(f"  assumed where they are not there: {len(known)} files, wrong {len(wrong)}")
    for file in wrong:
        print(f"  WRONG: {file}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--verbose", action="store_true", help="name every config that is refused")
    given = parser.parse_args()
    print(describe())
    for folder in given.folders:
        compare(folder, verbose=given.verbose)
        carry(folder)
        check_assumptions(folder)


if __name__ == "__main__":
    main()
