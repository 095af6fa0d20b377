"""What `measurement.analyze` measured, as sentences, a table and figures: plain values in.

A *result* is the content of one run's gradcam/statistics.json.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from common.documents import NO_VALUE, Section
from common.intervals import estimate
from explanation.quality import figures

BASELINES = {"random": "a random map", "centre": "a centred Gaussian"}
CURVES = {
    "insertion_blur": "insertion into the blurred image",
    "insertion_mean": "insertion into the mean colour",
    "deletion_blur": "deletion, blurred",
    "deletion_mean": "deletion, mean colour",
}
PANELS = {
    "mean": "mean of the map (share of its maximum)",
    "std": "standard deviation (share of the maximum)",
    "half_mass_area": "area that holds half of the mass (share)",
    "centre_to_edge": "density in the centre over the edge",
}
EVEN = {"half_mass_area": 0.5, "centre_to_edge": 1.0}


def verdict(result: dict) -> list[str]:
    """What the numbers of one run say, a sentence each."""
    run, count, scores = result["run"], result["num_images"], result["faithfulness"]
    sentences = []
    for method in result["methods"]:
        against = {pair["second"]: pair["insertion_blur"] for pair in result["paired"] if pair["first"] == method}
        known = " and ".join(
            f"{text} {scores[name]['insertion_blur']['mean']:.2f} "
            f"(difference {interval(against[name], '+.3f')}: {judge(against[name])})"
            for name, text in BASELINES.items()
        )
        sentences.append(
            f"On {count:,} images {run}'s {method} has insertion AUC {interval(scores[method]['insertion_blur'])}, {known}."
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
    """Which method inserts best, and which of the others it is not shown to beat; none, if chance does as well."""
    scores, methods = result["faithfulness"], result["methods"]
    judged = {
        judge(pair["insertion_blur"])
        for pair in result["paired"]
        if pair["first"] in methods and pair["second"] == "random"
    }
    if "better" not in judged:
        found = "distinguishable from" if judged == {"not distinguishable"} else "better than"
        return f"By insertion none of {result['run']}'s {len(methods)} methods is {found} a random map."
    best = max(methods, key=lambda method: scores[method]["insertion_blur"]["mean"])
    level = []
    for pair in result["paired"]:
        others = {pair["first"], pair["second"]} - {best}
        if len(others) == 1 and not others & set(BASELINES) and judge(pair["insertion_blur"]) == "not distinguishable":
            level += others
    beaten = [method for method in methods if method != best and method not in level]
    text = f"By insertion {best} is the most faithful of {result['run']}'s {len(methods)} methods"
    text += f", ahead of {' and '.join(beaten)}" if beaten else ""
    return text + (f", not distinguishable from {' and '.join(level)}" if level else "") + "."


def judge(difference: dict) -> str:
    """Of a measure of which more is better."""
    low, high = difference["ci95"]
    return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


def interval(values: dict | None, form: str = ".2f") -> str:
    """0.61 [0.59, 0.63]; a dash for what has no value."""
    if not values or values["mean"] is None:
        return NO_VALUE
    low, high = (NO_VALUE if bound is None else f"{bound:{form}}" for bound in values["ci95"])
    return f"{values['mean']:{form}} [{low}, {high}]"


def compare(results: Sequence[dict], arrays: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
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
            better = {"better": f"{first['run']}'s is better", "worse": f"{second['run']}'s is better"}
            who = better.get(judge(difference), "not distinguishable")
            sentences.append(
                f"{method}: insertion AUC above a random map {gains[0].mean():+.3f} for {first['run']}, "
                f"{gains[1].mean():+.3f} for {second['run']}, difference {interval(difference, '+.3f')}: {who}."
            )
    return sentences


def table(results: Sequence[dict]) -> list[dict[str, str]]:
    """A row of readable cells for each run and method; the maps' form is that on the common grid."""
    rows = []
    for result in results:
        for name in [*result["methods"], *BASELINES]:
            scores = result["faithfulness"][name]
            form = result["maps"].get(name, {}).get("common", {})
            end = result["randomization"].get(name, [{"mean": None}])[-1]
            rows.append(
                {
                    "run": result["run"],
                    "method": name if name in result["methods"] else BASELINES[name],
                    "insertion AUC": interval(scores["insertion_blur"]),
                    "deletion AUC": interval(scores["deletion_blur"]),
                    "ROAD": interval(scores["road"]),
                    "drop": interval(scores["drop"]),
                    "half-mass area": interval(form.get("half_mass_area")),
                    "centre : edge": interval(form.get("centre_to_edge")),
                    "peak distance": interval(form.get("peak_distance")),
                    "after randomisation": interval(end),
                }
            )
    return rows


NOTES = (
    "Maps explain the predicted class. All intervals are 95 % percentile bootstraps over the images; differences are paired.",
    "Insertion (more is better) and deletion (less is better): area under the class's probability while the image's pixels "
    "are taken by the map's order, blurred ones in place of the others. ROAD: more is better.",
    "Form on a common grid of 14 x 14: half-mass area is 0.5 for an even map, centre : edge 1; peak distance is 0 in the "
    "centre and 1 in a corner.",
    "What to trust (benchmarks/planted_pattern.py, evidence at a known place, chance 25 %): on a one-block ViT hirescam "
    "and layercam point at it in 98.6 % of images, gradcam in 48.8 %; on a small Swin gradcam in 82.2 %, hirescam in 2.0 %.",
    "After randomisation: rank correlation with the trained model's map once all weights are fresh; near 0 means that the "
    "map depends on what was learned.",
)


def section(
    results: Sequence[dict], arrays: Sequence[Mapping[str, np.ndarray]], pictures: Sequence[str] = ()
) -> Section:
    """Everything on several runs, for a report; ``pictures`` are file names."""
    findings = [*[sentence for result in results for sentence in result["verdict"]], *compare(results, arrays), *NOTES]
    return Section("Explanations", table(results), findings, dict.fromkeys(pictures, "Heat maps in four numbers."))


def figures_of(result: dict) -> dict[str, Figure]:
    """One run's figures by file name."""
    run, methods, count = result["run"], result["methods"], result["num_images"]
    names = [*methods, *BASELINES]
    labels = {name: BASELINES.get(name, name) for name in names}
    drawn = {
        "statistics": statistics_figure([result]),
        "faithfulness": figures.faithfulness_curves(
            result["curves"]["fractions"],
            {
                text: {labels[n]: (result["curves"][n][key], result["curves_ci95"][n][key]) for n in names}
                for key, text in CURVES.items()
            },
            baselines=list(BASELINES.values()),
            title=f"{run}: {count:,} images of the {result['split']} split, paired bands of 95 %",
        ),
        "randomization": figures.randomization(
            result["randomization"]["groups"],
            {m: tuple([step[key] for step in result["randomization"][m]] for key in ("mean", "ci95")) for m in methods},
            title=f"{run}: maps while its layers are randomised, {result['randomization']['num_images']} images, bands of 95 %",
        ),
    }
    if result["attention"]:
        layers = result["attention"]["layers"]
        drawn["attention"] = figures.attention_heads(
            *([layer[key] for layer in layers] for key in ("name", "distance_px", "entropy_nats")),
            title=f"{run}: attention heads, {result['attention']['num_images']} images",
        )
    return drawn


def statistics_figure(results: Sequence[dict]) -> Figure:
    """Four numbers of the maps of all runs and methods, on the common grid."""
    rows = [(result, method) for result in results for method in result["methods"]]
    forms = [result["maps"][method]["common"] for result, method in rows]
    return figures.statistics_panels(
        [method if len(results) == 1 else f"{result['run']}: {method}" for result, method in rows],
        {text: ([f[key]["mean"] for f in forms], [f[key]["ci95"] for f in forms]) for key, text in PANELS.items()},
        references={PANELS[key]: value for key, value in EVEN.items()},
        title=f"{results[0]['run'] if len(results) == 1 else 'heat maps'} on a grid of "
        f"{'x'.join(map(str, results[0]['common_grid']))}, {results[0]['num_images']:,} images, 95 % intervals",
    )
