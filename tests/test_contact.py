"""The contact sheet: what is on it, as text and in a browser; nothing in the data can break it."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from maskwright import pixels
from maskwright.check import check, facts_of
from maskwright.contact import contact_sheet
from maskwright.contact import page as page_module
from maskwright.contact.pictures import MOST_OUTLINES, Pictures, _around
from maskwright.dataset import Annotation, Category, Dataset, Image
from maskwright.errors import Problem, UserError
from maskwright.facts import Example, Finding, SplitView
from maskwright.findings import sorted_findings
from maskwright.suspects import photo_findings

CHROMIUM = Path("/usr/bin/chromium")
SHARED = Path(__file__).parents[2] / "shared"
SIZE = (120, 160)
ODD = "a\"b'<script>document.title=1<!--.jpg"
CATEGORIES = (Category(1, "hammer"), Category(2, "nut <b>&"))


def block(x1, y1, x2, y2):
    mask = np.zeros(SIZE, dtype=bool)
    mask[y1:y2, x1:x2] = True
    if x2 - x1 > 20:
        mask[y1 : y1 + 3, x1 : x1 + 3] = False  # not an exact rectangle, which would be a finding
    return mask


def split_of(data, split, names, more=()):
    """Write a split with a hammer and a nut in each photo."""
    rng = np.random.default_rng(len(split))
    images = [Image(i + 1, name, SIZE[1], SIZE[0]) for i, name in enumerate(names)]
    annotations = []
    for i, name in enumerate(names):
        x, y = 7 * i % 25, 5 * i % 17  # spread, so that no step lies between all masks and the grid of the photos
        masks = [block(10 + x, 10 + y, 60 + x, 50 + y), block(100, 60 + y, 140, 100 + y)]
        annotations += [
            Annotation(len(annotations) + 1 + n, i + 1, n + 1, pixels.encode(m)) for n, m in enumerate(masks)
        ]
        path = data / split / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(0, 256, (15, 20, 3), dtype=np.uint8)
        PillowImage.fromarray(noise).resize((SIZE[1], SIZE[0])).save(path)
    annotations += [Annotation(len(annotations) + 1 + n, *row) for n, row in enumerate(more)]
    d = Dataset.build(CATEGORIES, images, annotations, folder=data / split)
    d.write(data / "annotations" / f"instances_{split}.json")
    return d


def found(data):
    splits = {s: d for s in ("train", "val", "test") if (d := Dataset.read_split(data, s)) is not None}
    facts = facts_of(splits)
    looked = photo_findings({name: SplitView(name, d) for name, d in splits.items()})
    return facts.model_copy(update={"problems": sorted_findings([*facts.problems, *looked])})


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    data = tmp_path_factory.mktemp("clean")
    split_of(data, "train", [f"{i}.jpg" for i in range(10)])
    split_of(data, "val", ["v.jpg"])
    return data


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A folder with a name that is a trap, a leak, a photo cut off, one gone, one of another size, specks, a repeat."""
    data = tmp_path_factory.mktemp("broken")
    speck = pixels.encode(block(150, 110, 152, 112))
    again = pixels.encode(block(10, 10, 60, 50))
    split_of(data, "train", [ODD, "1.jpg", "2.jpg", "3.jpg", "4.jpg"], [(2, 2, speck), (1, 1, again)])
    split_of(data, "val", ["v.jpg", "w.jpg"])
    (data / "val" / "v.jpg").write_bytes((data / "train" / "4.jpg").read_bytes())
    (data / "train" / "2.jpg").write_bytes((data / "train" / "2.jpg").read_bytes()[:700])
    (data / "train" / "3.jpg").unlink()
    PillowImage.new("RGB", (50, 50), (90, 10, 10)).save(data / "val" / "w.jpg")
    return data


@pytest.fixture(scope="module")
def page(broken, tmp_path_factory):
    return contact_sheet(found(broken), broken, tmp_path_factory.mktemp("page") / "sheet.html")


def text_of(path):
    return path.read_text(encoding="utf-8")


def test_a_clean_dataset_is_called_so_and_shows_what_is_normal(clean, tmp_path):
    said = []
    out = contact_sheet(found(clean), clean, tmp_path / "sheet.html", say=said.append)
    text = text_of(out)
    assert "Nothing is wrong with it." in text
    assert 'id="examples"' not in text
    assert re.findall(r"(\d+) of (\d+) photos?<", text) == [("8", "10"), ("1", "1")]
    assert re.findall(r"(\d+) of (\d+) objects<", text) == [("8", "11"), ("8", "11")]
    assert text.count('<image href="data:image/jpeg;base64,') == 8 + 1 + 8 + 8
    assert said == [f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB); open it in any browser"]


def test_the_same_seed_gives_the_same_pictures_and_another_seed_others(clean, tmp_path):
    facts = found(clean)
    pages = [
        re.sub("Made [^ ]*", "", text_of(contact_sheet(facts, clean, tmp_path / f"{n}.html", seed=seed)))
        for n, seed in enumerate((0, 0, 1))
    ]
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_every_finding_stands_in_the_list_and_has_its_part(broken, page):
    facts, text = found(broken), text_of(page)
    codes = [f.code for f in facts.problems]
    assert {"photo-missing", "photo-unreadable", "photo-size", "photo-leak", "same-object-twice", "speck"} <= set(codes)
    assert re.findall(r"<code>([a-z0-9-]+)</code>", text) == codes
    for n, _ in enumerate(facts.problems, start=1):
        assert (text.count(f'href="#f{n}"'), text.count(f'id="f{n}"')) == (1, 1)
    assert "1 photo is not where the annotation file says" in text
    assert "Training is pointless or impossible until the errors are mended." in text


def part_of(page, code):
    return next(p for p in text_of(page).split("<article")[1:] if f"<code>{code}</code>" in p).split("</article>")[0]


def test_a_pair_shows_both_photos(page):
    part = part_of(page, "photo-leak")
    assert re.findall(r'class="name" title="([^"]*)"', part) == ["train/4.jpg", "val/v.jpg"]
    assert part.count("<image ") == 2
    assert 'class="card pair"' in part


def test_a_photo_that_cannot_be_shown_is_a_grey_card_that_says_why(page):
    assert "The photo does not exist" in part_of(page, "photo-missing")
    assert "The photo cannot be decoded (the file is cut off)" in part_of(page, "photo-unreadable")
    assert all('class="lost"' in part_of(page, code) for code in ("photo-missing", "photo-unreadable"))


def test_masks_are_not_drawn_on_a_photo_of_another_size(page):
    part = part_of(page, "photo-size")
    assert ("<image " in part, "<path" in part) == (True, False)
    assert "it is of another size than its masks" in part


def test_an_object_is_shown_large_with_its_own_outline(page):
    part = part_of(page, "speck")
    assert 'aria-label="train/1.jpg, a part of the photo: nut &lt;b&gt;&amp;"' in part
    assert part.count('class="edge') == 1
    assert re.search(r'viewBox="0 0 (\d+) (\d+)"', part).groups() == ("72", "54")
    assert "nut &lt;b&gt;&amp;, annotation" in part


def test_a_repeated_object_is_drawn_over_the_first(page):
    part = part_of(page, "same-object-twice")
    assert re.findall(r'class="edge ([^"]*)"', part) == ["k0", "k0 repeat"]


def test_names_cannot_break_out_of_the_page(page):
    text = text_of(page)
    assert "<script" not in text
    assert "nut <b>" not in text
    assert "train/a&#34;b&#39;&lt;script&gt;document.title=1&lt;!--.jpg" in text


def test_the_page_asks_for_nothing_from_outside(page):
    text = html.unescape(text_of(page))
    assert "default-src 'none'; img-src data:; style-src 'sha256-" in text
    assert re.findall(r'(?:src|href)="(?!#|data:)[^"]*"', text) == []
    assert "url(" not in text.split("<body>")[0].replace("url(#", "")
    assert "style=" not in text.split("<body>")[1]


def test_every_picture_has_words(page):
    svgs = re.findall(r"<svg [^>]*>", text_of(page))
    assert len(svgs) > 10
    assert all(re.search(r'role="img" aria-label="[^"]+"', svg) for svg in svgs)


def test_the_table_holds_the_facts(clean, tmp_path):
    text = text_of(contact_sheet(found(clean), clean, tmp_path / "sheet.html"))
    rows = dict(re.findall(r'<tr[^>]*><th[^>]*>([^<]*)</th>((?:<td class="n">[^<]*</td>)+)', text))
    cells = {name: re.findall(">([^<]*)</td>", row) for name, row in rows.items()}
    assert cells["Photos"] == ["10", "1"]
    assert cells["nut &lt;b&gt;&amp;"] == ["10", "1"]
    assert cells["size of the median one"] == ["160 × 120", "160 × 120"]


def test_what_does_not_fit_is_counted(clean, tmp_path, monkeypatch):
    examples = tuple(Example(split="train", photo=f"{i}.jpg", annotations=(2 * i + 1,)) for i in range(10))
    finding = Finding(code="speck", severity="warning", problem=Problem("specks"), count=4_321, examples=examples)
    facts = found(clean).model_copy(update={"problems": (finding,)})
    monkeypatch.setattr(page_module, "MOST_BYTES", {"findings": 20_000, "samples": 1, "strips": 1})
    text = text_of(contact_sheet(facts, clean, tmp_path / "sheet.html"))
    shown = int(re.search(r"(\d+) examples of 4,321\.", text)[1])
    assert 1 <= shown < 10
    assert re.findall(r"(\d+) of (\d+) photos?<", text) == [("1", "10"), ("1", "1")]
    assert len(text) < 120_000


def test_many_lines_and_many_objects_are_counted(clean, tmp_path):
    where = tuple(f"line {n}" for n in range(100))
    many = tuple(Annotation(n + 1, 1, 1, pixels.encode(block(n, n, n + 9, n + 9))) for n in range(MOST_OUTLINES + 7))
    crowded = tmp_path / "data"
    split_of(crowded, "train", ["0.jpg"])
    Dataset.build(CATEGORIES, [Image(1, "0.jpg", SIZE[1], SIZE[0])], many).write(
        crowded / "annotations" / "instances_train.json"
    )
    finding = Finding(code="crowded-photo", severity="warning", problem=Problem("full", where, "cut"), count=1)
    facts = found(crowded).model_copy(update={"problems": (finding,)})
    text = text_of(contact_sheet(facts, crowded, tmp_path / "sheet.html"))
    assert ("line 39<" in text, "line 40<" in text, "... and 60 more" in text) == (True, False, True)
    assert "7 more objects are not outlined" in text


def test_an_example_that_is_not_there_is_no_crash(clean, tmp_path):
    examples = (
        Example(split="train", photo="gone.jpg", note="n1"),
        Example(split="test", photo="0.jpg", other_split="val", other_photo="nowhere.jpg", note="n2"),
        Example(split="train", photo="", note="about no photo"),
        Example(split="train", photo="0.jpg", annotations=(999,), note="no such object"),
    )
    finding = Finding(code="new-code", severity="note", problem=Problem("odd"), count=4, examples=examples)
    facts = found(clean).model_copy(update={"problems": (finding,)})
    text = text_of(contact_sheet(facts, clean, tmp_path / "sheet.html"))
    assert text.count("The photo is not in the annotation file") == 3
    assert all(note in text for note in ("n1", "n2", "about no photo", "no such object"))


def test_a_name_that_leads_outside_is_not_opened(tmp_path):
    d = split_of(tmp_path, "train", ["0.jpg"])
    PillowImage.new("RGB", (SIZE[1], SIZE[0])).save(tmp_path / "secret.jpg")
    outside = Dataset.build(CATEGORIES, [Image(1, "../secret.jpg", SIZE[1], SIZE[0])], d.annotations())
    outside.write(tmp_path / "annotations" / "instances_train.json")
    text = text_of(contact_sheet(found(tmp_path), tmp_path, tmp_path / "sheet.html"))
    assert "The photo has a name that leads out of the data folder" in text
    assert "<image " not in text


def test_a_split_that_cannot_be_read_is_a_finding_and_the_rest_is_shown(clean, tmp_path):
    split_of(tmp_path / "data", "val", ["v.jpg"])
    (tmp_path / "data/annotations/instances_train.json").write_text("{")
    with pytest.raises(UserError, match="the file is not valid JSON"):
        check(tmp_path / "data", html=tmp_path / "sheet.html")
    text = text_of(tmp_path / "sheet.html")
    assert "the file is not valid JSON" in text
    assert "1 of 1 photo<" in text


def test_an_existing_page_is_not_replaced_unasked(clean, tmp_path):
    out = tmp_path / "sheet.html"
    out.write_text("mine")
    with pytest.raises(UserError, match="the output exists already"):
        contact_sheet(found(clean), clean, out)
    assert out.read_text() == "mine"
    contact_sheet(found(clean), clean, out, overwrite=True)
    assert "Nothing is wrong with it." in text_of(out)


def test_the_data_folder_is_not_replaced(clean):
    with pytest.raises(UserError, match="the output must not be the input or hold it"):
        contact_sheet(found(clean), clean, clean, overwrite=True)
    annotations = clean / "annotations" / "instances_train.json"
    before = annotations.read_bytes()
    with pytest.raises(UserError, match="the output must not be the input or hold it"):
        contact_sheet(found(clean), clean, annotations, overwrite=True)
    assert annotations.read_bytes() == before


def test_a_window_is_4_by_3_inside_the_photo_and_holds_the_object():
    assert _around([(0, 0, 10, 10)], (1000, 1000)) == (0, 0, 72, 54)
    assert _around([(400, 400, 600, 500)], (1000, 1000)) == (350, 337, 650, 562)
    assert _around([(10, 10, 990, 700)], (1000, 1000)) == (0, 0, 1000, 1000)
    assert _around([], (30, 40)) == (0, 0, 40, 30)


def test_objects_are_found_by_id_in_the_order_asked_for(clean):
    pictures = Pictures({"train": Dataset.read_split(clean, "train")}, {})
    assert pictures.objects("train", "1.jpg", (4, 3)) == [3, 2]
    assert pictures.objects("train", "1.jpg") == [2, 3]
    assert (pictures.objects("val", "1.jpg"), pictures.objects("train", "1.jpg", (1,))) == ([], [])


# check with a page and with mends


def test_check_writes_the_page_also_where_there_are_errors(broken, tmp_path):
    said = []
    with pytest.raises(UserError, match="1 photo is not where the annotation file says"):
        check(broken, html=tmp_path / "sheet.html", say=said.append)
    assert said[-1].startswith(f"wrote {tmp_path / 'sheet.html'} (")
    with pytest.raises(UserError, match="the output exists already"):
        check(broken, html=tmp_path / "sheet.html")


def test_check_mends_first_and_tells_of_what_is_left(tmp_path):
    data = tmp_path / "data"
    split_of(data, "train", ["0.jpg", "1.jpg"], [(1, 1, pixels.encode(block(10, 10, 60, 50)))])
    split_of(data, "val", ["v.jpg"])
    said = []
    facts = check(data, fix=True, html=tmp_path / "sheet.html", say=said.append)
    assert facts.problems == ()
    assert facts.splits["train"].objects == 4
    assert said[0].splitlines()[0] == (
        "mended same-object-twice: 1 repeat of an object removed (same category, IoU over 0.95): the first is kept"
    )
    assert said[-1] == "nothing is wrong with it"
    assert "Nothing is wrong with it." in text_of(tmp_path / "sheet.html")


def test_check_mends_nothing_while_a_split_cannot_be_read(tmp_path):
    split_of(tmp_path, "train", ["0.jpg"], [(1, 1, pixels.encode(block(10, 10, 60, 50)))])
    (tmp_path / "annotations/instances_val.json").write_text("{")
    before, said = (tmp_path / "annotations/instances_train.json").read_bytes(), []
    with pytest.raises(UserError):
        check(tmp_path, fix=True, say=said.append)
    assert said[0] == "nothing is mended while a split cannot be read"
    assert (tmp_path / "annotations/instances_train.json").read_bytes() == before


# In a browser


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is not installed")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
        running = playwright.chromium.launch(executable_path=str(CHROMIUM), args=flags)
        yield running
        running.close()


@pytest.mark.browser
@pytest.mark.parametrize(("width", "scheme"), [(1200, "light"), (390, "dark"), (320, "light")])
def test_the_page_in_a_browser(browser, page, width, scheme):
    trouble = []
    context = browser.new_context(viewport={"width": width, "height": 800}, offline=True, color_scheme=scheme)
    tab = context.new_page()
    tab.on("console", lambda m: trouble.append(m.text))
    tab.on("pageerror", lambda e: trouble.append(str(e)))
    tab.on("request", lambda r: None if r.url.startswith(("data:", page.as_uri())) else trouble.append(r.url[:80]))
    tab.goto(page.as_uri())
    assert trouble == []
    assert tab.title().endswith("· dataset check")
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    assert tab.evaluate("[...document.querySelectorAll('.shot')].every(s => s.getBoundingClientRect().width > 50)")
    tab.locator('a[href="#f3"]').focus()
    tab.keyboard.press("Enter")
    tab.wait_for_url(lambda url: url.endswith("#f3"))  # the browser tells it a moment later
    assert tab.url.endswith("#f3")
    # An outline lies on its object: the hammer of the first sample is where the mask says.
    box = tab.locator("#samples .edge").first.evaluate("e => [e.getBBox().width, e.getBBox().height]")
    assert box == pytest.approx([50, 40], abs=1)
    context.close()


@pytest.mark.browser
def test_a_long_name_and_many_categories_do_not_widen_the_page(browser, tmp_path):
    data = tmp_path / "data"
    split_of(data, "train", ["x" * 200 + ".jpg"])
    names = [{"id": i, "name": f"category_{i}_" + "y" * 60} for i in range(1, 80)]
    path = data / "annotations/instances_train.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"categories": names}))
    out = contact_sheet(found(data), data, tmp_path / "sheet.html")
    assert "60 of 79 categories are shown." in text_of(out)
    tab = browser.new_page(viewport={"width": 390, "height": 800})
    tab.goto(out.as_uri())
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.close()


@pytest.mark.shared
def test_real_photos(tmp_path):
    if not (SHARED / "data/fruits_nuts").is_dir():
        pytest.skip("../shared/data/fruits_nuts is absent")
    from maskwright.prepare import prepare

    prepare(SHARED / "data/fruits_nuts", None, tmp_path / "data")
    out = contact_sheet(found(tmp_path / "data"), tmp_path / "data", tmp_path / "sheet.html")
    assert out.stat().st_size < 5_000_000
    assert text_of(out).count("<image ") >= 8 + 3 * 8
