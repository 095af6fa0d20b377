"""Give the scripts what nobody should: every case must end well, or with one sentence and exit code 2.

    python -m benchmarks.hostile
    python -m benchmarks.hostile --only configs optimizers --list 20

The sweep: every key of a config with values of every type and range, every optimizer of timm, models that cannot work at
their size, run directories damaged in every file, weights and images and names from elsewhere, and arguments of all three
scripts. Each case runs in a process of its own, with a time limit. A case fails if there is a traceback, if it hangs, if it
accepts what it should refuse or the other way round, or if a refusal leaves a run behind. Exit code 1 if any does.
"""

import argparse
import itertools
import json
import os
import pickle
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

import numpy as np
import torch
import yaml
from PIL import Image, PngImagePlugin
from timm.optim import list_optimizers

import evaluate
import gradcam
import train
from benchmarks.children import Outcome, run_in_child
from common.config import Config
from common.config_files import describe_keys
from common.console import print_table, run_script

LIMIT = 120.0
"""Seconds of a case; of those that end well most take one or two."""
MAINS = {"train": train.main, "evaluate": evaluate.main, "gradcam": gradcam.main}
TINY = {
    "data": {"dataset": "imagefolder", "image_size": 16, "val_fraction": 0.2, "test_fraction": 0.2},
    "model": {"name": "shallow_vit", "kwargs": {"embed_dim": 16, "num_heads": 2}},
    "train": {"epochs": 1, "batch_size": 16, "amp": "fp32"},
    "evaluate": {"latency_seconds": 0.001},
}


@dataclass(frozen=True)
class Case:
    group: str
    name: str
    script: str
    arguments: tuple[str, ...]
    refused: bool | None = None
    """Whether it must be refused; None: either, as long as it is said."""
    left: Path | None = None
    """What a refusal must not leave behind."""
    prepare: Callable[[], None] = lambda: None
    names: str = ""
    """What the sentence of a refusal must name."""


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GROUPS, help="groups of cases (default: all)")
    parser.add_argument("--part", nargs=2, type=int, default=(1, 1), metavar=("I", "N"), help="the I-th of N parts")
    parser.add_argument("--output", type=Path, help="a JSON file of counts and failures")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        cases = [case for name in args.only or GROUPS for case in GROUPS[name](world)]
        cases = cases[args.part[0] - 1 :: args.part[1]]
        counts, failures = Counter(), []
        for case in cases:
            kind, detail = judge(case, world.run(case))
            counts[case.group, kind] += 1
            if kind not in ("ended well", "refused"):
                failures.append(f"{kind}: {case.group}: {case.name}: {detail}")
                print(failures[-1], flush=True)
            if args.output:  # as far as it came
                found = {"counts": [[*key, count] for key, count in counts.items()], "failures": failures}
                args.output.write_text(json.dumps(found, indent=1))
    kinds = [
        "ended well",
        "refused",
        "traceback",
        "hung",
        "wrongly accepted",
        "wrongly refused",
        "left behind",
        "unclear",
    ]
    groups = [*dict.fromkeys(case.group for case in cases)]
    rows = [(group, *(counts[group, kind] for kind in kinds)) for group in groups]
    print_table([*rows, ("all", *(sum(column) for column in list(zip(*rows))[1:]))], header=("cases", *kinds))
    sys.exit(bool(failures))


def judge(case: Case, outcome: Outcome) -> tuple[str, str]:
    """How a case ended, and the line that shows it."""
    line = outcome.last_line[:300]
    if outcome.hung:
        return "hung", f"after {outcome.seconds:.0f} s"
    if "Traceback (most recent call last)" in outcome.output or outcome.code not in (0, 2):
        return "traceback", f"exit code {outcome.code}: {line}"
    if outcome.code == 0:
        return ("wrongly accepted", line) if case.refused else ("ended well", "")
    if case.refused is False:
        return "wrongly refused", line
    if case.left and case.left.exists():
        return "left behind", f"{case.left.name} ({line})"
    if "error: " not in outcome.output or case.names not in outcome.output:
        return "unclear", line
    return "refused", ""


class World:
    """Images, a config, and finished runs that cases may copy and damage."""

    def __init__(self, folder: Path):
        self.folder, self.images, self.outputs = folder, folder / "images", folder / "outputs"
        make_images(self.images)
        self.config = folder / "tiny.yaml"
        self.config.write_text(yaml.safe_dump({**TINY, "data": {**TINY["data"], "root": str(self.images)}}))
        self.finished = self.outputs / "finished"
        for script, *words in (
            ("train", self.config, "name=finished", f"output_root={self.outputs}"),
            ("train", self.config, "name=second", "seed=1", f"output_root={self.outputs}"),
            ("evaluate", self.finished, self.outputs / "second", "--corrupt"),
            ("gradcam", self.finished, "--analyze", "6"),
        ):
            outcome = self.run(Case("", "", script, tuple(map(str, words))), limit=300)
            assert outcome.code == 0, outcome.output

    def run(self, case: Case, limit: float = LIMIT) -> Outcome:
        def call():
            os.chdir(self.folder)
            run_script(MAINS[case.script], list(case.arguments))

        case.prepare()
        return run_in_child(call, limit=limit)

    def training(self, group: str, name: str, *words: str, **options) -> Case:
        """A case that trains the tiny config with overrides."""
        own = f"case-{abs(hash((group, name))) % 10**10}"
        words = (str(self.config), f"output_root={self.folder / 'trained'}", f"name={own}", *words)
        return Case(group, name, "train", words, left=self.folder / "trained" / own, **options)

    def copy(self, name: str) -> Path:
        place = self.folder / "copies" / name
        shutil.rmtree(place, ignore_errors=True)
        return Path(shutil.copytree(self.finished, place))


def make_images(root: Path, classes=("cat", "dog", "frog"), count: int = 12) -> None:
    noise = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(count):
            pixels = noise.integers(0, 120, (20, 20, 3))
            pixels[..., number % 3] += 120
            Image.fromarray(pixels.astype(np.uint8)).save(root / name / f"{i:02}.png")


# ---------------------------------------------------------------- groups of cases

VALUES = {
    "list": "[1, 2, 3, 4]",
    "mapping": "{a: 1}",
    "text": "not this",
    "not a number": ".nan",
    "infinite": ".inf",
    "negative": "-1",
    "zero": "0",
    "huge": "1000000000000",
    "tiny": "1e-300",
    "null": "null",
    "truth": "true",
    "bad date": "2024-13-45",
    "bad integer": "!!int abc",
}
ALWAYS_WRONG = {"not a number", "infinite", "bad date", "bad integer", "mapping"}
ACCEPTED_ANYWHERE = {
    "model.kwargs",
    "reported",
    "data.root",
    "output_root",
    "train.stop_at_fraction_of",
    "train.class_weights",
}


def configs(world: World) -> Iterator[Case]:
    """Every key with a value of every kind."""
    for line in describe_keys():
        key, default = line.split(" = ")[0], line.split(" = ")[1]
        for kind, value in VALUES.items():
            if kind == "huge" and key in ("train.epochs", "evaluate.latency_seconds"):
                continue  # nothing is wrong with a long run
            text = key in ("name", "output_root", "data.root")
            wrong = kind in ALWAYS_WRONG and key not in ACCEPTED_ANYWHERE
            wrong = wrong or (
                kind == "text" and not text and default[:1] in "0123456789" and key not in ACCEPTED_ANYWHERE
            )
            yield world.training("configs", f"{key}={value}", f"{key}={value}", refused=True if wrong else None)


def optimizers(world: World) -> Iterator[Case]:
    for name in list_optimizers():
        yield world.training("optimizers", name, f"train.opt={name}")


MODELS = (
    *("resnet18", "inception_v3", "vgg11", "densenet121", "mobilenetv3_small_050", "efficientnet_b0", "regnetx_002"),
    *(
        "levit_128s",
        "convnext_atto",
        "vit_tiny_patch16_224",
        "deit_tiny_distilled_patch16_224",
        "swin_tiny_patch4_window7_224",
    ),
    *(
        "swinv2_cr_tiny_224",
        "maxvit_pico_rw_256",
        "mixer_s16_224",
        "crossvit_tiny_240",
        "xcit_nano_12_p16_224",
        "botnet26t_256",
    ),
    *("efficientformer_l1", "tiny_vit_5m_224", "poolformer_s12", "edgenext_xx_small", "ghostnet_050", "hardcorenas_a"),
)
KWARGS = (
    *(
        "{in_chans: 1}",
        "{global_pool: ''}",
        "{global_pool: nonsense}",
        "{num_classes: 5}",
        "{img_size: 3}",
        "{depth: 0}",
    ),
    *("{embed_dim: 0}", "{embed_dim: -4}", "{embed_dim: 17}", "{num_heads: 5}", "{patch_size: 17}", "{patch_size: 0}"),
    *(
        "{checkpoint_path: x.pth}",
        "{pretrained_cfg: {url: x}}",
        "{pretrained_cfg_overlay: {file: x}}",
        "{features_only: true}",
    ),
    *("{drop_path_rate: 2}", "{drop_rate: 5}", "{act_layer: nonsense}", "{norm_layer: nonsense}", "{depth: many}"),
    *("{model_name: x}", "{scriptable: true}", "{out_indices: [9]}", "{depth: [1, 2]}", "{kwargs_filter: [depth]}"),
)


def models(world: World) -> Iterator[Case]:
    for name in MODELS:
        yield world.training("models", f"{name} at 16 px", f"model={{name: {name}}}")
    for kwargs, name in itertools.product(KWARGS, ("vit_tiny_patch16_224", "resnet18")):
        weights = any(key in kwargs for key in ("checkpoint_path", "pretrained_cfg", "num_classes", "img_size"))
        words = f"model={{name: {name}, kwargs: {kwargs}}}"
        yield world.training("models", f"{name} {kwargs}", words, refused=True if weights else None)
    for tune in ("last-99", "head", "last-1"):
        yield world.training("models", f"tune {tune}", f"model.tune={tune}")


def documents(world: World) -> Iterator[Case]:
    """Config files that are none."""
    laughs = "a: &a [x, x]\n" + "\n".join(
        f"b{i}: &b{i} [*{f'b{i - 1}' if i else 'a'}, *{f'b{i - 1}' if i else 'a'}]" for i in range(40)
    )
    texts = {
        "empty": "",
        "list": "- 1",
        "deep": "[" * 3000,
        "laughs": laughs,
        "itself": "data: &a {x: *a}",
        "twice": "model: {name: a}\nmodel: {name: b}",
        "python": "!!python/object/apply:os.system [ls]",
        "bytes": "\x00\x01",
        "two documents": "a: 1\n---\nb: 2",
        "numbers as keys": "1: 2",
        "tab": "data:\n\tdataset: digits",
        "unknown": "data: {dataset: digits, colour: 3}",
        "long": "name: " + "a" * 300 + "\ndata: {dataset: digits}\nmodel: {name: shallow_vit}",
        "path": "name: ../../escape\ndata: {dataset: digits}\nmodel: {name: shallow_vit}",
    }
    for name, text in texts.items():
        path = world.folder / f"document {name}.yaml"
        path.write_text(text)
        yield Case("documents", name, "train", (str(path),), refused=True)
    folder, fifo = world.folder / "folder.yaml", world.folder / "fifo.yaml"
    folder.mkdir()
    os.mkfifo(fifo)
    for path in (folder, fifo, world.folder / "missing.yaml", Path("x" * 300 + ".yaml"), Path("\x07.yaml")):
        yield Case("documents", path.name[:20], "train", (str(path),), refused=True)


def damages(path: Path) -> dict[str, Callable[[], None]]:
    """Ways in which a file of a run can be wrong."""

    def replace(make: Callable[[], None]) -> Callable[[], None]:
        def call():
            path.unlink()
            make()

        return call

    whole = path.read_bytes()
    found = {
        "missing": path.unlink,
        "empty": lambda: path.write_bytes(b""),
        "half": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "noise": lambda: path.write_bytes(np.random.default_rng(0).bytes(999)),
        "bit": lambda: path.write_bytes(
            whole[: len(whole) // 3] + bytes([whole[len(whole) // 3] ^ 64]) + whole[len(whole) // 3 + 1 :]
        ),
        "pickle": lambda: path.write_bytes(pickle.dumps(os.getcwd)),
        "folder": replace(path.mkdir),
        "loop": replace(lambda: path.symlink_to(path)),
    }
    if path.suffix in (".json", ".yaml"):
        for name, text in (("null", "null"), ("list", "[1, 2]"), ("other keys", '{"a": 1}'), ("deep", "[" * 99_999)):
            found[name] = lambda text=text: path.write_text(text)
    if path.suffix == ".json":
        found |= {
            f"{name} values": lambda value=value: damage_json(path, value) for name, value in OTHER_VALUES.items()
        }
    if path.suffix == ".pt":
        values = torch.load(path, weights_only=True)
        for key in values:
            found |= {
                f"{key} {name}": lambda key=key, value=value: torch.save(values | {key: value}, path)
                for name, value in OTHER_VALUES.items()
            }
    if path.suffix == ".npz":
        found |= {
            f"{name} arrays": lambda change=change: damage_arrays(path, change) for name, change in OTHER_ARRAYS.items()
        }
    if path.suffix == ".csv":
        found["text"] = lambda: path.write_text("epoch,lr\nmany,few\n")
    return found


OTHER_VALUES = {"null": None, "text": "text", "number": -1, "list": [1, 2, 3]}
OTHER_ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shorter": lambda array: array[:-1],
    "deeper": lambda array: array[None],
    "text": lambda array: np.array(["text"] * len(array)),
    "not finite": lambda array: array * np.nan if array.dtype.kind == "f" else array,
    "empty": lambda array: array[:0],
    "larger": lambda array: array + 1000 if array.dtype.kind in "iu" else array,
    "objects": lambda array: np.array([os.getcwd] * len(array), dtype=object),
}


def damage_json(path: Path, value) -> None:
    """Every value that is no mapping becomes another."""

    def change(values):
        return {key: change(one) if isinstance(one, dict) else value for key, one in values.items()}

    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def damage_arrays(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with np.load(path) as arrays:
        values = {key: change(array) if array.ndim else array for key, array in arrays.items()}
    np.savez(path, **values)


READERS = {
    "config.yaml": ("evaluate", "resume"),
    "environment.json": ("evaluate", "compare"),
    "log.csv": ("compare", "resume"),
    "best.pt": ("evaluate", "gradcam", "pretrained"),
    "last.pt": ("resume", "last"),
    "train.json": ("compare",),
    "metrics.json": ("compare", "predictions"),
    "corruptions.json": ("compare",),
    "predictions.npz": ("compare", "predictions"),
    "predictions-val.npz": ("predictions",),
    "gradcam/statistics.json": ("compare",),
    "gradcam/statistics.npz": ("compare",),
}


def runs(world: World) -> Iterator[Case]:
    """A copy of a run, damaged in one file, and every command that reads that file."""
    for (file, commands), number in zip(READERS.items(), itertools.count()):
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
                    words = words[:-2] if file in ("metrics.json", "corruptions.json") else words[:-2] + words[-1:]
                if command == "pretrained":
                    words += (f"model.pretrained={place / 'best.pt'}",)
                yield Case("runs", f"{file} {damage}: {command}", *words[:1], words[1:], prepare=prepare)


def pictures(world: World) -> Iterator[Case]:
    """Image files from elsewhere, explained, and trained on."""
    folder = world.folder / "pictures"
    folder.mkdir()
    good = Image.effect_noise((40, 30), 50).convert("RGB")
    for mode in ("1", "L", "P", "RGBA", "CMYK", "I;16", "LA"):
        image = good.convert("L").convert(mode) if mode == "I;16" else good.convert(mode)
        image.save(folder / f"mode {mode.replace(';', '')}.{'tif' if mode in ('CMYK', 'I;16') else 'png'}")
    good.convert("F").save(folder / "float.tif")
    good.save(folder / "frames.gif", save_all=True, append_images=[good] * 3)
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 70_000_000, zip=True)
    good.save(folder / "text chunk.png", pnginfo=text)
    Image.new("L", (20000, 20000)).save(folder / "20000.png")
    Image.new("RGB", (1, 1)).save(folder / "one.png")
    Image.new("RGB", (5000, 1)).save(folder / "line.png")
    good.save(folder / "whole.png")
    whole = (folder / "whole.png").read_bytes()
    for name, content in {
        "cut": whole[:500],
        "empty": b"",
        "text": b"text",
        "svg": b"<svg/>",
        "noise": os.urandom(500),
    }.items():
        (folder / f"{name}.png").write_bytes(content)
    (folder / "folder.png").mkdir()
    os.mkfifo(folder / "fifo.png")
    (folder / "loop.png").symlink_to("loop.png")
    for name in (
        "a $x^{_} b",
        "per%cent & hash#",
        "new\nline",
        "<b>bold</b>",
        "quote\"'`",
        "ä 中 🐈",
        "-dash",
        "a" * 240,
        "=1+1",
        "\\x{",
    ):
        good.save(folder / f"{name}.png")
    for path in sorted(folder.iterdir()):
        yield Case("pictures", f"explain {path.name[:30]!r}", "gradcam", (str(world.finished), "--image", str(path)))
        root = world.folder / f"photos{len(path.name)}-{abs(hash(path.name)) % 10**8}"

        def prepare(path=path, root=root):
            shutil.copytree(world.images, root)
            if path.name == "fifo.png":
                os.mkfifo(root / "cat" / path.name)
            elif path.is_dir():
                (root / "cat" / path.name).mkdir()
            else:
                shutil.copy(path, root / "cat" / path.name, follow_symlinks=False)

        yield world.training("pictures", f"train with {path.name[:30]!r}", f"data.root={root}", prepare=prepare)


def names(world: World) -> Iterator[Case]:
    """Classes of any name, from training to the report."""
    for i, name in enumerate(
        (
            "a $x^{_}$ b",
            "100 % & #1",
            "<script>x</script>",
            "| pipe",
            "=1+1",
            "_under_",
            "ä 中 🐈",
            "-dash",
            "new\nline",
            "\\alpha{",
        )
    ):
        root, place = world.folder / f"names{i}", world.folder / "named"

        def prepare(root=root, name=name):
            make_images(root, classes=(name, "dog", f"{name}2"))

        own = (f"name=run{i}", f"output_root={place}", f"data.root={root}")
        yield Case("names", f"train {name!r}", "train", (str(world.config), *own), refused=False, prepare=prepare)
        yield Case(
            "names", f"seed {name!r}", "train", (str(world.config), *own, f"name=other{i}", "seed=1"), refused=False
        )
        both = (str(place / f"run{i}"), str(place / f"other{i}"))
        yield Case("names", f"compare {name!r}", "evaluate", (*both, "--corrupt"), refused=False)
        yield Case("names", f"explain {name!r}", "gradcam", (*both, "--per-class", "1", "--target", name))
    for name in (
        "comparisons",
        "pretrained/x",
        "a" * 201,
        "/absolute",
        "..",
        "a/../b",
        "a b",
        "a\nb",
        "finished/inner",
        "",
        ".x",
        "a//b",
    ):
        words = (str(world.config), f"output_root={world.outputs}", f"name={name}")
        yield Case("names", f"run {name[:20]!r}", "train", words, refused=None if name in ("", "a\nb") else True)


def arguments(world: World) -> Iterator[Case]:
    """Options of the scripts with values of every kind."""
    run, kinds = str(world.finished), ("-1", "0", "99999999999", "x", "", "1.5", "nan")
    for option, value in itertools.product(("--index", "--random", "--per-class", "--analyze", "--similarity"), kinds):
        yield Case("arguments", f"gradcam {option} {value!r}", "gradcam", (run, option, value))
    for option, value in itertools.product(
        ("--target", "--layer", "--method", "--channels", "--seed", "--split", "--device", "--checkpoint"), kinds
    ):
        yield Case("arguments", f"gradcam {option} {value!r}", "gradcam", (run, "--random", "1", option, value))
    for option, value in itertools.product(("--split", "--tta", "--checkpoint", "--device", "--output"), kinds):
        yield Case("arguments", f"evaluate {option} {value!r}", "evaluate", (run, option, value))
    for path in (
        "",
        ".",
        "/",
        "/dev/null",
        "/proc/self",
        "x" * 300,
        "x" * 5000,
        "no/such",
        "\x07",
        str(world.images),
        str(world.config),
    ):
        for script in ("evaluate", "gradcam"):
            more = ("--random", "1") if script == "gradcam" else ()
            yield Case("arguments", f"{script} {path[:20]!r}", script, (path, *more), refused=True)
        yield Case(
            "arguments", f"train {path[:20]!r}", "train", (path,), refused=None if path == str(world.config) else True
        )
    for word in ("=", "a=", "=1", "train=1", "train.lr.x=1", "data.root", "seed=[", "train.lr=1e", "name=a=b"):
        yield world.training("arguments", f"override {word}", word)
    (world.folder / "file").write_text("in the way")
    for place in ("/proc/x", "/dev/null/x", str(world.folder / "file"), "x" * 300):
        yield Case(
            "arguments", f"output {place[:20]}", "train", (str(world.config), f"output_root={place}"), refused=True
        )
        yield Case(
            "arguments",
            f"comparison {place[:20]}",
            "evaluate",
            (run, str(world.outputs / "second"), "--output", place),
            refused=True,
        )


GROUPS: dict[str, Callable[[World], Iterator[Case]]] = {
    "configs": configs,
    "optimizers": optimizers,
    "models": models,
    "documents": documents,
    "runs": runs,
    "pictures": pictures,
    "names": names,
    "arguments": arguments,
}
assert set(TINY) <= set(Config.model_fields)


if __name__ == "__main__":
    main()
