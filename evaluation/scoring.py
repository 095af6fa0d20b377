"""Evaluate one run: its predictions for a split, its cost, and its accuracy on corrupted images."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common import distributed
from common.devices import autocast, select_precision
from common.documents import to_csv
from common.runs import Run
from data import BY_PIXELS, Split, load_data_of, load_dataset
from evaluation import figures, metrics
from evaluation.corruptions import SEVERITIES, Benchmark, benchmark_of, by_severity, score_corrupted, versions_of
from evaluation.cost import count_parameters, measure_cost, peak_memory_mb
from evaluation.embedding import embed
from evaluation.predictions import (
    ORIGIN,
    FlipAverage,
    load_predictions,
    origin_of_predictions,
    predict_split,
    predict_versions,
    save_predictions,
)
from evaluation.report import MEASURED_KEYS, finish, mistakes_figure, title_of
from evaluation.tables import mistake_rows
from evaluation.variant import Variant
from models import apply_tuning, input_spec, restore_model


def reason_to_evaluate(run: Run, variant: Variant, *, corruptions: bool = False, embedding: bool = False) -> str | None:
    """Why a run must be evaluated (again) before it is compared; None if its results are complete and up to date.

    Raises ValueError if the images that it was trained on are missing or have changed.
    """
    suffix, weights = variant.suffix, variant.weights
    files = [run.path(f"metrics{suffix}.json"), run.path(f"predictions{suffix}.npz")]
    if corruptions:
        files.append(run.path(f"corruptions{suffix}.json"))
    if embedding:
        files.append(run.path(f"embedding{suffix}.json"))
    missing = [path for path in files if not path.is_file()]
    if missing:
        return "not evaluated yet" if missing[0] == files[0] else f"no {missing[0].name} yet"
    stored = run.read_json(files[0].name)
    if any(key not in stored for key in MEASURED_KEYS):
        return f"{files[0].name} lacks what a comparison needs"
    origins = {files[0].name: stored, files[1].name: origin_of_predictions(run, files[1].name)}
    origins |= {path.name: run.read_json(path.name) for path in files[2:]}
    digest = run.checksum(weights) if run.path(weights).is_file() else stored["checkpoint_sha256"]
    for name, origin in origins.items():
        if origin.get("checkpoint_sha256") != digest:
            return f"{name} is not of this {weights}"
        if origin.get("fingerprint") != stored["fingerprint"]:
            return f"{name} is of other images than {files[0].name}"
    if corruptions and not run.path(f"corruptions{suffix}.npz").is_file():
        return f"corruptions{suffix}.json was measured by an earlier definition"
    if (stored["split"], stored["checkpoint"]) != (variant.split, variant.checkpoint):
        return f"{files[0].name} is of {stored['checkpoint']}.pt and the {stored['split']} split"
    if images_of(run, variant).fingerprint() != stored["fingerprint"]:
        return f"the {variant.split} images differ from those when it was evaluated"
    return None


def images_of(run: Run, variant: Variant) -> Split:
    """The images that a run is evaluated on; if its weights exist, its training images are checked as well."""
    data = run.config.data
    if run.path(variant.weights).is_file():
        return load_data_of(run.config, run.load_checkpoint(variant.weights)).split(variant.split)
    return load_dataset(data, seed=data.split_seed).split(variant.split)


def evaluate(
    run: Run, variant: Variant, device: torch.device, *, corruptions: bool = False, embedding: bool = False
) -> None:
    """Evaluate one run on a variant's split and write the results into the run; see `Variant`.

    Raises ValueError if its data or weights are missing or changed, or if a logit is not finite.
    """
    checkpoint = run.load_checkpoint(variant.weights)
    dataset = load_data_of(run.config, checkpoint)
    split = dataset.split(variant.split)
    model = restore_model(run.config, checkpoint).to(device)
    predictor = FlipAverage(model) if variant.tta else model
    precision = select_precision(run.config.train.amp, device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    how = {"batch_size": run.config.evaluate.batch_size, "device": device, "precision": precision}
    predict = partial(predict_split, predictor, **how)
    predictions, memory = predict(split), peak_memory_mb(device)
    metrics.check_finite(predictions)  # before anything is written
    held_out = predict(dataset.val) if variant.split == "test" and len(dataset.val) else None
    corrupted = corrupt(predictor, split, **how) if corruptions else None
    if not distributed.is_main():
        return
    class_names, suffix, weights = checkpoint["class_names"], variant.suffix, run.checksum(variant.weights)
    predictions = replace(predictions, copies=dataset.copies(split.name))
    held_out = held_out and replace(held_out, copies=dataset.copies("val"))
    written = []
    for part, found in ((split, predictions), (dataset.val, held_out)):
        if found is not None:
            name = f"predictions{variant.on(part.name).suffix}.npz"
            about = {"indices": part.indices.numpy(), "class_names": np.array(class_names)}
            about |= {"fingerprint": part.fingerprint(), "checkpoint_sha256": weights}
            written.append(save_predictions(run, name, found, about))
    facts = measure(model, predictor, run, split, device, precision) | {
        "peak_memory_mb": memory,
        "fingerprint": split.fingerprint(),
        "train_fingerprint": dataset.train.fingerprint(),
        "val_fingerprint": dataset.val.fingerprint(),
        "checkpoint_sha256": weights,
        "images_since_training": since_training(split, checkpoint),
    }
    origin = {"split": variant.split} | {key: facts[key] for key in ORIGIN}
    wrong = metrics.most_confidently_wrong(predictions)
    if len(wrong):
        title = f"{title_of(run, variant)}: most confidently wrong"
        figure = mistakes_figure(split, predictions, wrong, class_names, title)
        written.append(run.save_figure(f"figures/mistakes{suffix}.png", figure))
        rows = mistake_rows(predictions, split, class_names)
        written.append(run.save_text(f"mistakes{suffix}.csv", to_csv(rows)))
    if corrupted:
        written += save_corrupted(run, variant, *corrupted, origin)
    if embedding:
        written += embed(run, model, dataset, origin, device=device, precision=precision, suffix=suffix)
    finish(run, variant, predictions, held_out, class_names, facts, written)


def since_training(split: Split, checkpoint: Mapping) -> str:
    """Whether the images of a split are those when the run was trained: unchanged, changed or unknown."""
    expected = checkpoint.get("images", {}).get(split.name)
    if expected is None or not expected.endswith(BY_PIXELS):
        return "unknown"
    return "unchanged" if split.has_fingerprint(expected) else "changed"


def corrupt(model: nn.Module, split: Split, **how) -> tuple[np.ndarray, Benchmark]:
    """Which images are recognised, clean and with every corruption (bool V N), and the benchmark used."""
    benchmark = benchmark_of(split)
    return predict_versions(model, split.at_side(benchmark.side), versions_of(benchmark), **how), benchmark


def save_corrupted(run: Run, variant: Variant, hits: np.ndarray, benchmark: Benchmark, origin: Mapping) -> list[Path]:
    name, suffix, found = run.config.name, variant.suffix, score_corrupted(hits, benchmark)
    scores = found["corruptions"]
    figure = figures.accuracy_against_severity(
        {name: by_severity(scores, "accuracy")},
        SEVERITIES,
        {name: found["clean_accuracy"]},
        intervals={name: by_severity(scores, "accuracy_ci95")},
        clean_intervals={name: np.array(found["clean_accuracy_ci95"])},
        title=title_of(run, variant),
    )
    return [
        run.save_json(f"corruptions{suffix}.json", {**origin, "checkpoint": variant.checkpoint, **found}),
        run.save_arrays(f"corruptions{suffix}.npz", hits=hits),
        run.save_figure(f"figures/corruptions{suffix}.png", figure),
    ]


def measure(
    model: nn.Module, predictor: nn.Module, run: Run, split: Split, device: torch.device, precision: str
) -> dict:
    """Size, cost and input of a model, by the names of ``metrics.json``; the ``predictor`` is timed."""
    spec = input_spec(model)
    apply_tuning(model, run.config.model.tune)  # for the count of trainable parameters
    params, trainable = count_parameters(model)
    cost = measure_cost(
        predictor,
        spec.size,
        batch_size=min(run.config.evaluate.batch_size, len(split)),
        seconds=run.config.evaluate.latency_seconds,
        device=device,
        context=lambda: autocast(device, precision),
    )
    about = {"image_size": list(spec.size), "mean": list(spec.mean), "std": list(spec.std)}
    about |= {"interpolation": spec.interpolation, "corpus": spec.corpus}
    return {"params": params, "trainable_params": trainable, **cost, "precision": precision, **about}


def recompute(run: Run, variant: Variant) -> None:
    """Compute every score again from ``predictions.npz``; values that need the model stay as they were measured.

    Raises ValueError if ``predictions.npz`` and ``metrics.json`` are of different weights or images.
    """
    suffix = variant.suffix
    before = run.read_json(f"metrics{suffix}.json")
    predictions, class_names = load_predictions(run, f"predictions{suffix}.npz")
    kept = origin_of_predictions(run, f"predictions{suffix}.npz")
    if any(kept[key] != before.get(key) for key in ORIGIN if kept[key]):
        raise ValueError(
            f"{run.path(f'predictions{suffix}.npz')} is of other weights or images than metrics{suffix}.json beside it; "
            "evaluate the run without --from-predictions"
        )
    held_out, name = None, f"predictions{variant.on('val').suffix}.npz"
    same = origin_of_predictions(run, name)["checkpoint_sha256"] == kept["checkpoint_sha256"]
    if variant.split == "test" and run.path(name).is_file() and same:
        held_out, _ = load_predictions(run, name)
    facts = {key: before[key] for key in (*MEASURED_KEYS, "latency_timed_with") if key in before}
    finish(run, variant, predictions, held_out, class_names, facts, [])
