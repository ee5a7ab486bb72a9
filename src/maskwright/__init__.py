"""Maskwright: a folder of photos and masks in; a trained instance segmenter, honest scores and mask images out.

Every verb of the command line is a function here, with the same names, defaults and errors. Nothing is imported until
it is used: `import maskwright` takes milliseconds, and torch is loaded only by the stages that need it.
"""

from __future__ import annotations

import importlib
import sys
import types

TYPE_CHECKING = False  # what `typing` calls so, without the time that it takes to load
if TYPE_CHECKING:
    from typing import Any

    from maskwright.check import Facts as Facts
    from maskwright.check import check as check
    from maskwright.compose import compose as compose
    from maskwright.dataset import Annotation as Annotation
    from maskwright.dataset import Category as Category
    from maskwright.dataset import Dataset as Dataset
    from maskwright.dataset import Image as Image
    from maskwright.demo import demo as demo
    from maskwright.errors import Problem as Problem
    from maskwright.errors import UserError as UserError
    from maskwright.evaluate import Evaluation as Evaluation
    from maskwright.evaluate import evaluate as evaluate
    from maskwright.import_weights import import_weights as import_weights
    from maskwright.make import make as make
    from maskwright.masks import masks as masks
    from maskwright.plan import Plan as Plan
    from maskwright.predict import Detections as Detections
    from maskwright.predict import load as load
    from maskwright.predict import predict as predict
    from maskwright.prepare import prepare as prepare
    from maskwright.report import report as report
    from maskwright.settings_from import settings_from as settings_from
    from maskwright.train import train as train

__version__ = "0.1.0"

_HOMES = {
    "Annotation": "dataset",
    "Category": "dataset",
    "Dataset": "dataset",
    "Detections": "predict",
    "Evaluation": "evaluate",
    "Facts": "check",
    "Image": "dataset",
    "Plan": "plan",
    "Problem": "errors",
    "UserError": "errors",
    "check": "check",
    "compose": "compose",
    "demo": "demo",
    "evaluate": "evaluate",
    "import_weights": "import_weights",
    "load": "predict",
    "make": "make",
    "masks": "masks",
    "predict": "predict",
    "prepare": "prepare",
    "report": "report",
    "settings_from": "settings_from",
    "train": "train",
}

__all__ = [  # noqa: RUF022  (types first, then verbs)
    "Annotation",
    "Category",
    "Dataset",
    "Detections",
    "Evaluation",
    "Facts",
    "Image",
    "Plan",
    "Problem",
    "UserError",
    "check",
    "compose",
    "demo",
    "evaluate",
    "import_weights",
    "load",
    "make",
    "masks",
    "predict",
    "prepare",
    "report",
    "settings_from",
    "train",
    "__version__",
]


class _Package(types.ModuleType):
    """The package object: public names are found on first use, and a verb wins over the module of the same name.

    The import system binds `maskwright.train`, the module, on the package when anything imports it; a user who writes
    `mw.train(...)` means the function. So the function is bound in its place; the module stays reachable by
    `from maskwright.train import ...`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, types.ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'maskwright' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"maskwright.{_HOMES[name]}"), name)
        super().__setattr__(name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted(__all__)


sys.modules[__name__].__class__ = _Package
