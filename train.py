"""Train the classifier that a config describes.

    python train.py configs/quickstart.yaml
    python train.py configs/quickstart.yaml train.epochs=5 seed=1 name=quickstart-seed1
    python train.py configs/quickstart.yaml --seeds 0 1 2 --grid train.lr=1e-3,2e-3
    python train.py configs/quickstart.yaml --check
    torchrun --nproc_per_node=2 train.py configs/cifar10/vit_tiny.yaml

Writes outputs/<name>/: config.yaml, environment.json, log.csv, best.pt, last.pt, train.json and figures. Several configs
are trained one after another, and so are the seeds and the combinations of a grid, under names such as
quickstart-lr1e-3-seed2. --resume continues an interrupted run, with the same result as without the interruption.

--check trains nothing. It prints the number of images per class, which images occur in two splits, and the cost of a run:
parameters, time for an epoch, memory, disk space. It writes outputs/checks/<name>/, with a sheet of training images as the
model will see them.
"""

import argparse
import itertools
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cache import CACHE_HELP
from common.config import Config
from common.config_files import describe_keys
from common.console import print_result, print_table, raised_here, run_script
from common.runs import Run, check_directory, check_unchanged, directory_of, resume_command
from common.variants import load_variants


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    loaded = [(path, load_variants(path, args.overrides, args.seeds, args.grid)) for path in args.configs]
    renamed = [*args.overrides, *["name="] * bool(args.seeds or args.grid)]
    configs = [config for _, variants in loaded for config in variants]
    directories = [directory_of(Path(path), config, renamed) for path, variants in loaded for config in variants]
    for config, directory in zip(configs, directories):
        if sum(os.path.realpath(other) == os.path.realpath(directory) for other in directories) > 1:
            raise ValueError(f"two of the configs write to {directory}; give each a name of its own")
        if not args.check:
            check_directory(directory, config, resume=args.resume, overwrite=args.overwrite)
    # Mistakes so far were reported at once; importing torch takes seconds.
    from common import distributed
    from common.devices import keep_freed_memory, select_device
    from models import resolve_image_size
    from training.check import check
    from training.rehearsal import rehearse_all

    jobs = [(resolve_image_size(config), directory) for config, directory in zip(configs, directories)]
    if args.check:
        device = select_device(args.device)
        for config, directory in jobs:
            check(config, directory, device, coming=[other for other in directories if other != directory])
        return
    if args.resume:
        for config, directory in jobs:
            check_unchanged(directory, config)
    keep_freed_memory()
    with distributed.process_group(select_device(args.device)) as device:
        done = [args.resume and (directory / "train.json").is_file() for _, directory in jobs]
        for directory in itertools.compress(directories, done):
            if distributed.is_main():
                print(f"{directory} is finished already")
        jobs = [job for job, is_done in zip(jobs, done) if not is_done]
        if len(jobs) > 1:
            rehearse_all(jobs, device, resume=args.resume)
        failed = train_all(jobs, device, resume=args.resume, overwrite=args.overwrite)
        if len(directories) > 1 and distributed.is_main():
            print_runs([Run.open(directory) for directory in directories if (directory / "train.json").is_file()])
        if failed:
            raise ValueError(f"{len(failed)} of {len(jobs)} runs failed, as said above: {', '.join(map(str, failed))}")


def train_all(jobs: Sequence[tuple[Config, Path]], device, *, resume: bool, overwrite: bool) -> list[Path]:
    """Train one run after another, and return those that failed; one failure among several does not stop the others."""
    from common import distributed
    from training.progress import Interrupted
    from training.trainer import train

    failed = []
    for config, directory in jobs:
        try:
            run = train(config, directory, device=device, resume=resume, overwrite=overwrite)
        except Interrupted as stop:
            advice = f"Continue with: {resume_command(directory)}"
            finished = (directory / "train.json").is_file()
            print(f"{stop}; the state is saved. {'This run is finished.' if finished else advice}", file=sys.stderr)
            sys.exit(stop.exit_code)
        except ValueError as error:
            # A library's error is our bug, and other processes may still wait within the run.
            if len(jobs) == 1 or distributed.world_size() > 1 or not raised_here(error):
                raise
            print(f"error: {error}", file=sys.stderr)
            failed.append(directory)
            continue
        if distributed.is_main():
            print_summary(run)
    return failed


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="\n  ".join(["keys of a config, with their defaults:", *describe_keys()]) + f"\n\n{CACHE_HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG | section.key=value", help="YAML files, and overrides")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue unfinished runs, skip finished ones")
    existing.add_argument("--overwrite", action="store_true", help="replace runs of the same name")
    existing.add_argument(
        "--check",
        action="store_true",
        help="train nothing: check the data, show the model's input, and measure what a run costs",
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    parser.add_argument(
        "--seeds", nargs="+", default=[], metavar="SEED", help="a run for each: NAME-seed0, NAME-seed1, ..."
    )
    parser.add_argument(
        "--grid", nargs="+", default=[], metavar="KEY=VALUE,VALUE", help="a run for each combination: NAME-lr1e-4, ..."
    )
    args = parser.parse_intermixed_args(argv)
    numbers = [word for word in args.seeds if word.isdigit()]
    args.configs += [word for word in args.seeds if word not in numbers]  # configs and overrides may follow the seeds
    args.seeds = [int(word) for word in numbers]
    args.configs += [word for word in args.grid if "=" not in word]
    args.grid = [word for word in args.grid if "=" in word]
    args.overrides = [word for word in args.configs if "=" in word]
    args.configs = [word for word in args.configs if "=" not in word]
    if not args.configs:
        parser.error("name at least one config file")
    return args


def print_summary(run: Run) -> None:
    """Print the table and the result at the end of a run."""
    result = run.read_json("train.json")
    accuracy, params = result["val_accuracy"], result["params"]
    rows = [
        ("run", run.directory),
        ("best epoch", f"{result['best_epoch']} of {result['epochs_run']} (by {result['selected_by']})"),
        ("validation accuracy", "no validation split" if accuracy is None else f"{accuracy:.2%}"),
        ("stopped because", result["stopped_because"].replace("_", " ")),
        ("parameters", f"{params / 1e6:.2f} M, {result['trainable_params'] / params:.0%} trained"),
        (
            "training time",
            f"{result['seconds']:.1f} s, {result['images_per_second']:.0f} images/s, {result['precision']}",
        ),
    ]
    if result["diverged"]:
        rows.append(("diverged", "accuracy stayed near chance; lower train.lr or lengthen train.warmup_epochs"))
    print_table(rows)
    names = ("best.pt", "log.csv", "train.json", "figures/curves.png", "figures/learning_rate.png")
    print_result({"run": str(run.directory)} | result, [run.path(name) for name in names])


def print_runs(runs: Sequence[Run]) -> None:
    """Print the table and the result at the end of several runs."""
    rows = []
    for run in runs:
        result = run.read_json("train.json")
        accuracy = result["val_accuracy"]
        unknown = "no validation split" if result["best_epoch"] else "no epoch was finished"
        shown = unknown if accuracy is None else f"{accuracy:.2%}"
        state = "diverged" if result["diverged"] else result["stopped_because"].replace("_", " ")
        rows.append(
            (
                run.directory,
                shown,
                f"{result['best_epoch'] or 'none'} of {result['epochs_run']}",
                f"{result['seconds']:.1f} s",
                state,
            )
        )
    print()
    print_table(rows, header=("run", "validation accuracy", "best epoch", "training time", "stopped because"))
    usable = [str(run.directory) for run in runs if run.path("best.pt").is_file()]
    print(f"compare them: python evaluate.py {shlex.join(usable)}")
    accuracies = [run.read_json("train.json")["val_accuracy"] for run in runs]
    print_result({"runs": [str(run.directory) for run in runs], "val_accuracy": accuracies})


if __name__ == "__main__":
    run_script(main)
