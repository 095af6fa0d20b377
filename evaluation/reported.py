"""What others reported of a setup (`reported` in its config) beside what was measured here.

The reported numbers were typed from their reports; nothing of theirs was run again to get them.
"""

import statistics
from collections.abc import Mapping, Sequence

from common.documents import NO_VALUE, Section
from common.runs import Run
from common.shapes import HeatMap
from common.stored import check
from evaluation.tables import COSTS, SCORES, cell, lookup

OF_METRICS = SCORES | COSTS | {"loss": "loss"}
OF_TRAINING = {"val_accuracy": "validation accuracy (%)", "epochs_to_target": "epochs to the target"}
OF_MAPS = {
    "map_mean": "mean (%)",
    "map_std": "standard deviation (%)",
    "map_high_region": "high region (% of the area)",
    "map_centre_to_edge": "centre : edge",
}
OF_SCORECAM = {"scorecam_seconds": "Score-CAM (s/image)"}

NOT_ALIKE = (
    "Reported numbers are from other code and hardware, and may count other things: 'FLOPs' that are multiply-accumulates "
    "with the fused attention left out, say. Where model, images or epochs are others than theirs, as in a study in small, "
    "nothing follows from the difference."
)
SCORECAM_WORDS = "Score-CAM: a map at the patch embedding, the median over the images explained, on this machine."
MAP_WORDS = (
    "Reported: of Grad-CAM's maps on 7 x 7 cells, where the high region is what lies above the 80th percentile, 10 of 49 cells "
    "whatever the map shows. Here: of Grad-CAM's maps of the images of --analyze, on a grid of 14 x 14; the high region is "
    "the area above half of the map's maximum, and centre : edge is 1 for an even map. Mean and standard deviation are shares "
    "of the maximum."
)


def sections(runs: Sequence[tuple[str, Run, Mapping]]) -> list[Section]:
    """Of runs by name, each with its ``metrics.json``: tables of scores and costs and of heat maps, where any is reported."""
    rows = table(runs, OF_METRICS | OF_TRAINING | OF_SCORECAM)
    notes = [NOT_ALIKE] + [SCORECAM_WORDS] * any("scorecam_seconds" in run.config.reported for _, run, _ in runs)
    maps = table(runs, OF_MAPS)
    return [Section("Reported elsewhere", rows, notes)] * bool(rows) + [
        Section("Heat maps: reported elsewhere", maps, [MAP_WORDS])
    ] * bool(maps)


def table(runs: Sequence[tuple[str, Run, Mapping]], titles: Mapping[str, str]) -> list[dict[str, str]]:
    """A row for each run of which any of the numbers in ``titles`` is reported; reported and measured side by side."""
    keys = [key for key in titles if any(key in run.config.reported for _, run, _ in runs)]
    rows = []
    for name, run, metrics in runs:
        reported, row = run.config.reported, {"run": name}
        if not any(key in reported for key in keys):
            continue
        for key in keys:
            row[f"reported {titles[key]}"] = _cell(key, reported[key]) if key in reported else NO_VALUE
            row[titles[key]] = measured(run, metrics, key)
        rows.append(row)
    return rows


def measured(run: Run, metrics: Mapping, key: str) -> str:
    """A number that was measured here, readable."""
    if key in OF_METRICS:
        return cell(key, lookup(key, metrics))
    if key in OF_TRAINING:
        training = run.read_json("train.json")
        return cell(key, training[key]) if key == "val_accuracy" else epochs_to_target(training)
    value = (_maps if key in OF_MAPS else _scorecam)(run, metrics.get("checkpoint_sha256")).get(key)
    return NO_VALUE if value is None else _cell(key, value)


def epochs_to_target(training: Mapping) -> str:
    """In how many epochs a run reached the validation accuracy at which it was to stop, from its ``train.json``."""
    if training.get("target") is None:
        return NO_VALUE
    count, reached = training["epochs_run"], training["stopped_because"] == "target_reached"
    return str(count) if reached else f"not reached in {count}"


def _maps(run: Run, weights: str) -> dict[str, float | None]:
    """The numbers of Grad-CAM's maps that --analyze found with these weights; none where it was not asked."""
    if not run.path("gradcam/statistics.json").is_file():
        return {}
    stored = run.read_json("gradcam/statistics.json")
    form = stored["maps"].get("gradcam", {}).get("common", {})
    if stored.get("checkpoint_sha256") != weights or not form:
        return {}
    names = ("mean", "std", "half_max_area", "centre_to_edge")
    return {key: form[name]["mean"] for key, name in zip(OF_MAPS, names, strict=True)}


def _scorecam(run: Run, weights: str) -> dict[str, float]:
    """Seconds that a map of Score-CAM at the patch embedding took with these weights."""
    wanted = {"method": "scorecam", "layer": "patch_embed", "checkpoint_sha256": weights, "channels": None}
    seconds = []
    for path in run.path("gradcam").glob("*-scorecam-*.json"):
        stored = run.read_json(f"gradcam/{path.name}")
        if wanted.items() <= stored.items():
            check(path, stored, HeatMap)
            seconds.append(stored["seconds"])
    return {"scorecam_seconds": statistics.median(seconds)} if seconds else {}


def _cell(key: str, value: float | None) -> str:
    if key == "epochs_to_target":
        return "not reached" if value is None else f"{value:.0f}"
    if key == "map_centre_to_edge":
        return f"{value:.4f}"
    return cell(key, value)
