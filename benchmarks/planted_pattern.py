"""Do heat maps point at the evidence? `--method auto` was chosen by this benchmark.

    OMP_NUM_THREADS=1 python -m benchmarks.planted_pattern --write docs/explanations.md
    python -m benchmarks.planted_pattern --models ViT --tasks colour --seeds 0 --output quick.json

Small models learn to tell ten patches apart in weak noise: a picture of 16 px on the grid of the patches, a colour of 8 px,
waves of 12 px at any place (benchmarks/planted_images.py). Each method at each layer then explains images that were
predicted right. Score: the share of images whose maximum lies in the patch, that is, in a cell of which the patch covers at
least half as much as of any other. And with two patches of two classes, both ranked first by the model: how often does
the map of a class point at its own patch, how often at the other's?

Weights are kept in outputs/planted and numbers beside --output: what was measured is not measured again.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from benchmarks.planted_images import FAMILIES, MODELS, TASKS, planted_images, trained_model
from benchmarks.tables import write_between_markers
from common.console import print_result, run_script
from common.documents import markdown_table
from explanation.attribution import heat_maps
from explanation.automatic import choose
from explanation.layers import map_layer, usual_layers
from explanation.quality.faithfulness import centre_map, random_maps

BY_LAYER = ("gradcam", "hirescam", "layercam", "lrp", "sglrp")
WITHOUT_LAYER = ("rollout", "gradrollout")
MULTIPLIED = ("embedded patches", "start of the last stage")
"""Where the map of lrp is also tried as a factor of gradrollout's."""
LEARNED = 0.7
"""Models below this accuracy are left out: they did not learn where the evidence is."""
NO_MAP = -1.0


def main(argv: Sequence[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument(
        "--images", type=int, default=100, help="that the maps are scored on, and as many of two classes"
    )
    parser.add_argument("--steps", type=int, help="of training (default: by the task)")
    parser.add_argument("--weights", type=Path, default=Path("outputs/planted"), help="where trained weights are kept")
    parser.add_argument("--output", type=Path, default=Path("outputs/planted/planted.json"), help="all numbers")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown file whose marked part the tables replace")
    args = parser.parse_args(argv)
    results = json.loads(args.output.read_text()) if args.output.exists() else {}
    args.output.parent.mkdir(parents=True, exist_ok=True)
    cases = [(name, task, seed) for seed in args.seeds for task in args.tasks for name in args.models]
    for name, task, seed in tqdm(cases, "models"):
        key = f"{name}/{task}/{seed}"
        if key not in results:
            model = trained_model(name, task, seed, args.weights, args.steps)
            results[key] = score_model(model, task, seed, args.images)
            args.output.write_text(json.dumps(results, indent=1) + "\n")
    text = "\n\n".join(family_table(family, results) for family in FAMILIES if _measured(family, results))
    print(text)
    if args.write:
        write_between_markers(args.write, "planted_pattern", text)
    print_result({"cases": len(results)}, [args.output, *[args.write] * bool(args.write)])
    return results


def score_model(model: nn.Module, task: str, seed: int, count: int) -> dict:
    """Shares of maxima in the patch by "method at place", for one patch (`one`) and two ([own, other's], `two`)."""
    start = time.process_time()
    images, labels, masks = planted_images(task, count, torch.Generator().manual_seed(1000 + seed))
    with torch.inference_mode():
        right = model(images).argmax(dim=1) == labels[0]
    result = {"accuracy": right.float().mean().item(), "one": {}, "two": {}, "unusable": {}}
    if right.float().mean() >= LEARNED:
        for name, maps in candidates(model, images[right], labels[0][right].tolist()).items():
            hits = point(maps, masks[0][right])
            result["one"][name] = hits.clamp(min=0).mean().item()
            result["unusable"][name] = (hits == NO_MAP).float().mean().item()
        images, labels, masks = planted_images(task, 2 * count, torch.Generator().manual_seed(2000 + seed), patches=2)
        with torch.inference_mode():
            first_two = model(images).topk(2).indices.sort(dim=1).values
        seen = (first_two == labels.T.sort(dim=1).values).all(dim=1).nonzero()[:count, 0]
        result["images_of_two"] = len(seen)
        if len(seen) >= 20:
            for name, maps in candidates(model, images[seen], labels[0][seen].tolist()).items():
                result["two"][name] = [point(maps, mask[seen]).clamp(min=0).mean().item() for mask in masks]
    return result | {"seconds": time.process_time() - start}


def candidates(model: nn.Module, images: Tensor, targets: list[int]) -> dict[str, Tensor]:
    """Maps B h w of every method at every layer, of `auto`, and the two that know nothing of the image."""
    maps = {}
    for place, layer_name in usual_layers(model).items():
        layer = map_layer(model, layer_name)
        for method in BY_LAYER:
            maps[f"{method} at {place}"] = _explain(model, layer, images, targets, method)
    for method in WITHOUT_LAYER if has_attention(model) else ():
        maps[method] = _explain(model, None, images, targets, method)
    for place in MULTIPLIED:
        if f"lrp at {place}" in maps and "gradrollout" in maps:
            maps[f"lrp x gradrollout at {place}"] = product(maps[f"lrp at {place}"], maps["gradrollout"])
    chosen = choose(model)
    maps["**auto**"] = _explain(model, chosen.layer, images, targets, chosen.method)
    maps["a random map"] = random_maps(len(images), (8, 8), torch.Generator().manual_seed(0))
    maps["a centred Gaussian"] = centre_map((8, 8)).expand(len(images), 8, 8)
    return maps


def _explain(model, layer, images, targets, method) -> Tensor:
    parts = []
    for start in range(0, len(images), 100):
        part, chosen = images[start : start + 100], targets[start : start + 100]
        maps, faults = heat_maps(model, layer, part, chosen, method=method)
        maps[list(faults)] = 0
        parts.append(torch.from_numpy(maps))
    return torch.cat(parts)


def product(coarse: Tensor, fine: Tensor) -> Tensor:
    """One map times the other, on the grid of the second, B h w."""
    return F.interpolate(coarse[:, None], fine.shape[1:], mode="bilinear")[:, 0] * fine


def has_attention(model: nn.Module) -> bool:
    return any(hasattr(module, "attn_drop") for module in model.modules())


def point(maps: Tensor, masks: Tensor) -> Tensor:
    """Share of each map's maxima that lie in the patch, B, from maps B h w and masks B H W; NO_MAP for a blank map."""
    cover = F.adaptive_avg_pool2d(masks.float()[:, None], maps.shape[1:])[:, 0]
    inside = cover >= 0.5 * cover.amax(dim=(1, 2), keepdim=True)
    peaks = maps == maps.amax(dim=(1, 2), keepdim=True)
    share = (peaks & inside).sum(dim=(1, 2)) / peaks.sum(dim=(1, 2))
    return torch.where(maps.amax(dim=(1, 2)) > 0, share, NO_MAP)


# ---------------------------------------------------------------- tables


def _measured(family: str, results: dict) -> list[dict]:
    """What was measured of models of this family that learned their task, with the task's name."""
    keys = [(key, key.split("/")) for key in results]
    own = [results[key] | {"task": task} for key, (name, task, _) in keys if name in FAMILIES[family]]
    return [result for result in own if result["one"]]


def family_table(family: str, results: dict) -> str:
    """Markdown: a row for each candidate, best mean first; percent."""
    measured = _measured(family, results)
    models = {key.split("/")[0] for key in results if key.split("/")[0] in FAMILIES[family]}
    tasks = list(dict.fromkeys(result["task"] for result in measured))
    rows = []
    for name in dict.fromkeys(name for result in measured for name in result["one"]):
        there = [result for result in measured if name in result["one"]]
        shares = [result["one"][name] for result in there]
        by_task = [[r["one"][name] for r in there if r["task"] == task] for task in tasks]
        two = np.array([result["two"][name] for result in there if name in result["two"]]).reshape(-1, 2)
        cells = [name, np.mean(shares), np.min(shares), *(np.mean(x) if x else np.nan for x in by_task)]
        cells += [*(two.mean(axis=0) if len(two) else [np.nan] * 2)]
        cells.append(np.mean([result["unusable"][name] for result in there]))
        rows.append(cells)
    rows.sort(key=lambda cells: -cells[1])
    header = ["method", "mean", "worst", *tasks, "two classes: own", "the other's", "blank"]
    shown = [[name, *("-" if np.isnan(x) else f"{100 * x:.0f}" for x in numbers)] for name, *numbers in rows]
    trained = f"{len(measured)} trained models of {len(models)} architectures"
    title = f"**{family}**: {trained}; percent with the maximum in the patch"
    return "\n".join([title, "", *markdown_table(header, shown)])


if __name__ == "__main__":
    run_script(main)
