"""Evaluate as a user meets it: files in, evaluation.json and COCO's table out; every error says what to do."""

import errno
import json
import os

import numpy as np
import pytest

from maskwright import UserError, evaluate, pixels
from maskwright.dataset import Dataset, from_coco
from maskwright.writing import write_shards

SIZE = (60, 80)


def square(x, y, side=20):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y : y + side, x : x + side] = True
    return {"size": list(SIZE), "counts": pixels.encode(mask).decode()}


def photo(number, name):
    return {"id": number, "file_name": name, "width": SIZE[1], "height": SIZE[0]}


def thing(number, image, category, x, y, **more):
    return {"id": number, "image_id": image, "category_id": category, "segmentation": square(x, y)} | more


def small_truth():
    """Return three photos: a hammer and a nut; a hammer and a crowd of nuts; nothing."""
    return {
        "images": [photo(0, "a.jpg"), photo(7, "b.jpg"), photo(3, "c.jpg")],
        "categories": [{"id": 2, "name": "hammer"}, {"id": 5, "name": "nut"}, {"id": 9, "name": "saw"}],
        "annotations": [
            thing(0, 0, 2, 0, 0),
            thing(1, 0, 5, 40, 0),
            thing(2, 7, 2, 0, 0),
            thing(3, 7, 5, 40, 30, iscrowd=1),
        ],
    }


def small_results():
    """Return two hits, a detection of the crowd, and a false alarm; the nut of the first photo is missed."""
    return [
        thing(11, 0, 2, 2, 0, score=0.9),
        thing(12, 7, 2, 0, 0, score=0.6),
        thing(13, 7, 5, 42, 30, score=0.7),
        thing(14, 3, 2, 10, 10, score=0.2),
    ]


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def _write(name, content):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return name

    return _write


@pytest.fixture
def files(write):
    return write("truth.json", small_truth()), write("found.json", small_results())


def refused(*args, **kwargs):
    with pytest.raises(UserError) as caught:
        evaluate(*args, **kwargs)
    return str(caught.value)


def test_each_detection_and_each_missed_object_is_listed_with_its_outcome(files):
    rows = [(m["photo"], m["category"], m["truth"], m["detection"], m["outcome"]) for m in evaluate(*files).matches]
    assert rows == [
        ("a.jpg", "hammer", 0, 11, "hit"),
        ("a.jpg", "nut", 1, None, "miss"),
        ("b.jpg", "nut", 3, 13, "crowd"),
        ("b.jpg", "hammer", 2, 12, "hit"),
        ("c.jpg", "hammer", None, 14, "false alarm"),
    ]


def test_a_match_has_its_iou_score_and_photo(files):
    first, missed, crowd, *_ = evaluate(*files).matches
    assert first["iou"] == pytest.approx(18 / 22)
    assert (first["score"], first["image_id"]) == (0.9, 0)
    assert (missed["iou"], missed["score"]) == (None, None)
    assert crowd["iou"] == pytest.approx(0.9)  # the share of the detection inside


def test_the_iou_of_a_hit_can_be_chosen(files):
    strict = evaluate(*files, iou=0.9)
    assert [m["outcome"] for m in strict.matches] == ["false alarm", "miss", "miss", "crowd", "hit", "false alarm"]
    loose = evaluate(files[0], files[1], iou=0.1)
    assert (strict.iou, loose.iou, strict.metrics == loose.metrics) == (0.9, 0.1, True)


def test_counts_agree_with_the_matches(files):
    result = evaluate(*files)
    assert result.counts == {"photos": 3, "objects": 3, "crowd": 1, "detections": 4}
    rows = [tuple(row.values()) for row in result.per_photo]
    assert [row[:2] for row in rows] == [("a.jpg", 0), ("b.jpg", 7), ("c.jpg", 3)]
    assert [row[2:] for row in rows] == [(2, 1, 1, 1, 0), (1, 2, 1, 0, 0), (0, 1, 0, 0, 1)]
    for row in result.per_photo:
        outcomes = [m["outcome"] for m in result.matches if m["photo"] == row["photo"]]
        counted = [outcomes.count(what) for what in ("hit", "miss", "false alarm")]
        assert counted == [row["hits"], row["misses"], row["false_alarms"]]


def test_the_threshold_and_its_neighbourhood(files):
    result = evaluate(*files)
    assert result.threshold == {
        "score": pytest.approx(0.4),
        "f1": pytest.approx(0.8),
        "precision": 1.0,
        "recall": pytest.approx(2 / 3),
        "iou": 0.5,
    }
    assert 50 <= len(result.operating) <= 110
    assert dict(result.threshold) in [dict(point) | {"iou": 0.5} for point in result.operating]


def test_categories_have_their_own_numbers_and_undefined_is_none(files):
    hammer, nut, saw = evaluate(*files).categories
    assert (hammer["id"], hammer["name"], hammer["objects"], hammer["detections"]) == (2, "hammer", 2, 3)
    assert (hammer["metrics"]["segm/AP50"], nut["metrics"]["segm/AP50"]) == (1.0, 0.0)
    assert set(saw["metrics"].values()) == {None}
    assert hammer["metrics"]["segm/APl"] is None


def test_curves_are_per_category_with_objects_and_their_mean(files):
    curves = {(curve["category"], curve["iou"]): curve for curve in evaluate(*files).curves}
    assert set(curves) == {(name, iou) for name in (None, "hammer", "nut") for iou in (0.5, 0.75)}
    hammer, mean = curves["hammer", 0.5], curves[None, 0.5]
    assert hammer["recall"] == [n / 100 for n in range(101)]
    assert (hammer["precision"][0], hammer["precision"][-1]) == (1.0, 1.0)
    assert (hammer["scores"][0], hammer["scores"][-1]) == (0.9, 0.6)
    assert mean["precision"] == [0.5] * 101
    assert set(mean["scores"]) == {None}  # the nuts reach no recall
    assert {curve["kind"] for curve in curves.values()} == {"segm"}


def test_the_json_file_has_every_field_and_says_what_python_says(files):
    result = evaluate(*files, "evaluation.json", bootstrap=20)
    with open("evaluation.json", encoding="utf-8") as handle:
        stored = json.load(handle)
    assert list(stored) == [
        "maskwright",
        "truth",
        "detections",
        "photos",
        "run",
        "counts",
        "max_detections",
        "metrics",
        "intervals",
        "categories",
        "threshold",
        "used",
        "curves",
        "operating",
        "iou",
        "matches",
        "per_photo",
    ]
    assert stored == json.loads(json.dumps(result.json()))
    assert stored["truth"].startswith("/")
    assert stored["truth"].endswith("/truth.json")
    assert (stored["photos"], stored["run"], stored["max_detections"]) == (None, None, 100)
    assert stored["metrics"]["bbox/AP50"] == 0.5
    assert set(stored["metrics"]) == {f"{kind}/{name}" for kind in ("segm", "bbox") for name in METRICS}
    assert (stored["intervals"], stored["used"]) == ({"segm/AP": None}, None)  # two photos show an object


@pytest.mark.parametrize("count", [1, 4, 5])
def test_fewer_than_five_photos_with_objects_have_no_interval(count):
    """Photos without an object do not count: of a single photo with one, each redraw scores what it scores."""
    images = [photo(n, f"{n}.jpg") for n in range(9)]
    objects = [thing(n, n, 2, 0, 0) for n in range(count)] + [thing(8, 8, 2, 0, 0, iscrowd=1)]
    true = from_coco(small_truth() | {"images": images, "annotations": objects}, "t")
    rows = [thing(n, n, 2, n, 0, score=0.5) for n in range(count)]
    found = from_coco(small_truth() | {"images": images, "annotations": rows}, "d")
    said = []
    interval = evaluate(true, found, say=said.append).intervals["segm/AP"]
    told = "segm/AP has no interval: fewer than 5 photos with objects"
    if count < 5:
        assert (interval, said[1]) == (None, told)
    else:
        assert interval["low"] < interval["high"]
        assert said[1].startswith("segm/AP lies between 0.")
        assert said[1].endswith("in 95% of 300 resamples of the photos")
        assert told not in said
    assert evaluate(true, found, bootstrap=0).intervals == {}


def test_what_the_detections_own_threshold_leads_to_is_told_first(files, write):
    """Of the three from 0.6 on one is in the crowd, which is neither right nor wrong; the nut is missed."""
    results = [*small_results(), thing(15, 3, 2, 40, 30, score=0.6)]
    plain = {"score": 0.6, "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "iou": 0.5}
    for stated, used in [(0.6, plain), (0.95, plain | {"score": 0.95, "precision": None, "recall": 0.0, "f1": 0.0})]:
        complete = small_truth() | {"annotations": results, "info": {"maskwright": {"threshold": stated}}}
        said = []
        result = evaluate(files[0], write("complete.json", complete), say=said.append)
        assert result.used == pytest.approx(used)
        assert result.threshold["score"] == pytest.approx(0.4)
        at = next(k for k, line in enumerate(said) if line.startswith("from the score in use, "))
        assert said[at + 1].startswith("best score threshold 0.400 (chosen on these very photos): precision")
    assert said[at] == "from the score in use, 0.950: precision n/a, recall 0.000, F1 0.000 at IoU 0.5"
    for stated in ("0.6", True, None):
        complete["info"] = {"maskwright": {"threshold": stated}}
        assert evaluate(files[0], write("complete.json", complete)).used is None


METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def test_the_table_is_the_familiar_one(files):
    lines = evaluate(*files).table().splitlines()
    assert len(lines) == 26
    assert lines[0] == "masks (segm)"
    assert lines[2] == " Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ] = 0.500"
    assert lines[6] == " Average Precision  (AP) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = n/a"
    assert lines[7] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets=  1 ] = 0.425"
    assert lines[10] == " Average Recall     (AR) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 0.425"
    assert lines[13] == "boxes (bbox)"


def test_what_is_said_is_the_table_and_a_summary(files):
    said = []
    result = evaluate(*files, "out.json", say=said.append, bootstrap=50)
    assert said[0] == result.table()
    assert said[1] == "segm/AP has no interval: fewer than 5 photos with objects"
    assert said[2] == "best score threshold 0.400: precision 1.000, recall 0.667, F1 0.800 at IoU 0.5"
    assert said[3] == "hammer  segm/AP 0.776  bbox/AP 0.776  (2 objects, 3 detections)"
    assert said[5] == "saw     segm/AP n/a  bbox/AP n/a  (0 objects, 0 detections)"
    assert said[6] == "wrote out.json"


def test_nothing_is_printed_unless_asked(files, capsys):
    evaluate(*files)
    assert capsys.readouterr() == ("", "")


def test_a_complete_file_and_a_dataset_give_what_a_bare_list_gives(files, write):
    complete = small_truth() | {"annotations": small_results()}
    plain = evaluate(*files)
    assert evaluate(files[0], write("complete.json", complete)).matches == plain.matches
    in_memory = evaluate(from_coco(small_truth(), "t"), from_coco(complete, "d"))
    assert in_memory.matches == plain.matches
    assert (in_memory.truth, in_memory.detections) == (None, None)


def test_areas_and_boxes_stated_in_results_do_not_fool_the_mask_numbers(files, write):
    lying = [row | {"area": 1e6, "bbox": [0, 0, 80, 60]} for row in small_results()]
    plain, fooled = evaluate(*files).metrics, evaluate(files[0], write("lying.json", lying)).metrics
    assert {k: v for k, v in plain.items() if "segm" in k} == {k: v for k, v in fooled.items() if "segm" in k}
    assert plain["bbox/AP"] > 0 == fooled["bbox/AP"]


def test_boxes_alone_are_scored_as_boxes(files, write):
    def boxed(row):
        bare = {key: value for key, value in row.items() if key != "segmentation"}
        return bare | {"bbox": [row["id"] % 3, 0, 20, 20]}

    said = []
    name = write("boxes.json", [boxed(row) for row in small_results()])
    result = evaluate(files[0], name, say=said.append, bootstrap=10)
    assert said[0] == "boxes.json gives boxes only: the mask numbers (segm) are n/a"
    assert result.table().splitlines()[:3] == ["masks (segm)", " n/a", "boxes (bbox)"]
    assert result.metrics["segm/AP"] is None
    assert result.metrics["bbox/AP50"] == 0.5
    assert list(result.intervals) == ["bbox/AP"]
    assert {curve["kind"] for curve in result.curves} == {"bbox"}


def test_no_detections_at_all_are_zeros_not_errors(files, write):
    said = []
    for empty in (write("none.json", []), write("empty.json", small_truth() | {"annotations": []})):
        result = evaluate(files[0], empty, say=said.append)
        assert (result.metrics["segm/AP"], result.metrics["bbox/AR100"]) == (0.0, 0.0)
        assert (result.threshold, result.operating) == (None, ())
        assert [m["outcome"] for m in result.matches] == ["miss"] * 3
        assert "no detection is a hit at IoU 0.5: there is no threshold to recommend" in said


def test_the_run_that_made_the_detections_is_kept(files, write):
    complete = small_truth() | {"annotations": small_results(), "info": {"maskwright": {"run": "/runs/1"}}}
    assert evaluate(files[0], write("complete.json", complete)).run == "/runs/1"


def test_photos_of_a_prepared_dataset_are_found_beside_it(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "val").mkdir()
    truth = tmp_path / "annotations" / "instances_val.json"
    truth.write_text(json.dumps(small_truth()))
    complete = from_coco(small_truth() | {"annotations": small_results()}, "d")
    assert evaluate(truth, complete).photos == str(tmp_path / "val")
    assert evaluate(truth, complete, photos=tmp_path).photos == str(tmp_path)
    assert evaluate(Dataset.read(truth, tmp_path / "val"), complete).photos == str(tmp_path / "val")


def test_shards_are_scored_like_one_file(files, tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "run").mkdir()
    complete = from_coco(small_truth() | {"annotations": small_results()}, "d")
    write_shards(from_coco(small_truth(), "t"), tmp_path / "annotations", "instances_val", 1)
    write_shards(complete, tmp_path / "found", "detections", 2)
    whole = evaluate(*files, bootstrap=0)
    place = tmp_path / "annotations"
    for path in (place, place / "instances_val.json", str(place / "instances_val-*.json")):
        for detections in (files[1], tmp_path / "found" / "detections.json"):
            result = evaluate(path, detections, bootstrap=0)
            assert result.metrics == whole.metrics
            assert result.matches == whole.matches
            assert (result.photos, result.truth) == (str(tmp_path / "val"), str(path))
    one = evaluate(place / "instances_val-00000-of-00003.json", complete.select(np.array([0])), bootstrap=0)
    assert one.counts["objects"] == 2
    assert one.photos == str(tmp_path / "val")
    assert refused(tmp_path / "run", files[1]).startswith("a COCO file is needed, and this is a folder")
    out = place / "instances_val-00001-of-00003.json"
    before = out.read_bytes()
    for path in (place, place / "instances_val.json", str(tmp_path / "annot*" / "instances_val-*.json")):
        assert refused(path, files[1], out, overwrite=True).startswith("the output must not be the input or hold it")
    assert out.read_bytes() == before


def test_an_evaluation_during_training_is_quick_enough_to_repeat(files):
    images = [photo(n, f"{n}.jpg") for n in range(60)]
    objects = [thing(n, n % 60, 2, n % 50, n % 30) for n in range(180)]
    true = from_coco(small_truth() | {"images": images, "annotations": objects}, "t")
    found = from_coco(small_truth() | {"images": images, "annotations": [o | {"score": 0.5} for o in objects]}, "d")
    first = evaluate(true, found, bootstrap=0)
    assert "matches" not in vars(first)  # rows are made only when asked for
    assert (first.metrics["segm/AP"], first.metrics["bbox/AP"], first.intervals) == (1.0, 1.0, {})
    assert [match["outcome"] for match in first.matches] == ["hit"] * 180


# Errors


def test_truth_without_objects(files, write):
    empty = write("empty.json", small_truth() | {"annotations": []})
    assert refused(empty, files[1]) == (
        "the truth has no objects, so there is nothing to score against\n"
        "  empty.json: 3 photos, 0 objects\n"
        "fix: name the file with the annotations of these photos"
    )
    crowds = write("crowds.json", small_truth() | {"annotations": small_truth()["annotations"][3:]})
    assert "  crowds.json: 3 photos, 0 objects; 1 crowds, which are not scored\n" in refused(crowds, files[1])


def test_truth_that_is_a_list_of_results(files):
    assert refused(files[1], files[0]) == (
        "the truth is a bare list of results, not a COCO dataset\n"
        "  found.json\n"
        "fix: give the truth first, then the detections: maskwright evaluate TRUTH DETECTIONS"
    )


def test_results_without_scores(files, write):
    rows = small_results()
    del rows[1]["score"]
    rows[2]["score"] = None
    assert refused(files[0], write("bare.json", rows)) == (
        "detections need a score, to be ranked by\n"
        "  bare.json: annotation 12 of b.jpg\n"
        "  bare.json: annotation 13 of b.jpg\n"
        "fix: give each a score (1 if they are all sure); if this file is the truth, name it first"
    )


def test_a_truth_given_as_detections(files):
    message = refused(files[0], files[0])
    assert message.startswith("detections need a score, to be ranked by\n  truth.json: annotation 0 of a.jpg\n")


def test_results_that_name_unknown_photos_and_categories_and_have_no_scores_all_at_once(files, write):
    rows = [thing(1, 99, 2, 0, 0, score=1), thing(1, 0, 44, 0, 0, score=1), thing(1, 98, 2, 0, 0)]
    assert refused(files[0], write("odd.json", rows)) == (
        "detections name photos that the truth does not have\n"
        "  odd.json: result[0]: image_id 99\n"
        "  odd.json: result[2]: image_id 98\n"
        "fix: the image_id of a result is the id of the photo in the truth; or give a complete COCO file\n"
        "\n"
        "detections name categories that the truth does not have\n"
        "  odd.json: result[1]: category_id 44\n"
        "fix: the truth has: 2 hammer, 5 nut, 9 saw; or give a complete COCO file\n"
        "\n"
        "detections need a score, to be ranked by\n"
        "  odd.json: result[2]\n"
        "fix: give each a score (1 if they are all sure)"
    )


def test_results_that_cannot_be_read(files, write):
    rows = [small_results()[0], "row", small_results()[1] | {"segmentation": {"size": [1, 1], "counts": "1"}}]
    assert refused(files[0], write("odd.json", rows)) == (
        "the COCO file has entries that cannot be read\n"
        "  odd.json: result[1]: string indices must be integers, not 'str'\n"
        "  odd.json: result[2]: the RLE's size (height, width) (1, 1) is not the photo's (60, 80)\n"
        "fix: mend or remove these entries"
    )


def test_not_json_not_there_not_a_file(files, write, tmp_path):
    assert refused(files[0], write("bad.json", "[1, 2")).startswith("the file is not valid JSON\n  bad.json: Expecting")
    assert refused("gone.json", files[1]) == "the file does not exist\n  gone.json\nfix: check the path"
    (tmp_path / "OUT").mkdir()
    assert refused(files[0], "OUT") == (
        "a COCO file is needed, and this is a folder\n  OUT\n"
        "fix: name the file, for example DATA/annotations/instances_val.json or OUT/detections.json"
    )
    assert refused(write("x.json", "3"), files[1]).startswith("the file is not a COCO dataset: it needs an object with")


def test_an_existing_output_is_refused_before_any_work(files, write):
    write("evaluation.json", "{}")
    assert refused("gone.json", files[1], "evaluation.json") == (
        "the output exists already\n  evaluation.json\nfix: name another output, or: --overwrite"
    )
    assert evaluate(*files, "evaluation.json", overwrite=True, bootstrap=0).json()["iou"] == 0.5


def test_a_photo_folder_that_is_not_there(files):
    assert refused(*files, photos="nowhere") == (
        "the photo folder does not exist\n  nowhere\nfix: check the path, or leave --photos away"
    )


def test_unknown_settings_offer_the_nearest(files):
    assert "bootstap; did you mean 'bootstrap'?" in refused(*files, bootstap=5)
    assert "iou (--iou) is 1.5: input should be less than or equal to 1" in refused(*files, iou=1.5)


def test_a_full_disk_leaves_nothing(files, tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    before = sorted(os.listdir(tmp_path))
    assert refused(*files, "evaluation.json", bootstrap=0) == (
        "the output cannot be written; nothing was left half-done\n"
        "  evaluation.json: No space left on device\nfix: free some space, then run the command again"
    )
    assert sorted(os.listdir(tmp_path)) == before
