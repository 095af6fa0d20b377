"""Run directories damaged in every file, for every command that reads it."""

from collections.abc import Iterator

from benchmarks.hostile.damages import damages
from benchmarks.hostile.world import Case, World

READERS = {
    "config.yaml": ("evaluate", "resume"),
    "environment.json": ("evaluate", "compare"),
    "log.csv": ("compare", "resume"),
    "best.pt": ("evaluate", "gradcam", "pretrained"),
    "last.pt": ("resume", "last"),
    "train.json": ("compare",),
    "metrics.json": ("compare", "predictions"),
    "corruptions.json": ("compare",),
    "corruptions.npz": ("compare",),
    "predictions.npz": ("compare", "predictions"),
    "predictions-val.npz": ("predictions",),
    "gradcam/statistics.json": ("compare",),
    "gradcam/statistics.npz": ("compare",),
}


def runs(world: World) -> Iterator[Case]:
    """A copy of a run, damaged in one file, and every command that reads that file."""
    for number, (file, commands) in enumerate(READERS.items()):
        for damage in damages(world.finished / file):
            for command in commands:
                place = world.folder / "copies" / f"run{number}"

                def prepare(place=place, file=file, damage=damage, command=command):
                    world.copy(place.name)
                    if command == "resume":
                        (place / "train.json").unlink()
                    damages(place / file)[damage]()

                other = str(world.outputs / "second")
                words = {
                    "evaluate": ("evaluate", str(place)),
                    "last": ("evaluate", str(place), "--checkpoint", "last"),
                    "predictions": ("evaluate", str(place), "--from-predictions"),
                    "compare": ("evaluate", str(place), other, "--corrupt", "--from-predictions"),
                    "gradcam": ("gradcam", str(place), "--random", "1"),
                    "resume": ("train", str(place / "config.yaml"), "--resume"),
                    "pretrained": ("train", str(world.config), f"output_root={world.folder / 'p'}", "--overwrite"),
                }[command]
                if command == "compare":
                    anew = file in ("metrics.json", "corruptions.json", "corruptions.npz")
                    words = words[:-2] if anew else words[:-2] + words[-1:]
                if command == "pretrained":
                    words += (f"model.pretrained={place / 'best.pt'}",)
                yield Case("runs", f"{file} {damage}: {command}", *words[:1], words[1:], prepare=prepare)
