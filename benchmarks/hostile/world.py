"""What the cases of the sweep share: images, a config, finished runs, and a case itself."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image

import evaluate
import gradcam
import train
from benchmarks.children import Outcome, run_in_child
from common.console import run_script

LIMIT = 120.0
"""Seconds of a case; of those that end well most take one or two."""
MAINS = {"train": train.main, "evaluate": evaluate.main, "gradcam": gradcam.main}
TINY = {
    "data": {"dataset": "imagefolder", "image_size": 16, "val_fraction": 0.2, "test_fraction": 0.2},
    "model": {"name": "shallow_vit", "kwargs": {"embed_dim": 16, "num_heads": 2}},
    "train": {"epochs": 1, "batch_size": 16, "amp": "fp32"},
    "evaluate": {"latency_seconds": 0.001},
}


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    script: str
    arguments: tuple[str, ...]
    refused: bool | None = None
    """Whether it must be refused; None: either, as long as it is said."""
    left: Path | None = None
    """What a refusal must not leave behind."""
    prepare: Callable[[], None] = lambda: None
    names: str = ""
    """What the sentence of a refusal must name."""


class World:
    """Images, a config, and finished runs that cases may copy and damage."""

    def __init__(self, folder: Path):
        self.folder, self.images, self.outputs = folder, folder / "images", folder / "outputs"
        make_images(self.images)
        self.config = folder / "tiny.yaml"
        self.config.write_text(yaml.safe_dump({**TINY, "data": {**TINY["data"], "root": str(self.images)}}))
        self.finished = self.outputs / "finished"
        for script, *words in (
            ("train", self.config, "name=finished", f"output_root={self.outputs}"),
            ("train", self.config, "name=second", "seed=1", f"output_root={self.outputs}"),
            ("evaluate", self.finished, self.outputs / "second", "--corrupt"),
            ("gradcam", self.finished, "--analyze", "6"),
        ):
            outcome = self.run(Case("", "", script, tuple(map(str, words))), limit=300)
            assert outcome.code == 0, outcome.output

    def run(self, case: Case, limit: float = LIMIT) -> Outcome:
        def call():
            os.chdir(self.folder)
            run_script(MAINS[case.script], list(case.arguments))

        case.prepare()
        return run_in_child(call, limit=limit)

    def training(self, group: str, name: str, *words: str, **options) -> Case:
        """A case that trains the tiny config with overrides."""
        own = f"case-{abs(hash((group, name))) % 10**10}"
        words = (str(self.config), f"output_root={self.folder / 'trained'}", f"name={own}", *words)
        return Case(group, name, "train", words, left=self.folder / "trained" / own, **options)

    def copy(self, name: str) -> Path:
        place = self.folder / "copies" / name
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(self.finished, place))


def make_images(root: Path, classes=("cat", "dog", "frog"), count: int = 12) -> None:
    noise = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = noise.integers(0, 120, (20, 20, 3))
            pixels[..., number % 3] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:02}.png")
