"""The command line: parse, import the stage, call it, print. What a verb does is in the module of its name.

Only the settings, the errors and the parser are imported here, so that `--help` answers at once; every stage is
imported inside its verb.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, TextIO, get_args

import cyclopts
from cyclopts import App, Group, Parameter
from pydantic.fields import FieldInfo

from maskwright import __version__
from maskwright.errors import UserError, nearest
from maskwright.settings import (
    CheckSettings,
    ComposeSettings,
    DemoSettings,
    EvaluateSettings,
    ImportSettings,
    MakeSettings,
    MasksSettings,
    PredictSettings,
    PrepareSettings,
    Settings,
    TrainSettings,
)

DONE, OUR_BUG, USER_MUST_ACT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""

app = App(
    name="maskwright",
    help="A folder of photos and masks in; a trained segmenter, honest scores, a report and mask images out.\n\n"
    "To try it: maskwright demo -o demo/raw, then: maskwright make demo/raw -o demo/work --minutes 4",
    version=__version__,
    usage="Usage: maskwright VERB ...",
    help_format="plaintext",
    group_arguments=Group("Arguments", sort_key=0),
    group_parameters=Group("Options", sort_key=1),
    suppress_keyboard_interrupt=False,
)

OutputFolder = Annotated[Path, Parameter(name=("--output", "-o"), help="The folder to make.")]
OutputFile = Annotated[Path, Parameter(name=("--output", "-o"), help="The file to write.")]
Masks = Annotated[Path | None, Parameter(help="The masks, where they cannot be told: a folder or a COCO file.")]
SettingsFile = Annotated[
    Path | None, Parameter(help="A JSON file of settings, such as a run's plan.json; those that are typed win.")
]
Overwrite = Annotated[bool, Parameter(negative="", help="Replace an output that exists.")]
OverwriteFolder = Annotated[bool, Parameter(negative="", help="Replace the whole output folder, if this verb made it.")]

Verb = Callable[..., None]


def _verb(usage: str, model: type[Settings] = Settings) -> Callable[[Verb], Verb]:
    """Make a function a verb of the command line; its `**settings` become one option per field of the model.

    The verb receives the settings that the user typed and no others, since a stage derives what it is not given. They
    are checked before the stage is imported: a typing mistake must not wait for torch.
    """

    def register(function: Verb) -> Verb:
        signature = inspect.signature(function, eval_str=True)
        typed = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
        options = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=hint)
            for name, field, hint in _options(model)
            if name not in signature.parameters
        ]

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> None:
            model.parse({name: value for name, value in kwargs.items() if name in model.model_fields})
            function(*args, **kwargs)

        parameters = [*typed, *options]
        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        app.command(run, usage=f"Usage: maskwright {function.__name__.replace('_', '-')} {usage}")
        return run

    return register


def _options(model: type[Settings]) -> Iterator[tuple[str, FieldInfo, Any]]:
    """Yield every field of the settings with its type as the parser wants it."""
    for name, field in model.model_fields.items():
        home = next(base for base in model.__mro__ if name in inspect.get_annotations(base))
        # make has the settings of several stages; each stage's are shown under its name.
        verb = home.__name__.removesuffix("Settings").lower()
        group = Group("Settings" if home is model else f"Settings of {verb}", sort_key=2 if home is model else 3)
        # A switch that is off unless given needs no --no- form; one that is derived can be forced either way.
        negative = "" if field.default is False else None
        converter = _whole if int in (field.annotation, *get_args(field.annotation)) else None
        option = Parameter(help=field.description, group=group, negative=negative, converter=converter)
        yield name, field, Annotated[field.annotation, option]


def _whole(_hint: Any, tokens: Sequence[cyclopts.Token]) -> int:
    """Convert a whole number; the parser's own conversion would round 1.5 in silence."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise ValueError(f'"{tokens[0].value}" is not a whole number') from None


@_verb("RAW [MASKS] -o WORK [options]", MakeSettings)
def make(
    raw: Path,
    /,
    masks: Masks = None,
    *,
    output: OutputFolder,
    overwrite: Annotated[bool, Parameter(negative="", help="Do every stage again.")] = False,
    settings: SettingsFile = None,
    **typed: Any,
) -> None:
    """Do the whole job: prepare, check, train, predict, evaluate, report.

    Only what is stale is done again, and training that was interrupted goes on.

    Example: maskwright make RAW -o WORK --minutes 10

    Args:
        raw: Photos and masks, as for prepare.
    """
    from maskwright.make import make

    make(
        raw,
        output,
        masks=masks,
        overwrite=overwrite,
        settings=settings,
        say=_say,
        progress=sys.stderr.isatty(),
        **typed,
    )


@_verb("RAW [MASKS] -o DATA [options]", PrepareSettings)
def prepare(
    raw: Path,
    /,
    masks: Masks = None,
    *,
    output: OutputFolder,
    overwrite: OverwriteFolder = False,
    **settings: Any,
) -> None:
    """Turn photos and masks into a standard COCO dataset.

    The form of the input is found by looking and said first; every file is accounted for.

    Example: maskwright prepare RAW -o DATA

    Args:
        raw: A folder of photos and masks, a folder of photos alone, or a COCO file (or shards of one).
    """
    from maskwright.prepare import prepare

    prepare(raw, masks, output, overwrite=overwrite, say=_say, **settings)


@_verb("DATA [options]", CheckSettings)
def check(
    data: Path,
    /,
    *,
    html: Annotated[Path | None, Parameter(help="Write a page with the worst examples of everything found.")] = None,
    fix: Annotated[bool, Parameter(negative="", help="Mend what is safe to mend; the old files are kept.")] = False,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace a page that exists.")] = False,
    **settings: Any,
) -> None:
    """Say what is in a dataset, and what is wrong with it.

    Exit code 2 means that training on it would be pointless.

    Example: maskwright check DATA --html check.html

    Args:
        data: A folder that prepare made.
    """
    from maskwright.check import check

    check(data, html=html, fix=fix, overwrite=overwrite, say=_say, **settings)


@_verb("DATA BACKGROUNDS -o OUT [options]", ComposeSettings)
def compose(
    data: Path,
    backgrounds: Path,
    /,
    *,
    output: OutputFolder,
    overwrite: OverwriteFolder = False,
    **settings: Any,
) -> None:
    """Paste the objects of a dataset over backgrounds: more pictures to train on, with exact masks.

    The same seed gives the same pictures.

    Example: maskwright compose DATA BACKGROUNDS -o MORE --with-originals

    Args:
        data: A folder that prepare made; the objects of its train split are pasted.
        backgrounds: A folder of photos that show none of the objects.
    """
    from maskwright.compose import compose

    compose(data, backgrounds, output, overwrite=overwrite, say=_say, progress=sys.stderr.isatty(), **settings)


@_verb("DATA -o RUN [options]", TrainSettings)
def train(
    data: Path,
    /,
    *,
    output: OutputFolder,
    overwrite: OverwriteFolder = False,
    resume: Annotated[bool, Parameter(negative="", help="Go on with a run that was interrupted.")] = False,
    dry_run: Annotated[bool, Parameter(negative="", help="Print the plan and stop.")] = False,
    settings: SettingsFile = None,
    **typed: Any,
) -> None:
    """Train a segmenter; everything that is not given is derived, and the plan is printed first.

    Ctrl-C leaves a run that can be used and can go on.

    Example: maskwright train DATA -o RUN --minutes 10

    Args:
        data: A folder that prepare made.
    """
    from maskwright.train import train

    train(
        data,
        output,
        overwrite=overwrite,
        resume=resume,
        dry_run=dry_run,
        settings=settings,
        say=_say,
        progress=sys.stderr.isatty(),
        **typed,
    )


@_verb("FILE -o RUN [options]", ImportSettings)
def import_weights(
    file: Path,
    /,
    *,
    output: OutputFolder,
    overwrite: OverwriteFolder = False,
    **settings: Any,
) -> None:
    """Make a run of a Mask R-CNN that torchvision, MMDetection or Detectron2 trained.

    What is loaded, and what is not, is shown; nothing in the file is executed.

    Example: maskwright import-weights mask_rcnn.pth -o RUN --categories hammer,nut

    Args:
        file: A .pth, .pkl or .safetensors file.
    """
    from maskwright.import_weights import import_weights

    import_weights(file, output, overwrite=overwrite, say=_say, **settings)


@_verb("RUN PHOTOS -o OUT [options]", PredictSettings)
def predict(
    run: Path,
    photos: Path,
    /,
    *,
    output: OutputFolder,
    overwrite: OverwriteFolder = False,
    **settings: Any,
) -> None:
    """Find the objects in photos; write detections.json and mask images.

    Example: maskwright predict RUN PHOTOS -o OUT

    Args:
        run: A folder that train made.
        photos: A photo, a folder with its subfolders, a COCO file (or shards of one), or a folder that prepare made.
    """
    from maskwright.predict import predict

    predict(run, photos, output, overwrite=overwrite, say=_say, progress=sys.stderr.isatty(), **settings)


@_verb("TRUTH DETECTIONS [-o FILE] [options]", EvaluateSettings)
def evaluate(
    truth: Path,
    detections: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), help="The JSON file to write.")] = None,
    photos: Annotated[Path | None, Parameter(help="The folder of the photos, for the report's gallery.")] = None,
    overwrite: Overwrite = False,
    **settings: Any,
) -> None:
    """Score detections against the truth with the COCO numbers; results of other tools too.

    Example: maskwright evaluate DATA/annotations/instances_test.json OUT/detections.json -o evaluation.json

    Args:
        truth: A COCO file (or shards of one).
        detections: A COCO file or a COCO results list.
    """
    from maskwright.evaluate import evaluate

    evaluate(truth, detections, output, photos=photos, overwrite=overwrite, say=_say, **settings)


@_verb("EVALUATION -o FILE [options]")
def report(
    evaluation: Path,
    /,
    *,
    output: OutputFile,
    run: Annotated[Path | None, Parameter(help="The folder that train made, for the training curves.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make one HTML page of an evaluation; it opens offline.

    Example: maskwright report evaluation.json -o report.html

    Args:
        evaluation: A file that evaluate made.
    """
    from maskwright.report import report

    report(evaluation, output, run=run, overwrite=overwrite, say=_say)


@_verb("COCO_FILE -o FOLDER [options]", MasksSettings)
def masks(
    coco_file: Path,
    /,
    *,
    output: OutputFolder,
    overwrite: OverwriteFolder = False,
    **settings: Any,
) -> None:
    """Draw the mask images of a COCO file, truth or detections.

    Example: maskwright masks OUT/detections.json -o MASKS

    Args:
        coco_file: A COCO file (or shards of one).
    """
    from maskwright.masks import masks

    masks(coco_file, output, overwrite=overwrite, say=_say, **settings)


@_verb("CONFIG.py [-o FILE] [options]")
def settings(
    config: Path,
    /,
    *,
    output: Annotated[Path | None, Parameter(name=("--output", "-o"), help="The JSON file to write.")] = None,
    overwrite: Overwrite = False,
) -> None:
    """Carry the settings of an MMDetection config over; a table says what became of each.

    The config and the files that it builds on are read without running them.

    Example: maskwright settings CONFIG.py -o settings.json

    Args:
        config: A config of MMDetection 2.x or 3.x.
    """
    from maskwright.settings_from import settings_from

    settings_from(config, output, overwrite=overwrite, say=_say)


@_verb("-o FOLDER [options]", DemoSettings)
def demo(
    *,
    output: OutputFolder,
    overwrite: OverwriteFolder = False,
    **settings: Any,
) -> None:
    """Draw a sample world: hammers held by a gripper, with their masks.

    Example: maskwright demo -o demo/raw
    """
    from maskwright.demo import demo

    demo(output, overwrite=overwrite, say=_say, **settings)


def main(tokens: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        tokens: The words after `maskwright`; those of this process if not given.

    Returns:
        0 done, 2 the user must change something, 1 our bug, 130 interrupted. What went wrong is on standard error.
    """
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except UserError as error:
        return _fail(str(error), USER_MUST_ACT)
    except cyclopts.CycloptsError as error:
        return _fail(str(_explained(error)), USER_MUST_ACT)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:
        # The reader (head, less) has gone, which is its right; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:
        traceback.print_exc()
        return _fail(
            f"this is a bug in Maskwright {__version__}, not a mistake of yours ({type(error).__name__})\n"
            "fix: please report it with the lines above and the command that you typed",
            OUR_BUG,
        )
    return DONE


def _say(line: str) -> None:
    print(_printable(line, sys.stdout), flush=True)


def _fail(message: str, code: int) -> int:
    print(_printable(message, sys.stderr), file=sys.stderr, flush=True)
    return code


def _printable(text: str, stream: TextIO) -> str:
    """Return a text with escapes for what the stream cannot print: letters that it has not, halves of characters."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _explained(error: cyclopts.CycloptsError) -> UserError:
    """Turn the parser's error into ours."""
    error.verbose = False
    verb = " ".join(error.command_chain or ())
    see = f"see: maskwright {verb + ' ' if verb else ''}--help"
    if isinstance(error, cyclopts.UnknownOptionError):
        name = (error.token.keyword or error.token.value).split("=", 1)[0]
        options = _flags(name for argument in error.argument_collection for name in argument.names)
        return UserError("there is no such option", [f"{name}{nearest(name, options)}"], see)
    if isinstance(error, cyclopts.UnknownCommandError):
        name = (error.unused_tokens or ["?"])[0]
        verbs = _verbs()
        return UserError(
            "there is no such verb", [f"{name}{nearest(name, verbs)}"], f"the verbs are {', '.join(verbs)}"
        )
    if isinstance(error, cyclopts.MissingArgumentError) and error.argument is not None:
        return UserError("something is missing from the command", [error.argument.name], see)
    if isinstance(error, cyclopts.UnusedCliTokensError):
        return UserError("there are words in the command that nothing asks for", error.unused_tokens or [], see)
    return UserError("the command cannot be understood", [str(error).replace("\n", " ")], see)


def _flags(names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith("-")]


def _verbs() -> list[str]:
    return sorted(name for name in app if not name.startswith("-"))


if __name__ == "__main__":
    sys.exit(main())
