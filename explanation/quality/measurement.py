"""Measure a run's heat maps on a sample of a split: form, faithfulness, randomisation test, and attention heads.

`analyze` gives the content of gradcam/statistics.json; `analyze_runs` writes it, with figures, for one run or several.
"""

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
from common.intervals import estimate, mean_interval
from common.runs import Run
from data import load_data_of
from explanation.attention import record_attention
from explanation.attribution import heat_maps
from explanation.automatic import choose
from explanation.layers import MapLayer, map_layer
from explanation.methods import check_method
from explanation.quality import faithfulness as faith
from explanation.quality import report
from explanation.quality.form import COMMON_GRID, map_statistics, resample
from explanation.quality.heads import attention_distance, attention_entropy
from explanation.quality.randomization import correlation_with_depth, layer_groups
from explanation.quality.sample import Measured, Plan, Sample
from explanation.quality.summary import summarize
from explanation.quality.verdicts import verdict
from models import create_model, input_spec, preprocessing, restore_model

DEFAULT_METHODS = ("auto", "gradcam", "hirescam", "layercam")
ROAD_IMAGES, ATTENTION_IMAGES, RANDOMIZED_IMAGES = 64, 64, 32
"""Number of images of the sample for the slow measures, whose intervals are therefore wider."""

PIXELS_AT_ONCE = 2**16
"""Of a batch on a CPU, so that the progress bar moves from image to image where an image takes long."""

Arrays = dict[str, np.ndarray]


def analyze(
    run: Run,
    model: nn.Module,
    layer: MapLayer,
    sample: Sample,
    *,
    methods: Sequence[str] = DEFAULT_METHODS,
    device: torch.device,
) -> tuple[dict, Arrays]:
    """Measure ``methods`` at ``layer`` on a sample, each map explaining the predicted class.

    Returns:
        Plain values for JSON, with 95 % intervals over the images; and the images' own values, one row each, by
        "method/measure", NaN where a measure has none.
    Raises:
        ValueError: an unknown method.
    """
    for method in methods:
        check_method(method)
    split, choice = sample.split, choose(model)
    classes, measured = measure_sample(run, model, layer, sample, methods, device)
    arrays = {"predicted": classes} | {key: row for name, own in measured.items() for key, row in own.items(name)}
    arrays |= {"indices": split.indices[sample.positions].numpy(), "labels": split.labels[sample.positions].numpy()}
    result = {
        "run": run.config.name,
        "model": run.config.model.name,
        "split": split.name,
        "num_images": len(sample),
        "seed": sample.seed,
        "layer": layer.name,
        "grid": list(layer.grid),
        "common_grid": list(COMMON_GRID),
        "explained": "the predicted class",
        "precision": select_precision(run.config.train.amp, device),
        "methods": list(methods),
        "auto": f"{choice.method} at {choice.layer.name}" if choice.layer else choice.method,
        **summarize(measured, methods),
        "randomization": randomization(run, model, layer, sample.part(0, RANDOMIZED_IMAGES), methods, device),
        "attention": attention(model, sample.part(0, ATTENTION_IMAGES), _batch_size(run, model, device), device),
    }
    return result | {"verdict": verdict(result)}, arrays


def analyze_runs(runs: Sequence[Run], plan: Plan, device: torch.device, output: Path | None) -> list[Path]:
    """`analyze` each run and write the results into it; several runs are compared in a folder of their own."""
    results, arrays, written = [], [], []
    for run in runs:
        checkpoint = run.load_checkpoint(f"{plan.checkpoint}.pt")
        model = restore_model(run.config, checkpoint).to(device)
        split = load_data_of(run.config, checkpoint).split(plan.split)
        layer, sample = map_layer(model, plan.layer), Sample.draw(split, plan.num_images, plan.seed)
        result, own = analyze(run, model, layer, sample, methods=plan.methods, device=device)
        result["checkpoint"] = plan.checkpoint
        result["checkpoint_sha256"] = run.checksum(f"{plan.checkpoint}.pt")
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
        folder = comparison_folder(runs, output, "-last" if plan.checkpoint == "last" else "")
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


def load(model: nn.Module, sample: Sample, device: torch.device) -> tuple[Tensor, Tensor]:
    """Preprocessed images and the classes that the model predicts for them."""
    images = preprocessing(model)(sample.pixels().to(device))
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
    """The two baseline maps that do not depend on the image.

    The random map is on the same grid as the maps. The Gaussian is on the common grid, whatever the layer's: on a 2x2 grid it
    would be constant.
    """
    rows = [faith.random_maps(1, grid, torch.Generator().manual_seed(seed * 2**20 + start + i)) for i in range(count)]
    return {"random": torch.cat(rows), "centre": faith.centre_map(COMMON_GRID).expand(count, *COMMON_GRID)}


def rank(maps: Tensor, ties: Tensor, images: Tensor) -> Tensor:
    return faith.pixel_ranks(maps.to(images.device), ties.to(images.device), tuple(images.shape[2:]))


def measure(predict: faith.Predict, images: Tensor, maps: Tensor, ties: Tensor) -> tuple[Arrays, Arrays]:
    """Scores, apart from ROAD, and curves of a batch of maps."""
    ranks, curves = rank(maps, ties, images), {}
    for name, reference in faith.references(images).items():
        deletion, insertion = faith.perturbation_curves(predict, images, reference, ranks)
        curves |= {f"deletion_{name}": deletion, f"insertion_{name}": insertion}
    change = faith.confidence_change(predict, images, maps.to(images.device))
    scores = {key: faith.area_under(curve) for key, curve in curves.items()}
    return scores | {"drop": np.maximum(-change, 0), "increase": (change > 0).astype(float)}, curves


def describe_maps(maps: Tensor) -> dict[tuple[str, str], np.ndarray]:
    """Statistics on the maps' own grid and on the common one, see `Measured.form`; NaN for unusable maps."""
    maps = maps.cpu().numpy()
    good, values = maps.max(axis=(1, 2)) > 0, {}
    for grid, on_grid in (("native", maps[good]), ("common", resample(maps[good], COMMON_GRID))):
        for name, numbers in map_statistics(on_grid).items():
            values[grid, name] = np.full(len(maps), np.nan)
            values[grid, name][good] = numbers
    return values


# ---------------------------------------------------------------- all images


def measure_sample(
    run: Run, model: nn.Module, layer: MapLayer, sample: Sample, methods: Sequence[str], device: torch.device
) -> tuple[np.ndarray, dict[str, Measured]]:
    """The predicted classes, and the values of each method and baseline."""
    precision, size = select_precision(run.config.train.amp, device), _batch_size(run, model, device)
    predicted, parts = [], []
    bar = tqdm(total=len(sample), desc=f"analyzing {run.config.name}", unit=" images", leave=False)
    for start in range(0, len(sample), size):
        images, classes = load(model, sample.part(start, size), device)
        predict = faith.class_probability(model, classes, lambda: autocast(device, precision))
        maps = explain(model, layer, images, classes, methods)
        forms = {method: describe_maps(maps[method]) for method in methods}
        maps |= baselines(layer.grid, sample.seed + 1, start, len(images))
        few, values = max(0, min(ROAD_IMAGES - start, len(images))), {}
        for name, map_ in maps.items():
            scores, curves = measure(predict, images, map_, maps["random"])
            scores["road"] = np.full(len(images), np.nan)
            if few:
                ranks = rank(map_[:few], maps["random"][:few], images)
                road = faith.road(model, images[:few], ranks, classes[:few].tolist(), seed=sample.seed)
                scores["road"][:few] = road
            values[name] = Measured(scores, curves, forms.get(name, {}))
        predicted.append(classes.cpu().numpy())
        parts.append(values)
        bar.update(len(images))
    bar.close()
    return np.concatenate(predicted), {name: Measured.join([part[name] for part in parts]) for name in parts[0]}


def randomization(
    run: Run,
    model: nn.Module,
    layer: MapLayer,
    sample: Sample,
    methods: Sequence[str],
    device: torch.device,
) -> dict:
    """Rank correlation with the trained model's maps while layers get untrained weights, from the head to the stem."""
    images, classes = load(model, sample, device)
    config = run.config.model_copy(update={"model": run.config.model.model_copy(update={"pretrained": False})})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sample.seed)
        untrained = create_model(config, num_classes=model(images[:1]).shape[1]).to(device)
    result: dict = {"num_images": len(sample)}
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


def attention(model: nn.Module, sample: Sample, batch_size: int, device: torch.device) -> dict | None:
    """Mean distance and entropy of every head; None for a model without attention layers."""
    size, layers, sums = input_spec(model).size, [], []
    batch_size = min(batch_size, 16)  # all matrices of a batch are held at once
    for start in range(0, len(sample), batch_size):
        images, _ = load(model, sample.part(start, batch_size), device)
        try:
            with torch.no_grad():
                _, layers = record_attention(model, images)
        except ValueError:
            return None
        totals = [(attention_distance(one, size).sum(0), attention_entropy(one).sum(0)) for one in layers]
        sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, totals)] if sums else totals
    return {
        "num_images": len(sample),
        "layers": [
            {
                "name": one.name,
                "grid": list(one.grid),
                "distance_px": (distance / len(sample)).tolist(),
                "entropy_nats": (entropy / len(sample)).tolist(),
            }
            for one, (distance, entropy) in zip(layers, sums)
        ],
    }
