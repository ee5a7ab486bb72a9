"""Time `maskwright.prepare` against pycococreator, in the same run, and compare what each wrote with the true masks.

The set: photos of 640x480 (JPEG) of one hammer-like thing each, and a black-and-white PNG mask of it; every second has
a hole. It is made anew from a seed, in a temporary folder, so files come from the disk cache. Timed are images a second
of

- decoding the PNG masks with Pillow and nothing else,
- pycococreator as in its example: photo opened for its size, mask decoded, traced with a tolerance of 2, JSON written.
  It crashes on NumPy 1.24 and newer where a mask has two outlines of different length; that one line is mended. Where
  it is not installed (it is not on PyPI), its steps are done by a few lines here, and the output says so,
- `maskwright.prepare`, end to end, on the same files: photos verified and hashed, masks read, parts counted, everything
  written. The splits are given by folders (`train`, `val`), as pycococreator too is run once per split,
- the same where it has to make the splits, for which it also searches photos that look alike: it decodes every photo,
  which neither of the others does. That is more work, so it is held to no figure.

Each runs in processes of its own, so that none has what another has set or warmed up; what comes before the first photo
(Python, imports) is not counted for any.

Run: python benchmarks/prepare.py [--photos 3000]     speed and fidelity
     python benchmarks/prepare.py --memory            peak memory for 10,000 and for 100,000 photos
     python benchmarks/prepare.py --ray               the same on Ray, killed workers included, and a projection

Needs scikit-image and pycocotools (the `bench` group of pyproject.toml); --ray needs ray.
"""

from __future__ import annotations

import os

os.environ |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")  # before numpy

import argparse
import contextlib
import hashlib
import json
import math
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from machine import describe
from maskwright import scale
from maskwright.dataset import SPLITS, Dataset
from maskwright.prepare import prepare
from maskwright.scale.pace import Pace

HEIGHT, WIDTH = 480, 640
TOLERANCE = 2  # of pycococreator's example
LEAST_AGAINST_PEER, LEAST_AGAINST_DECODING, LEAST_ON_TWO_CORES = 8.0, 0.8, 1.8
MOST_GROWTH, MOST_BYTES = 1.10, 1_000_000_000
PROJECTED = 10_000_000


# ── the set ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def hammer(rng: np.random.Generator, hole: bool) -> Image.Image:
    """Draw a thing with a handle and a head, turned at random; the hole makes the end of the handle a ring."""
    picture = Image.new("L", (WIDTH, HEIGHT))
    draw = ImageDraw.Draw(picture)
    length, thick = rng.uniform(150, 260), rng.uniform(14, 26)
    head, depth = rng.uniform(90, 150), rng.uniform(40, 64)
    angle = rng.uniform(0, 2 * math.pi)
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-along[1], along[0]])
    middle = np.array([WIDTH / 2, HEIGHT / 2]) + rng.uniform(-40, 40, 2)

    def block(start: float, end: float, half: float, value: int) -> None:
        corners = [
            middle + a * along + b * across for a, b in ((start, -half), (start, half), (end, half), (end, -half))
        ]
        draw.polygon([tuple(c.tolist()) for c in corners], fill=value)

    def disc(at: float, radius: float, value: int) -> None:
        x, y = (middle + at * along).tolist()
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=value)

    block(-length / 2, length / 2, thick / 2, 255)
    block(length / 2 - depth / 2, length / 2 + depth / 2, head / 2, 255)
    disc(-length / 2, thick, 255)
    if hole:
        disc(-length / 2, thick * 0.6, 0)
    return picture


def make(folder: Path, photos: int, seed: int = 0) -> list[bool]:
    """Write `photos/` and `masks/`; return which masks have a hole. The same for the same seed.

    Beside it `FOLDER-split` has the same files (hard links) in `train` and, every tenth, `val`.
    """
    rng = np.random.default_rng(seed)
    (folder / "photos").mkdir(parents=True)
    (folder / "masks").mkdir()
    split = folder.with_name(f"{folder.name}-split")
    for name in ("train/photos", "train/masks", "val/photos", "val/masks"):
        (split / name).mkdir(parents=True)
    noise = rng.normal(0, 5, (HEIGHT, WIDTH, 3)).astype(np.float32)
    holes = []
    for number in range(photos):
        hole = number % 2 == 0
        mask = hammer(rng, hole)
        mask.save(folder / "masks" / f"tool_{number:06d}.png")
        ground = Image.fromarray(rng.integers(40, 200, (7, 9, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT))
        tool = Image.new("RGB", (WIDTH, HEIGHT), tuple(rng.integers(0, 255, 3).tolist()))
        scene = Image.composite(tool, ground, mask.filter(ImageFilter.BoxBlur(1)))
        grains = np.roll(noise, tuple(rng.integers(0, HEIGHT, 2).tolist()), (0, 1))
        pixels = np.clip(np.asarray(scene, dtype=np.float32) + grains, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / "photos" / f"tool_{number:06d}.jpg", quality=90)
        holes.append(hole)
        for kind, name in (("photos", f"tool_{number:06d}.jpg"), ("masks", f"tool_{number:06d}.png")):
            os.link(folder / kind / name, split / ("train" if number % 10 else "val") / kind / name)
    return holes


def make_tiny(folder: Path, photos: int, seed: int = 0) -> None:
    """Write `photos/` and `masks/` of 32x24 pixels, no two alike."""
    rng = np.random.default_rng(seed)
    (folder / "photos").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number in range(photos):
        pixels = rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)
        mask = np.zeros((24, 32), dtype=np.uint8)
        y, x = rng.integers(0, 16, 2)
        mask[y : y + 8, x : x + 12] = 255
        Image.fromarray(pixels).save(folder / "photos" / f"{number:07d}.jpg", quality=80)
        Image.fromarray(mask).save(folder / "masks" / f"{number:07d}.png", compress_level=1)


# ── pycococreator ────────────────────────────────────────────────────────────────────────────────────────────────────


def outlines(mask: NDArray[np.uint8], tolerance: float) -> list[list[float]]:
    """Trace a mask as pycococreator does: at half height between pixels, closed, thinned, x before y, none negative."""
    from skimage import measure

    polygons = []
    for line in measure.find_contours(np.pad(mask, 1), 0.5):
        points = line - 1
        if (points[0] != points[-1]).any():
            points = np.concatenate([points, points[:1]])
        points = measure.approximate_polygon(points, tolerance)
        polygons.append(np.maximum(points[:, ::-1], 0).ravel().tolist())
    return polygons


def annotation(number: int, mask: NDArray[np.uint8], size: tuple[int, int]) -> dict[str, Any]:
    """Make an annotation in pycococreator's steps: scaled to the photo, encoded for area and box, traced."""
    from pycocotools import mask as coder

    scaled = np.asarray(Image.fromarray(mask).resize(size))
    encoded = coder.encode(np.asfortranarray(scaled))
    area, box = coder.area(encoded), coder.toBbox(encoded)
    row = {"id": number, "image_id": number, "category_id": 1, "iscrowd": 0, "area": float(area), "bbox": box.tolist()}
    return row | {"segmentation": outlines(scaled, TOLERANCE), "width": size[0], "height": size[1]}


def peer() -> tuple[str, Callable[[int, NDArray[np.uint8], tuple[int, int]], dict[str, Any]]]:
    """Return what stands for pycococreator, and its function from a mask to an annotation."""
    try:
        from pycococreatortools import pycococreatortools as tools
    except ImportError:
        return "pycococreator's steps, rewritten here", annotation
    tools.binary_mask_to_polygon = outlines  # the function that crashes
    kind = {"id": 1, "is_crowd": False}
    return "pycococreator, mended", lambda number, mask, size: tools.create_annotation_info(
        number, number, kind, mask, size, TOLERANCE
    )


def run_peer(raw: Path, names: list[str], out: Path) -> None:
    """Convert photos and masks as pycococreator's example does; pairs are given, which it would search for."""
    _, convert = peer()
    images, annotations = [], []
    for number, name in enumerate(names, 1):
        with Image.open(raw / "photos" / f"{name}.jpg") as photo:
            size = photo.size
        images.append({"id": number, "file_name": f"{name}.jpg", "width": size[0], "height": size[1]})
        with Image.open(raw / "masks" / f"{name}.png") as picture:
            mask = np.asarray(picture.convert("1")).astype(np.uint8)
        annotations.append(convert(number, mask, size))
    categories = [{"id": 1, "name": "hammer", "supercategory": ""}]
    out.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


# ── speed and fidelity ───────────────────────────────────────────────────────────────────────────────────────────────


@contextmanager
def on_cores(count: int) -> Iterator[None]:
    """Use only so many cores."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


def seconds(job: str, folder: Path, photos: int) -> float:
    """Do a job of `JOBS` in a process of its own, on the cores of this one; return how long it took there."""
    told = subprocess.run(
        [sys.executable, __file__, "--job", job, "--folder", str(folder), "--photos", str(photos)],
        check=True,
        capture_output=True,
        text=True,
    )
    return float(told.stdout.split()[-1])


def rate(job: str, folder: Path, photos: int, times: int) -> tuple[float, str]:
    """Return the median of images a second, and the range in words."""
    rates = [photos / seconds(job, folder, photos) for _ in range(times)]
    return statistics.median(rates), f"({min(rates):,.0f} to {max(rates):,.0f})"


def names_of(photos: int) -> list[str]:
    """Return the names of the first photos."""
    return [f"tool_{number:06d}" for number in range(photos)]


JOBS: dict[str, Callable[[Path, int], Any]] = {
    "decode": lambda folder, photos: decode(folder / "raw", names_of(photos)),
    "peer": lambda folder, photos: run_peer(folder / "raw", names_of(photos), folder / "peer.json"),
    "given": lambda folder, _: prepare(folder / "raw-split", None, folder / "data", overwrite=True),
    "anew": lambda folder, _: prepare(folder / "raw", None, folder / "data-anew", overwrite=True),
}
"""What is timed, by name; each takes the folder that all is in, and how many photos."""


def timed(job: str, folder: Path, photos: int) -> None:
    """Do a job on the four photos of `warm`, then on those of the folder; print the seconds of the latter."""
    JOBS[job](folder / "warm", 4)
    started = time.perf_counter()
    JOBS[job](folder, photos)
    print(time.perf_counter() - started)


def decode(raw: Path, names: list[str]) -> None:
    """Decode the masks and nothing else."""
    for name in names:
        with Image.open(raw / "masks" / f"{name}.png") as picture:
            np.asarray(picture)


def overlap(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return the IoU of two masks."""
    either = np.count_nonzero(one | other)
    return np.count_nonzero(one & other) / either if either else 1.0


def fidelity(found: dict[str, NDArray[np.bool_]], raw: Path) -> tuple[float, float]:
    """Return mean and worst IoU of masks, by name, with the PNG files."""
    ious = []
    for name, mask in found.items():
        with Image.open(raw / "masks" / f"{name}.png") as picture:
            ious.append(overlap(mask, np.asarray(picture) > 0))
    return statistics.mean(ious), min(ious)


def masks_of_peer(file: Path, wanted: set[str]) -> dict[str, NDArray[np.bool_]]:
    """Return what pycococreator's polygons mean to COCO's own rasteriser."""
    from pycocotools import mask as coder

    document = json.loads(file.read_bytes())
    result = {}
    for image, row in zip(document["images"], document["annotations"], strict=True):
        if (name := Path(image["file_name"]).stem) in wanted:
            parts = coder.frPyObjects(row["segmentation"], image["height"], image["width"])
            result[name] = coder.decode(coder.merge(parts)).astype(bool)
    return result


def masks_of_ours(data: Path, wanted: set[str]) -> dict[str, NDArray[np.bool_]]:
    """Return the masks of a data folder; a photo of several objects would be an error here."""
    result = {}
    for split in SPLITS:
        dataset = Dataset.read_split(data, split)
        for k in range(0 if dataset is None else len(dataset)):
            name = Path(dataset.images[int(dataset.image_index[k])].file_name).stem
            if name in wanted:
                assert name not in result, f"{name} has more than one object"
                result[name] = dataset.mask(k)
    return result


def speed(folder: Path, photos: int, times: int) -> bool:
    """Print rates, ratios and fidelity; tell whether all figures are reached."""
    raw = folder / "raw"
    holes = make(raw, photos)
    make(folder / "warm" / "raw", 4, seed=1)
    names = names_of(photos)
    few = names[: min(photos, 400)]
    label, _ = peer()
    cores = len(os.sched_getaffinity(0))
    print(f"{photos:,} photos of {WIDTH}x{HEIGHT}, half with a hole; the peer does {len(few):,}; median of {times}")
    with on_cores(1):
        alone, alone_range = rate("decode", folder, photos, times)
        theirs, theirs_range = rate("peer", folder, len(few), times)
        one, one_range = rate("given", folder, photos, times)
        anew, anew_range = rate("anew", folder, photos, times)
    print(f"  one core   decoding the masks alone           {alone:7,.0f} a second {alone_range}")
    print(f"             {label:<35}{theirs:7,.0f} a second {theirs_range}")
    print(
        f"             maskwright prepare                 {one:7,.0f} a second {one_range}"
        f" = {one / theirs:.1f}x the peer, {one / alone:.2f} of decoding alone"
    )
    print(
        f"               where it makes the splits        {anew:7,.0f} a second {anew_range}"
        f" = {anew / theirs:.1f}x the peer, {anew / alone:.2f} of decoding alone"
    )
    good = one / theirs >= LEAST_AGAINST_PEER and one / alone >= LEAST_AGAINST_DECODING
    if cores > 1:
        with on_cores(2):
            two, two_range = rate("given", folder, photos, times)
            both, both_range = rate("anew", folder, photos, times)
        print(
            f"  two cores  maskwright prepare                 {two:7,.0f} a second {two_range} = {two / one:.2f}x one"
        )
        print(
            f"               where it makes the splits        {both:7,.0f} a second {both_range}"
            f" = {both / anew:.2f}x one"
        )
        good &= two / one >= LEAST_ON_TWO_CORES
    print("fidelity, IoU with the mask images: mean / worst")
    for what, chosen in (("with a hole", True), ("without", False)):
        wanted = {name for name, hole in zip(few, holes, strict=False) if hole == chosen}
        mean, worst = fidelity(masks_of_peer(folder / "peer.json", wanted), raw)
        our_mean, our_worst = fidelity(masks_of_ours(folder / "data", wanted), raw)
        good &= our_worst == 1
        print(
            f"  {len(wanted):,} {what:<12} peer {mean:.3f} / {worst:.3f}   maskwright {our_mean:.3f} / {our_worst:.3f}"
        )
    return good


# ── memory ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def family(pid: int) -> list[int]:
    """Return a process and all that descend from it."""
    found = [pid]
    for one in found:
        with contextlib.suppress(OSError):  # it ended meanwhile, or a thread of it
            for thread in Path(f"/proc/{one}/task").iterdir():
                with contextlib.suppress(OSError):
                    found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def status(pid: int, field: str) -> int:
    """Return a field of /proc/PID/status in bytes; 0 if the process ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:")), 0)


def peak(raw: Path, out: Path) -> tuple[int, int, float]:
    """Run `maskwright prepare` in a fresh process; return its peak, that of all its processes together, and seconds."""
    program = "import sys; from maskwright.cli import main; sys.exit(main())"
    started = time.perf_counter()
    command = [sys.executable, "-c", program, "prepare", str(raw), "-o", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    own, together = 0, 0
    while process.poll() is None:
        own = max(own, status(process.pid, "VmHWM"))
        together = max(together, sum(status(pid, "VmRSS") for pid in family(process.pid)))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"maskwright prepare ended with {process.returncode}")
    return own, together, time.perf_counter() - started


def memory(folder: Path, sizes: list[int]) -> bool:
    """Print the peak memory for sets of different sizes; tell whether it is flat and small."""
    peaks = []
    for photos in sizes:
        raw = folder / f"raw-{photos}"
        make_tiny(raw, photos)
        own, together, seconds = peak(raw, folder / f"data-{photos}")
        peaks.append(own)
        print(
            f"{photos:>9,} photos: peak {own / 1e6:,.0f} MB, with its worker processes {together / 1e6:,.0f} MB;"
            f" {seconds:.0f} s, {photos / seconds:,.0f} a second"
        )
        shutil.rmtree(raw)
        shutil.rmtree(folder / f"data-{photos}")
    growth = peaks[-1] / peaks[0]
    print(f"{sizes[-1]:,} photos take {growth:.2f}x the memory of {sizes[0]:,}")
    return growth <= MOST_GROWTH and max(peaks) < MOST_BYTES


# ── Ray ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def digests(data: Path) -> dict[str, str]:
    """Return the hash of every file of a data folder; of prepare.json without the time and where the work was done."""
    result = {}
    for path in sorted(p for p in data.rglob("*") if p.is_file()):
        content = path.read_bytes()
        if path.name == "prepare.json":
            story = json.loads(content)
            del story["maskwright"], story["settings"]["on"]
            content = json.dumps(story).encode()
        result[path.relative_to(data).as_posix()] = hashlib.sha256(content).hexdigest()
    return result


@contextmanager
def clocked() -> Iterator[list[float]]:
    """Collect the seconds that workers spend in the work itself, of which every piece tells."""
    spent: list[float] = []
    learn = Pace.learn

    def listen(self: Any, count: int, seconds: float, size: int) -> None:
        spent.append(seconds)
        learn(self, count, seconds, size)

    Pace.learn = listen  # type: ignore[method-assign]
    try:
        yield spent
    finally:
        Pace.learn = learn  # type: ignore[method-assign]


def kill_a_worker(after_s: float, killed: list[int]) -> None:
    """Kill one of our own Ray's busy workers after some seconds."""
    time.sleep(after_s)
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for pid in family(os.getpid()):
            try:
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::_ray_work"):
                    os.kill(pid, signal.SIGKILL)
                    killed.append(pid)
                    return
            except OSError:
                continue
        time.sleep(0.01)


def measured(raw: Path, out: Path) -> tuple[float, float, float]:
    """Prepare on Ray; return wall seconds, seconds of work that was spread, and CPU seconds of this process."""
    with clocked() as spent:
        cpu, started = time.process_time(), time.perf_counter()
        prepare(raw, None, out, overwrite=True, on="ray")
        return time.perf_counter() - started, sum(spent), time.process_time() - cpu


def on_ray(folder: Path, photos: int, times: int) -> bool:
    """Print whether Ray gives the same bytes, how it scales, and what follows for a cluster."""
    raw, few, out = folder / "raw", photos // 10, folder / "ray"
    make(raw, photos)
    make(folder / "few", few, seed=1)
    os.environ.pop("RAY_ADDRESS", None)
    os.environ |= {"RAY_worker_niceness": "0"}  # not 15: whatever else runs here shall slow all measurements alike
    prepare(raw, None, folder / "here")
    truth = digests(folder / "here")

    def same() -> bool:
        return digests(out) == truth

    words = {True: "the same bytes as here", False: "NOT THE SAME as here"}
    good, seconds, work_s, asking_s = True, {}, 0.0, 0.0
    print(f"{photos:,} photos of {WIDTH}x{HEIGHT} on a Ray of this machine; median of {times}")
    for cpus in (1, 2):
        started = time.perf_counter()
        with scale.at("ray", workers=cpus):
            started_s = time.perf_counter() - started
            measured(folder / "few", out)  # Ray's workers import what they need
            _, _, few_asking_s = measured(folder / "few", out)
            runs = [measured(raw, out) for _ in range(times)]
            taken = [run[0] for run in runs]
            seconds[cpus] = statistics.median(taken)
            good &= same()
            print(
                f"  {cpus} CPU: {seconds[cpus]:.2f} s ({min(taken):.2f} to {max(taken):.2f}),"
                f" {photos / seconds[cpus]:,.0f} a second; {len(truth):,} files, {words[same()]};"
                f" to start Ray took {started_s:.1f} s more"
            )
            if cpus == 1:
                work_s = statistics.median(run[1] for run in runs) / photos
                # What does not grow with the photos, such as finding the form, is taken out.
                asking_s = (statistics.median(run[2] for run in runs) - few_asking_s) / (photos - few)
            else:
                killed: list[int] = []
                thread = threading.Thread(target=kill_a_worker, args=(seconds[2] / 2, killed))
                thread.start()
                measured(raw, out)
                thread.join()
                good &= same() and bool(killed)
                print(f"  {len(killed)} worker killed half-way: completed, {words[same()]}")
    print(f"  2 CPUs are {seconds[1] / seconds[2]:.2f}x as fast as 1")
    print(f"  per photo: {work_s * 1e3:.2f} ms of work that is spread, {asking_s * 1e3:.2f} ms in the one that asks")
    print(f"projection for {PROJECTED:,} such photos: spread work / CPUs + what the one that asks does itself")
    for cpus in (1, 16, 64, 256):
        spread, asking = PROJECTED * work_s / cpus / 3600, PROJECTED * asking_s / 3600
        print(
            f"  {cpus:>4} CPUs: {spread:6.2f} h + {asking:.2f} h = {spread + asking:6.2f} h,"
            f" {PROJECTED / (spread + asking) / 3600:,.0f} a second"
        )
    return good


def main() -> int:
    """Print the figures that were asked for; return 1 if one is not reached."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=3000, help="photos of the set")
    parser.add_argument("--times", type=int, default=3, help="runs of each; the median counts")
    parser.add_argument(
        "--memory", type=int, nargs="*", metavar="N", help="sets to measure; 10000 100000 if none given"
    )
    parser.add_argument("--ray", action="store_true", help="on Ray instead")
    parser.add_argument("--job", choices=JOBS, help=argparse.SUPPRESS)  # this script, started by itself
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.job:
        timed(given.job, given.folder, given.photos)
        return 0
    print(describe())
    with tempfile.TemporaryDirectory() as name:
        if given.memory is not None:
            good = memory(Path(name), given.memory or [10_000, 100_000])
        elif given.ray:
            good = on_ray(Path(name), given.photos, given.times)
        else:
            good = speed(Path(name), given.photos, given.times)
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
