"""Pictures of two classes, explained once for each: does the map for a class lie where that class is?

    python -m benchmarks.two_classes outputs/cifar10_swin cat dog --pictures 4

Test images of both classes that the model recognises (any, with a note, where there are too few) are joined side by side:
the middle half of one at the left, of the other at the right. gradcam.py explains each picture for both classes. For each map
the share that lies in the half of its own class is printed; a map that knows nothing of the class has about half of it there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import gradcam
from common.console import print_result, print_table, run_script
from common.runs import Run
from data import Split, load_data_of
from explanation.maps import predict_pictures
from explanation.pictures import Picture
from explanation.saving import file_name
from models import restore_model


def main(argv: Sequence[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="run directory that train.py wrote")
    parser.add_argument("classes", nargs="*", metavar="CLASS", help="two names (default: the first two classes)")
    parser.add_argument("--pictures", type=int, default=4, help="how many")
    parser.add_argument("--method", default="gradcam")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images")
    args = parser.parse_args(argv)
    run = Run.open_finished(args.run)
    checkpoint = run.load_checkpoint("best.pt")
    known = checkpoint["class_names"]
    classes = args.classes or known[:2]
    unknown = [name for name in classes if name not in known]
    if len(classes) != 2 or len(set(classes)) != 2 or unknown:
        raise ValueError(f"name two classes of {', '.join(known)}" + (f", not {unknown[0]}" if unknown else ""))
    model, split = restore_model(run.config, checkpoint), load_data_of(run.config, checkpoint).split("test")
    chosen = [choose(model, split, known.index(name), args.pictures, args.seed, name) for name in classes]
    files = []
    for left, right in zip(*chosen):
        name = file_name(["two", classes[0], str(left), classes[1], str(right)])
        pixels = side_by_side(split.image(left), split.image(right)).permute(1, 2, 0).numpy()  # 3 H W -> H W 3
        files.append(run.write(f"gradcam/{name}.png", Image.fromarray(pixels).save))
    gradcam.main([str(run.directory), "--image", *map(str, files), "--target", *classes, "--method", args.method])
    result = {"run": run.config.name, "method": args.method, "classes": classes, "pictures": []}
    for file in files:
        result["pictures"].append({"picture": file.stem} | shares(run, file.stem, args.method, classes))
    print_table([list(row.values()) for row in result["pictures"]], header=("picture", *classes))
    print_result({"run": run.config.name}, [run.save_json("gradcam/two_classes.json", result)])
    return result


def choose(model: nn.Module, split: Split, label: int, count: int, seed: int, name: str) -> list[int]:
    """``count`` seeded positions of images of a class, those that the model recognises first."""
    places = [int(i) for i in np.random.default_rng(seed).permutation(len(split)) if split.labels[i] == label]
    if not places:
        raise ValueError(f"the test split has no image of {name}; name another class")
    pictures = [Picture(str(i), split.image(i), label, None, i) for i in places]
    right = predict_pictures(model, pictures, 64).argmax(axis=1) == label
    if right.sum() < min(count, len(places)):
        print(
            f"note: of {len(places)} images of {name} {right.sum()} are recognised; others are taken, too",
            file=sys.stderr,
        )
    return [places[i] for i in np.argsort(~right, kind="stable")][:count]


def side_by_side(left: Tensor, right: Tensor) -> Tensor:
    """The middle halves of two images, 3 H W each, as one of their size."""
    width = left.shape[2]
    half, start = width // 2, width // 4
    return torch.cat([left[:, :, start : start + half], right[:, :, start : start + width - half]], dim=2)


def shares(run: Run, picture: str, method: str, classes: Sequence[str]) -> dict[str, float | None]:
    """Of the map for each class the share that lies in its own half; None where there is no map."""
    found = {}
    for side, name in enumerate(classes):
        path = run.path(f"gradcam/{file_name([picture, method, name])}.npy")
        found[name] = round(share_of_half(np.load(path), side), 4) if path.is_file() else None
    return found


def share_of_half(map_: np.ndarray, side: int) -> float:
    """Of a map, h w, the share in its left (0) or right (1) half; a column in the middle counts for both in half."""
    columns = map_.sum(axis=0)
    left = columns @ np.clip(len(columns) / 2 - np.arange(len(columns)), 0, 1) / columns.sum()
    return float(1 - left if side else left)


if __name__ == "__main__":
    run_script(main)
