import numpy as np

from maskwright import pixels
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import Problem
from maskwright.facts import Example, Finding, SplitView
from maskwright.findings import EXAMPLES, RULES, Notes, number, sorted_findings


def view(*photos):
    mask = pixels.encode(np.ones((4, 4), dtype=bool))
    images = [Image(n + 1, f"{n}.png", 4, 4) for n in range(len(photos))]
    annotations = []
    for n, count in enumerate(photos):
        annotations += [Annotation(len(annotations) + 1 + k, n + 1, 1, mask) for k in range(count)]
    return SplitView("train", Dataset.build([Category(1, "nut")], images, annotations))


def test_a_number_in_a_sentence():
    assert number("{n} {mask is|masks are} gone", 1) == "1 mask is gone"
    assert number("{n} {mask is|masks are} gone", 2_000) == "2,000 masks are gone"


def test_rules_are_complete_sentences_for_one_and_for_many():
    for code, (severity, what, fix) in RULES.items():
        assert severity in {"error", "warning", "note"}
        for n in (1, 2):
            text = number(what, n) + number(fix, n)
            assert not set("{}|") & set(text), code
            assert fix


def test_the_worst_come_first_and_equals_keep_their_order():
    notes = Notes()
    notes.add("speck", ["a"], badness=1)
    notes.add("speck", ["b", "c"], badness=2)
    notes.show("speck", Example(split="train", photo="a"), 1)
    notes.show("speck", Example(split="train", photo="b"), 2)
    (finding,) = notes.findings()
    assert finding.count == 3
    assert finding.problem.where == ("b", "c", "a")
    assert [e.photo for e in finding.examples] == ["b", "a"]


def test_few_examples_are_kept_of_many():
    notes = Notes()
    notes.add("speck", [], 5_000)
    for n in range(5_000):
        notes.show("speck", Example(split="train", photo=str(n)), n % 4_000)
    (finding,) = notes.findings()
    assert [e.photo for e in finding.examples] == [str(n) for n in range(3_999, 3_999 - EXAMPLES, -1)]


def test_objects_of_one_photo_are_one_line_and_one_example():
    notes, split = Notes(), view(3, 1)
    badness = np.array([1.0, 5.0, 2.0, 3.0])
    beside = np.array([1, 0, 0, 3])
    notes.objects("speck", split, np.array([True, True, False, True]), lambda k: f"object {k}", badness, beside)
    (finding,) = notes.findings()
    assert finding.count == 3
    assert finding.problem.where == ("train/0.png: object 1 ... and 1 more in this photo", "train/1.png: object 3")
    assert [e.annotations for e in finding.examples] == [(1, 2), (4,)]


def test_findings_come_in_the_order_of_the_rules():
    def finding(code):
        return Finding(code=code, severity="warning", problem=Problem("x"), count=1)

    ordered = sorted_findings([finding("crowd"), finding("speck"), finding("no-val"), finding("unreadable-split")])
    assert [f.code for f in ordered] == ["unreadable-split", "no-val", "speck", "crowd"]


def test_nothing_noted_is_nothing_found():
    notes = Notes()
    notes.add("speck", [])
    assert notes.findings() == ()
