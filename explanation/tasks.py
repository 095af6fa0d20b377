"""The tasks of gradcam.py: maps of pictures, their measurement, similarity of layers, the list of layers."""

import argparse
import itertools
import sys
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from common.comparisons import comparison_folder
from common.console import print_result, print_table
from common.devices import autocast
from common.runs import Folder, Run
from data import load_data_of
from explanation import figures
from explanation.attention_maps import attention_layer
from explanation.attribution import Options
from explanation.automatic import choose, default_layer
from explanation.layers import MapLayer, map_layer, map_layers
from explanation.maps import MapSet, Question, attention_of_heads, explain, find_remedy, predict_pictures
from explanation.methods import uses_layer
from explanation.pictures import pick_pictures, read_pictures, sample_indices
from explanation.quality import measurement
from explanation.saving import save_comparison, save_heads, save_run
from explanation.similarity import Representations, cka, represent
from explanation.targets import check_targets, choose_targets
from models import restore_model


def explain_runs(runs: list[Run], args: argparse.Namespace, device: torch.device) -> None:
    """Compute the maps of every run, write their files, and report unusable maps."""
    columns = [column for run in runs for column in explain_run(run, args, device)]
    for run in runs:
        save_run(run, [column for column in columns if column.run is run], args)
        save_heads(run, [column for column in columns if column.run is run and column.heads], args)
    if len(runs) > 1:
        save_comparison(runs, columns, args)
    used = {"default", *(column.layer.name for column in columns if column.layer)}
    unused = [name for name in args.layer or [] if not {name, f"{name}.attn"} & used]
    if unused:
        raise ValueError(f"--layer {unused[0]}: no run has such a layer; --list-layers shows those of each")
    report_faults(columns)


def analyze(runs: list[Run], args: argparse.Namespace, device: torch.device) -> None:
    """--analyze: measure the maps of the default methods and of --method."""
    plan = measurement.Plan(
        num_images=args.analyze,
        split=args.split,
        seed=args.seed,
        checkpoint=args.checkpoint,
        layer=args.layer[0] if args.layer else None,
        methods=tuple(dict.fromkeys([*measurement.DEFAULT_METHODS, *args.method])),
    )
    written = measurement.analyze_runs(runs, plan, device, args.output)
    print_result({"runs": [run.config.name for run in runs], "images": args.analyze}, written)


def similarity(runs: list[Run], args: argparse.Namespace, device: torch.device) -> None:
    """--similarity: CKA between the layers of every two runs (or of a single one with itself), on the same images."""
    represented, splits = [], []
    for run in runs:
        checkpoint = run.load_checkpoint(f"{args.checkpoint}.pt")
        model = restore_model(run.config, checkpoint).to(device)
        splits.append(load_data_of(run.config, checkpoint).split(args.split))
        if splits[-1].fingerprint() != splits[0].fingerprint():
            raise ValueError(
                f"{run.directory} and {runs[0].directory} have different {args.split} images; nothing to compare"
            )
        indices = sample_indices(splits[-1], args.similarity, args.seed, option="--similarity")
        represented.append(represent(model, splits[-1], indices, title=f"layers of {run.config.name}"))
    names, pairs = [run.config.name for run in runs], []
    for i, j in itertools.combinations(range(len(runs)), 2) if len(runs) > 1 else [(0, 0)]:
        matrix = cka(represented[i].grams, represented[j].grams)
        layers = (represented[i].names, represented[j].names)
        pairs.append({"names": (names[i], names[j]), "layers": layers, "cka": matrix.tolist()})
    folder = (
        comparison_folder(runs, args.output, "-last" if args.checkpoint == "last" else "")
        if len(runs) > 1
        else Folder(runs[0].path("gradcam"))
    )
    folder.figure_format = args.format
    about = {"images": args.similarity, "split": args.split, "seed": args.seed, "checkpoint": args.checkpoint}
    title = f"{args.similarity} images of the {args.split} split"
    written = [
        folder.save_json(
            "similarity.json", about | {"pairs": pairs, "attention_distance": _distances(runs, represented)}
        ),
        folder.save_figure(
            "similarity.png", figures.similarity_matrices(pairs, title=f"Similarity of layers on {title}")
        ),
    ]
    shares = {name: list(layers.values()) for name, layers in _distances(runs, represented).items() if layers}
    if shares:
        written.append(
            folder.save_figure(
                "attention_distance.png", figures.distance_by_depth(shares, title=f"Attention on {title}")
            )
        )
    rows = [(" and ".join(p["names"]), f"{np.max(p['cka']):.3f}", f"{p['cka'][-1][-1]:.3f}") for p in pairs]
    print_table(rows, header=("runs", "most similar layers (CKA)", "last layers (CKA)"))
    for name, layers in _distances(runs, represented).items():
        if not layers:
            print(f"{name} has no attention over one grid, and no attention distance")
    print_result({"runs": names, **about}, written)


def _distances(runs: list[Run], represented: list[Representations]) -> dict[str, dict[str, list[float]]]:
    """By run and attention layer, each head's mean distance as a share of the image's diagonal."""
    diagonals = [float(np.hypot(*run.config.data.size)) for run in runs]
    return {
        run.config.name: {name: (heads / diagonal).tolist() for name, heads in one.distances.items()}
        for run, one, diagonal in zip(runs, represented, diagonals)
    }


def explain_run(run: Run, args: argparse.Namespace, device: torch.device) -> list[MapSet]:
    """A MapSet for each method, layer and target; layers that this run lacks are skipped, since other runs may have them."""
    checkpoint = run.load_checkpoint(f"{args.checkpoint}.pt")
    class_names, batch_size = checkpoint["class_names"], run.config.evaluate.batch_size
    model = restore_model(run.config, checkpoint).to(device)
    names = args.layer or ["default"]
    if len(args.runs) > 1:
        modules = dict(model.named_modules())
        names = [name for name in names if name in modules or name == "default"]
        if not names:
            raise ValueError(f"{run.directory} has none of the layers {', '.join(args.layer)}; add --layer default")
    if args.image:
        pictures = read_pictures(run, args.image)
    else:
        which = dict(indices=args.index, random=args.random, per_class=args.per_class, seed=args.seed)
        pictures = pick_pictures(run, args.split, checkpoint, **which)
    check_targets(args.target or [], class_names, pictures)
    probabilities = predict_pictures(model, pictures, batch_size)
    columns = []
    for method, layer in methods_and_layers(model, args.method, names):
        for target in args.target or [None]:
            targets = choose_targets(target, class_names, pictures, probabilities)
            questions = [Question(*parts) for parts in zip(pictures, targets, probabilities)]
            options = Options(
                channels=args.channels if method == "scorecam" else None,
                patch=args.patch if method == "attention" else None,
                context=lambda: autocast(device, args.precision),
            )
            explanations = explain(model, layer, questions, method=method, batch_size=batch_size, options=options)
            faulty = next((e for e in explanations if e.fault), None)
            remedy = find_remedy(model, method, layer, faulty) if faulty else None
            heads = attention_of_heads(model, layer, pictures, args.patch) if method == "attention" else {}
            columns.append(MapSet(run, class_names, method, layer, target, explanations, remedy, **heads))
    return columns


def methods_and_layers(
    model: nn.Module, methods: Sequence[str], layer_names: Sequence[str]
) -> list[tuple[str, MapLayer | None]]:
    """Each method with each of its layers, ``auto`` and ``default`` resolved, without duplicates."""
    pairs = {}
    for method in methods:
        if method == "auto":
            choice = choose(model)
            pairs[choice.method, choice.layer and choice.layer.name] = choice.method, choice.layer
            continue
        for name in layer_names if uses_layer(method) else [None]:
            if method == "attention":
                layer = attention_layer(model, None if name == "default" else name)
            elif name is None:
                layer = None
            else:
                layer = default_layer(model, method) if name == "default" else map_layer(model, name)
            pairs[method, layer and layer.name] = method, layer
    return list(pairs.values())


def report_faults(columns: list[MapSet]) -> None:
    """Report unusable maps with a remedy: an error if no map at all could be drawn, else a warning.

    So a run or method whose maps are all blank does not stop a script that continues with the others.
    """
    faulty = [column for column in columns if column.remedy]
    if not faulty:
        return
    worst = max(faulty, key=lambda column: sum(e.map is None for e in column.explanations))
    faults = [e for e in worst.explanations if e.map is None]
    first, of = f"{faults[0].picture.name}: {faults[0].fault}", len(worst.explanations)
    more = f" (and maps of {len(faulty) - 1} more columns)" if len(faulty) > 1 else ""
    message = f"{worst.place}: {len(faults)} of {of} maps are unusable ({first}){more}; {worst.remedy}"
    if all(e.map is None for column in columns for e in column.explanations):
        raise ValueError(message)
    print(f"warning: {message}", file=sys.stderr)


def list_layers(run: Run, args: argparse.Namespace, device: torch.device) -> None:
    """Print every layer whose output is a map; the default one is marked."""
    model = restore_model(run.config, run.load_checkpoint(f"{args.checkpoint}.pt")).to(device)
    choice, default, found = choose(model), map_layer(model).name, map_layers(model)
    place = f" at {choice.layer.name}" if choice.layer else ""
    print(f"auto: {choice.method}{place} ({choice.rule})")
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
    auto = {"method": choice.method, "layer": choice.layer and choice.layer.name, "rule": choice.rule}
    print_result({"run": str(run.directory), "auto": auto, "default": default, "layers": layers})
