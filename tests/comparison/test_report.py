"""The report over several runs: what it is called, what comes first, in which direction differences go."""

import csv
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

import evaluate
from common.config_files import load_config
from common.folders import Folder
from common.runs import Run
from comparison import tables
from comparison.entries import Comparison, shorten_names
from comparison.illustrations import disagreements
from comparison.sections import headline
from comparison.significance import compare_pairs, summarize_seeds
from evaluation.predictions import Predictions


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["digits/vit", "digits/swin"], ["vit", "swin"]),
        (["cifar_vit_base", "cifar_vit_tiny"], ["base", "tiny"]),
        (["vit", "vit-flip"], ["vit", "vit-flip"]),  # nothing would be left of the first
        (["vit-16", "vit-32"], ["vit-16", "vit-32"]),  # a number alone names nothing
        (["study/vit-16", "study/vit-32"], ["vit-16", "vit-32"]),
        (["a/x", "b/x"], ["a/x", "b/x"]),
        (["study/vit"], ["study/vit"]),
    ],
)
def test_names_lose_what_all_begin_with(names, short):
    assert shorten_names(names) == short


# ---------------------------------------------------------------- disagreements


def predictions(truth) -> Predictions:
    """Of two classes, with these probabilities of the true one."""
    truth = np.asarray(truth)
    return Predictions(np.log(np.stack([truth, 1 - truth], axis=1)), np.zeros(len(truth), dtype=int))


def test_disagreements_show_each_run_in_turn_as_the_one_that_is_right():
    first = predictions([0.99, 0.98, 0.97, 0.96, 0.2, 0.4, 0.9, 0.1])
    second = predictions(
        [0.01, 0.02, 0.03, 0.04, 0.7, 0.6, 0.8, 0.2]
    )  # of the clearest four cases all in one direction
    assert disagreements([first, second]).tolist() == [0, 4, 1, 5, 2, 3]
    assert disagreements([first, second], limit=4).tolist() == [0, 4, 1, 5]
    assert disagreements([second, first], limit=3).tolist() == [4, 0, 5]
    assert disagreements([first, first]).tolist() == []


def test_disagreements_of_three_runs_name_each_as_often():
    truth = np.random.default_rng(0).random((3, 200)).clip(0.01, 0.99)
    truth[0] = (truth[0] + 0.3).clip(0, 0.99)  # the first is right more often
    chosen = disagreements([predictions(one) for one in truth], limit=15)
    assert len(set(chosen.tolist())) == 15
    for turn, position in enumerate(chosen):
        assert truth[turn % 3, position] > 0.5 > truth[:, position].min()


# ---------------------------------------------------------------- which differences


def comparison_of(hits: dict, reference: str) -> Comparison:
    """Models by what their runs get right (bool S N), without the rest of a run."""
    groups = {name: [None] * len(runs) for name, runs in hits.items()}
    seeds = {name: summarize_seeds(runs.mean(axis=1)) for name, runs in hits.items()}
    pairs = compare_pairs(list(hits), list(hits.values()))
    return Comparison([entry for group in groups.values() for entry in group], groups, pairs, seeds, reference)


def hits_of(*accuracies: float, runs: int = 1, count: int = 1000) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random((runs, count)) < accuracy for accuracy in accuracies]


@pytest.mark.parametrize("reference", ["a", "b", "c"])
def test_differences_are_to_the_reference_whichever_way_the_pair_was_compared(reference):
    hits = dict(zip("abc", hits_of(0.9, 0.6, 0.75)))
    comparison = comparison_of(hits, reference)
    rows = tables.difference_rows(comparison)
    assert sorted(row["model"] for row in rows) == sorted(set("abc") - {reference})
    for row in rows:
        apart = 100 * (hits[row["model"]].mean() - hits[reference].mean())
        assert float(row["difference (points)"]) == pytest.approx(apart, abs=0.005)
        low, high = map(float, row["95 % interval (points)"].split(" to "))
        assert low < apart < high and row["verdict"] == "real"
    assert [float(row["difference (points)"]) for row in rows] == sorted(
        (float(row["difference (points)"]) for row in rows), reverse=True
    )


def test_the_headline_is_the_best_against_the_second_and_names_whom_it_is_not_told_apart_from():
    names = ("vit", "swin", "resnet", "mlp")
    comparison = comparison_of(dict(zip(names, hits_of(0.9, 0.9, 0.895, 0.5))), "mlp")
    text = headline(comparison)
    best = max(names, key=lambda name: comparison.seeds[name]["mean"])
    assert best in text and "95 % interval" in text and text.count(".  ") == 0
    alike = [p for p in comparison.pairs if best in (p["first"], p["second"]) and not p["distinguishable"]]
    assert len(alike) == 2 and "is distinguishable from 1 of the 2 others (not from " in text


@pytest.mark.parametrize(
    ("accuracies", "ending"),
    [
        ((0.9, 0.9, 0.9), r"not distinguishable from \w+ either\."),
        ((0.9, 0.6, 0.6), r"is also distinguishable from the third model\."),
        ((0.9, 0.9, 0.5), r"; \w+ is distinguishable from the third model\."),
        ((0.9, 0.6, 0.6, 0.6), r"is also distinguishable from all 2 others\."),
    ],
)
def test_the_headline_does_not_say_also_where_the_first_difference_is_none(accuracies, ending):
    assert re.search(f"{ending}$", headline(comparison_of(dict(zip("abcd", hits_of(*accuracies))), "a")))


def test_the_headline_of_two_models_is_their_sentence():
    comparison = comparison_of(dict(zip("ab", hits_of(0.9, 0.6))), "b")
    assert headline(comparison) == comparison.pairs[0]["sentence"]


# ---------------------------------------------------------------- the files


@pytest.fixture(scope="module")
def report(vit_run, tmp_path_factory):
    """Three copies of a run in a folder, two of which were made worse by hand, with the last as reference."""
    folder = tmp_path_factory.mktemp("report")
    evaluate.main([str(vit_run)])
    for number, name in enumerate(("a", "b", "c")):
        run = folder / "study" / name
        shutil.copytree(vit_run, run)
        config = load_config(run / "config.yaml").model_copy(update={"name": f"study/{name}"})
        lr = config.train.model_copy(update={"lr": 1e-3 * (number + 1)})
        (run / "config.yaml").write_text(config.model_copy(update={"train": lr}).to_yaml())
        arrays = dict(np.load(run / "predictions.npz"))
        arrays["logits"] = np.random.default_rng(number).permutation(arrays["logits"]) if number else arrays["logits"]
        np.savez_compressed(run / "predictions.npz", **arrays)
    runs = [str(folder / "study" / name) for name in "abc"]
    command = [
        *runs,
        "--from-predictions",
        "--reference",
        "study/c",
        "--output",
        str(folder / "out"),
    ]
    weights = json.loads((folder / "study" / "a" / "metrics.json").read_text())["checkpoint_sha256"]
    own, maps = (
        {f"study/{name}": weights for name in "abc"},
        [{"run": "study/b", "method": "lrp", "layer": None, "target": "3"}],
    )
    for name, sums in (("own", own), ("others", own | {"study/c": "0"}), ("fewer", dict(list(own.items())[:2]))):
        about = {"pages": [f"grid-{name}.png"], "maps": maps, "checkpoint_sha256": sums}
        Folder(folder / "out").save_json(f"grid-{name}.json", about)
    for name in ("own", "others", "fewer", "unknown"):
        shutil.copy(vit_run / "figures" / "curves.png", folder / "out" / f"grid-{name}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["evaluate.py", *command])
        evaluate.main()
    return folder / "out"


class Outline(HTMLParser):
    """Texts in their order, and where links lead."""

    def __init__(self, text):
        super().__init__()
        self.texts, self.targets, self.anchors = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.targets += [values["href"]] if tag == "a" else []
        self.anchors += [f"#{values['id']}"] if "id" in values else []

    def handle_data(self, data):
        self.texts += [data] if data.strip() else []


def test_what_was_compared_the_verdict_and_the_accuracy_come_first(report):
    text = (report / "report.html").read_text()
    stored = json.loads((report / "comparison.json").read_text())
    page = Outline(text)
    heading = "a vs b vs c on digits (test split)"
    places = [text.index(f"<h1>{heading}"), text.index("Data set digits"), text.index('<div class="opening"')]
    places += [text.index("<figure>"), text.index("python evaluate.py "), text.index("<nav"), text.index("<h2>")]
    assert places == sorted(places)
    assert stored["verdict"] in page.texts[page.texts.index(heading) :]
    assert page.targets and sorted(page.targets) == sorted(page.anchors)
    assert stored["command"].startswith("python evaluate.py ") and "--reference study/c" in stored["command"]
    assert stored["date"].endswith("+00:00") and stored["code"]


def test_the_reference_is_stated_and_was_chosen(report):
    markdown = (report / "report.md").read_text()
    assert json.loads((report / "comparison.json").read_text())["reference"] == "c"
    assert "Differences are relative to c (chosen by --reference; --reference RUN chooses another)." in markdown
    assert "Accuracy minus that of c in each class" in markdown


def test_every_figure_has_a_caption(report):
    pictures = {path.stem for path in report.glob("*.png") if not path.stem.startswith("grid")}
    assert {"accuracy", "confusion", "class_differences", "disagreements", "cost", "curves"} <= pictures
    markdown = (report / "report.md").read_text()
    assert all(f"]({name}.png)" in markdown for name in pictures) and "![](" not in markdown


def test_no_grid_of_other_runs_or_weights_enters_the_report(report):
    markdown = (report / "report.md").read_text()
    assert (
        "![Heat maps of the same images: lrp, for 3 (b). Below each map: the run's prediction.](grid-own.png)"
        in markdown
    )
    assert not [name for name in ("others", "unknown") if f"grid-{name}" in markdown]
    assert "](grid-fewer.png)" in markdown  # of some of the runs, by the weights that are compared


def test_the_table_of_a_paper_stresses_a_real_difference_alone(report):
    rows = (report / "comparison.tex").read_text().splitlines()
    bold = [row.split("&")[0].strip() for row in rows if r"\textbf" in row]
    assert bold == ["a"]
    even = comparison_of(dict(zip("ab", hits_of(0.9, 0.9))), "a")
    best = tables.best_model(even.seeds)
    assert not [p for p in even.pairs if p["distinguishable"]] and best in "ab"


def test_figures_are_written_as_they_are_asked_for(report, drawn):
    run = report.parent / "study" / "a"
    evaluate.main([str(run), "--from-predictions", "--format", "svg"])
    drawn = ("confusion_matrix", "per_class_accuracy", "reliability")
    assert all((run / "figures" / f"{name}.{kind}").is_file() for name in drawn for kind in ("png", "svg"))


def test_numbers_of_the_csv_are_raw(report):
    with (report / "comparison.csv").open() as file:
        rows = list(csv.DictReader(file))
    runs = json.loads((report / "comparison.json").read_text())["runs"]
    assert [row["run"] for row in rows] == ["study/a", "study/b", "study/c"]
    for row, run in zip(rows, runs):
        assert [float(row[key]) for key in ("accuracy", "accuracy_ci95_low", "params", "ece")] == [
            *(run["accuracy"], run["accuracy_ci95"][0], run["params"], run["ece"])
        ]


def test_metrics_and_predictions_of_different_classes_are_refused(family_runs, tmp_path):
    evaluate.main([str(family_runs["vit"]), str(family_runs["swin"]), "--output", str(tmp_path / "before")])
    damaged = Run.open(shutil.copytree(family_runs["vit"], tmp_path / "vit"))
    metrics = damaged.read_json("metrics.json")
    first = next(iter(metrics["per_class"]))
    metrics["per_class"] = {f"not {first}" if name == first else name: v for name, v in metrics["per_class"].items()}
    damaged.save_json("metrics.json", metrics)
    with pytest.raises(ValueError, match=r"metrics\.json and predictions\.npz in .* have different classes"):
        evaluate.main([str(damaged.directory), str(family_runs["swin"]), "--output", str(tmp_path / "report")])


def test_a_reference_that_is_not_compared_is_refused(vit_run, family_runs):
    with pytest.raises(
        ValueError, match=r"vitt is none of the runs that are compared \(did you mean vit\?\): vit, swin"
    ):
        evaluate.main([str(family_runs["vit"]), str(family_runs["swin"]), "--reference", "vitt"])
    with pytest.raises(ValueError, match="--reference x is for a comparison"):
        evaluate.main([str(vit_run), "--reference", "x"])
