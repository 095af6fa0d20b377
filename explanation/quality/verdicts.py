"""What the numbers of one run's heat maps say, in sentences. The intervals of all claims hold at once.

A *result* is the content of one run's gradcam/statistics.json.
"""

from common.documents import NO_VALUE

BASELINES = {"random": "a random map", "centre": "a centred Gaussian"}
JUDGED = {"insertion_blur": 1, "deletion_blur": -1}
"""Measures that are judged; 1: more is better, -1: less is."""
MATTERS = 0.01
"""Smallest difference that matters: one point of probability, averaged over the curve."""
ROBUST = 0.5
"""Limit of the rank correlation with a randomised model's map: there they share a quarter of the variance of their ranks."""


def verdict(result: dict) -> list[str]:
    """What the numbers of one run say, a sentence each; the first is on the default, where that was measured."""
    run, count, scores = result["run"], result["num_images"], result["faithfulness"]
    sentences = [default_verdict(result)] if "auto" in result["methods"] else []
    for method in result["methods"]:
        known = " and ".join(
            f"{text} {scores[name]['insertion_blur']['mean']:.2f} "
            f"(difference {_judged(_pair(result, method, name), 'insertion_blur')})"
            for name, text in BASELINES.items()
        )
        sentences.append(
            f"On {count:,} images {run}'s {method} has insertion AUC {interval(scores[method]['insertion_blur'])}, {known}."
        )
        if blank := result["maps"][method]["blank"]:
            sentences.append(f"{run}'s {method} is blank on {blank} of {count:,} images; there it counts as random.")
    sentences += [ranking(result)] if len(result["methods"]) > 1 else []
    ends = [(method, result["randomization"][method][-1]) for method in result["methods"]]
    return sentences + [randomization_verdict(run, *end) for end in ends if end[1]["mean"] is not None]


def default_verdict(result: dict) -> str:
    """Whether auto is more faithful than a centred Gaussian, by insertion and by deletion."""
    pair = _pair(result, "auto", "centre")
    judged = [judge(pair[key], sign) for key, sign in JUDGED.items()]
    if "better" in judged and "worse" in judged:
        answer = "more faithful by one measure and less by the other than"
    elif judged == ["better", "better"]:
        answer = "more faithful than"
    elif judged == ["worse", "worse"]:
        answer = "less faithful than"
    elif "better" in judged or "worse" in judged:
        key = "insertion" if judged[0] in ("better", "worse") else "deletion"
        answer = f"{'more' if 'better' in judged else 'less'} faithful by {key} alone than"
    else:
        answer = "not shown to be more faithful than"
    numbers = " and ".join(f"{key.partition('_')[0]} {_judged(pair, key)}" for key in JUDGED)
    return f"{result['run']}'s default map ({result.get('auto', 'auto')}) is {answer} a centred Gaussian: {numbers}."


def ranking(result: dict) -> str:
    """Which method inserts best, and which of the others it is not shown to beat; none, if chance does as well."""
    scores, methods = result["faithfulness"], result["methods"]
    judged = {judge(_pair(result, method, "random")["insertion_blur"]) for method in methods}
    if "better" not in judged:
        found = "better than" if "worse" in judged else "distinguishable from"
        return f"By insertion none of {result['run']}'s {len(methods)} methods is {found} a random map."
    best = max(methods, key=lambda method: scores[method]["insertion_blur"]["mean"])
    level = []
    for pair in result["paired"]:
        others = {pair["first"], pair["second"]} - {best}
        if (
            len(others) == 1
            and not others & set(BASELINES)
            and judge(pair["insertion_blur"]) not in ("better", "worse")
        ):
            level += others
    beaten = [method for method in methods if method != best and method not in level]
    text = f"By insertion {best} is the most faithful of {result['run']}'s {len(methods)} methods"
    text += f", ahead of {' and '.join(beaten)}" if beaten else ""
    return text + (f", not shown to be ahead of {' and '.join(level)}" if level else "") + "."


def randomization_verdict(run: str, method: str, end: dict) -> str:
    """Whether the map depends on what was learned: its rank correlation with that of fresh weights, within a limit of 0."""
    low, high = _together(end)
    if max(-low, high) < ROBUST:
        answer = f"within the limit of {ROBUST}, so the map depends on what the model learned"
    elif max(low, -high) > ROBUST:
        answer = f"beyond the limit of {ROBUST}, so the map hardly depends on what the model learned; do not trust it"
    else:
        answer = f"too few images to say whether it keeps the limit of {ROBUST}"
    correlation = interval(end, together=True)
    return (
        f"With all weights of {run} randomised, {method}'s rank correlation with the trained model's map is {correlation}, "
        f"{answer}."
    )


def judge(difference: dict, sign: int = 1) -> str:
    """Of a difference by the interval that holds for all at once; ``sign`` -1 where less is better."""
    low, high = sorted(sign * bound for bound in _together(difference))
    if low <= 0 <= high:
        return "not distinguishable"
    if abs(difference["mean"]) < MATTERS:
        return "too small to matter"
    return "better" if low > 0 else "worse"


def interval(values: dict | None, form: str = ".2f", *, together: bool = False) -> str:
    """0.61 [0.59, 0.63]; a dash for what has no value. ``together``: the interval that holds for all at once."""
    if not values or values["mean"] is None:
        return NO_VALUE
    bounds = _together(values) if together else values["ci95"]
    low, high = (NO_VALUE if bound is None else f"{bound:{form}}" for bound in bounds)
    return f"{values['mean']:{form}} [{low}, {high}]"


def _together(values: dict) -> list[float]:
    """Files of earlier versions have intervals of single differences alone."""
    return values.get("ci95_together") or values["ci95"]


def _pair(result: dict, first: str, second: str) -> dict:
    return next(pair for pair in result["paired"] if (pair["first"], pair["second"]) == (first, second))


def _judged(pair: dict, key: str) -> str:
    return f"{interval(pair[key], '+.3f', together=True)}, {judge(pair[key], JUDGED[key])}"
