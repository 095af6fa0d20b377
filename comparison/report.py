"""The report on several runs: gather results, compose sections, write everything into one folder."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from common import documents
from common.comparisons import comparison_folder
from common.console import command_line, print_result, print_table
from common.documents import Section
from common.environment import code_version
from common.folders import Folder
from common.runs import Run
from comparison import further, tables
from comparison.caveats import caveats
from comparison.entries import Comparison, check_comparable, group_by_seed, read_entries
from comparison.folds import are_folds, compare_folds
from comparison.illustrations import draw
from comparison.sections import compose, data_line, headline, title_of
from comparison.significance import compare_pairs, single_seed_remark, summarize_seeds
from evaluation.variant import Variant

SHOWN = ("run", "model", "accuracy (%)", "95 % interval (%)", "parameters (M)", "GMACs", "ms/image")


def compare(runs: Sequence[Run], variant: Variant, output: Path | None, *, reference: Run | None = None) -> None:
    """Write the report on evaluated runs, from their files of this ``variant``.

    ``reference``: the run with whose model the others are compared; None: the most accurate.
    Raises ValueError if the runs cannot be compared.
    """
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "code": code_version(),
    }
    if are_folds(runs):
        return compare_folds(runs, variant.suffix, output, about)
    comparison = gather(runs, variant.suffix, reference)
    warnings = caveats(comparison.entries, comparison.groups)
    remark = single_seed_remark(comparison.pairs)
    folder = comparison_folder(runs, output, variant.suffix)
    drawn = draw(comparison)
    written = [folder.save_figure(name, figure) for name, (figure, _) in drawn.items()]
    captions = {name: caption for name, (_, caption) in drawn.items()}
    sections = compose(comparison, warnings, remark, captions, folder, variant.suffix)
    written = write(comparison, sections, about, warnings, folder) + written
    print_table([[row[key] for key in SHOWN] for row in tables.comparison_rows(results_of(comparison))], header=SHOWN)
    verdicts = [pair["sentence"] for pair in comparison.pairs] + [remark] * bool(remark)
    for line in verdicts + [f"caveat: {warning.text}" for warning in warnings]:
        print(line)
    names = [entry.run.config.name for entry in comparison.entries]
    print_result({"runs": names, "accuracy": [e.metrics["accuracy"] for e in comparison.entries]}, written)


def gather(runs: Sequence[Run], suffix: str, reference: Run | None) -> Comparison:
    """Load the runs, group them into models, and test the differences between these."""
    entries = read_entries(runs, suffix)
    check_comparable(entries)
    groups = group_by_seed(entries)
    hits = [np.stack([entry.predictions.correct for entry in group]) for group in groups.values()]
    seeds = {name: summarize_seeds([e.metrics["accuracy"] for e in group]) for name, group in groups.items()}
    chosen = [name for name, group in groups.items() if any(entry.run is reference for entry in group)]
    best = tables.best_model(seeds)
    return Comparison(entries, groups, compare_pairs(list(groups), hits), seeds, chosen[0] if chosen else best)


def write(
    comparison: Comparison, sections: Sequence[Section], about: dict, warnings: Sequence, folder: Folder
) -> list[Path]:
    """Write the report in all its formats. Returns the paths."""
    title, lead = title_of(comparison), data_line(comparison.entries)
    lines = [f"{about['date'][:16].replace('T', ' ')} UTC · code {about['code']}", about["command"]]
    images = {name: folder.path(name).read_bytes() for section in sections for name in section.figures}
    first = comparison.entries[0].metrics
    rows, bold = tables.paper_rows(comparison)
    stored = {key: first[key] for key in ("split", "checkpoint", "tta")} | about
    stored |= {"verdict": headline(comparison), "reference": comparison.reference, "runs": results_of(comparison)}
    stored |= {"pairs": comparison.pairs, "groups": comparison.seeds, "caveats": [warning.text for warning in warnings]}
    stored |= further.numbers(comparison)
    return [
        folder.save_text("report.html", documents.to_html(title, sections, images, lead=lead, about=lines)),
        folder.save_text("report.md", documents.to_markdown(title, sections, lead=lead, about=lines)),
        folder.save_json("comparison.json", stored),
        folder.save_text("comparison.csv", documents.to_csv(tables.raw_rows(comparison))),
        folder.save_text(
            "comparison.tex",
            documents.to_latex(rows, caption=tables.paper_caption(comparison, lead), label="tab:comparison", bold=bold),
        ),
    ]


def results_of(comparison: Comparison) -> list[dict]:
    """All numbers of each run, by the keys of the tables."""
    return [tables.describe(entry) for entry in comparison.entries]
