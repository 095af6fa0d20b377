"""Evaluate trained runs: scores, confusion matrix, calibration, cost, robustness; several runs side by side.

    python evaluate.py outputs/quickstart
    python evaluate.py outputs/vit outputs/swin --corrupt
    python evaluate.py outputs/vit outputs/swin --from-predictions
    python evaluate.py outputs/vit --images holiday/
    python evaluate.py outputs/vit --export models/vit
    torchrun --nproc_per_node=2 evaluate.py outputs/vit

Writes metrics.json, predictions.npz, report.html, report.txt, mistakes.csv and figures into each run, and for several runs
report.html, report.md, comparison.json, .csv, .tex and figures into outputs/comparisons/. Results of another split, of the
last checkpoint or with --tta flip have -val, -train, -last or -flip in their file names.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cache import CACHE_HELP
from common.config_files import split_overrides
from common.console import did_you_mean, run_script
from common.folders import VECTOR_FORMATS
from common.runs import Run, in_use, open_runs


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    runs = open_runs(args.runs, None if args.images else args.output, args.overrides, figure_format=args.format)
    reference = find_reference(runs, args.reference)
    # Mistakes so far were reported at once; importing torch takes seconds.
    from common import distributed
    from common.devices import select_device
    from comparison.report import compare
    from evaluation.export import export
    from evaluation.folder import predict_folder
    from evaluation.scoring import evaluate, reason_to_evaluate, recompute
    from evaluation.timing import time_in_turn
    from evaluation.variant import Variant

    variant = Variant(args.split, args.checkpoint, args.tta)
    extras = {"corruptions": args.corrupt, "embedding": args.embedding}

    with distributed.process_group(select_device(args.device)) as device, in_use(runs):
        if args.images:
            for run in runs:
                predict_folder(run, args.images, checkpoint=args.checkpoint, device=device, output=args.output)
            return
        always = args.from_predictions or (len(runs) == 1 and not args.export)
        reasons = ["requested" if always else reason_to_evaluate(run, variant, **extras) for run in runs]
        for run, reason in zip(runs, reasons):
            if args.from_predictions:
                if distributed.is_main():
                    recompute(run, variant)
            elif reason:
                if not always and distributed.is_main():
                    print(f"evaluating {run.directory}: {reason}")
                evaluate(run, variant, device, **extras)
            else:
                print(f"{run.directory} is evaluated already")
        if args.export:
            export(runs[0], args.export, checkpoint=args.checkpoint)
        if len(runs) > 1 and distributed.is_main():
            if not args.from_predictions:
                time_in_turn(runs, variant.suffix, device)
            compare(runs, variant, args.output, reference=reference)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=CACHE_HELP, formatter_class=form)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN | data.root=FOLDER", help="run directories that train.py wrote"
    )
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="images to evaluate on")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="weights to evaluate")
    parser.add_argument("--tta", choices=("flip",), help="average the probabilities with those of the mirrored image")
    parser.add_argument(
        "--corrupt", action="store_true", help="also measure accuracy with ten corruptions of ImageNet-C or CIFAR-10-C"
    )
    parser.add_argument(
        "--embedding",
        action="store_true",
        help="also draw the features before the classifier (t-SNE), and their nearest-neighbour accuracy",
    )
    parser.add_argument(
        "--from-predictions", action="store_true", help="recompute all scores from predictions.npz, without the model"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="predict the photos in a folder: predictions.csv")
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the model as a folder that timm can load")
    parser.add_argument(
        "--reference", metavar="RUN", help="the run that others are compared with (default: the most accurate)"
    )
    parser.add_argument(
        "--format", choices=VECTOR_FORMATS, help="also write every figure in this format, beside its PNG"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="folder of a comparison (default: outputs/comparisons/<runs>), or of --images (default: <run>/images/<folder>)",
    )
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    args.overrides = overrides
    if args.from_predictions and (args.corrupt or args.embedding):
        option = "--corrupt" if args.corrupt else "--embedding"
        raise ValueError(f"{option} needs the model; leave out --from-predictions")
    check_folders(args)
    return args


def check_folders(args: argparse.Namespace) -> None:
    """Raise ValueError for options that cannot be combined with --images or --export, and for unusable folders."""
    others = {"--corrupt": args.corrupt, "--embedding": args.embedding, "--from-predictions": args.from_predictions}
    others |= {"--tta": args.tta, "--export": args.export}
    if args.images and any(others.values()):
        wrong = next(option for option, given in others.items() if given)
        raise ValueError(
            f"--images predicts photos and does nothing else; leave out {wrong}, or call evaluate.py twice"
        )
    if args.export and len(args.runs) > 1:
        raise ValueError("--export writes one model; name one run")
    if args.export and args.export.exists() and (not args.export.is_dir() or any(args.export.iterdir())):
        raise ValueError(f"--export {args.export} exists and is not an empty folder; name a new one")
    if args.images and not args.images.is_dir():
        raise ValueError(f"--images {args.images}: no such folder")
    if args.images and args.output and len(args.runs) > 1:
        raise ValueError("--output is one folder; leave it out, so that the predictions of each run go into the run")


def find_reference(runs: Sequence[Run], reference: str | None) -> Run | None:
    """The run of a comparison that --reference names, by its directory or its name."""
    if reference is None:
        return None
    if len(runs) == 1:
        raise ValueError(f"--reference {reference} is for a comparison; name another run, or leave it out")
    for run in runs:
        if reference == run.config.name or Path(reference).resolve() == run.directory.resolve():
            return run
    known = [run.config.name for run in runs]
    raise ValueError(
        f"--reference {reference} is none of the runs that are compared{did_you_mean(reference, known)}: {', '.join(known)}"
    )


if __name__ == "__main__":
    run_script(main)
