"""Heat maps that gradcam.py wrote into a run, for the pages of reports."""

from collections.abc import Mapping, Sequence

from common.documents import Overlay, Section
from common.runs import Run
from common.shapes import HeatMap
from common.stored import check

MOST_OVERLAYS = 24  # in a page: each adds some hundred kilobytes
HOW = (
    "Each photo with its heat map on top: the more opaque a place, the more its evidence counts for the class. One slider "
    "uncovers the photo, the other sets the opacity."
)


def overlays_of(run: Run, name: str, weights: str) -> dict[str, list[Overlay]]:
    """Image -> its maps, sorted by file, made with the weights of this SHA-256; ``name``: the run's name in captions."""
    found: dict[str, list[Overlay]] = {}
    for path in sorted(run.directory.glob("gradcam/*-heat.png")):
        stem = f"gradcam/{path.name.removesuffix('-heat.png')}"
        if not (run.path(f"{stem}.json").is_file() and run.path(f"{stem}-photo.png").is_file()):
            continue
        stored = run.read_json(f"{stem}.json")
        if stored.get("checkpoint_sha256") == weights:
            check(run.path(f"{stem}.json"), stored, HeatMap)
            photo, heat = (run.path(f"{stem}-{part}.png").read_bytes() for part in ("photo", "heat"))
            found.setdefault(stored["image"], []).append(Overlay(f"{name}, {_words(stored)}", photo, heat))
    return found


def section(title: str, runs: Sequence[dict[str, list[Overlay]]]) -> Section | None:
    """A section with the maps of images that all runs explained, run beside run; None if there are none."""
    shared = [image for image in (runs[0] if runs else ()) if all(image in maps for maps in runs)]
    overlays = [overlay for image in shared for maps in runs for overlay in maps[image]][:MOST_OVERLAYS]
    return Section(title, text=HOW, overlays=overlays) if overlays else None


def _words(stored: Mapping) -> str:
    place = f"{stored['method']} at {stored['layer']}" if stored["layer"] else stored["method"]
    text = f"{stored['image']}: {place}, for {stored['target']} ({stored['probability']:.0%})"
    truth = f"; true class {stored['label']}" if stored["label"] is not None else ""
    return text + truth + (f", predicted {stored['prediction']}" if stored["prediction"] != stored["target"] else "")
