"""How good a run's heat maps are, measured on a sample of a split: their form, faithfulness, sanity, and the heads.

`analyze` gives the content of gradcam/statistics.json; `analyze_runs` writes it, with figures, for one run or several.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.comparisons import comparison_folder
from common.console import print_table
from common.devices import autocast, select_precision
from common.documents import to_markdown
from common.intervals import estimate, mean_interval, simultaneous_intervals
from common.runs import Run
from data import Split, load_data_of
from explanation.attention import record_attention
from explanation.attribution import heat_maps
from explanation.automatic import choose
from explanation.layers import MapLayer, map_layer
from explanation.methods import check_method
from explanation.pictures import sample_indices
from explanation.quality import faithfulness as faith
from explanation.quality import report
from explanation.quality.form import COMMON_GRID, centre_to_edge, map_statistics, resample
from explanation.quality.heads import attention_distance, attention_entropy
from explanation.quality.randomization import correlation_with_depth, layer_groups
from explanation.quality.verdicts import BASELINES, JUDGED, verdict
from models import create_model, input_spec, preprocessing, restore_model

DEFAULT_METHODS = ("auto", "gradcam", "hirescam", "layercam")
ROAD_IMAGES, ATTENTION_IMAGES, RANDOMIZED_IMAGES = 64, 64, 32
"""How many images of the sample the slow measures see: intervals say what that costs."""

PIXELS_AT_ONCE = 2**16
"""Of a batch on a CPU, so that the progress bar moves from image to image where an image takes long."""

Arrays = dict[str, np.ndarray]


def analyze(
    run: Run,
    model: nn.Module,
    layer: MapLayer,
    split: Split,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    num_images: int,
    seed: int = 0,
    device: torch.device,
) -> tuple[dict, Arrays]:
    """Measure ``methods`` at ``layer`` on a seeded sample of ``split``, each map explaining the predicted class.

    Returns:
        Plain values for JSON, with 95 % intervals over the images; and the images' own values, one row each, by
        "method/measure", NaN where a measure has none.
    Raises:
        ValueError: an unknown method, or more images asked for than the split has.
    """
    for method in methods:
        check_method(method)
    indices = sample_indices(split, num_images, seed, option="--analyze")
    precision = select_precision(run.config.train.amp, device)
    parts, size, choice = [], _batch_size(run, model, device), choose(model)
    bar = tqdm(total=num_images, desc=f"analyzing {run.config.name}", unit=" images", leave=False)
    for start in range(0, num_images, size):
        images, classes = load(model, split, indices[start : start + size], device)
        predict = faith.class_probability(model, classes, lambda: autocast(device, precision))
        maps = explain(model, layer, images, classes, methods)
        values = {"predicted": classes.cpu().numpy()}
        for method in methods:
            values |= prefixed(method, describe_maps(maps[method]))
        maps |= baselines(layer.grid, seed + 1, start, len(images))
        for name, map_ in maps.items():
            values |= prefixed(name, measure(predict, images, map_, maps["random"]))
            road = np.full(len(images), np.nan)
            few = max(0, min(ROAD_IMAGES - start, len(images)))
            if few:
                ranks = rank(map_[:few], maps["random"][:few], images)
                road[:few] = faith.road(model, images[:few], ranks, classes[:few].tolist(), seed=seed)
            values[f"{name}/road"] = road
        parts.append(values)
        bar.update(len(images))
    bar.close()
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    arrays |= {"indices": split.indices[indices].numpy(), "labels": split.labels[indices].numpy()}
    result = {
        "run": run.config.name,
        "model": run.config.model.name,
        "split": split.name,
        "num_images": num_images,
        "seed": seed,
        "layer": layer.name,
        "grid": list(layer.grid),
        "common_grid": list(COMMON_GRID),
        "explained": "the predicted class",
        "precision": precision,
        "methods": list(methods),
        "auto": f"{choice.method} at {choice.layer.name}" if choice.layer else choice.method,
        **summarize(arrays, methods),
        "randomization": randomization(run, model, layer, split, indices[:RANDOMIZED_IMAGES], methods, seed, device),
        "attention": attention(model, split, indices[:ATTENTION_IMAGES], size, device),
    }
    return result | {"verdict": verdict(result)}, arrays


def analyze_runs(
    runs: Sequence[Run],
    num_images: int,
    *,
    split_name: str,
    methods: Sequence[str],
    layer_name: str | None,
    checkpoint_name: str,
    seed: int,
    device: torch.device,
    output: Path | None,
) -> list[Path]:
    """`analyze` each run and write the results into it; several runs are compared in a folder of their own."""
    results, arrays, written = [], [], []
    for run in runs:
        checkpoint = run.load_checkpoint(f"{checkpoint_name}.pt")
        model = restore_model(run.config, checkpoint).to(device)
        split = load_data_of(run.config, checkpoint).split(split_name)
        layer = map_layer(model, layer_name)
        result, own = analyze(
            run, model, layer, split, methods=methods, num_images=num_images, seed=seed, device=device
        )
        result["checkpoint"] = checkpoint_name
        result["checkpoint_sha256"] = run.checksum(f"{checkpoint_name}.pt")
        written += [
            run.save_json("gradcam/statistics.json", result),
            run.save_arrays("gradcam/statistics.npz", **own),
            *[run.save_figure(f"gradcam/{name}.png", figure) for name, figure in report.figures_of(result).items()],
        ]
        results.append(result)
        arrays.append(own)
    sentences = [sentence for result in results for sentence in result["verdict"]]
    rows = report.table(results)
    print_table([list(row.values()) for row in rows], header=list(rows[0]))
    if len(runs) > 1:
        compared = report.compare(results, arrays)
        sentences += compared
        folder = comparison_folder(runs, output, "-last" if checkpoint_name == "last" else "")
        sections = [report.section(results, arrays, ["explanations.png"])]
        markdown = to_markdown(f"Explanations of {len(runs)} runs", sections)
        written += [
            folder.save_json("explanations.json", {"runs": results, "table": rows, "pairs": compared}),
            folder.save_text("explanations.md", markdown),
            folder.save_figure("explanations.png", report.statistics_figure(results)),
        ]
    print(*sentences, sep="\n")
    return written


# ---------------------------------------------------------------- one batch


def _batch_size(run: Run, model: nn.Module, device: torch.device) -> int:
    height, width = input_spec(model).size
    size = run.config.evaluate.batch_size
    return size if device.type == "cuda" else min(size, max(1, PIXELS_AT_ONCE // (height * width)))


def load(model: nn.Module, split: Split, indices: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Preprocessed images and the classes that the model predicts for them."""
    preprocess = preprocessing(model)
    images = preprocess(torch.stack([split.image(i) for i in indices]).to(device))
    with torch.no_grad():
        return images, model(images).argmax(dim=1).clone()


def explain(
    model: nn.Module, layer: MapLayer, images: Tensor, classes: Tensor, methods: Sequence[str]
) -> dict[str, Tensor]:
    """Each method's maps, float32 B h w on the images' device; an unusable one is all 0."""
    maps = {}
    for method in methods:
        values, faults = heat_maps(model, layer, images, classes.tolist(), method=method)
        values[list(faults)] = 0
        maps[method] = torch.from_numpy(values).to(images.device)
    return maps


def baselines(grid: tuple[int, int], seed: int, start: int, count: int) -> dict[str, Tensor]:
    """The two maps that know nothing of the image, on the layer's grid: as coarse as the maps that they stand beside."""
    rows = [faith.random_maps(1, grid, torch.Generator().manual_seed(seed * 2**20 + start + i)) for i in range(count)]
    return {"random": torch.cat(rows), "centre": faith.centre_map(grid).expand(count, *grid)}


def rank(maps: Tensor, ties: Tensor, images: Tensor) -> Tensor:
    return faith.pixel_ranks(maps.to(images.device), ties.to(images.device), tuple(images.shape[2:]))


def measure(predict: faith.Predict, images: Tensor, maps: Tensor, ties: Tensor) -> Arrays:
    """Curves and scores of a batch of maps, but ROAD's."""
    ranks, values = rank(maps, ties, images), {}
    for name, reference in faith.references(images).items():
        deletion, insertion = faith.perturbation_curves(predict, images, reference, ranks)
        values |= {f"curves/deletion_{name}": deletion, f"curves/insertion_{name}": insertion}
        values |= {f"deletion_{name}": faith.area_under(deletion), f"insertion_{name}": faith.area_under(insertion)}
    change = faith.confidence_change(predict, images, maps.to(images.device))
    return values | {"drop": np.maximum(-change, 0), "increase": (change > 0).astype(float)}


def describe_maps(maps: Tensor) -> Arrays:
    """Statistics on the maps' own grid and on the common one; NaN for unusable maps."""
    maps = maps.cpu().numpy()
    good, values = maps.max(axis=(1, 2)) > 0, {}
    for grid, on_grid in (("native", maps[good]), ("common", resample(maps[good], COMMON_GRID))):
        for name, numbers in map_statistics(on_grid).items():
            values[f"{grid}/{name}"] = np.full(len(maps), np.nan)
            values[f"{grid}/{name}"][good] = numbers
    return values


def prefixed(prefix: str, values: Arrays) -> Arrays:
    return {f"{prefix}/{key}": value for key, value in values.items()}


# ---------------------------------------------------------------- all images


def summarize(arrays: Arrays, methods: Sequence[str]) -> dict:
    """Means with intervals of every measure, and the methods' paired differences from the baselines and each other."""
    names, forms = [*methods, *BASELINES], {}
    for method in methods:
        keys = [key for key in arrays if key.startswith((f"{method}/native/", f"{method}/common/"))]
        forms[method] = {"blank": int(np.isnan(arrays[keys[0]]).sum()), "native": {}, "common": {}}
        for key in keys:
            _, grid, name = key.split("/")
            forms[method][grid][name] = estimate(arrays[key])
        for grid in ("native", "common"):
            share = forms[method][grid]["centre_mass"]
            forms[method][grid]["centre_to_edge"] = {
                "mean": centre_to_edge(share["mean"]) if share["mean"] is not None else None,
                "ci95": [centre_to_edge(bound) for bound in share["ci95"]] if share["ci95"] else None,
            }
    bands = {
        key: faith.paired_bands([arrays[f"{name}/curves/{key}"] for name in names]).tolist()
        for key in faith.MEASURES
        if "_" in key
    }
    return {
        "maps": forms,
        "faithfulness": {n: {key: estimate(arrays[f"{n}/{key}"]) for key in faith.MEASURES} for n in names},
        "paired": paired_differences(arrays, methods),
        "curves": {"fractions": list(faith.FRACTIONS)}
        | {
            name: {key: arrays[f"{name}/curves/{key}"].mean(axis=0).tolist() for key in faith.MEASURES if "_" in key}
            for name in names
        },
        "curves_ci95": {name: {key: bands[key][i] for key in bands} for i, name in enumerate(names)},
    }


def paired_differences(arrays: Arrays, methods: Sequence[str]) -> list[dict]:
    """Of every method from each baseline and each other: the first's less the second's, by measure.

    Beside the interval of each (``ci95``), what is judged has one that holds for all of them at once (``ci95_together``).
    """
    names = [(a, b) for a in methods for b in BASELINES] + list(itertools.combinations(methods, 2))
    difference = {
        (*pair, key): arrays[f"{pair[0]}/{key}"] - arrays[f"{pair[1]}/{key}"]
        for pair in names
        for key in faith.MEASURES
    }
    pairs = [{"first": a, "second": b} | {k: estimate(difference[a, b, k]) for k in faith.MEASURES} for a, b in names]
    judged = [(pair, key) for pair in pairs for key in JUDGED]
    together = simultaneous_intervals(np.stack([difference[p["first"], p["second"], k] for p, k in judged], axis=1))
    for (pair, key), bounds in zip(judged, together):
        pair[key]["ci95_together"] = bounds.clip(-1, 1).tolist()  # areas of probabilities
    return pairs


def randomization(
    run: Run,
    model: nn.Module,
    layer: MapLayer,
    split: Split,
    indices: Sequence[int],
    methods: Sequence[str],
    seed: int,
    device: torch.device,
) -> dict:
    """Rank correlation of the maps while layers lose what they learned, from the head to the stem."""
    images, classes = load(model, split, indices, device)
    config = run.config.model_copy(update={"model": run.config.model.model_copy(update={"pretrained": False})})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        untrained = create_model(config, num_classes=model(images[:1]).shape[1]).to(device)
    result: dict = {"num_images": len(indices)}
    steps = len(methods) * (1 + len(layer_groups(model)))
    bar = tqdm(total=steps, desc=f"randomizing {run.config.name}", unit=" groups of layers", leave=False)
    for method in methods:

        def maps_of(changed: nn.Module, method: str = method) -> np.ndarray:
            there = MapLayer(layer.name, changed.get_submodule(layer.name), layer.grid, layer.to_maps)
            maps = explain(changed, there, images, classes, [method])[method].cpu().numpy()
            maps[maps.max(axis=(1, 2)) == 0] = np.nan
            bar.update()
            return maps

        result["groups"], correlations = correlation_with_depth(maps_of, model, untrained)
        result[method] = [estimate(column) for column in correlations.T]
        last = correlations[:, -1][np.isfinite(correlations[:, -1])]
        if len(last):  # Bonferroni's, since methods are blank on different images
            bounds = mean_interval(last, confidence=1 - 0.05 / len(methods))[1]
            result[method][-1]["ci95_together"] = bounds.tolist()
    bar.close()
    return result


def attention(
    model: nn.Module, split: Split, indices: Sequence[int], batch_size: int, device: torch.device
) -> dict | None:
    """Mean distance and entropy of every head; None for a model without attention layers."""
    size, layers, sums = input_spec(model).size, [], []
    for start in range(0, len(indices), min(batch_size, 16)):  # all matrices of a batch are held at once
        images, _ = load(model, split, indices[start : start + min(batch_size, 16)], device)
        try:
            with torch.no_grad():
                _, layers = record_attention(model, images)
        except ValueError:
            return None
        totals = [(attention_distance(one, size).sum(0), attention_entropy(one).sum(0)) for one in layers]
        sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, totals)] if sums else totals
    return {
        "num_images": len(indices),
        "layers": [
            {
                "name": one.name,
                "grid": list(one.grid),
                "distance_px": (distance / len(indices)).tolist(),
                "entropy_nats": (entropy / len(indices)).tolist(),
            }
            for one, (distance, entropy) in zip(layers, sums)
        ],
    }
