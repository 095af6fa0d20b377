"""Tables of a comparison: rows of readable cells."""

from collections.abc import Mapping, Sequence

from common.documents import NO_VALUE, format_interval
from comparison.entries import Comparison, Entry, size_of
from evaluation.tables import COSTS, SCORES, cell, lookup


def comparison_rows(metrics: Sequence[Mapping], columns: Mapping[str, str] = SCORES | COSTS) -> list[dict[str, str]]:
    """One row of readable cells per run, from ``metrics.json`` with ``run``, ``model`` and a readable ``image_size``.

    ``columns``: key -> title, by default those of SCORES and COSTS. Memory, which is not measured on CPU, top-5 accuracy of
    few classes, and the accuracy without copies have a column only if a run has a value.
    """
    sometimes = ("peak_memory_mb", "top5_accuracy")
    absent = [key for key in sometimes if all(values.get(key) is None for values in metrics)]
    absent += [] if any(values.get("num_copies") for values in metrics) else ["accuracy_without_copies"]
    columns = {key: title for key, title in columns.items() if key not in absent}
    return [{title: cell(key, lookup(key, values)) for key, title in columns.items()} for values in metrics]


def describe(entry: Entry) -> dict:
    """All numbers of a run, by the keys of the tables."""
    about = {"run": entry.name, "model": entry.run.config.model.name, "name": entry.run.config.name}
    return about | entry.metrics | {"image_size": size_of(entry.metrics)}


def seed_rows(seeds: Mapping[str, dict]) -> list[dict[str, str]]:
    """Mean and spread of each model over its seeds."""
    return [
        {
            "model": name,
            "runs": str(found["n"]),
            "mean accuracy (%)": f"{100 * found['mean']:.2f}",
            "standard deviation (points)": NO_VALUE if found["std"] is None else f"{100 * found['std']:.2f}",
            "95 % interval of the mean (%)": NO_VALUE
            if found["mean_ci95"] is None
            else format_interval(found["mean_ci95"], unit=""),
        }
        for name, found in seeds.items()
    ]


def difference_rows(comparison: Comparison) -> list[dict[str, str]]:
    """A row for each model with its difference from the reference, the most accurate model first."""
    rows = []
    for pair in comparison.pairs:
        if comparison.reference not in (pair["first"], pair["second"]):
            continue
        other, sign = (pair["first"], 1) if pair["second"] == comparison.reference else (pair["second"], -1)
        rows.append((sign * pair["difference"], {"model": other} | _difference_cells(pair, sign)))
    return [row for _, row in sorted(rows, key=lambda found: -found[0])]


def pair_rows(pairs: Sequence[dict]) -> list[dict[str, str]]:
    """A row for each pair of models, with their difference."""
    return [{"model": pair["first"], "less": pair["second"]} | _difference_cells(pair, 1) for pair in pairs]


def _difference_cells(pair: Mapping, sign: int) -> dict[str, str]:
    low, high = sorted(100 * sign * bound for bound in pair["difference_ci95"])
    return {
        "difference (points)": f"{100 * sign * pair['difference']:+.2f}",
        "95 % interval (points)": f"{low:+.2f} to {high:+.2f}",
        "p": "< 0.0001" if pair["p_adjusted"] < 1e-4 else f"{pair['p_adjusted']:.2g}",
        "verdict": "real" if pair["distinguishable"] else "not distinguishable",
    }


def class_rows(comparison: Comparison) -> list[dict[str, str]]:
    """Accuracy of every model in each class, the mean over its seeds."""
    rows = []
    for name, scores in comparison.entries[0].metrics["per_class"].items():
        row = {"class": name, "images": f"{scores['support']:,}"}
        for model, group in comparison.groups.items():
            found = [entry.metrics["per_class"][name]["accuracy"] for entry in group]
            row[f"{model} (%)"] = NO_VALUE if None in found else f"{100 * sum(found) / len(found):.2f}"
        rows.append(row)
    return rows


def raw_rows(comparison: Comparison) -> list[dict]:
    """Every number of each run as it was measured, for `comparison.csv`: fractions, not percent."""
    models = {id(entry): name for name, group in comparison.groups.items() for entry in group}
    rows = []
    for entry in comparison.entries:
        config = entry.run.config
        about = {"run": config.name, "model": models[id(entry)], "architecture": config.model.name, "seed": config.seed}
        rows.append(about | _flatten(entry.metrics) | {"train_seconds": entry.training.get("seconds")})
    columns = dict.fromkeys(key for row in rows for key in row)
    return [{key: row.get(key) for key in columns} for row in rows]


def _flatten(values: Mapping, prefix: str = "") -> dict:
    """Nested numbers and words with joined keys; intervals become two values (low, high), other lists are left out."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "per_class":
            flat |= _flatten(value, f"{prefix}{key}.")
        elif isinstance(value, list) and key.endswith("ci95"):
            flat |= {f"{prefix}{key}_{end}": bound for end, bound in zip(("low", "high"), value)}
        elif isinstance(value, list) and key == "image_size":
            flat[key] = "x".join(map(str, value))
        elif not isinstance(value, (Mapping, list)):
            flat[prefix + key] = value
    return flat


def paper_rows(comparison: Comparison) -> tuple[list[dict[str, str]], list[tuple[int, str]]]:
    """The table for a paper, a row for each model, and which of its cells are bold.

    The best accuracy is bold if its differences from all other models are significant.
    """
    title = "accuracy (%)"
    rows = []
    for name, group in comparison.groups.items():
        first, found = group[0].metrics, comparison.seeds[name]
        spread = "" if found["std"] is None else f" ± {100 * found['std']:.2f}"
        row = {"model": name, "seeds": str(found["n"]), title: f"{100 * found['mean']:.2f}{spread}"}
        columns = {key: COSTS[key] for key in ("params", "gmacs", "ms_per_image")}
        rows.append(row | {text: cell(key, lookup(key, first)) for key, text in columns.items()})
    best = best_model(comparison.seeds)
    against = [pair for pair in comparison.pairs if best in (pair["first"], pair["second"])]
    real = bool(against) and all(pair["distinguishable"] for pair in against)
    return rows, [(list(comparison.groups).index(best), title)] if real else []


def paper_caption(comparison: Comparison, data: str) -> str:
    """The caption of the table for a paper; ``data``: a sentence on the dataset."""
    seeded = "mean and standard deviation over seeds" if comparison.seeded else "one run each"
    return (
        f"{comparison.entries[0].metrics['split'].capitalize()} accuracy, {seeded}. {data} Bold: above every other model by a "
        "difference that chance does not explain (simultaneous 95 % intervals)."
    )


def best_model(seeds: Mapping[str, dict]) -> str:
    """The model with the highest mean accuracy; the first one if several are equal."""
    return max(seeds, key=lambda name: seeds[name]["mean"])
