"""What the documents say is so: commands exist, links lead somewhere, help is up to date, words are explained."""

import importlib.util
import inspect
import re
import shlex
from pathlib import Path
from typing import get_args

import pytest

import maskwright
from maskwright import cli
from maskwright.settings import FormName, MaskForm

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")]
    if path.name not in {"LICENSE.md"}
)
IDS = [str(page.relative_to(ROOT)) for page in PAGES]


def text_of(page):
    return page.read_text(encoding="utf-8")


def commands(page):
    """Yield the words of every `maskwright ...` command of a page, in code blocks and in code spans."""
    text = text_of(page)
    blocks = re.findall(r"```(?:sh|console|bash)\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(maskwright [^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    for line in lines:
        if line.startswith("maskwright "):
            yield shlex.split(line, comments=True)[1:]


def options(verb):
    """Return every option of a verb, as typed."""
    arguments = cli.app[verb].assemble_argument_collection()
    return {name for argument in arguments for name in (*argument.names, *argument.negatives)} | {"--help"}


def test_every_page_is_looked_at():
    assert {"README.md", "CONTEXT.md", "CHANGELOG.md", "docs/tutorial/hammer.md", "docs/reference/cli.md"} <= set(IDS)


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_exists_with_its_options(page):
    wrong = []
    for words in commands(page):
        verb = words[0]
        if verb in {"VERB", "--help", "--version"}:
            continue
        if verb not in cli._verbs():
            wrong.append(" ".join(words))
            continue
        known = options(verb)
        wrong += [f"{verb} {word}" for word in words if word.startswith("-") and word.split("=")[0] not in known]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([a-z]+):", text_of(ROOT / "Makefile"), flags=re.MULTILINE))
    text = text_of(page)
    used = set(re.findall(r"`make ([a-z]+)`", text)) | set(re.findall(r"^make ([a-z]+)", text, flags=re.MULTILINE))
    assert used <= targets


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    lost = []
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        path = (page.parent / target).resolve()
        if "://" in target or path.exists():
            continue
        lost.append(target)
    assert lost == []


def test_the_readme_is_short_and_begins_with_two_commands():
    text = text_of(ROOT / "README.md")
    assert len(text.splitlines()) <= 150
    first = re.search(r"```sh\n(.*?)```", text, flags=re.DOTALL).group(1).splitlines()
    assert [line.split()[:2] for line in first] == [["make", "demo"], ["maskwright", "make"]]
    assert re.search(r"!\[[^\]]{30,}\]\(docs/images/demo\.png\)", text), (
        "the picture needs a text for those who cannot see it"
    )


def test_the_readme_has_every_verb():
    found = {words[0] for words in commands(ROOT / "README.md")}
    assert set(cli._verbs()) <= found


def test_the_readme_names_only_what_python_has():
    text = text_of(ROOT / "README.md") + text_of(ROOT / "docs" / "how-to" / "README.md")
    assert set(re.findall(r"\bmw\.(\w+)", text)) <= set(maskwright.__all__)


def generator():
    path = ROOT / "docs" / "reference" / "generate.py"
    spec = importlib.util.spec_from_file_location("generate", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_help_in_the_reference_is_what_the_program_prints():
    assert text_of(ROOT / "docs" / "reference" / "cli.md") == generator().page(), "run: make docs"


def test_the_findings_in_the_reference_are_those_of_the_program():
    assert text_of(ROOT / "docs" / "reference" / "findings.md") == generator().findings_page(), "run: make docs"


def test_the_page_of_forms_has_every_form():
    text = text_of(ROOT / "docs" / "reference" / "forms.md")
    for form in get_args(FormName) + get_args(MaskForm):
        assert f"`{form}`" in text


def test_the_reference_has_every_verb():
    assert sorted(generator().ORDER) == cli._verbs()


ADRS = sorted((ROOT / "docs" / "adr").glob("0*.md"))


def test_decisions_are_numbered_without_a_gap_and_listed():
    assert [int(path.name[:4]) for path in ADRS] == list(range(1, len(ADRS) + 1))
    listed = re.findall(r"\]\((\d{4}-[a-z0-9-]+\.md)\)", text_of(ROOT / "docs" / "adr" / "README.md"))
    assert listed == [path.name for path in ADRS]


@pytest.mark.parametrize("path", ADRS, ids=lambda path: path.name)
def test_a_decision_has_its_parts(path):
    text = text_of(path)
    assert text.startswith(f"# {path.name[:4]}: ")
    found = re.findall(r"^\*\*(\w+)\.\*\*", text, flags=re.MULTILINE)
    assert found == ["Context", "Decision", "Rejected", "Consequences"]


@pytest.mark.parametrize(
    "word",
    [
        *("Photo", "Mask image", "Mask", "Category", "Label", "Annotation", "Detection"),
        *("Facts", "Settings", "Plan", "Run", "Hit", "Miss", "False alarm"),
    ],
)
def test_every_word_is_explained(word):
    assert f"| **{word}** |" in text_of(ROOT / "CONTEXT.md")


def test_the_changelog_has_this_version():
    assert f"## [{maskwright.__version__}]" in text_of(ROOT / "CHANGELOG.md")


def test_the_licence_is_the_one_that_is_named():
    assert "Apache License" in text_of(ROOT / "LICENSE")
    assert 'license = "Apache-2.0"' in text_of(ROOT / "pyproject.toml")


def test_every_dependency_has_a_reason():
    text = text_of(ROOT / "pyproject.toml")
    lines = re.findall(r'^    "[a-zA-Z].*$', re.search(r"^dependencies = \[(.*?)^\]", text, re.S | re.M).group(1), re.M)
    assert len(lines) >= 10
    assert [line for line in lines if not re.search(r"# \w+", line)] == []


@pytest.mark.parametrize("verb", [name for name, home in maskwright._HOMES.items() if name == home])
def test_every_verb_has_a_docstring_with_its_parts(verb):
    text = inspect.getdoc(getattr(maskwright, verb))
    assert re.match(r"[A-Z][^\n]*\.\n\n", text), "one sentence, then an empty line"
    assert "\nArgs:\n" in text
    assert "\nRaises:\n" in text


def test_the_design_gives_the_order_that_is_held():
    order = re.findall(r"^    \"(\w+)\",$", text_of(ROOT / "tests" / "test_architecture.py"), flags=re.MULTILINE)
    text = text_of(ROOT / "docs" / "explanation" / "design.md")
    written = re.search(r"```text\n(errors,.*?)```", text, flags=re.DOTALL).group(1)
    names = re.findall(r"\w+", re.sub(r"^-.*$", "", written, flags=re.MULTILINE))
    assert names == [name for name in order if name != "export"]  # a room that is kept free
