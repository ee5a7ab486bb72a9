"""A run: the folder that training leaves. The network is rebuilt from JSON and safetensors; no file can run code."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from maskwright.dataset import Category, read_json
from maskwright.errors import UserError, nearest
from maskwright.files import atomic_file, provenance, write_json
from maskwright.models import ARCHITECTURES

BEST = "weights/best.safetensors"
LAST = "weights/last.safetensors"
RESUME = "resume.safetensors"


@dataclass(frozen=True)
class Run:
    """What a trained segmenter is, apart from its weights.

    Attributes:
        path: The folder.
        architecture: A name in `ARCHITECTURES`.
        sizes: What its builder takes.
        categories: In order of label 1..C, with the ids of the data.
        side: Longer side of the network's input in pixels.
        short_side: Shorter side of it, if the longer one leaves room; `None`: the longer one alone decides.
        threshold: Score that validation advised, where precision and recall are in balance.
        data: The data folder that it was trained on, absolute.
        fingerprint: Per split, a hash of the annotation file and the photos that it was trained on.
        state: `training`, `interrupted` or `finished`.
        step: Optimiser steps taken.
        metrics: Of the best validation.
        best_step: When that was; `None` without a validation.
        job: Of torchrun or SLURM that trains it or did so last; empty if there was none.
    """

    path: Path
    architecture: str
    sizes: Mapping[str, Any]
    categories: tuple[Category, ...]
    side: int
    threshold: float = 0.5
    data: str = ""
    fingerprint: Mapping[str, str] | None = None
    state: str = "training"
    step: int = 0
    metrics: Mapping[str, float | None] | None = None
    best_step: int | None = None
    short_side: int | None = None
    job: str = ""

    @staticmethod
    def read(path: str | Path) -> Run:
        """Read a run folder's `run.json`.

        Raises:
            UserError: If the folder is not a run, or of a kind that this version does not know.
        """
        path = Path(path)
        if not (path / "run.json").is_file():
            raise UserError(
                "the folder is not a run: run.json is not there",
                [str(path)],
                "name a folder that `maskwright train` wrote",
            )
        values = read_json(path / "run.json")
        try:
            run = Run(
                path=path,
                architecture=str(values["architecture"]),
                sizes=dict(values["sizes"]),
                categories=tuple(Category(int(c["id"]), str(c["name"])) for c in values["categories"]),
                side=int(values["side"]),
                threshold=float(values["threshold"]),
                data=str(values["data"]),
                fingerprint=dict(values["fingerprint"] or {}),
                state=str(values["state"]),
                step=int(values["step"]),
                metrics=values["metrics"],
                best_step=values["best_step"],
                short_side=int(values["short_side"]) if values.get("short_side") else None,
                job=str(values.get("job", "")),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(
                "run.json is damaged", [f"{path / 'run.json'}: {error!r}"], "train again, or copy the run again"
            ) from None
        if run.architecture not in ARCHITECTURES:
            raise UserError(
                f"the run's network is unknown to this version: {run.architecture!r}"
                + nearest(run.architecture, ARCHITECTURES),
                [str(path / "run.json")],
                "upgrade maskwright",
            )
        return run

    def write(self, **changes: Any) -> Run:
        """Write `run.json` with changes and return the run as it is then."""
        run = replace(self, **changes)
        write_json(run.path / "run.json", run.json())
        return run

    def json(self) -> dict[str, Any]:
        """Return what `run.json` holds."""
        return {
            "made_by": provenance(),
            "architecture": self.architecture,
            "sizes": dict(self.sizes),
            "categories": [{"id": c.id, "name": c.name} for c in self.categories],
            "side": self.side,
            **({"short_side": self.short_side} if self.short_side else {}),
            "threshold": self.threshold,
            "data": self.data,
            "fingerprint": dict(self.fingerprint or {}),
            "state": self.state,
            "step": self.step,
            "metrics": dict(self.metrics) if self.metrics else None,
            "best_step": self.best_step,
            **({"job": self.job} if self.job else {}),
        }

    def build(self, weights: str = "none") -> nn.Module:
        """Build the network from random numbers (`none`), `imagenet`, `coco` or a file; `LATER`: for a checkpoint."""
        return ARCHITECTURES[self.architecture](self.sizes, weights)

    def network(self, device: str = "cpu") -> nn.Module:
        """Build the network with the run's best weights (the last ones, if no validation chose), ready to detect.

        Raises:
            UserError: If the run has no weights yet, or they do not fit.
        """
        path = self.path / BEST if (self.path / BEST).is_file() else self.path / LAST
        network = self.build()
        load_weights(network, path)
        without_tf32()
        return network.to(device).eval()

    def save_weights(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write tensors as safetensors that describe themselves: their metadata holds what `run.json` does."""
        told = self.json()
        # Neither the hour nor an interruption may change the bytes: equal trainings give equal files.
        del told["made_by"]["made"], told["state"]
        told.pop("job", None)
        save_tensors(self.path / name, tensors, {"maskwright": json.dumps(told)})


def without_tf32() -> None:
    """Let GPUs compute with all 32 bits: since Ampere, convolutions take but 10 of the mantissa's 23 unless told."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write a safetensors file atomically; the former file stays whole until the new one is."""
    # safetensors wants plain memory layouts; channels-last is ours to choose again when loading.
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    with atomic_file(path) as handle:
        handle.write(save(plain, metadata))


def load_weights(network: nn.Module, path: Path) -> None:
    """Load a network's weights from safetensors.

    Raises:
        UserError: If the file is absent, damaged, or of another network.
    """
    tensors = load_tensors(path)
    wanted = network.state_dict()
    wrong = [f"{path}: {k} is missing" for k in wanted if k not in tensors]
    wrong += [f"{path}: {k} is not part of the network" for k in tensors if k not in wanted]
    wrong += [
        f"{path}: {k} is {tuple(v.shape)}, expected {tuple(wanted[k].shape)}"
        for k, v in tensors.items()
        if k in wanted and v.shape != wanted[k].shape
    ]
    if wrong:
        raise UserError(
            "the weights are of another network",
            wrong,
            "use the version of Maskwright that the run was trained with (run.json names it), or train again",
        )
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(tensors[name])


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        UserError: If it is absent or damaged.
    """
    try:
        return dict(load_file(path))
    except FileNotFoundError:
        raise UserError(
            "the run has no weights yet", [str(path)], "let training go on: maskwright train ... --resume"
        ) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError("the weight file cannot be read", [f"{path}: {error}"], "copy or train it again") from None
