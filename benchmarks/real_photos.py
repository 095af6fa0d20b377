"""Are heat maps of real photos faithful? Insertion, deletion and a grid pointing game, paired with two empty maps.

    OMP_NUM_THREADS=1 python -m benchmarks.real_photos outputs/flowers_vit --images 200
    python -m benchmarks.real_photos --timm vit_tiny_patch16_224 --weights vit.safetensors --photos flowers --images 200

Runs are measured on their test split, a timm model with a weights file on the photos of a folder. Every map explains the
predicted class. Insertion and deletion (Petsiuk et al. 2018): area under the class's probability while the pixels return to
the blurred photo, or leave it, in the order of the map. Grid pointing game (Böhle et al. 2021,
section 4): four photos of four predicted classes as one image; is the maximum for each class in its own quarter, and how
much of the map (energy)? Chance is 25 %. Intervals are paired bootstraps over the photos, or over the grids.

Numbers are kept in --output as they come: a run that was cut goes on, and methods that are named later are added to it.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.planted_pattern import product
from common.console import print_result, print_table, run_script
from common.intervals import mean_interval
from common.runs import Run
from data import load_data_of
from explanation.attribution import heat_maps
from explanation.automatic import choose
from explanation.layers import map_layer, usual_layers
from explanation.quality import faithfulness as faith
from models import InputSpec, preprocessing, restore_model

BASELINES = ("random", "centre")
BATCH = 25
FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Of the area; finer where the curves are steep."""


def main(argv: Sequence[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="run directories that train.py wrote")
    parser.add_argument("--timm", metavar="NAME", help="a model of timm, for --weights and --photos")
    parser.add_argument("--weights", type=Path, metavar="FILE", help="its weights (.safetensors, all classes)")
    parser.add_argument("--photos", type=Path, metavar="FOLDER", help="of .jpg or .png, searched deeply")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--grids", type=int, default=50, help="of four photos; 0 for none")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["auto", "lrp", "gradrollout", "gradcam", "hirescam"],
        help='auto, METHOD, METHOD@LAYER, or "*" between two for their product',
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("outputs/real_photos.json"))
    args = parser.parse_args(argv)
    if bool(args.runs) == bool(args.timm) or (args.timm and not (args.weights and args.photos)):
        raise ValueError("give run directories, or --timm with --weights and --photos")
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    for name, model, images in opened(args):
        key = f"{name}, {args.images} images, seed {args.seed}"
        result = results.setdefault(key, {"areas": {}, "grids": {}})
        for _ in measure(model, images, args, result):
            args.output.write_text(json.dumps(results, indent=1) + "\n")
        show(name, result)
    print_result({"models": list(results)}, [args.output])
    return results


def opened(args: argparse.Namespace) -> Iterator[tuple[str, nn.Module, Tensor]]:
    """Name, model and preprocessed photos (B 3 H W) of each run, or of the timm model."""
    generator = np.random.default_rng(args.seed)
    if args.timm:
        model = timm.create_model(args.timm)
        state = safetensors.torch.load_file(args.weights)
        model.load_state_dict({key: value.float() for key, value in state.items()})
        settings = timm.data.resolve_model_data_config(model)
        size, keys = settings["input_size"][1:], ("mean", "std", "interpolation")
        model.input_spec = InputSpec(size, *(settings[key] for key in keys), "ImageNet-1k")
        files = sorted(path for path in args.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
        transform, chosen = timm.data.create_transform(**settings), pick(len(files), args.images, generator)
        yield args.timm, model.eval(), torch.stack([transform(Image.open(files[i]).convert("RGB")) for i in chosen])
    for directory in args.runs:
        run = Run.open(directory)
        checkpoint = run.load_checkpoint("best.pt")
        model, split = restore_model(run.config, checkpoint), load_data_of(run.config, checkpoint).split("test")
        pixels = torch.stack([split.image(i) for i in pick(len(split), args.images, np.random.default_rng(args.seed))])
        yield run.config.name, model, preprocessing(model)(pixels)


def pick(available: int, count: int, generator: np.random.Generator) -> list[int]:
    if available < count:
        raise ValueError(f"there are {available} images; ask for at most so many with --images")
    return generator.choice(available, count, replace=False).tolist()  # any first part is itself a sample


def measure(model: nn.Module, images: Tensor, args: argparse.Namespace, result: dict) -> Iterator[None]:
    """Add to ``result`` what it lacks: each image's own areas, and the grids' scores; yields whenever there is more of it."""
    model.requires_grad_(False)
    probabilities = torch.cat([_predict(model, part) for part in images.split(BATCH)])
    classes, chosen = probabilities.argmax(dim=1), choose(model)
    result |= {"images": len(images), "confidence": probabilities.amax(dim=1).mean().item()}
    result["auto"] = f"{chosen.method} at {chosen.layer.name}" if chosen.layer else chosen.method
    for start in tqdm(range(0, len(images), BATCH), "photos"):
        part, targets = images[start : start + BATCH], classes[start : start + BATCH]
        reference, predict = faith.references(part)["blur"], faith.class_probability(model, targets, torch.no_grad)
        ties = faith.random_maps(len(part), (14, 14), torch.Generator().manual_seed(args.seed * 2**20 + start))
        for name in [*args.methods, *BASELINES]:
            own = result["areas"].setdefault(name, {"deletion": [], "insertion": [], "unusable": []})
            if len(own["deletion"]) > start:
                continue
            map_ = one_map(model, part, targets.tolist(), name, ties)
            curves = faith.perturbation_curves(
                predict, part, reference, faith.pixel_ranks(map_, ties, tuple(part.shape[2:])), FRACTIONS
            )
            own["deletion"] += faith.area_under(curves[0], FRACTIONS).tolist()
            own["insertion"] += faith.area_under(curves[1], FRACTIONS).tolist()
            own["unusable"] += (map_.amax(dim=(1, 2)) <= 0).tolist()
            yield
    for name in [*args.methods, *BASELINES]:
        if name not in result["grids"] and args.grids:
            result["grids"] |= grid_game(model, images, probabilities, name, args)
            yield


@torch.inference_mode()
def _predict(model: nn.Module, images: Tensor) -> Tensor:
    return model(images).softmax(dim=1)


def one_map(model: nn.Module, images: Tensor, targets: list[int], name: str, random: Tensor) -> Tensor:
    """B h w of a method or of a baseline; blank where there is none."""
    if name in BASELINES:
        return random if name == "random" else faith.centre_map((14, 14)).expand(len(images), 14, 14)
    return _named_map(model, images, targets, name)


def _named_map(model: nn.Module, images: Tensor, targets: list[int], name: str) -> Tensor:
    if "*" in name:
        first, second = (_named_map(model, images, targets, part) for part in name.split("*"))
        return product(first, second)
    method, _, place = name.partition("@")
    if method == "auto":
        chosen = choose(model)
        method, layer = chosen.method, chosen.layer
    else:
        layer = map_layer(model, usual_layers(model).get(place, place or None))
    values, faults = heat_maps(model, layer, images, targets, method=method)
    values[list(faults)] = 0
    return torch.from_numpy(values)


def grid_game(model: nn.Module, images: Tensor, probabilities: Tensor, name: str, args: argparse.Namespace) -> dict:
    """{name: pointing and energy of each grid, means over its four quarters}. Grids are of confident photos; {} for none."""
    generator, torch_generator = np.random.default_rng(args.seed), torch.Generator().manual_seed(args.seed)
    confident = (probabilities.amax(dim=1) > 0.5).nonzero()[:, 0].numpy()
    classes, own = probabilities.argmax(dim=1).numpy(), {"pointing": [], "energy": []}
    if len(set(classes[confident])) < 4:
        return {}
    for _ in tqdm(range(args.grids), f"grids, {name}"):
        four: list[int] = []
        for i in generator.permutation(confident):
            if len(four) < 4 and classes[i] not in classes[four]:
                four.append(int(i))
        height, width = images.shape[2] // 2, images.shape[3] // 2
        small = F.interpolate(images[four], (height, width), mode="bilinear", antialias=True)
        whole = torch.cat([torch.cat(list(small[:2]), dim=2), torch.cat(list(small[2:]), dim=2)], dim=1)
        random = faith.random_maps(4, (14, 14), torch_generator)
        map_ = one_map(model, whole.expand(4, -1, -1, -1), classes[four].tolist(), name, random)
        fine = F.interpolate(map_[:, None], (2 * height, 2 * width), mode="bilinear")[:, 0]
        quarters = fine.unflatten(2, (2, -1)).unflatten(1, (2, -1))  # B 2 h 2 w
        energy = (quarters.sum(dim=(2, 4)).flatten(1) / fine.sum(dim=(1, 2)).clamp(min=1e-12)[:, None]).diagonal()
        highest = quarters.amax(dim=(2, 4)).flatten(1)
        hits = (highest.argmax(dim=1) == torch.arange(4)) & (highest.amax(dim=1) > 0)
        own["pointing"].append(hits.float().mean().item())
        own["energy"].append(energy.mean().item())
    return {name: own}


def show(name: str, result: dict) -> None:
    """A table on the console: means, and paired differences from the two baselines."""
    print(f"\n{name}: {result['images']} images, mean confidence {result['confidence']:.2f}; auto: {result['auto']}")
    areas, rows = result["areas"], []
    for method, own in areas.items():
        cells = [method]
        for key in ("insertion", "deletion"):
            cells.append(f"{np.mean(own[key]):.3f}")
            cells += [difference(own[key], areas[base][key]) if method != base else "" for base in BASELINES]
        grids = result["grids"].get(method)
        cells += [f"{100 * np.mean(grids[key]):.0f} %" if grids else "-" for key in ("pointing", "energy")]
        rows.append([*cells, f"{100 * np.mean(own['unusable']):.1f} %"])
    against = [f"less {base}" for base in BASELINES]
    print_table(rows, header=["method", "insertion", *against, "deletion", *against, "pointing", "energy", "blank"])


def difference(values: Sequence[float], base: Sequence[float]) -> str:
    """Mean paired difference and its 95 % interval."""
    mean, (lower, upper) = mean_interval(np.subtract(values, base))
    return f"{mean:+.3f} [{lower:+.3f}, {upper:+.3f}]"


if __name__ == "__main__":
    run_script(main)
