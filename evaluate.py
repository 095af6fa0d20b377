"""Evaluate trained runs: scores, confusion matrix, calibration, cost, robustness; several runs side by side.

    python evaluate.py outputs/quickstart
    python evaluate.py outputs/vit outputs/swin --corrupt
    python evaluate.py outputs/vit outputs/swin --from-predictions
    torchrun --nproc_per_node=2 evaluate.py outputs/vit

Writes metrics.json, predictions.npz, report.txt and figures into each run, and for several runs report.html, report.md,
comparison.json, comparison.csv and figures into outputs/comparisons/. What is not the best checkpoint on the test split
gets -val, -train, -flip or -last in its name.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.config_files import split_overrides
from common.console import run_script
from common.runs import open_runs


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    runs = open_runs(args.runs, args.output, args.overrides)
    # What is wrong so far was said at once; torch and its like take seconds to import.
    from common import distributed
    from common.devices import select_device
    from comparison.report import compare
    from evaluation.report import suffix_of
    from evaluation.scoring import evaluate, reason_to_evaluate, recompute

    with distributed.process_group(select_device(args.device)) as device:
        reasons = [len(runs) == 1 or reason_to_evaluate(run, args) for run in runs]
        for run, reason in zip(runs, reasons):
            if args.from_predictions:
                if distributed.is_main():
                    recompute(run, args)
            elif reason:
                evaluate(run, args, device, reason=reason if isinstance(reason, str) else None)
            else:
                print(f"{run.directory} is evaluated already")
        if len(runs) > 1 and distributed.is_main():
            compare(runs, suffix_of(args), args.output)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN | data.root=FOLDER", help="run directories that train.py wrote"
    )
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="images to evaluate on")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="weights to evaluate")
    parser.add_argument("--tta", choices=("flip",), help="average the probabilities with those of the mirrored image")
    parser.add_argument(
        "--corrupt", action="store_true", help="accuracy under noise, blur, JPEG and lost contrast, too"
    )
    parser.add_argument(
        "--from-predictions", action="store_true", help="recompute all scores from predictions.npz, without the model"
    )
    parser.add_argument("--output", type=Path, help="folder of a comparison (default: outputs/comparisons/<runs>)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    args.overrides = overrides
    if args.from_predictions and args.corrupt:
        raise ValueError("--corrupt needs the model; leave out --from-predictions")
    return args


if __name__ == "__main__":
    run_script(main)
