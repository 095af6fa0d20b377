"""What is said about numbers that are known, and how often it is wrong where nothing differs."""

import numpy as np
import pytest

from common.intervals import simultaneous_intervals
from explanation.quality.summary import paired_differences
from explanation.quality.verdicts import (
    default_verdict,
    judge,
    randomization_verdict,
    ranking,
    verdict,
)

MEASURES = ("insertion_blur", "insertion_mean", "deletion_blur", "deletion_mean", "drop", "increase", "road")


def value(mean, half=0.02):
    bounds = [mean - half, mean + half]
    return {"mean": mean, "ci95": [mean, mean], "ci95_together": bounds, "images": 500}


def pair(first, second, insertion, deletion=0.0):
    return {"first": first, "second": second, "insertion_blur": value(insertion), "deletion_blur": value(deletion)}


def result_of(methods, paired, randomization=None):
    names = [*methods, "random", "centre"]
    means = dict(zip(names, (0.61, 0.62, 0.44, 0.66), strict=True))
    return {
        "run": "ViT",
        "auto": "lrp at patch_embed",
        "num_images": 500,
        "methods": methods,
        "maps": {method: {"blank": 2 * (method == methods[0])} for method in methods},
        "faithfulness": {name: {"insertion_blur": value(mean)} for name, mean in means.items()},
        "paired": paired,
        "randomization": randomization or {method: [value(0.5), value(0.04)] for method in methods},
    }


def test_verdicts_say_what_the_numbers_say():
    paired = [
        pair("auto", "random", 0.17),
        pair("auto", "centre", 0.05, -0.06),
        pair("hirescam", "random", 0.18),
        pair("hirescam", "centre", -0.01),
        pair("auto", "hirescam", -0.01),
    ]
    known = {"auto": [value(0.5), value(0.04)], "hirescam": [value(0.3), {"mean": None}]}
    result = result_of(["auto", "hirescam"], paired, known)
    sentences = verdict(result)
    assert sentences[0] == (
        "ViT's default map (lrp at patch_embed) is more faithful than a centred Gaussian: insertion +0.050 [+0.030, +0.070], "
        "better and deletion -0.060 [-0.080, -0.040], better."
    )
    assert sentences[1] == (
        "On 500 images ViT's auto has insertion AUC 0.61 [0.61, 0.61], a random map 0.44 (difference +0.170 [+0.150, "
        "+0.190], better) and a centred Gaussian 0.66 (difference +0.050 [+0.030, +0.070], better)."
    )
    assert sentences[2] == "ViT's auto is blank on 2 of 500 images; there it counts as random."
    assert sentences[3].endswith("(difference -0.010 [-0.030, +0.010], not distinguishable).")
    assert (
        sentences[4] == "By insertion hirescam is the most faithful of ViT's 2 methods, not shown to be ahead of auto."
    )
    assert "map is 0.04 [0.02, 0.06], within the limit of 0.5" in sentences[5] and len(sentences) == 6
    result["paired"][0]["insertion_blur"] = result["paired"][2]["insertion_blur"] = value(0.01)
    assert ranking(result) == "By insertion none of ViT's 2 methods is distinguishable from a random map."
    result["paired"][2]["insertion_blur"] = value(-0.1)
    assert ranking(result) == "By insertion none of ViT's 2 methods is better than a random map."


@pytest.mark.parametrize(
    ("insertion", "deletion", "answer"),
    [
        (0.1, -0.1, "is more faithful than"),
        (-0.1, 0.1, "is less faithful than"),
        (0.1, 0.0, "is more faithful by insertion alone than"),
        (0.0, 0.1, "is less faithful by deletion alone than"),
        (0.1, 0.1, "is more faithful by one measure and less by the other than"),
        (0.01, 0.0, "is not shown to be more faithful than"),
    ],
)
def test_one_sentence_says_whether_the_default_beats_a_centred_gaussian(insertion, deletion, answer):
    sentence = default_verdict(result_of(["auto", "gradcam"], [pair("auto", "centre", insertion, deletion)]))
    assert f" {answer} a centred Gaussian" in sentence


def test_differences_too_small_to_matter_are_not_called_better():
    assert judge(value(0.02, 0.001)) == "better" and judge(value(0.02, 0.001), -1) == "worse"
    assert judge(value(0.009, 0.001)) == "too small to matter"
    assert judge({"mean": 0.0, "ci95_together": [0.0, 0.0]}) == "not distinguishable"  # one map under two names
    assert judge({"mean": 0.1, "ci95": [0.05, 0.15]}) == "better"  # a file of an earlier version


@pytest.mark.parametrize(
    ("mean", "half", "answer"),
    [
        (0.1, 0.1, "within the limit"),
        (-0.9, 0.1, "beyond the limit"),
        (0.8, 0.1, "beyond"),
        (0.5, 0.3, "too few images"),
    ],
)
def test_randomisation_has_a_limit(mean, half, answer):
    assert answer in randomization_verdict("ViT", "gradcam", value(mean, half))


def test_all_intervals_of_a_run_hold_at_once():
    """Where nothing differs, some claim is made in about 5 % of samples, not in 5 % per difference."""
    generator, wrong, alone, methods = np.random.default_rng(0), 0, 0, ["a", "b", "c"]
    for _ in range(150):
        arrays = {f"{n}/{k}": generator.normal(size=60) for n in [*methods, "random", "centre"] for k in MEASURES}
        values = np.stack([arrays[f"{m}/insertion_blur"] - arrays["random/insertion_blur"] for m in methods], axis=1)
        bounds = simultaneous_intervals(values)
        wrong += bool(((bounds[:, 0] > 0) | (bounds[:, 1] < 0)).any())
        half = 1.96 * values.std(axis=0, ddof=1) / 60**0.5
        alone += bool((np.abs(values.mean(axis=0)) > half).any())
    assert wrong / 150 < 0.09 < alone / 150


def test_differences_and_bounds_are_those_of_the_scores():
    generator = np.random.default_rng(1)
    scores = {name: {key: generator.random(40) for key in MEASURES} for name in ("a", "b", "random", "centre")}
    scores["b"]["insertion_blur"] = scores["a"]["insertion_blur"]
    pairs = {(p["first"], p["second"]): p for p in paired_differences(scores, ["a", "b"])}
    assert len(pairs) == 5 and pairs["a", "b"]["insertion_blur"]["ci95_together"] == [0, 0]
    own = pairs["a", "random"]["deletion_blur"]
    assert own["mean"] == pytest.approx(np.mean(scores["a"]["deletion_blur"] - scores["random"]["deletion_blur"]))
    low, high = own["ci95_together"]
    assert low + high == pytest.approx(2 * own["mean"])
    assert "ci95_together" not in pairs["a", "random"]["road"]
    single = {name: {key: values[:1] for key, values in own.items()} for name, own in scores.items()}
    assert paired_differences(single, ["a"])[0]["insertion_blur"]["ci95_together"] == [-1, 1]
