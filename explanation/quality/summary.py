"""From each image's values to those of a sample: means with intervals, and paired differences."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from common.intervals import estimate, simultaneous_intervals
from explanation.quality import faithfulness as faith
from explanation.quality.form import centre_to_edge
from explanation.quality.sample import Measured
from explanation.quality.verdicts import BASELINES, JUDGED


def summarize(measured: Mapping[str, Measured], methods: Sequence[str]) -> dict:
    """Means with intervals of every measure, and the methods' paired differences from the baselines and each other."""
    names, forms = [*methods, *BASELINES], {}
    for method in methods:
        form = measured[method].form
        forms[method] = {"blank": int(np.isnan(next(iter(form.values()))).sum()), "native": {}, "common": {}}
        for (grid, name), values in form.items():
            forms[method][grid][name] = estimate(values)
        for grid in ("native", "common"):
            share = forms[method][grid]["centre_mass"]
            forms[method][grid]["centre_to_edge"] = {
                "mean": centre_to_edge(share["mean"]) if share["mean"] is not None else None,
                "ci95": [centre_to_edge(bound) for bound in share["ci95"]] if share["ci95"] else None,
            }
    areas = [key for key in faith.MEASURES if "_" in key]
    bands = {key: faith.paired_bands([measured[name].curves[key] for name in names]).tolist() for key in areas}
    scores = {name: measured[name].scores for name in names}
    return {
        "maps": forms,
        "faithfulness": {n: {key: estimate(scores[n][key]) for key in faith.MEASURES} for n in names},
        "paired": paired_differences(scores, methods),
        "curves": {"fractions": list(faith.FRACTIONS)}
        | {n: {key: measured[n].curves[key].mean(axis=0).tolist() for key in areas} for n in names},
        "curves_ci95": {name: {key: bands[key][i] for key in bands} for i, name in enumerate(names)},
    }


def paired_differences(scores: Mapping[str, Mapping[str, np.ndarray]], methods: Sequence[str]) -> list[dict]:
    """Of every method from each baseline and each other: the first's less the second's, by measure.

    ``scores``: each method's and baseline's `Measured.scores`.

    Beside the interval of each (``ci95``), what is judged has one that holds for all of them at once (``ci95_together``).
    """
    names = [(a, b) for a in methods for b in BASELINES] + list(itertools.combinations(methods, 2))
    difference = {(a, b, key): scores[a][key] - scores[b][key] for a, b in names for key in faith.MEASURES}
    pairs = [{"first": a, "second": b} | {k: estimate(difference[a, b, k]) for k in faith.MEASURES} for a, b in names]
    judged = [(pair, key) for pair in pairs for key in JUDGED]
    together = simultaneous_intervals(np.stack([difference[p["first"], p["second"], k] for p, k in judged], axis=1))
    for (pair, key), bounds in zip(judged, together):
        pair[key]["ci95_together"] = bounds.clip(-1, 1).tolist()  # areas of probabilities
    return pairs
