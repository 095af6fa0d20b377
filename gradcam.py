"""Explain predictions: where in an image is the evidence for a class?

    python gradcam.py outputs/quickstart --random 6
    python gradcam.py outputs/quickstart --image photo.jpg --target cat dog
    python gradcam.py outputs/vit outputs/swin --index 3 17 42
    python gradcam.py outputs/vit outputs/swin --per-class 1
    python gradcam.py outputs/vit --index 3 17 42 --method gradcam hirescam rollout
    python gradcam.py outputs/vit --list-layers
    python gradcam.py outputs/vit outputs/swin --analyze 500

Writes for each image gradcam/<image>-<method>.png, .npy (raw map on the layer's grid) and .json into the run, and where
several layers or targets are asked for, their names behind the method's. Several images or maps of each: a grid beside
them; several runs: a grid of images x runs in outputs/comparisons/. --analyze measures the maps instead of drawing them:
gradcam/statistics.json with figures, and for several runs explanations.json in outputs/comparisons/.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from common.console import print_result, print_table, run_script
from common.devices import select_device
from common.runs import Run
from comparison.entries import open_runs
from explanation.attribution import METHODS, check_method, uses_layer
from explanation.layers import map_layer, map_layers
from explanation.maps import MapSet, explain, find_remedy, predict_pictures
from explanation.pictures import pick_pictures, read_pictures
from explanation.quality import measurement
from explanation.saving import save_comparison, save_run
from explanation.targets import check_targets, choose_targets
from models import restore_model


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    check_arguments(args)
    device = select_device(args.device)
    runs = open_runs(args.runs, args.output)
    if args.analyze is not None:
        analyze(runs, args, device)
        return
    if args.list_layers:
        for run in runs:
            list_layers(run, args, device)
        return
    columns = [column for run in runs for column in explain_run(run, args, device)]
    for run in runs:
        save_run(run, [column for column in columns if column.run is run], args)
    if len(runs) > 1:
        save_comparison(runs, columns, args)
    used = {"default", *(column.layer.name for column in columns if column.layer)}
    unused = [name for name in args.layer or [] if name not in used]
    if unused:
        raise ValueError(f"--layer {unused[0]}: no run has such a layer; --list-layers shows those of each")
    report_faults(columns)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories that train.py wrote")
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--image", nargs="+", type=Path, metavar="FILE", help="image files of any size and mode")
    images.add_argument("--index", nargs="+", type=int, metavar="I", help="positions in the split, from 0")
    images.add_argument("--random", type=int, metavar="N", help="N random images of the split")
    images.add_argument("--per-class", type=int, metavar="N", help="N random images of each class")
    images.add_argument("--analyze", type=int, metavar="N", help="measure the maps of N random images of the split")
    images.add_argument("--list-layers", action="store_true", help="show what --layer can be, and stop")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="where the images come from")
    parser.add_argument("--seed", type=int, default=0, help="of --random, --per-class and --analyze")
    parser.add_argument("--method", nargs="+", default=["gradcam"], metavar="M", help=f"of {', '.join(METHODS)}")
    parser.add_argument("--layer", nargs="+", metavar="NAME", help="layers to look at (default: by the architecture)")
    parser.add_argument(
        "--target", nargs="+", metavar="CLASS", help="by name or number; 'label': the true one (default: the predicted)"
    )
    parser.add_argument("--shared-scale", action="store_true", help="one colour scale for each row of a grid")
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster, hardly different"
    )
    parser.add_argument("--channels", type=int, metavar="K", help="scorecam: measure the K strongest channels alone")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="weights to explain")
    parser.add_argument("--output", type=Path, help="folder of a comparison (default: outputs/comparisons/<runs>)")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    return parser.parse_args(argv)


def check_arguments(args: argparse.Namespace) -> None:
    for method in args.method:
        check_method(method)
    for option in ("method", "layer"):
        values = getattr(args, option) or []
        twice = [value for i, value in enumerate(values) if value in values[:i]]
        if twice:
            raise ValueError(f"--{option} {twice[0]} is given twice; give each once")
    if args.layer and not any(map(uses_layer, args.method)):
        raise ValueError(
            f"--layer has no effect on {', '.join(args.method)}, which follows attention through all layers"
        )
    if args.channels is not None and ("scorecam" not in args.method or args.channels < 1):
        raise ValueError(f"--channels {args.channels}: should be at least 1, and is for --method scorecam alone")


def analyze(runs: list[Run], args: argparse.Namespace, device: torch.device) -> None:
    """--analyze: numbers instead of pictures, of the usual methods and of --method."""
    if args.target is not None:
        raise ValueError("--analyze explains the predicted class of every image; leave --target away")
    if len(args.layer or []) > 1:
        raise ValueError("--analyze looks at one layer; name one")
    written = measurement.analyze_runs(
        runs,
        args.analyze,
        split_name=args.split,
        methods=list(dict.fromkeys([*measurement.DEFAULT_METHODS, *args.method])),
        layer_name=args.layer[0] if args.layer else None,
        checkpoint_name=args.checkpoint,
        seed=args.seed,
        device=device,
        output=args.output,
    )
    print_result({"runs": [run.config.name for run in runs], "images": args.analyze}, written)


def explain_run(run: Run, args: argparse.Namespace, device: torch.device) -> list[MapSet]:
    """A column for each method, layer and target; a layer that this run lacks is left to the other runs."""
    checkpoint = run.load_checkpoint(f"{args.checkpoint}.pt")
    class_names, batch_size = checkpoint["class_names"], run.config.evaluate.batch_size
    model = restore_model(run.config, checkpoint).to(device)
    names = args.layer or ["default"]
    if len(args.runs) > 1:
        modules = dict(model.named_modules())
        names = [name for name in names if name in modules or name == "default"]
        if not names:
            raise ValueError(f"{run.directory} has none of the layers {', '.join(args.layer)}; add --layer default")
    layers = [map_layer(model, None if name == "default" else name) for name in names]
    if args.image:
        pictures = read_pictures(run, args.image)
    else:
        which = dict(indices=args.index, random=args.random, per_class=args.per_class, seed=args.seed)
        pictures = pick_pictures(run, args.split, checkpoint, **which)
    check_targets(args.target or [], class_names, pictures)
    probabilities = predict_pictures(model, pictures, batch_size)
    columns = []
    for method in args.method:
        for layer in layers if uses_layer(method) else [None]:
            for target in args.target or [None]:
                targets = choose_targets(target, class_names, pictures, probabilities)
                options = dict(method=method, batch_size=batch_size, precision=args.precision)
                options["channels"] = args.channels if method == "scorecam" else None
                explanations = explain(model, layer, pictures, targets, probabilities, **options)
                faulty = next((e for e in explanations if e.fault), None)
                remedy = find_remedy(model, method, layer, faulty) if faulty else None
                columns.append(MapSet(run, class_names, method, layer, target, explanations, remedy))
    return columns


def report_faults(columns: list[MapSet]) -> None:
    """Say which maps say nothing, and what to do: an error where a column has no other, else a warning."""
    faulty = [column for column in columns if column.remedy]
    if not faulty:
        return
    worst = max(faulty, key=lambda column: sum(e.map is None for e in column.explanations))
    faults = [e for e in worst.explanations if e.map is None]
    first, of = f"{faults[0].picture.name}: {faults[0].fault}", len(worst.explanations)
    more = f" (and maps of {len(faulty) - 1} more columns)" if len(faulty) > 1 else ""
    message = f"{worst.place}: {len(faults)} of {of} maps say nothing ({first}){more}; {worst.remedy}"
    if len(faults) == of:
        raise ValueError(message)
    print(f"warning: {message}", file=sys.stderr)


def list_layers(run: Run, args: argparse.Namespace, device: torch.device) -> None:
    """Every layer whose output is a map, the default one marked."""
    model = restore_model(run.config, run.load_checkpoint(f"{args.checkpoint}.pt")).to(device)
    default, found = map_layer(model).name, map_layers(model)
    rows = [
        (
            layer.name,
            f"{layer.grid[0]}x{layer.grid[1]}",
            "default" if layer.name == default else "" if reached else "no gradient reaches it: maps are blank",
        )
        for layer, reached in found
    ]
    print_table(rows, header=("layer", "grid", ""))
    layers = {layer.name: list(layer.grid) for layer, reached in found if reached}
    print_result({"run": str(run.directory), "default": default, "layers": layers})


if __name__ == "__main__":
    run_script(main)
