"""The command line: what each verb passes on, what each mistake gets, and how fast help answers."""

import ast
import inspect
import io
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import maskwright
from maskwright import cli, settings
from maskwright.errors import UserError

VERBS = (
    "check",
    "compose",
    "demo",
    "evaluate",
    "import-weights",
    "make",
    "masks",
    "predict",
    "prepare",
    "report",
    "settings",
    "train",
)
FUNCTIONS = {verb: "settings_from" if verb == "settings" else verb.replace("-", "_") for verb in VERBS}
MODELS = {
    "check": settings.CheckSettings,
    "compose": settings.ComposeSettings,
    "demo": settings.DemoSettings,
    "evaluate": settings.EvaluateSettings,
    "import-weights": settings.ImportSettings,
    "make": settings.MakeSettings,
    "masks": settings.MasksSettings,
    "predict": settings.PredictSettings,
    "prepare": settings.PrepareSettings,
    "train": settings.TrainSettings,
}
POSITIONALS = {
    "check": ["DATA"],
    "compose": ["DATA", "B", "-o", "O"],
    "demo": ["-o", "O"],
    "evaluate": ["T", "D"],
    "import-weights": ["F", "-o", "O"],
    "make": ["RAW", "-o", "O"],
    "masks": ["C", "-o", "O"],
    "predict": ["R", "P", "-o", "O"],
    "prepare": ["RAW", "-o", "O"],
    "report": ["E", "-o", "O"],
    "settings": ["C.py", "-o", "O"],
    "train": ["DATA", "-o", "O"],
}


@pytest.fixture
def called(monkeypatch):
    """Replace every stage by one that notes how it was called."""
    calls = []

    def note(verb):
        def stage(*args, **kwargs):
            calls.append((verb, args, kwargs))

        return stage

    for verb in VERBS:
        name = FUNCTIONS[verb]
        module = types.ModuleType(f"maskwright.{name}")
        setattr(module, name, note(verb))
        monkeypatch.setitem(sys.modules, f"maskwright.{name}", module)
    return calls


def run(capsys, *tokens):
    code = cli.main(list(tokens))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_the_verbs_are_those_that_are_promised():
    assert cli._verbs() == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_passes_on_nothing_that_was_not_typed(called, capsys, verb):
    code, _, err = run(capsys, verb, *POSITIONALS[verb])
    assert (code, err) == (0, "")
    ((name, args, kwargs),) = called
    assert name == verb
    own = {"say", "overwrite", "resume", "dry_run", "progress", "photos", "run", "masks", "html", "fix"}
    assert set(kwargs) <= own | {"settings"}
    assert kwargs.get("settings") is None
    paths = [Path(token) for token in POSITIONALS[verb] if token != "-o"]
    assert [arg for arg in args if arg is not None] == paths


@pytest.mark.parametrize(("verb", "model"), MODELS.items())
def test_every_setting_is_an_option(called, capsys, verb, model):
    values = {
        "architecture": "maskrcnn-nano",
        "weights": "none",
        "precision": "32",
        "form": {"prepare": "coco", "make": "coco"}.get(verb, "ids"),
        "coding": "ids",
        "parts": "separate",
        "mask_frame": "stored",
        "unmatched": "skip",
        "on": "ray",
        "tracker": "mlflow",
        "optimiser": "sgd",
        "schedule": "steps",
        "split": "val",
        "side": 256,
        "short_side": 128,
        "mask_side": 56,
        "momentum": 0.5,
        "size": 128,
        "scale_jitter": 1.5,
        "style": "caffe",
        "drops": 3,
    }
    for name, field in model.model_fields.items():
        switch = "bool" in str(field.annotation)
        value = True if switch else values.get(name, "x" if "str" in str(field.annotation) else 1)
        tokens = ["--" + name.replace("_", "-")] + ([] if switch else [str(value)])
        called.clear()
        code, _, err = run(capsys, verb, *POSITIONALS[verb], *tokens)
        assert (code, err) == (0, ""), name
        ((_, args, kwargs),) = called
        if name == "masks":  # an argument of its own
            assert Path("x") in (*args, kwargs.get("masks"))
        else:
            assert kwargs[name] == ((value,) if "tuple" in str(field.annotation) else value)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_takes_what_its_function_takes(verb):
    """The same names on the command line and in Python."""
    function = inspect.signature(getattr(maskwright, FUNCTIONS[verb])).parameters
    command = inspect.signature(getattr(cli, verb.replace("-", "_"))).parameters
    fields = MODELS[verb].model_fields if verb in MODELS else {}
    mine = {"out" if name == "output" else name for name in command if name not in fields or name == "masks"}
    theirs = {name for name, p in function.items() if p.kind is not p.VAR_KEYWORD} - {"say", "progress"}
    assert mine == theirs


def test_masks_can_be_given_in_two_ways(called, capsys):
    run(capsys, "prepare", "P", "M", "-o", "D")
    run(capsys, "prepare", "P", "--masks", "M", "-o", "D")
    assert [call[1] for call in called] == [(Path("P"), Path("M"), Path("D"))] * 2


@pytest.mark.parametrize("verb", ["train", "make"])
def test_a_settings_file_is_passed_on_with_what_is_typed(called, capsys, verb):
    assert run(capsys, verb, *POSITIONALS[verb], "--settings", "s.json", "--side", "512")[0] == 0
    kwargs = called[0][2]
    assert (kwargs["settings"], kwargs["side"]) == (Path("s.json"), 512)


def test_training_switches_can_be_forced_either_way(called, capsys):
    run(capsys, "train", "D", "-o", "R", "--no-flip", "--turn", "--dry-run", "--resume")
    kwargs = called[0][2]
    assert (kwargs["flip"], kwargs["turn"], kwargs["dry_run"], kwargs["resume"]) == (False, True, True, True)


def test_a_switch_that_is_off_has_no_negative(capsys):
    assert run(capsys, "prepare", "R", "-o", "D", "--no-resize-masks")[0] == 2
    code, out, _ = run(capsys, "prepare", "--help")
    assert code == 0
    assert "--no-resize-masks" not in out
    assert "--no-near-duplicates" in out  # this one is derived, and can be forced either way


def test_what_a_stage_says_is_printed(called, capsys, monkeypatch):
    module = types.ModuleType("maskwright.check")
    module.check = lambda data, *, say, **_: say(f"3 photos in {data}")
    monkeypatch.setitem(sys.modules, "maskwright.check", module)
    assert run(capsys, "check", "D") == (0, "3 photos in D\n", "")


MISTAKES = {
    "trian": """\
there is no such verb
  trian; did you mean 'train'?
fix: the verbs are check, compose, demo, evaluate, import-weights, make, masks, predict, prepare, report, settings,\
 train
""",
    "train DATA": """\
something is missing from the command
  --output
fix: see: maskwright train --help
""",
    "evaluate": """\
something is missing from the command
  TRUTH
fix: see: maskwright evaluate --help
""",
    "train DATA -o RUN --minuts 4": """\
there is no such option
  --minuts; did you mean '--minutes'?
fix: see: maskwright train --help
""",
    "train DATA -o RUN --minuts=4": """\
there is no such option
  --minuts; did you mean '--minutes'?
fix: see: maskwright train --help
""",
    "train DATA MORE -o RUN": """\
there are words in the command that nothing asks for
  MORE
fix: see: maskwright train --help
""",
    "train DATA -o RUN --minutes -4 --side 3": """\
a setting has a value that it cannot have
  minutes (--minutes) is -4.0: input should be greater than 0
  side (--side) is 3: input should be greater than or equal to 64
fix: give another value
""",
    "train DATA -o RUN --minutes 4 --steps 100": """\
a setting has a value that it cannot have
  give one of minutes, epochs and steps, not minutes and steps
fix: give another value
""",
    "train DATA -o RUN --steps 1.5": """\
the command cannot be understood
  Invalid value for --steps: "1.5" is not a whole number
fix: see: maskwright train --help
""",
    "predict RUN PHOTOS -o OUT --form masks": """\
the command cannot be understood
  Invalid value "masks" for --form. Choose from: "categories", "instances", "ids".
fix: see: maskwright predict --help
""",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_a_mistake_gets_our_form_and_code_2(called, capsys, command):
    assert run(capsys, *command.split()) == (2, "", MISTAKES[command])
    assert called == []


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (UserError("the output exists already", ["RUN"], "--overwrite"), (2, "the output exists already\n  RUN\n")),
        (KeyboardInterrupt(), (130, "interrupted\n")),
    ],
)
def test_exit_codes(called, capsys, monkeypatch, error, ending):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(sys.modules["maskwright.train"], "train", fail)
    got, out, err = run(capsys, "train", "D", "-o", "R")
    assert (got, out) == (ending[0], "")
    assert err.startswith(ending[1])


def test_our_bug_says_so_and_shows_the_traceback(called, capsys, monkeypatch):
    monkeypatch.setattr(sys.modules["maskwright.train"], "train", lambda *a, **k: 1 / 0)
    code, out, err = run(capsys, "train", "D", "-o", "R")
    assert (code, out) == (1, "")
    assert err.startswith("Traceback")
    assert err.endswith(
        f"this is a bug in Maskwright {maskwright.__version__}, not a mistake of yours (ZeroDivisionError)\n"
        "fix: please report it with the lines above and the command that you typed\n"
    )


def test_version(capsys):
    assert run(capsys, "--version") == (0, f"{maskwright.__version__}\n", "")


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_a_summary_an_example_and_every_option(capsys, verb):
    code, out, err = run(capsys, verb, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"Usage: maskwright {verb} ")
    assert f"Example: maskwright {verb} " in out
    for name in MODELS[verb].model_fields if verb in MODELS else ():
        assert f"--{name.replace('_', '-')} " in out


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_does_not_load_torch_or_numpy(verb):
    tokens = [verb, "--help"] if verb else ["--help"]
    code = (
        "import sys\nfrom maskwright.cli import main\n"
        f"assert main({tokens}) == 0\n"
        "print([n for n in ('torch', 'numpy', 'scipy', 'PIL', 'hotcoco', 'matplotlib') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout.splitlines()[-1]) == []


def test_a_reader_that_goes_away_is_not_a_bug():
    code = (
        "import sys, types\nfrom maskwright import cli\nm = types.ModuleType('maskwright.check')\n"
        "m.check = lambda data, say, **_: [say('x' * 1000) for _ in range(1000)]\nsys.modules['maskwright.check'] = m\n"
        "sys.exit(cli.main(['check', 'D']))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 0


def test_what_the_terminal_cannot_print_is_printed_as_escapes(monkeypatch):
    for encoding, expected in (("utf-8", "nut\\ud800 é"), ("ascii", "nut\\ud800 \\xe9")):
        out, err = io.BytesIO(), io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
        monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, encoding=encoding))
        cli._say("nut\ud800 é")
        assert cli._fail("nut\ud800 é", 2) == 2
        assert out.getvalue().decode(encoding) == err.getvalue().decode(encoding) == expected + "\n"
        monkeypatch.undo()


@pytest.mark.parametrize("verb", ["check", "masks"])
def test_half_a_character_in_a_category_is_a_mistake_of_the_user(tmp_path, capsys, verb):
    path = tmp_path / "annotations" / "instances_train.json"
    path.parent.mkdir()
    box = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]]}
    image = {"id": 1, "file_name": "a.png", "width": 20, "height": 20}
    document = {"images": [image], "categories": [{"id": 1, "name": "nut\ud800"}], "annotations": [box]}
    path.write_text(json.dumps(document))
    typed = {"check": [str(tmp_path)], "masks": [str(path), "-o", str(tmp_path / "out")]}
    code, _, err = run(capsys, verb, *typed[verb])
    assert code == 2
    assert "categories[0]: name 'nut\\ud800' has half a character" in err
    assert not (tmp_path / "out").exists()
