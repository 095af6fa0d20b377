"""Kill a training run at any point, resume it, and compare it with one that was never stopped.

    python -m benchmarks.kills --count 100

Everything that has a state is on: mixup, CutMix, EMA, RandAugment, erasing, repeated augmentation, accumulation, drop path,
random crops that two workers stream, checkpoints within epochs, early stopping. Half of the kills fall on points in the code
(before and after each call that makes, renames, flushes or removes a file, and halfway through each checkpoint), spread
evenly over all of them; half on random moments, up to three in a row. Every second run replaces another with --overwrite.
best.pt, last.pt, log.csv and train.json must be equal in all but times. Exit code 1 if any is not.
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
from functools import partial
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
import yaml
from PIL import Image

import train
from benchmarks.children import KILLED, Outcome, count_and_kill, run_in_child
from common.console import print_table, run_script

TIMES = {"seconds", "images_per_second"}
CONFIG = {
    "data": {
        "dataset": "imagefolder",
        "image_size": 16,
        "val_fraction": 0.2,
        "test_fraction": 0.1,
        "residency": "stream",
        "num_workers": 2,
        "augment": {"scale": [0.4, 1.0], "aa": "rand-m9-n2-mstd0.5", "reprob": 0.25, "aug_repeats": 2},
    },
    "model": {
        "name": "vit_tiny_patch16_224",
        "kwargs": {
            "patch_size": 4,
            "embed_dim": 24,
            "num_heads": 2,
            "depth": 2,
            "drop_path_rate": 0.2,
            "proj_drop_rate": 0.1,
        },
    },
    "train": {
        "epochs": 4,
        "batch_size": 16,
        "grad_accum_steps": 2,
        "mixup": 0.8,
        "cutmix": 1.0,
        "model_ema": True,
        "model_ema_decay": 0.9,
        "layer_decay": 0.8,
        "checkpoint_every_steps": 2,
        "patience": 2,
        "amp": "fp32",
        "lr": 1e-5,
    },
}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100, help="kills (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        failures, rows = kill_all(Path(folder), args.count, random.Random(args.seed))
    print_table(rows, header=("killed at", "kills", "resumed to the same files"))
    for failure in failures:
        print(failure)
    sys.exit(bool(failures))


def kill_all(folder: Path, count: int, draw: random.Random) -> tuple[list[str], list[tuple]]:
    """Failures in words, and a row of the table for each kind of kill."""
    config = write_inputs(folder)
    whole, other = folder / "whole", folder / "other"
    reference = run_in_child(partial(start, config, whole), limit=300)
    run_in_child(partial(start, config, other, "seed=1", "train.epochs=1"), limit=300)
    assert reference.code == 0, reference.output
    failures, rows = [], []
    for kind in ("a point in the code", "a random moment"):
        good, total = 0, count // 2
        for i in range(total):
            overwrite = ["--overwrite"] if i % 2 else []
            place = folder / "killed"
            if overwrite:
                shutil.copytree(other, place)
            if kind == "a point in the code":
                points = count_points(config, folder, other, overwrite)
                name = f"point {1 + i * points // total} of {points}"
                kill = partial(kill_at_point, 1 + i * points // total)
            else:
                moments = [draw.uniform(0, reference.seconds) for _ in range(draw.randint(1, 3))]
                name = f"seconds {', '.join(f'{moment:.2f}' for moment in moments)}"
                kill = partial(kill_at_moments, moments)
            wrong = (
                one_case(kill, config, place, overwrite, other)
                or differences(whole / "run", place / "run")
                or left_over(place)
            )
            good += not wrong
            if wrong:
                failures.append(f"{name}{' with --overwrite' if overwrite else ''}: {wrong}")
            print(f"{kind}: {good} of {i + 1} resumed to the same files", flush=True)
            shutil.rmtree(place, ignore_errors=True)
        rows.append((kind, total, good))
    return failures, rows


def one_case(kill, config: Path, place: Path, overwrite: list[str], other: Path) -> str | None:
    """Start, kill, go on; what went wrong besides the result."""
    outcome = kill(config, place, overwrite)
    if outcome.code not in (KILLED, 0):
        return f"exit code {outcome.code} before the kill: {outcome.last_line}"
    outcome = go_on(config, place, overwrite, other)
    return None if outcome.code == 0 else f"exit code {outcome.code} on resuming: {outcome.last_line}"


def go_on(config: Path, place: Path, overwrite: list[str], other: Path) -> Outcome:
    """--resume; where the old run was not touched yet, it is still whole, and the command is given again."""
    untouched = overwrite and not differences(other / "run", place / "run", times=True)
    return run_in_child(partial(start, config, place, *(overwrite if untouched else ["--resume"])), limit=120)


def kill_at_point(point: int, config: Path, place: Path, overwrite: list[str]) -> Outcome:
    def killed():
        count_and_kill(point)
        start(config, place, *overwrite)

    return run_in_child(killed, limit=120)


def kill_at_moments(moments: list[float], config: Path, place: Path, overwrite: list[str]) -> Outcome:
    """Start and kill, then resume and kill, for each of the moments."""
    for i, moment in enumerate(moments):
        replaced = i and yaml.safe_load((place / "run/config.yaml").read_text())["seed"] == 0 if overwrite else i
        options = ["--resume"] if replaced else overwrite
        outcome = run_in_child(partial(start, config, place, *options), limit=120, kill_after=moment)
        if outcome.code != KILLED:
            break
    return outcome


_counted: dict[bool, int] = {}


def count_points(config: Path, folder: Path, other: Path, overwrite: list[str]) -> int:
    """How many points an uninterrupted run passes."""
    if bool(overwrite) not in _counted:
        place, result = folder / "counted", folder / "count.txt"
        if overwrite:
            shutil.copytree(other, place)

        def count():
            passed = count_and_kill(None)
            start(config, place, *overwrite)
            result.write_text(str(passed()))

        outcome = run_in_child(count, limit=300)
        assert outcome.code == 0, outcome.output
        _counted[bool(overwrite)] = int(result.read_text())
        shutil.rmtree(place)
    return _counted[bool(overwrite)]


def start(config: Path, place: Path, *arguments: str) -> None:
    run_script(train.main, [str(config), f"output_root={place}", *arguments])


def write_inputs(folder: Path) -> Path:
    """Three classes of small noisy photos, and the config."""
    noise = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog", "frog")):
        (folder / "images" / name).mkdir(parents=True)
        for i in range(20):
            pixels = noise.integers(0, 120, (20, 24, 3))
            pixels[..., number] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "images" / name / f"{i:03}.png")
    values = {**CONFIG, "data": {**CONFIG["data"], "root": str(folder / "images")}}
    (folder / "run.yaml").write_text(yaml.safe_dump(values))
    return folder / "run.yaml"


def differences(one: Path, other: Path, *, times: bool = False) -> str | None:
    """The first difference between two finished runs, but for ``times``."""
    for name in ("best.pt", "last.pt", "log.csv", "train.json"):
        values = []
        for directory in (one, other):
            path = directory / name
            if not path.is_file():
                return f"{name} is missing"
            if name.endswith(".pt"):
                values.append(torch.load(path, weights_only=True))
            elif name.endswith(".csv"):
                lines = [line.split(",") for line in path.read_text().splitlines()]
                values.append([dict(zip(lines[0], line)) for line in lines])
            else:
                values.append(yaml.safe_load(path.read_text()))
        place = first_difference(*values, set() if times else TIMES)
        if place is not None:
            return f"{name} differs{place}"
    return None


def left_over(folder: Path) -> str | None:
    """Files and folders that a killed process was making, and that nobody cleaned up."""
    names = [path.name for path in folder.rglob(".*-*")]
    return f"left over: {', '.join(names)}" if names else None


def first_difference(one, other, skipped: set[str], place: str = "") -> str | None:
    if isinstance(one, torch.Tensor):
        return None if isinstance(other, torch.Tensor) and torch.equal(one, other) else f" at {place}"
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return f" in keys at {place}"
        pairs = [(key, one[key], other[key]) for key in one if key not in skipped]
    elif isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)) and len(one) == len(other):
        pairs = [(i, *pair) for i, pair in enumerate(zip(one, other))]
    else:
        return None if one == other or (one != one and other != other) else f" at {place}: {one} and {other}"
    return next(filter(None, (first_difference(a, b, skipped, f"{place}/{key}") for key, a, b in pairs)), None)


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    main()
