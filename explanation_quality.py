"""How good a run's heat maps are, measured on a sample of a split: their form, faithfulness, sanity, and the heads.

`analyze` gives the content of gradcam/statistics.json; `verdict` and `compare` say it in words.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from analysis import faithfulness as faith
from analysis.attention import record_attention
from analysis.attention_heads import attention_distance, attention_entropy
from analysis.attribution import check_method, heat_maps
from analysis.map_statistics import COMMON_GRID, centre_to_edge, map_statistics, resample
from analysis.randomization import correlation_with_depth
from analysis.statistics import mean_interval
from data import Preprocess, Split
from devices import autocast, select_precision
from models import CamLayer, create_model, input_spec
from runs import Run

METHODS = ("gradcam", "hirescam", "layercam")
BASELINES = {"random": "a random map", "centre": "a centred Gaussian"}
ROAD_IMAGES, ATTENTION_IMAGES, RANDOMIZED_IMAGES = 64, 64, 32
"""How many images of the sample the slow measures see: intervals say what that costs."""

Arrays = dict[str, np.ndarray]


def analyze(
    run: Run,
    model: nn.Module,
    layer: CamLayer,
    split: Split,
    *,
    methods: Sequence[str] = METHODS,
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
    indices = sample_indices(len(split), num_images, seed, split.name)
    precision = select_precision(run.config.train.amp, device)
    parts, size = [], run.config.evaluate.batch_size
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
        **summarize(arrays, methods),
        "randomization": randomization(run, model, layer, split, indices[:RANDOMIZED_IMAGES], methods, seed, device),
        "attention": attention(model, split, indices[:ATTENTION_IMAGES], size, device),
    }
    return result | {"verdict": verdict(result)}, arrays


def sample_indices(available: int, count: int, seed: int, name: str) -> list[int]:
    """``count`` seeded positions of a split, ascending."""
    if not 1 <= count <= available:
        raise ValueError(f"--analyze {count}: the {name} split has {available} images; ask for 1 to that")
    return np.sort(np.random.default_rng(seed).choice(available, count, replace=False)).tolist()


# ---------------------------------------------------------------- one batch


def load(model: nn.Module, split: Split, indices: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Preprocessed images and the classes that the model predicts for them."""
    spec = input_spec(model)
    preprocess = Preprocess(spec.size, spec.mean, spec.std, spec.interpolation).to(device)
    images = preprocess(torch.stack([split.image(i) for i in indices]).to(device))
    with torch.inference_mode():
        return images, model(images).argmax(dim=1).clone()


def explain(
    model: nn.Module, layer: CamLayer, images: Tensor, classes: Tensor, methods: Sequence[str]
) -> dict[str, Tensor]:
    """Each method's maps, float32 B h w on the images' device; one that says nothing is all 0."""
    maps = {}
    for method in methods:
        faults: dict[int, str] = {}
        found = heat_maps(
            model,
            layer.module,
            layer.to_maps,
            images,
            classes.tolist(),
            method=method,
            layer_name=layer.name,
            faults=faults,
        )
        found[list(faults)] = 0
        maps[method] = torch.from_numpy(found).to(images.device)
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
    """Statistics on the maps' own grid and on the common one; NaN for maps that say nothing."""
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
    pairs = [(a, b) for a in methods for b in BASELINES] + list(itertools.combinations(methods, 2))
    return {
        "maps": forms,
        "faithfulness": {n: {key: estimate(arrays[f"{n}/{key}"]) for key in faith.MEASURES} for n in names},
        "paired": [
            {"first": a, "second": b}
            | {key: estimate(arrays[f"{a}/{key}"] - arrays[f"{b}/{key}"]) for key in faith.MEASURES}
            for a, b in pairs
        ],
        "curves": {"fractions": list(faith.FRACTIONS)}
        | {
            name: {key: arrays[f"{name}/curves/{key}"].mean(axis=0).tolist() for key in faith.MEASURES if "_" in key}
            for name in names
        },
    }


def estimate(values: np.ndarray) -> dict:
    """Mean with its interval over the images that have a value; None without any."""
    values = values[np.isfinite(values)]
    if not len(values):
        return {"mean": None, "ci95": None, "images": 0}
    mean, interval = mean_interval(values)
    return {"mean": float(mean), "ci95": interval.tolist(), "images": len(values)}


def randomization(
    run: Run,
    model: nn.Module,
    layer: CamLayer,
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
    for method in tqdm(methods, f"randomizing {run.config.name}", leave=False):

        def maps_of(changed: nn.Module, method: str = method) -> np.ndarray:
            there = CamLayer(layer.name, changed.get_submodule(layer.name), layer.grid, layer.to_maps)
            maps = explain(changed, there, images, classes, [method])[method].cpu().numpy()
            maps[maps.max(axis=(1, 2)) == 0] = np.nan
            return maps

        result["groups"], correlations = correlation_with_depth(maps_of, model, untrained)
        result[method] = [estimate(column) for column in correlations.T]
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


# ---------------------------------------------------------------- in words


def verdict(result: dict) -> list[str]:
    """What the numbers of one run say, a sentence each."""
    run, count, scores = result["run"], result["num_images"], result["faithfulness"]
    sentences = []
    for method in result["methods"]:
        against = {pair["second"]: pair for pair in result["paired"] if pair["first"] == method}
        known = " and ".join(
            f"{text} {scores[name]['insertion_blur']['mean']:.2f}"
            f" (difference {interval(against[name]['insertion_blur'], '+.2f')})"
            for name, text in BASELINES.items()
        )
        above = [against[name]["insertion_blur"]["ci95"][0] > 0 for name in BASELINES]
        conclusion = {2: "better than both", 0: "not shown to be better than either"}.get(
            sum(above), f"better than {list(BASELINES.values())[above.index(True)]} only" if any(above) else ""
        )
        sentences.append(
            f"On {count:,} images {run}'s {method} has insertion AUC {interval(scores[method]['insertion_blur'])}, "
            f"{known}: {conclusion}."
        )
        if blank := result["maps"][method]["blank"]:
            sentences.append(f"{run}'s {method} is blank on {blank} of {count:,} images; there it counts as random.")
    sentences += [ranking(result)] if len(result["methods"]) > 1 else []
    for method in result["methods"]:
        end = result["randomization"][method][-1]
        if end["mean"] is not None:
            sentences.append(
                f"With all weights of {run} randomised, {method}'s rank correlation with the trained model's map is "
                f"{interval(end)}."
            )
    return sentences


def ranking(result: dict) -> str:
    """Which method inserts best, and which of the others it is not shown to beat on these images."""
    scores, methods = result["faithfulness"], result["methods"]
    best = max(methods, key=lambda method: scores[method]["insertion_blur"]["mean"])
    level = []
    for pair in result["paired"]:
        if best in (pair["first"], pair["second"]) and not {pair["first"], pair["second"]} & set(BASELINES):
            low, high = pair["insertion_blur"]["ci95"]
            if low <= 0 <= high:
                level.append(pair["second"] if pair["first"] == best else pair["first"])
    beaten = [method for method in methods if method != best and method not in level]
    text = f"By insertion {best} is the most faithful of {result['run']}'s {len(methods)} methods"
    text += f", ahead of {' and '.join(beaten)}" if beaten else ""
    return text + (f", not distinguishable from {' and '.join(level)}" if level else "") + "."


def interval(values: dict, form: str = ".2f") -> str:
    """0.61 [0.59, 0.63]."""
    low, high = values["ci95"]
    return f"{values['mean']:{form}} [{low:{form}}, {high:{form}}]"


def compare(results: Sequence[dict], arrays: Sequence[Arrays]) -> list[str]:
    """Sentences on every pair of runs: whose maps gain more over a random map, paired over the same images.

    Raises ValueError if the runs were not analyzed on the same images.
    """
    for own in arrays:
        if any(not np.array_equal(own[key], arrays[0][key]) for key in ("indices", "labels")):
            raise ValueError("the runs were analyzed on different images; compare runs of one dataset and split_seed")
    sentences = []
    for i, j in itertools.combinations(range(len(results)), 2):
        first, second = results[i], results[j]
        for method in [m for m in first["methods"] if m in second["methods"]]:
            gains = [own[f"{method}/insertion_blur"] - own["random/insertion_blur"] for own in (arrays[i], arrays[j])]
            difference = estimate(gains[0] - gains[1])
            low, high = difference["ci95"]
            who = "not distinguishable" if low <= 0 <= high else f"{(first if low > 0 else second)['run']}'s is better"
            sentences.append(
                f"{method}: insertion AUC above a random map {gains[0].mean():+.2f} for {first['run']}, "
                f"{gains[1].mean():+.2f} for {second['run']}, difference {interval(difference, '+.2f')}: {who}."
            )
    return sentences
