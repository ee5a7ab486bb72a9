"""Time reading a COCO-sized annotation file against pycocotools, with the memory that it takes, in fresh processes.

The file: 118,000 photos of about 640x480 and 860,000 objects, as in COCO's train2017, made anew from a seed in a
temporary folder: polygons of two decimals (3 to several hundred points, 30 on average, every ninth object in parts) and
1% crowds as uncompressed RLE; or, with `--masks rle`, compressed RLE throughout.

Measured: wall time and peak growth of resident memory of `pycocotools.coco.COCO(path)` and of `Dataset.read(path)`,
libraries imported before; areas and masks of a sample, which must be equal; and what 4 forked loader processes, each
reading 2,000 masks at random, add in private memory (`Private_*` of /proc/<pid>/smaps_rollup). The same loop over
processes that read nothing but take up the same libraries shows what a process costs by itself.

Both tools are given `--cores` cores, 2 by default. pycocotools uses one. Maskwright starts a second process where it
may use two: starting it is part of the time, its processor time counts, and so does all of its memory, interpreter and
libraries included. The memory of both is looked at every 10 ms: what is their own, what the files of their libraries
take in each, and once the memory that they share. The peak is that, or the high-water mark that the system keeps of the
process that loads, whichever is larger.

Run: python benchmarks/load.py [--masks polygons|rle] [--photos 118000] [--objects 860000] [--file KEPT.json]
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import multiprocessing
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from machine import describe
from maskwright import pixels
from maskwright.dataset import Dataset

PHOTOS, OBJECTS = 118_000, 860_000
LEAST_TIMES_FASTER, LEAST_TIMES_SMALLER, MOST_WORKERS_MB = 4, 5, 100
WORKERS, READS, SAMPLE = 4, 2000, 300
BLOCK = 4096
LOOK_S = 0.01
MB = 1e6


def outlines(rng: np.random.Generator, count: int) -> list[list[list[float]]]:
    """Return `count` objects, each a list of polygons with two decimals, within 640x480."""
    radii = np.clip(np.exp(rng.normal(3.3, 0.9, count)), 2, 200)
    points = np.clip(radii * rng.uniform(0.3, 1.15, count), 3, 400).astype(np.int64)
    parts = np.where(rng.random(count) < 0.11, rng.integers(2, 5, count), 1)
    objects = []
    for radius, n, p in zip(radii.tolist(), points.tolist(), parts.tolist(), strict=True):
        polygons = []
        for part in range(p):
            k = max(3, n >> part)
            angles = np.sort(rng.random(k)) * (2 * np.pi)
            lengths = radius / (part + 1) * (0.7 + 0.6 * rng.random(k))
            x = np.clip(rng.uniform(0, 640) + lengths * np.cos(angles), 0, 640)
            y = np.clip(rng.uniform(0, 480) + lengths * np.sin(angles), 0, 480)
            polygons.append(np.stack([x, y], axis=1).ravel().round(2).tolist())
        objects.append(polygons)
    return objects


def rows(rng: np.random.Generator, count: int, photos: int, masks: str, first: int) -> Iterator[str]:
    """Yield annotations as JSON text, numbered from `first`."""
    images = rng.integers(1, photos + 1, count).tolist()
    categories = rng.integers(1, 81, count).tolist()
    crowds = (rng.random(count) < 0.01).tolist()
    objects = zip(outlines(rng, count), images, categories, crowds, strict=True)
    for number, (polygons, image, category, crowd) in enumerate(objects, start=first):
        segmentation: Any = polygons
        x, y = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in polygons]).T
        area = 0.0
        for polygon in polygons:
            u, v = np.reshape(polygon, (-1, 2)).T
            area += abs(float(u @ np.roll(v, -1) - v @ np.roll(u, -1))) / 2
        if crowd or masks == "rle":
            rle = pixels.from_polygons(polygons, (480, 640))
            segmentation = {"counts": rle.decode(), "size": [480, 640]}
            if crowd and masks == "polygons":
                segmentation["counts"] = pixels.runs(rle).tolist()
        corner = x.min(), y.min()
        box = [round(float(value), 2) for value in (*corner, x.max() - corner[0], y.max() - corner[1])]
        row = {"segmentation": segmentation, "area": round(area, 4), "iscrowd": int(crowd), "image_id": image}
        yield json.dumps(row | {"bbox": box, "category_id": category, "id": number})


def make(path: Path, photos: int, objects: int, masks: str, seed: int = 0) -> None:
    """Write the file piece by piece; the same for the same arguments."""
    rng = np.random.default_rng(seed)
    with path.open("w") as out:
        out.write(
            '{"info": {"description": "made up"}, "licenses": [{"id": 1, "name": "none", "url": ""}], "images": ['
        )
        for n in range(1, photos + 1):
            image = {"license": 1, "file_name": f"{n:012d}.jpg", "coco_url": f"http://example.org/train/{n:012d}.jpg"}
            image |= {"height": 480, "width": 640, "date_captured": "2013-11-14 17:02:52"}
            image |= {"flickr_url": f"http://example.org/{n}_z.jpg", "id": n}
            out.write((", " if n > 1 else "") + json.dumps(image))
        out.write('], "annotations": [')
        for start in range(0, objects, BLOCK):
            out.write(", " if start else "")
            out.write(", ".join(rows(rng, min(BLOCK, objects - start), photos, masks, start + 1)))
        categories = [{"supercategory": "thing", "id": n, "name": f"thing {n}"} for n in range(1, 81)]
        out.write('], "categories": ' + json.dumps(categories) + "}")


def status(field: str) -> int:
    """Return bytes of a field of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise LookupError(field)


def together(process: int) -> int:
    """Return bytes that a process and those that it started take: their own, files, and what they share once."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    total, shared = 0, {}
    for one in [str(process), *children]:
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith(("RssAnon", "RssFile")):
                    total += int(line.split()[1]) * 1024
        with contextlib.suppress(OSError):
            for entry in os.scandir(f"/proc/{one}/fd"):
                with contextlib.suppress(OSError):
                    if os.readlink(entry.path).startswith("/memfd:"):
                        found = os.stat(entry.path)
                        shared[found.st_ino] = found.st_blocks * 512
    return total + sum(shared.values())


def processor() -> float:
    """Return seconds of processor time of this process and of those that it started and that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def private() -> int:
    """Return bytes that no other process shares with this one."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_")) * 1024


def load(tool: str, path: Path) -> Any:
    """Read the file with one of the tools."""
    if tool == "nothing":
        return None
    if tool == "maskwright":
        return Dataset.read(path)
    from pycocotools.coco import COCO

    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(path))


def rle_and_area(tool: str, loaded: Any, number: int) -> tuple[bytes, float]:
    """Return RLE and area of an object by its annotation id, which counts from 1."""
    if tool == "maskwright":
        k = loaded.position_of[number]
        return loaded.rle(k), float(loaded.areas[k])
    annotation = loaded.anns[number]
    return loaded.annToRLE(annotation)["counts"], float(annotation["area"])


def read_masks(tool: str, loaded: Any, objects: int, seed: int) -> int:
    """Decode masks at random, as a loader does; return the sum of their areas."""
    total = 0
    for number in np.random.default_rng(seed).integers(0, objects, READS if loaded is not None else 0).tolist():
        mask = loaded.mask(number) if tool == "maskwright" else loaded.annToMask(loaded.anns[number + 1])
        total += int(mask.sum())
    return total


def worker(tool: str, loaded: Any, objects: int, seed: int, gate: Any, connection: Connection) -> None:
    """Read masks, wait until all have, and send how much memory is this process's own."""
    total = read_masks(tool, loaded, objects, seed)
    gate.wait()
    connection.send((private(), total))
    gate.wait()


def measured(tool: str, path: Path, objects: int, connection: Connection) -> None:
    """Load the file in this fresh process, and send times, memory, a sample, and what loader workers add."""
    load_tiny(tool)
    gc.collect()
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak back to what is used now
    connection.send("begin")
    started, busy = time.perf_counter(), processor()
    loaded = load(tool, path)
    seconds, busy = time.perf_counter() - started, processor() - busy
    connection.send("end")
    peak, held = status("VmHWM") - before, status("VmRSS") - before
    forked = multiprocessing.get_context("fork")
    gate = forked.Barrier(WORKERS)
    pipes = [forked.Pipe(duplex=False) for _ in range(WORKERS)]
    started = time.perf_counter()
    workers = [
        forked.Process(target=worker, args=(tool, loaded, objects, seed, gate, pipe[1]))
        for seed, pipe in enumerate(pipes)
    ]
    for process in workers:
        process.start()
    answers = [pipe[0].recv() for pipe in pipes]
    for process in workers:
        process.join()
    reading = time.perf_counter() - started
    sample: list[tuple[bytes, float]] = []
    if loaded is not None:
        if tool == "maskwright":
            loaded = Positions(loaded)
        chosen = np.random.default_rng(1).integers(1, objects + 1, SAMPLE).tolist()
        sample = [rle_and_area(tool, loaded, number) for number in chosen]
    connection.send(
        {
            "seconds": seconds,
            "busy": busy,
            "before": before,
            "peak": peak,
            "held": held,
            "workers": sum(answer[0] for answer in answers),
            "reading": reading,
            "sample": sample,
        }
    )


class Positions:
    """A dataset with the position of each annotation id."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.position_of = {number: k for k, number in enumerate(dataset.ids.tolist())}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.dataset, name)


def load_tiny(tool: str) -> None:
    """Read a file of one object, so that what a tool imports and sets up once is not counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.json"
        make(path, 1, 1, "polygons")
        loaded = load(tool, path)
        if loaded is not None:
            loaded.mask(0) if tool == "maskwright" else loaded.annToMask(loaded.anns[1])


def fresh(tool: str, path: Path, objects: int) -> dict[str, Any]:
    """Run `measured` in a new interpreter."""
    spawned = multiprocessing.get_context("spawn")
    receiver, sender = spawned.Pipe(duplex=False)
    process = spawned.Process(target=measured, args=(tool, path, objects, sender))
    process.start()
    sender.close()
    assert receiver.recv() == "begin"
    most = 0
    while not receiver.poll(LOOK_S):
        most = max(most, together(process.pid or 0))
    assert receiver.recv() == "end"
    answer: dict[str, Any] = receiver.recv()
    process.join()
    return answer | {"peak": max(answer["peak"], most - answer["before"])}


def main() -> int:
    """Print times, memory and ratios; return 1 if a mask differs or a figure is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--masks", choices=["polygons", "rle"], default="polygons", help="how the file stores masks")
    parser.add_argument("--photos", type=int, default=PHOTOS)
    parser.add_argument("--objects", type=int, default=OBJECTS)
    parser.add_argument("--times", type=int, default=1, help="runs of each tool, in turn; the median time counts")
    parser.add_argument("--file", type=Path, help="make the file here and keep it; read as it is if it exists")
    parser.add_argument("--cores", type=int, default=2, help="how many cores may be used")
    given = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.cores])
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        path = given.file or Path(folder) / "instances_train.json"
        if not path.exists():
            started = time.perf_counter()
            make(path, given.photos, given.objects, given.masks)
            print(f"made in {time.perf_counter() - started:.0f} s")
        path.read_bytes()  # both find it in the system's cache
        size = path.stat().st_size / MB
        print(
            f"{given.photos:,} photos, {given.objects:,} objects, masks as {given.masks}: {size:,.0f} MB of JSON;"
            f" {len(os.sched_getaffinity(0))} cores"
        )
        runs = [
            {tool: fresh(tool, path, given.objects) for tool in ("pycocotools", "maskwright")}
            for _ in range(given.times)
        ]
        bare = fresh("nothing", path, given.objects)
    best = {}
    for tool in ("pycocotools", "maskwright"):
        ordered = sorted((run[tool] for run in runs), key=lambda answer: answer["seconds"])
        best[tool] = found = ordered[len(ordered) // 2]
        print(
            f"{tool:>12}: {found['seconds']:6.2f} s ({found['busy']:.2f} s of processor),"
            f" memory +{found['peak'] / MB:,.0f} MB at its peak,"
            f" +{found['held'] / MB:,.0f} MB held; {WORKERS} workers reading {READS:,} masks each:"
            f" {found['workers'] / MB:,.0f} MB of their own, {found['reading']:.1f} s"
        )
    theirs, ours = best["pycocotools"], best["maskwright"]
    faster, smaller = theirs["seconds"] / ours["seconds"], theirs["peak"] / ours["peak"]
    added = (ours["workers"] - bare["workers"]) / MB
    same = theirs["sample"] == ours["sample"]
    print(f"{WORKERS} workers that read nothing have {bare['workers'] / MB:,.0f} MB of their own")
    print(
        f"maskwright: {faster:.1f}x faster (at least {LEAST_TIMES_FASTER};"
        f" {theirs['busy'] / ours['busy']:.1f}x by processor time), {smaller:.1f}x less memory (at least"
        f" {LEAST_TIMES_SMALLER}), {WORKERS} workers add {ours['workers'] / MB:,.0f} MB in all, {added:,.0f} MB over"
        f" workers that read nothing (less than {MOST_WORKERS_MB});"
        f" {SAMPLE} masks and areas {'are equal' if same else 'DIFFER'}"
    )
    reached = faster >= LEAST_TIMES_FASTER and smaller >= LEAST_TIMES_SMALLER
    return int(not (reached and same and ours["workers"] / MB < MOST_WORKERS_MB))


if __name__ == "__main__":
    sys.exit(main())
