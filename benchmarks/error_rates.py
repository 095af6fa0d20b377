"""How often do the claims of a comparison err? Simulated studies in which the truth is known.

    python -m benchmarks.error_rates --output outputs/error_rates.json --docs docs/comparing.md
    python -m benchmarks.error_rates --repeats 20 --images 360 --seeds 1 3

A study has k architectures, S runs (seeds) of each, and N test images. Run s of architecture j gets image i right if

    a_j + difficulty_i + taste_ij + luck_js + noise_ijs > 0,

all terms normal: images differ in difficulty, architectures in which images they find hard, seeds in how well they turn out
(with a standard deviation of accuracy of --spread points). For most rows all a_j are equal: whatever is claimed is false.
For power the first architecture is better by three standard errors of the difference; the older rule is then given the
threshold at which it errs in 5 % of the studies without a difference. Beside each rule stands what was done
before it: McNemar's test with Holm's correction and bootstrap intervals for single runs, Welch's t-test for several.

Single runs are judged with a spread of 0, since their claim is about those runs; the last columns say how often it would be
false about the architectures at the given spread, simulated and as the report predicts it.
"""

import argparse
import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.special import bdtr, chdtrc, ndtri, stdtr, stdtrit
from scipy.stats import norm
from tqdm import tqdm

from benchmarks.tables import write_between_markers
from common.console import print_table
from common.documents import markdown_table
from comparison.significance import compare_pairs, false_claim_rate

LEVEL, DIFFICULTY, TASTE, NOISE = 0.05, 1.0, 0.4, 0.4
CELL = ("models", "seeds", "images", "accuracy", "spread")
LOOK_AGAIN = 0.05
"""False claims beyond which a cell is simulated anew, four times as often: what chance alone brought up goes down again."""


def main(argv: Sequence[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", type=int, default=[2, 6])
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 3, 5, 10], help="runs of each model")
    parser.add_argument("--images", nargs="+", type=int, default=[360, 1_000, 10_000])
    parser.add_argument("--accuracy", nargs="+", type=float, default=[60, 90, 99], help="percent")
    parser.add_argument("--spread", nargs="+", type=float, default=[0.3, 1.0], help="of accuracy over seeds, in points")
    parser.add_argument("--repeats", type=int, default=1000, help="studies of each kind")
    parser.add_argument("--output", type=Path, help="JSON file; cells that it holds already are not simulated again")
    parser.add_argument("--docs", type=Path, help="Markdown file whose table is rewritten")
    args = parser.parse_args(argv)
    rows = json.loads(args.output.read_text()) if args.output and args.output.is_file() else []
    cells = itertools.product(args.models, args.seeds, args.images, args.accuracy, args.spread)
    cells = [cell for cell in cells if cell[1] > 1 or cell[-1] == args.spread[-1]]  # of single runs one row will do
    stored = {tuple(row[key] for key in CELL): row for row in rows}
    for cell in tqdm(cells, unit=" cells"):
        row = stored.get(cell)
        if row is None or row["repeats"] < args.repeats:
            row = simulate(*cell, repeats=args.repeats)
        if row["repeats"] == args.repeats and row["false"] > LOOK_AGAIN:
            row = simulate(*cell, repeats=4 * args.repeats)
        stored[cell] = row
        if args.output:
            args.output.parent.mkdir(parents=True, exist_ok=True)
            args.output.write_text(json.dumps(list(stored.values()), indent=1) + "\n")
    rows = [stored[cell] for cell in cells]
    table = [cells_of(row) for row in rows]
    print_table([list(row.values()) for row in table], header=list(table[0]))
    print("\n".join(worst(rows)))
    if args.docs:
        write_between_markers(args.docs, "error_rates", text_of(rows))
    return rows


def simulate(models: int, seeds: int, images: int, accuracy: float, spread: float, *, repeats: int) -> dict:
    """Rates of one kind of study, as shares of its repeats."""
    about = dict(zip(CELL, (models, seeds, images, accuracy, spread))) | {"repeats": repeats}
    random = np.random.Generator(np.random.SFC64([models, seeds, images, int(accuracy), int(10 * spread), repeats]))
    counts = dict.fromkeys(("false", "false_before", "contradicts", "contradicts_before", "power", "power_before"), 0)
    counts |= {"about_architectures": 0, "predicted": 0.0}
    own, null, alternative = 0 if seeds == 1 else spread, [], []  # p-values of this rule and of the older one
    for _ in range(repeats):
        hits = study(random, models, seeds, images, accuracy, own)
        pairs, before = compare_pairs(range(models), hits), rules_before(hits)
        counts["false"] += any(pair["distinguishable"] for pair in pairs)
        counts["false_before"] += any(p < LEVEL for p, _ in before)
        counts["contradicts"] += any(contradiction(p["p_adjusted"], p["difference_ci95"]) for p in pairs)
        counts["contradicts_before"] += any(contradiction(p, interval) for p, interval in before)
        if models == 2:
            better = study(random, models, seeds, images, accuracy, own, advantage=3 * pairs[0]["standard_error"])
            found = compare_pairs(range(2), better)[0]
            counts["power"] += found["distinguishable"]
            null.append((pairs[0]["p"], before[0][0]))
            alternative.append((found["p"], rules_before(better)[0][0]))
        if seeds == 1:
            single = compare_pairs(range(2), study(random, 2, 1, images, accuracy, spread))[0]
            counts["about_architectures"] += single["distinguishable"]
            counts["predicted"] += false_claim_rate(single["standard_error"], spread / 100)
    rates = {key: value / repeats for key, value in counts.items()} | {"coverage": 1 - counts["false"] / repeats}
    powers = ("power", "power_before", "power_at_level", "power_before_at_level")
    if models == 2:
        limits = np.quantile(null, LEVEL, axis=0)  # at which either rule errs in 5 %
        at_level = (np.array(alternative) < limits).mean(axis=0)
        rates |= dict(zip(powers[2:], at_level.tolist()))
        rates["power_before"] = float(np.mean(np.array(alternative)[:, 1] < min(LEVEL, limits[1])))
    unknown = [] if models == 2 else powers
    return about | rates | dict.fromkeys([*unknown, *([] if seeds == 1 else ["about_architectures", "predicted"])])


def study(
    random: np.random.Generator,
    models: int,
    seeds: int,
    images: int,
    accuracy: float,
    spread: float,
    *,
    advantage: float = 0.0,
) -> list[np.ndarray]:
    """Hits, bool S N of each architecture; ``spread`` in points, ``advantage`` of the first as a share."""
    inner = np.sqrt(DIFFICULTY**2 + TASTE**2 + NOISE**2)
    share = accuracy / 100
    luck = spread / 100 / norm.pdf(ndtri(share)) * inner  # on the scale of the sum, to first order
    total = np.sqrt(inner**2 + luck**2)
    difficulty, hits = random.standard_normal(images, dtype=np.float32) * DIFFICULTY, []
    for model in range(models):
        wanted = min(share + (advantage if model == 0 else 0), 0.9999)
        common = (
            difficulty + TASTE * random.standard_normal(images, dtype=np.float32) + np.float32(total * ndtri(wanted))
        )
        lucky = (luck * random.standard_normal((seeds, 1))).astype(np.float32)
        noise = random.standard_normal((seeds, images), dtype=np.float32)
        hits.append(noise * np.float32(NOISE) > -(common + lucky))
    return hits


def contradiction(p: float, interval: Sequence[float]) -> bool:
    """Whether the p-value and the interval say different things."""
    return (p < LEVEL) == (interval[0] <= 0 <= interval[1])


# ---------------------------------------------------------------- what was done before


def rules_before(hits: Sequence[np.ndarray]) -> list[tuple[float, list[float]]]:
    """Holm's p-value and the interval of every pair: McNemar and paired bootstrap of single runs, Welch over several."""
    pairs = [(i, j) for j in range(len(hits)) for i in range(j)]
    tested = [(mcnemar if len(hits[i]) == 1 else welch)(hits[i], hits[j]) for i, j in pairs]
    order = np.argsort([p for p, _ in tested])
    scaled = np.array([tested[i][0] for i in order]) * np.arange(len(pairs), 0, -1)
    corrected = np.minimum(np.maximum.accumulate(scaled), 1)
    return [(float(corrected[list(order).index(i)]), interval) for i, (_, interval) in enumerate(tested)]


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[float, list[float]]:
    only = int((first & ~second).sum()), int((second & ~first).sum())
    discordant, count = sum(only), first.shape[1]
    if discordant <= 50:
        p = min(1.0, 2 * float(bdtr(min(only), discordant, 0.5)))
    else:
        p = float(chdtrc(1, (abs(only[0] - only[1]) - 1) ** 2 / discordant))
    # The bootstrap of a mean of -1, 0 and 1, by its normal limit: what counts here is on which side of 0 its bounds lie.
    mean = (only[0] - only[1]) / count
    half = 1.96 * np.sqrt((discordant / count - mean**2) / count)
    return p, [mean - half, mean + half]


def welch(first: np.ndarray, second: np.ndarray) -> tuple[float, list[float]]:
    accuracies = [hits.mean(axis=1) for hits in (first, second)]
    difference = accuracies[0].mean() - accuracies[1].mean()
    parts = [max(values.var(ddof=1) / len(values), 1e-18) for values in accuracies]
    degrees = sum(parts) ** 2 / sum(part**2 / (len(values) - 1) for part, values in zip(parts, accuracies))
    error = np.sqrt(sum(parts))
    half = stdtrit(degrees, 1 - LEVEL / 2) * error
    return float(2 * stdtr(degrees, -abs(difference) / error)), [difference - half, difference + half]


# ---------------------------------------------------------------- how it is shown


def cells_of(row: dict) -> dict[str, str]:
    def percent(key: str) -> str:
        return "–" if row[key] is None else f"{100 * row[key]:.1f}"

    return {
        "models": str(row["models"]),
        "seeds": str(row["seeds"]),
        "images": f"{row['images']:,}",
        "accuracy": f"{row['accuracy']:g}",
        "spread": "0" if row["seeds"] == 1 else f"{row['spread']:g}",
        "false claims": percent("false"),
        "before": percent("false_before"),
        "all intervals hold": percent("coverage"),
        "contradictions": percent("contradicts"),
        "(before)": percent("contradicts_before"),
        "power": percent("power"),
        "power before, at 5 % errors": percent("power_before"),
        "single runs, about architectures": "–"
        if row["seeds"] > 1
        else f"{percent('about_architectures')} (predicted {percent('predicted')}) at {row['spread']:g}",
    }


def worst(rows: Sequence[dict]) -> list[str]:
    """The sentences that a reader wants first."""
    top = max(rows, key=lambda row: row["false"])
    old = max(rows, key=lambda row: row["false_before"])
    lines = [
        f"False claims at most {top['false']:.1%} ({_kind(top)}); before: {old['false_before']:.1%} ({_kind(old)}).",
        f"All intervals hold in at least {min(row['coverage'] for row in rows):.1%} of the studies.",
        f"Sentence and interval contradict each other in {max(row['contradicts'] for row in rows):.1%}; "
        f"before: {max(row['contradicts_before'] for row in rows):.1%}.",
    ]
    powered = [row for row in rows if row["power"] is not None and row["seeds"] > 1 and row["images"] >= 1000]
    if powered:
        weakest = min(powered, key=lambda row: row["power"] - row["power_before"])
        lines.append(
            f"Power from 1,000 images on, against Welch's test: at the least {weakest['power']:.1%} against "
            f"{weakest['power_before']:.1%} ({_kind(weakest)})."
        )
    return lines


def _kind(row: dict) -> str:
    return (
        f"{row['models']} models, {row['seeds']} seeds, {row['images']:,} images, accuracy {row['accuracy']:g} %, "
        f"spread {row['spread']:g}"
    )


def text_of(rows: Sequence[dict]) -> str:
    """Markdown: what is worst, and the table."""
    table = [cells_of(row) for row in rows]
    lines = [
        f"Percent of at least {min(row['repeats'] for row in rows):,} simulated studies a row; rows in which more than "
        f"{LOOK_AGAIN:.0%} of the claims were false were simulated anew, four times as often.",
        "",
        *[f"- {line}" for line in worst(rows)],
        "",
        *markdown_table(list(table[0]), [list(row.values()) for row in table]),
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
