"""Imports point one way, the light modules stay light, and the public names are exact."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import maskwright
from maskwright.formats import FORMS, form_module
from maskwright.settings import FormName

SRC = Path(maskwright.__file__).parent

# A module may import those above it. `cli` imports every stage, inside its verbs.
ORDER = (
    "errors",
    "settings",
    "memory",
    "halves",
    "scratch",
    "png",
    "jpeg",
    "files",
    "outputs",
    "pixels",
    "columns",
    "table",
    "segmentations",
    "objects",
    "shards",
    "pieces",
    "dataset",
    "writing",
    "likeness",
    "scale",
    "tracing",
    "formats",
    "survey",
    "rows",
    "splits",
    "refusals",
    "prepare",
    "masks",
    "rarity",
    "facts",
    "findings",
    "edges",
    "suspects",
    "mend",
    "report",
    "contact",
    "check",
    "plan",
    "settings_file",
    "cutouts",
    "canvas",
    "compose",
    "usable",
    "mmdetection",
    "settings_from",
    "alignment",
    "matching",
    "boundary",
    "scoring",
    "evaluate",
    "demo",
    # nothing above imports torch
    "crops",
    "batches",
    "models",
    "run",
    "framing",
    "pasting",
    "flips",
    "detections",
    "trackers",
    "log",
    "turns",
    "schedule",
    "optimisers",
    "step",
    "devices",
    "preflight",
    "checkpoint",
    "diagnosis",
    "average",
    "validation",
    "beginning",
    "processes",
    "train",
    "predict",
    "import_weights",
    "export",
    "make",
    "cli",
    "__main__",
)
LIGHT = ORDER[: ORDER.index("crops")]
TORCH = {"torch", "torchvision", "timm", "lightning_fabric", "lightning", "safetensors", "tensorboard"}
# What a light module may import at its top: fast, and needed by nearly all of them. The rest waits inside functions.
ALLOWED_AT_TOP = {"numpy", "PIL", "hotcoco", "pydantic"}
ALSO_ALLOWED = {"demo": {"scipy"}}  # nothing but the verb imports demo, which cannot draw without it
FORBIDDEN = {"utils", "util", "helpers", "helper", "common", "core", "base", "engine", "manager", "registry", "misc"}


def modules():
    """Yield (name of the module or package in ORDER, path, syntax tree) of every source file."""
    for path in sorted(SRC.rglob("*.py")):
        parts = path.relative_to(SRC).with_suffix("").parts
        if parts != ("__init__",):
            yield parts[0], path, ast.parse(path.read_text(encoding="utf-8"))


def ours(tree, path):
    """Yield (line, module) of every import of our own code, at any depth of the tree."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "maskwright":
                    yield node.lineno, [*alias.name.split("."), "__init__"][1]
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                inside = ("maskwright", *path.relative_to(SRC).parent.parts)[
                    : None if node.level == 1 else 1 - node.level
                ]
                names = [*inside, *(node.module or "").split(".")]
            else:
                names = (node.module or "").split(".")
            names = [name for name in names if name]
            if names[0] == "maskwright":
                for name in [names[1]] if len(names) > 1 else [alias.name for alias in node.names]:
                    yield node.lineno, name


def top_level(tree):
    """Yield (line, package) of every import that runs when the module is imported."""
    todo = list(tree.body)
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.lineno, node.module.split(".")[0]
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            todo += node.orelse
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            todo += [child for child in ast.iter_child_nodes(node) if isinstance(child, ast.stmt)]


def test_every_module_has_its_place():
    unplaced = {name for name, _, _ in modules()} - set(ORDER)
    assert unplaced == set(), "add the module to ORDER, below those that it imports"


def test_imports_point_one_way():
    wrong = []
    for name, path, tree in modules():
        allowed = {*ORDER[: ORDER.index(name) + 1], "__version__"}
        wrong += [f"{path.name}:{line} imports {other}" for line, other in ours(tree, path) if other not in allowed]
    assert wrong == []


def test_no_module_imports_a_verb_from_the_package():
    """`from maskwright import check` is the function; inside it would hide which module is meant."""
    verbs = {name for name, home in maskwright._HOMES.items() if name == home}
    found = [
        f"{path.name}:{node.lineno} {alias.name}"
        for _, path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "maskwright" and not node.level
        for alias in node.names
        if alias.name in verbs
    ]
    assert found == []


def test_nothing_above_the_line_imports_torch():
    wrong = []
    for name, path, tree in modules():
        if name in LIGHT:
            for node in ast.walk(tree):
                names = []
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    names = [node.module]
                wrong += [f"{path.name}:{node.lineno} {n}" for n in names if n.split(".")[0] in TORCH]
    assert wrong == []


def test_one_module_knows_ray():
    knowing = set()
    for name, _, tree in modules():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(one.split(".")[0] == "ray" for one in names):
                knowing.add(name)
    assert knowing == {"scale"}


def test_light_modules_import_little_at_their_top():
    wrong = []
    for name, path, tree in modules():
        if name in LIGHT:
            allowed = ALLOWED_AT_TOP | ALSO_ALLOWED.get(name, set()) | sys.stdlib_module_names | {"maskwright"}
            wrong += [f"{path.name}:{line} {package}" for line, package in top_level(tree) if package not in allowed]
    assert wrong == []


def test_no_module_has_a_name_that_says_nothing():
    found = {
        part for path in SRC.rglob("*.py") for part in path.relative_to(SRC).with_suffix("").parts if part in FORBIDDEN
    }
    assert found == set()


def test_every_module_says_what_it_is():
    silent = [
        str(path.relative_to(SRC))
        for path in SRC.rglob("*.py")
        if not ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert silent == []


@pytest.mark.parametrize("name", maskwright.__all__)
def test_every_public_name_can_be_imported(name):
    value = getattr(maskwright, name)
    assert name == "__version__" or value.__module__.startswith("maskwright")


def test_all_is_exact():
    assert set(maskwright.__all__) == {*maskwright._HOMES, "__version__"}
    assert dir(maskwright) == sorted(maskwright.__all__)
    typed = {
        alias.asname
        for node in ast.walk(ast.parse((SRC / "__init__.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("maskwright.")
        for alias in node.names
    }
    assert typed == set(maskwright._HOMES)


def test_an_unknown_public_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'maskwright' has no attribute 'trian'"):
        maskwright.trian  # noqa: B018


@pytest.mark.parametrize("verb", sorted(name for name, home in maskwright._HOMES.items() if name == home))
def test_a_verb_is_the_function_and_its_module_has_the_same_name(verb):
    module = importlib.import_module(f"maskwright.{verb}")
    assert getattr(maskwright, verb) is getattr(module, verb)


def loaded_after(code):
    """Return which slow packages a fresh process has loaded after running some code."""
    slow = sorted(TORCH | {"scipy", "matplotlib", "jinja2", "numpy", "rich"})
    code += f"\nimport sys\nprint([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return ast.literal_eval(done.stdout.strip().splitlines()[-1])


def test_importing_the_package_loads_nothing():
    assert loaded_after("import maskwright") == []


def test_importing_the_stages_above_the_line_does_not_load_torch():
    present = [name for name in LIGHT if (SRC / f"{name}.py").exists() or (SRC / name).is_dir()]
    code = "\n".join(f"import maskwright.{name}" for name in present)
    assert set(loaded_after(code)) & TORCH == set()


def test_the_forms_are_those_that_settings_allow():
    """Written twice, since worker processes that import the settings would start later."""
    assert get_args(FormName) == FORMS


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_a_module_of_one_shape(form):
    module = form_module(form)
    assert form == module.NAME
    assert module.EXPECTS.strip()
    assert list(inspect.signature(module.find).parameters) == ["place", "settings"]
    assert list(inspect.signature(module.read).parameters) == ["found", "work"]
