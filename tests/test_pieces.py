"""Reading in pieces gives what reading the whole gives, for every way of writing JSON, or leaves the file to it.

So does reading in two processes, wherever the second one begins, and whatever becomes of it.
"""

import json
import os
import pickle
import signal
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from maskwright import halves, pieces, pixels
from maskwright.dataset import Dataset, from_coco, read_json
from maskwright.errors import UserError
from maskwright.pieces import read_in_pieces

SIZE = (20, 30)
RLE = pixels.encode(np.random.default_rng(0).random(SIZE) < 0.3)
SQUARE = [[1, 1, 9.5, 1, 9.25, 9, 1, 9]]
SEGMENTATIONS = [
    SQUARE,
    [*SQUARE, [12.01, 3, 15, 3, 15, 7.5]],
    [[-3, 0, 1e1, 0, 10, 8]],
    [],
    None,
    {"size": list(SIZE), "counts": RLE.decode()},
    {"counts": pixels.runs(RLE).tolist(), "size": list(SIZE)},
]


EXTRAS = [{}, {"note": '}], "segmentation": [[1'}, {"parts": [{"a": 1}]}, {"x": "\\"}]


@st.composite
def documents(draw, lacking=("area", "id", "iscrowd"), extras=EXTRAS):
    images = [{"id": n, "file_name": f'Größe "{n}".png', "width": 30, "height": 20} for n in (5, 0, 9)]
    rows = []
    for n in range(draw(st.integers(0, 12))):
        row = {"id": n + 1, "image_id": draw(st.sampled_from([5, 0, 9])), "category_id": 3, "iscrowd": 0}
        row |= {"bbox": [1, 2, 3.5, 4], "area": 8.5, "segmentation": draw(st.sampled_from(SEGMENTATIONS))}
        row |= draw(st.sampled_from(extras))
        for key in draw(st.sets(st.sampled_from(lacking))):
            del row[key]
        rows.append(dict(draw(st.permutations(list(row.items())))))
    document = {"info": {"year": 1}, "images": images, "categories": [{"id": 3, "name": "nut"}], "annotations": rows}
    return dict(draw(st.permutations(list(document.items()))))


STYLES = [{}, {"separators": (",", ":")}, {"indent": 1}, {"ensure_ascii": False}, {"sort_keys": True}]


@given(documents(), st.sampled_from(STYLES), st.integers(40, 3000))
def test_pieces_and_the_whole_agree(tmp_path_factory, document, style, block):
    path = tmp_path_factory.mktemp("p") / "d.json"
    path.write_text(json.dumps(document, **style), encoding="utf-8")
    whole = from_coco(read_json(path), str(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "BLOCK", block)
        read = Dataset.read(path)
    assert read.coco() == whole.coco()
    assert read.rles() == whole.rles()
    np.testing.assert_array_equal(read.rle_bytes, whole.rle_bytes)
    np.testing.assert_array_equal(read.rle_ends, whole.rle_ends)
    np.testing.assert_array_equal(read.has_mask, np.diff(whole.rle_ends) > 0)
    chosen = np.arange(len(read)) % 2 == 0
    assert read.select(chosen).coco() == whole.select(chosen).coco()


def text(segmentation=SQUARE, **changes):
    row = {"id": 1, "image_id": 5, "category_id": 3, "segmentation": segmentation, "bbox": [0, 0, 1, 1], "area": 1}
    images = [{"id": 5, "file_name": "a.png", "width": 30, "height": 20}]
    categories = [{"id": 3, "name": "nut"}]
    return json.dumps({"images": images, "categories": categories, "annotations": [row | changes, row]})


def test_a_plain_file_is_taken(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(text())
    found = read_in_pieces(path)
    assert found is not None
    assert found.masks.outlined.tolist() == [True, True]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        text()[:-1],
        text() + "}",
        text().replace('"id": 1', '"id": "1"'),
        text(id=None),
        text(iscrowd=None),
        text(image_id=True),
        text(id=1 << 70),
        text(bbox=[]),
        text(area="2"),
        text(segmentation=[]),
        text(note="\ud800"),
        text().replace("[[1, 1, 9.5", "[[1, 01, 9.5"),
        text().replace("[[1, 1, 9.5", "[[1, 1 1, 9.5"),
        text().replace("[[1, 1, 9.5", "[[1, 1, 1e9"),
        text().replace("[[1, 1, 9.5", "[[1, 9.5"),
        text().replace("[[1, 1, 9.5", "[[1, 1, 99999"),
        text().replace('"annotations"', '"annotations": [], "annotations"'),
        text().replace('"categories"', '"categorie"'),
        text().replace('"id": 5', '"id": 6'),
        text(5),
        text([[1, 2, 3, 4]]),
        text([[1, 2, 3, 4, 5, None]]),
    ],
)
def test_what_is_not_plain_is_judged_by_the_careful_reader(tmp_path, content):
    path = tmp_path / "d.json"
    path.write_text(content)

    def outcome(read):
        try:
            return read().coco()
        except UserError as error:
            return str(error)

    assert outcome(lambda: Dataset.read(path)) == outcome(lambda: from_coco(read_json(path), str(path)))


# ── two processes ────────────────────────────────────────────────────────────────────────────────────────────────────

two_processes = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no memory without a name")


class Inside(halves.Second):
    """Does the work of a second process inside this one, when it is asked for the answer."""

    def _start(self, module):
        return None

    def ask(self, work, argument):
        job = pickle.dumps((work, argument))
        self.answers.append(job)
        self._length = len(job)

    def answer(self, patience_s):
        if self._stopped:
            return None
        try:
            halves.do(self._length, self.answers, self.shared)
        except Exception:
            return None
        self._process = Ended
        return super().answer(patience_s)

    def stop(self):
        self._stopped = True

    def close(self):
        Inside.kept = len(self.shared)
        self.answers.close()
        self.shared.close()


class Ended:
    """A process that has ended well."""

    @staticmethod
    def wait(_):
        return 0


def two(patch, second=Inside, middle=None):
    """Let every file be read by two processes; return a list that will hold what was handed over."""
    handed = []
    hand_over = pieces._hand_over

    def spied(*arguments):
        handed.append(hand_over(*arguments))
        return handed[-1]

    patch.setattr(pieces, "LEAST_BYTES_FOR_TWO", 0)
    patch.setattr(pieces, "cores", lambda: 2)
    patch.setattr(pieces, "Second", second)
    patch.setattr(pieces, "_hand_over", spied)
    if middle is not None:
        patch.setattr(pieces, "_middle", lambda handle, start, end: middle)
    return handed


def outcome(path):
    """Return what reading a file gives: each column as its bytes, each RLE; or the error's words."""
    try:
        read = Dataset.read(path)
    except UserError as error:
        return str(error)
    told = told_of(read) | {"images": list(read.images), "masks": read.rles()}
    del told["measured"]  # only the careful reader measures what is given as polygons
    return told


def told_of(values):
    found = {item.name: getattr(values, item.name) for item in fields(values)}
    return {
        name: (value.dtype, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else value
        for name, value in found.items()
    }


def as_it_stands(path):
    """Return what is read in pieces, to the byte; `None` if it is left to the careful reader."""
    found = read_in_pieces(path)
    if found is None:
        return None
    masks = found.masks
    spans = zip(masks.starts.tolist(), masks.ends.tolist(), strict=True)
    return [
        found.rest,
        list(found.images),
        told_of(found.columns),
        [masks.data[start:end].tobytes() for start, end in spans],
        masks.outlined.tolist(),
        len(masks.data) - found.columns.outlined.any() * len(masks.data),  # polygons lie with gaps between
    ]


def places(content):
    """Return where a row may begin, where any object may, and some places where none does."""
    rows = [match.end() for match in pieces._BETWEEN.finditer(content, max(0, content.find(b'"annotations"')))]
    return rows, rows, [at for at, byte in enumerate(content) if byte == ord("{")], range(1 + len(content))


@st.composite
def files(draw):
    """A file, most likely plain; or damaged in any place."""
    lacking = draw(st.sampled_from([("area", "iscrowd"), ("area", "iscrowd", "id")]))
    extras = draw(st.sampled_from([[{}], [{}, {"x": '"}, {'}], [{"parts": [{"a": 1}, {"b": 2}]}], EXTRAS]))
    content = json.dumps(draw(documents(lacking, extras)), **draw(st.sampled_from(STYLES))).encode()
    if draw(st.integers(0, 3)):
        return content
    at = draw(st.integers(0, len(content)))
    damage = draw(st.sampled_from([b"", b"x", b'"', b"}", b"}, {", b"]", b"\xff", b" "]))
    return content[:at] + damage + draw(st.sampled_from([content[at:], content[at + 1 :], b""]))


@two_processes
@given(files(), st.data(), st.integers(40, 3000) | st.just(1 << 20))
def test_two_processes_give_what_one_gives(tmp_path_factory, content, data, block):
    path = tmp_path_factory.mktemp("two") / "d.json"
    path.write_bytes(content)
    middle = data.draw(st.sampled_from([None, *places(content)]).flatmap(lambda p: st.sampled_from(p or [None])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "BLOCK", block)
        alone, quickly = outcome(path), as_it_stands(path)
        handed = two(patch, middle=middle)
        assert outcome(path) == alone
        together = as_it_stands(path)
    event(f"handed over: {bool(sum(handed))}")
    # Whether what looks like the end of a piece is in a string depends on where pieces end.
    assert together == quickly or together is None or quickly is None


def many(count=300, **changes):
    """Return a file with so many objects; `changes` maps a number to what its object has instead."""
    changes = {int(name[1:]): row for name, row in changes.items()}
    rows = []
    for n in range(count):
        row = {
            "id": n + 1,
            "image_id": (5, 0, 9)[n % 3],
            "category_id": 3,
            "iscrowd": 0,
            "area": n,
            "bbox": [1, 2, 3, n],
        }
        row |= {"bbox": [1, 2, 3, n], "segmentation": SEGMENTATIONS[n % 7] or SQUARE}
        rows.append(row | changes.get(n, {}))
    images = [{"id": n, "file_name": f"{n}.png", "width": 30, "height": 20} for n in (5, 0, 9)]
    return json.dumps({"images": images, "annotations": rows, "categories": [{"id": 3, "name": "nut"}]})


RLES_ONLY = {f"_{n}": {"segmentation": SEGMENTATIONS[5 + n % 2]} for n in range(300)}


@two_processes
@pytest.mark.parametrize(
    ("changes", "is_handed_over"),
    [
        ({}, True),
        (RLES_ONLY, True),
        ({"_290": {"note": "}, {"}}, True),
        (
            {"_150": {"note": '}, {"image_id": 5}, {', "parts": [{"image_id": 5}, {"image_id": 5}, {"image_id": 5}]}},
            True,
        ),
        ({"_299": {"segmentation": [[1, 2, 3, 4, 5, 6e0]]}}, True),
        ({"_290": {"category_id": 4}}, True),
        ({"_290": {"category_id": "3"}}, False),
        ({"_290": {"segmentation": [[1, 2, 3]]}}, False),
        ({"_290": {"image_id": 77}}, False),
        ({"_10": {"segmentation": [[1, 2, 3]]}}, None),
        ({"_10": {"image_id": 77}, "_290": {"area": "x"}}, None),
    ],
)
def test_faults_in_either_half_are_told_as_by_one(tmp_path, monkeypatch, changes, is_handed_over):
    path = tmp_path / "d.json"
    path.write_text(many(**changes))
    monkeypatch.setattr(pieces, "BLOCK", 4000)
    alone, quickly = outcome(path), as_it_stands(path)
    handed = two(monkeypatch)
    assert as_it_stands(path) == quickly
    del handed[:]
    assert outcome(path) == alone
    assert [bool(after) for after in handed] == ([] if is_handed_over is None else [is_handed_over])
    if quickly is not None:
        assert Inside.kept == len(read_in_pieces(path).masks.data)


@two_processes
def test_objects_without_ids_are_counted_by_one(tmp_path, monkeypatch):
    path = tmp_path / "d.json"
    path.write_text(many().replace('"id": 290, ', ""))
    alone = outcome(path)
    handed = two(monkeypatch)
    assert outcome(path) == alone
    assert Dataset.read(path).ids.max() == 300
    assert handed == [0, 0]


@two_processes
def test_a_place_inside_an_object_is_found_out(tmp_path, monkeypatch):
    """What begins there is sound to the end of the file, but belongs to a row."""
    parts = [{"image_id": 5, "id": 1, "category_id": 3, "bbox": [0, 0, 1, 1]}, {"image_id": 5}]
    path = tmp_path / "d.json"
    path.write_text(many(3, _1={"parts": parts, "z": {}}).replace('}], "z": {}}', '}, {}], "z": {}}'))
    content = path.read_text()
    alone = outcome(path)
    for at in (content.index('{"image_id": 5}'), content.index('{}], "z"'), content.index("{}}")):
        with pytest.MonkeyPatch.context() as patch:
            handed = two(patch, middle=at)
            assert outcome(path) == alone
        assert handed == []


@two_processes
def test_masks_that_take_more_than_their_rows_stop_the_second(tmp_path, monkeypatch):
    """Numbers that must be written anew can be longer than they were: `1e2` is `100.0`."""
    sides = [[-1e2, 1e2, 1e2, 1e2, 1e2, -1e2] * 50]
    path = tmp_path / "d.json"
    changes = {f"_{n}": {"segmentation": sides} if n < 24 else {"note": "x" * 2000} for n in range(40)}
    path.write_text(many(40, **changes).replace("100.0", "1e2"))
    alone = outcome(path)
    handed = two(monkeypatch)
    assert outcome(path) == alone
    assert handed == [0]
    assert Inside.kept == len(read_in_pieces(path).masks.data)


def kill_itself(half, answers, shared):
    pieces.read_half(half, answers, shared)
    os.kill(os.getpid(), signal.SIGKILL)


def stall(half, answers, shared):
    os.kill(os.getpid(), signal.SIGSTOP)


@two_processes
@pytest.mark.parametrize(("work", "is_handed_over"), [(None, True), (kill_itself, False), (stall, False)])
def test_a_real_process_helps_and_may_die(tmp_path, monkeypatch, work, is_handed_over):
    path = tmp_path / "d.json"
    path.write_text(many(1000))
    alone = outcome(path)
    handed = two(monkeypatch, second=halves.Second)
    monkeypatch.setattr(pieces, "_PATIENCE_S", 60.0 if work is None else 2.0)
    if work is not None:
        monkeypatch.setattr(pieces, "read_half", work)
    before = len(os.listdir("/proc/self/fd"))
    assert outcome(path) == alone
    assert [bool(after) for after in handed] == [is_handed_over]
    assert len(os.listdir("/proc/self/fd")) == before


@two_processes
def test_another_file_of_the_same_name_is_not_read(tmp_path, monkeypatch):
    path, other = tmp_path / "d.json", tmp_path / "e.json"
    path.write_text(many())
    other.write_text(many())
    alone = outcome(path)
    handed = two(monkeypatch)
    middle = pieces._middle

    def replace(*arguments):
        os.replace(other, path)
        return middle(*arguments)

    monkeypatch.setattr(pieces, "_middle", replace)
    assert outcome(path) == alone
    assert handed == [0]


@pytest.mark.parametrize(("least", "cores"), [(1 << 26, 2), (0, 1)])
def test_small_files_and_single_cores_need_no_second(tmp_path, monkeypatch, least, cores):
    path = tmp_path / "d.json"
    path.write_text(many())
    two(monkeypatch, second=None)  # which cannot be called
    monkeypatch.setattr(pieces, "LEAST_BYTES_FOR_TWO", least)
    monkeypatch.setattr(pieces, "cores", lambda: cores)
    assert len(Dataset.read(path)) == 300


def test_where_none_can_be_started_one_reads(tmp_path, monkeypatch):
    path = tmp_path / "d.json"
    path.write_text(many())
    alone = outcome(path)

    def refuse(module):
        raise OSError

    two(monkeypatch, second=refuse)
    assert outcome(path) == alone


def test_a_row_begins_where_it_is_guessed(tmp_path):
    path = tmp_path / "d.json"
    path.write_text(many())
    content = path.read_bytes()
    start, end = content.index(b'"annotations": [') + 16, len(content)
    with path.open("rb") as handle:
        at = pieces._middle(handle, start, end)
        assert pieces._middle(handle, end - 60, end) == 0
    assert abs(at - (start + end) / 2) < 1000
    assert "image_id" in json.JSONDecoder().raw_decode(content[at:].decode())[0]
