"""Configs of every type and range, optimizers, models, and files that are no configs."""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from timm.optim import list_optimizers

from benchmarks.hostile.world import Case, World
from common.config_files import describe_keys

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
