"""What `measurement.analyze` measured, as sentences, a table and figures: plain values in.

A *result* is the content of one run's gradcam/statistics.json.
"""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from common.documents import Section
from common.intervals import simultaneous_intervals
from explanation.quality import figures
from explanation.quality.verdicts import BASELINES, MATTERS, ROBUST, interval, judge

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


def compare(results: Sequence[dict], arrays: Sequence[Mapping[str, np.ndarray]]) -> list[str]:
    """Sentences on every pair of runs: whose maps gain more over a random map, paired over the same images.

    Raises ValueError if the runs were not analyzed on the same images.
    """
    for own in arrays:
        if any(not np.array_equal(own[key], arrays[0][key]) for key in ("indices", "labels")):
            raise ValueError("the runs were analyzed on different images; compare runs of one dataset and split_seed")
    gains = [
        {m: own[f"{m}/insertion_blur"] - own["random/insertion_blur"] for m in result["methods"]}
        for result, own in zip(results, arrays)
    ]
    places = [
        (i, j, method)
        for i, j in itertools.combinations(range(len(results)), 2)
        for method in results[i]["methods"]
        if method in gains[j]
    ]
    if not places:
        return []
    differences = np.stack([gains[i][method] - gains[j][method] for i, j, method in places], axis=1)
    sentences = []
    for (i, j, method), own, bounds in zip(places, differences.T, simultaneous_intervals(differences)):
        first, second = results[i]["run"], results[j]["run"]
        difference = {"mean": float(own.mean()), "ci95_together": bounds.clip(-1, 1).tolist()}
        judged = judge(difference)
        who = {"better": f"{first}'s is better", "worse": f"{second}'s is better"}.get(judged, judged)
        sentences.append(
            f"{method}: insertion AUC above a random map {gains[i][method].mean():+.3f} for {first}, "
            f"{gains[j][method].mean():+.3f} for {second}, difference {interval(difference, '+.3f', together=True)}, {who}."
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
    "Maps explain the predicted class. Intervals of means are 95 % percentile bootstraps over the images. Differences are "
    "paired; the intervals in sentences hold for all differences of a run at once (95 %), so that many comparisons make no "
    f"more false claims than one. A difference below {MATTERS} is called too small to matter.",
    "Insertion (more is better) and deletion (less is better): area under the class's probability while the image's pixels "
    "are taken by the map's order, blurred ones in place of the others. ROAD: more is better.",
    "Form on a common grid of 14 x 14: half-mass area is 0.5 for an even map, centre : edge 1; peak distance is 0 in the "
    "centre and 1 in a corner.",
    "After randomisation: rank correlation with the trained model's map once all weights are fresh. A map that depends on what "
    f"was learned stays within {ROBUST} of 0: beyond, the architecture and the image alone explain a quarter of its ranks.",
    "Which method auto stands for was chosen by the project's benchmarks (planted_pattern, real_photos), not by these numbers.",
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
