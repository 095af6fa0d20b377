"""The report of one run as a page: `report.html`."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from common.console import command_line
from common.documents import Section, format_interval, to_html
from common.environment import code_version
from common.runs import Run
from evaluation import explained, reported
from evaluation.tables import classification_rows, confused_rows, data_name
from evaluation.variant import Variant

CAPTIONS = {
    "per_class_accuracy": "Accuracy of each class with its 95 % interval (Wilson); the line is the accuracy over all images.",
    "confusion_matrix": "How often a true class (row) is predicted as another (column): images, and share of the true class.",
    "reliability": "Accuracy against confidence in 15 bins of equal width, and how many images each bin holds.",
    "risk_coverage": "Errors among the most confident images: they fall with fewer images kept if confidence is useful.",
    "corruptions": "Accuracy under corruptions of growing severity, with 95 % intervals; 0 is the clean image.",
    "mistakes": "The errors with the highest confidence: true class, predicted class, and its probability.",
    "embedding": "Features before the classifier, drawn by t-SNE; distances between groups mean little.",
}


def save_page(run: Run, suffix: str, result: dict, summary: Sequence[tuple[str, object]]):
    """Write the page from ``metrics.json``, the run's figures and the rows of the script's table. Returns its path."""
    sections = compose(run, suffix, result, summary)
    images = {name: run.path(name).read_bytes() for section in sections for name in section.figures}
    environment = run.read_json("environment.json")
    about = [f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC · code {code_version()}", command_line()]
    about.append(
        f"Trained by: python {' '.join(environment.get('command') or [])} · code {(environment.get('git_commit') or '?')[:10]}"
    )
    title = f"{run.config.name} on {data_name(run.config)} ({Variant.of(result).words})"
    text = to_html(title, sections, images, lead=_lead(run, result), about=about)
    return run.save_text(f"report{suffix}.html", text)


def compose(run: Run, suffix: str, result: dict, summary: Sequence[tuple[str, object]]) -> list[Section]:
    """The sections of the page, without empty ones."""

    def figure(kind: str) -> dict[str, str]:
        name = f"figures/{kind}{suffix}.png"
        return {name: CAPTIONS[kind]} if run.path(name).is_file() and _is_current(run, kind, suffix, result) else {}

    accuracy, interval = 100 * result["accuracy"], format_interval(result["accuracy_ci95"])
    count = f"{result['num_images']:,} images of the {result['split']} split"
    text = f"{accuracy:.2f} % of the {count} are recognised, 95 % interval {interval}."
    training = {
        "figures/curves.png": "Loss and accuracy by epoch; the line marks the epoch whose weights were kept.",
        "figures/learning_rate.png": "Learning rate of every step.",
    }
    sections = [
        Section("", text=text, figures=figure("per_class_accuracy")),
        Section("In numbers", table=[{"what": name, "value": str(value)} for name, value in summary]),
        Section("How good is it in each class?", table=classification_rows(result)),
        Section("Which classes are confused?", table=confused_rows(result), figures=figure("confusion_matrix")),
        Section("How reliable is its confidence?", figures=figure("reliability") | figure("risk_coverage")),
        Section("Which errors are the most confident?", figures=figure("mistakes")),
        Section("How accurate is it on corrupted images?", figures=figure("corruptions")),
        Section("What do its features look like?", figures=figure("embedding")),
        explained.section(
            "What does it look at?", [explained.overlays_of(run, run.config.name, result["checkpoint_sha256"])]
        ),
        *reported.sections([(run.config.name, run, result)]),
        Section("How was it trained?", figures={k: text for k, text in training.items() if run.path(k).is_file()}),
        Section("How it was computed", findings=_notes(result)),
    ]
    return [s for s in sections if s and (s.text or s.table or s.findings or s.figures)]


def _is_current(run: Run, kind: str, suffix: str, result: Mapping) -> bool:
    """Whether a figure, which another call of the script may have written, is of the same weights and images."""
    if kind == "mistakes":
        return result["accuracy"] < 1
    if kind not in ("corruptions", "embedding"):
        return True
    name = f"{kind}{suffix}.json"
    if not run.path(name).is_file():
        return False
    stored = run.read_json(name)
    return all(stored.get(key) == result.get(key) for key in ("checkpoint_sha256", "fingerprint"))


def _lead(run: Run, result: Mapping) -> str:
    size = "x".join(map(str, result["image_size"]))
    text = f"{run.config.model.name} at {size} px, {result['params'] / 1e6:.2f} M parameters. "
    if run.path("train.json").is_file():
        counts = run.read_json("train.json")["num_images"]
        text += (
            f"{len(result['per_class'])} classes, {counts['train']:,} training images, {counts['test']:,} test images."
        )
    return text


def _notes(result: Mapping) -> list[str]:
    return [
        f"The images are identified by a hash of their pixels and labels: {result['fingerprint'][:12]}.",
        "95 % intervals of shares: Wilson. They show how much the share may vary with other such images, not with other seeds.",
        "Recall of a class is the share of its images that are recognised; precision is the share of the images predicted as "
        "the class that belong to it; F1 is their harmonic mean.",
        "Calibration error: mean gap between confidence and accuracy, in 15 bins of equal width.",
        f"GMACs: multiply-accumulates of one image ({result['gmacs_convention']}); GFLOPs are twice that.",
        f"Milliseconds: median at batch 1, on {result['device']}, {result['precision']}, {result['threads']} CPU threads, "
        f"attention {result['attention_kernel']}.",
    ]
