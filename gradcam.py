"""Explain predictions: where in an image is the evidence for a class?

    python gradcam.py outputs/quickstart --random 6
    python gradcam.py outputs/quickstart --image photo.jpg --target cat dog
    python gradcam.py outputs/vit outputs/swin --index 3 17 42
    python gradcam.py outputs/vit outputs/swin --per-class 1
    python gradcam.py outputs/vit --index 3 17 42 --method gradcam hirescam rollout
    python gradcam.py outputs/vit --list-layers
    python gradcam.py outputs/vit outputs/swin --analyze 500
    python gradcam.py outputs/vit outputs/swin --similarity 500
    python gradcam.py vit_tiny_patch16_224 --image photo.jpg

Writes for each image gradcam/<image>-<method>.png, the overlay and its two layers, .npy (raw map on the layer's grid) and
.json into the run; layers and targets that were asked for are added to the name. Several images or maps of each: a
grid beside them; several runs: a grid of images x runs in outputs/comparisons/. --analyze measures the maps instead of
drawing them: gradcam/statistics.json with figures, and for several runs explanations.json in outputs/comparisons/.
--similarity compares layers: similarity.json with figures, in the same places. A name of timm becomes the run
outputs/pretrained/<name>.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.cache import CACHE_HELP
from common.config_files import split_overrides
from common.console import did_you_mean, run_script
from common.folders import VECTOR_FORMATS
from common.runs import in_use, open_runs
from explanation.methods import METHODS, check_method, uses_layer


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    check_arguments(args)
    models = [name for name in args.runs if not Path(name).exists() and "/" not in name]
    if args.pretrained and len(models) != 1:
        raise ValueError(
            f"--pretrained {args.pretrained} is for one MODEL by its name in timm, such as vit_tiny_patch16_224"
        )
    directories, runs = [Path(name) for name in args.runs], []
    if not models:  # says what is wrong before torch is imported
        runs = open_runs(directories, args.output, args.overrides, figure_format=args.format)
    # What is wrong so far was said at once; torch and its like take seconds to import.
    from common.devices import select_device
    from explanation import tasks
    from explanation.pretrained import open_pretrained

    device = select_device(args.device)
    if models:
        made = {Path(name): open_pretrained(name, args.pretrained).directory for name in models}
        directories = [made.get(path, path) for path in directories]
        runs = open_runs(directories, args.output, args.overrides, figure_format=args.format)
    with in_use(runs):
        if args.analyze is not None:
            tasks.analyze(runs, args, device)
        elif args.similarity is not None:
            tasks.similarity(runs, args, device)
        elif args.list_layers:
            for run in runs:
                tasks.list_layers(run, args, device)
        else:
            tasks.explain_runs(runs, args, device)


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=CACHE_HELP, formatter_class=form)
    parser.add_argument(
        "runs", nargs="+", metavar="RUN | MODEL | data.root=FOLDER", help="run directories, or timm's names of models"
    )
    images = parser.add_mutually_exclusive_group(required=True)
    images.add_argument("--image", nargs="+", type=Path, metavar="FILE", help="image files of any size and mode")
    images.add_argument("--index", nargs="+", type=int, metavar="I", help="positions in the split, from 0")
    images.add_argument("--random", type=int, metavar="N", help="N random images of the split")
    images.add_argument("--per-class", type=int, metavar="N", help="N random images of each class")
    images.add_argument("--analyze", type=int, metavar="N", help="measure the maps of N random images of the split")
    images.add_argument("--similarity", type=int, metavar="N", help="how alike the layers of runs see N random images")
    images.add_argument("--list-layers", action="store_true", help="show what --layer can be, and stop")
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="where the images come from")
    parser.add_argument("--seed", type=int, default=0, help="of --random, --per-class, --analyze and --similarity")
    parser.add_argument(
        "--method",
        nargs="+",
        metavar="M",
        help=f"of {', '.join(METHODS)} (default: auto, by the architecture; with --layer lrp)",
    )
    parser.add_argument(
        "--pretrained", metavar="FILE", help="weights of a MODEL: a file or folder (default: timm's own)"
    )
    parser.add_argument("--layer", nargs="+", metavar="NAME", help="layers to look at (default: by the architecture)")
    parser.add_argument(
        "--target", nargs="+", metavar="CLASS", help="by name or number; 'label': the true one (default: the predicted)"
    )
    parser.add_argument(
        "--patch", nargs=2, type=int, metavar=("ROW", "COLUMN"), help="attention: where this patch looks, from 0 0"
    )
    parser.add_argument(
        "--precision", choices=("fp32", "bf16"), default="fp32", help="bf16 is faster, hardly different"
    )
    parser.add_argument("--channels", type=int, metavar="K", help="scorecam: measure the K strongest channels alone")
    parser.add_argument("--checkpoint", choices=("best", "last"), default="best", help="weights to explain")
    parser.add_argument("--output", type=Path, help="folder of a comparison (default: outputs/comparisons/<runs>)")
    add_drawing(parser)
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    words, overrides = split_overrides(sys.argv[1:] if argv is None else argv)
    args = parser.parse_args(words)
    args.overrides = overrides
    args.method = args.method or (["lrp"] if args.layer else ["auto"])
    args.contour = [0.5] if args.contour == [] else args.contour
    return args


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """How maps look, and in which files figures are written."""
    parser.add_argument("--shared-scale", action="store_true", help="one colour scale for each row of a grid")
    parser.add_argument("--cmap", default="plasma", help="colours of the maps, by matplotlib's name (default: plasma)")
    parser.add_argument(
        "--overlay",
        type=float,
        default=0.8,
        metavar="S",
        help="opacity of a map's largest value, 0 to 1 (default: 0.8)",
    )
    parser.add_argument(
        "--contour",
        nargs="*",
        type=float,
        metavar="SHARE",
        help="lines where a map reaches these shares of its maximum (default: 0.5); with --overlay 0 lines alone",
    )
    parser.add_argument("--format", choices=VECTOR_FORMATS, help="write every figure as this beside its PNG")


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
            f"--layer has no effect on {', '.join(args.method)}, which looks where it must; name a --method such as lrp"
        )
    if args.analyze is not None and args.target is not None:
        raise ValueError("--analyze explains the predicted class of every image; leave out --target")
    if args.analyze is not None and len(args.layer or []) > 1:
        raise ValueError("--analyze looks at one layer; name one")
    if args.seed < 0:
        raise ValueError(f"--seed {args.seed}: should be at least 0")
    if not 0 <= args.overlay <= 1:
        raise ValueError(f"--overlay {args.overlay:g}: an opacity lies between 0 and 1")
    if any(not 0 < share < 1 for share in args.contour or []):
        raise ValueError(f"--contour {max(args.contour):g}: shares of a map's maximum lie between 0 and 1")
    if args.cmap != "plasma":
        check_cmap(args.cmap)
    if args.patch is not None and "attention" not in args.method:
        raise ValueError(f"--patch {args.patch[0]} {args.patch[1]}: is for --method attention")
    if args.channels is not None and ("scorecam" not in args.method or args.channels < 1):
        raise ValueError(f"--channels {args.channels}: should be at least 1, and is for --method scorecam alone")


def check_cmap(name: str) -> None:
    from matplotlib import colormaps  # here, since it takes a while

    if name not in colormaps:
        raise ValueError(f"--cmap {name}: matplotlib has no such colours{did_you_mean(name, colormaps, count=3)}")


if __name__ == "__main__":
    run_script(main)
