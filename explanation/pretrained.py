"""A run directory for pretrained weights without training: it can be explained and evaluated like any other run."""

from pathlib import Path

import timm
import torch
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import nn

from architectures.weights import pretrained_cfg
from common.config import Config
from common.console import did_you_mean
from common.runs import Run, is_run
from models import create_model, input_spec, resolve_image_size


def open_pretrained(name: str, pretrained: str | None, *, output_root: str = "outputs") -> Run:
    """The run ``pretrained/<name>`` below ``output_root``, made if it is not there yet.

    Args:
        name: timm's name of a model, with or without the tag of its weights.
        pretrained: a file or folder of weights, as for ``model.pretrained``; None: timm's own, downloaded if needed.
    Raises:
        ValueError: no such model, weights that do not fit its own head, a directory of other weights.
    """
    config = _config(name, pretrained, output_root)
    if is_run(config.run_directory):
        run = Run.open_finished(config.run_directory)
        if run.config.model.pretrained != config.model.pretrained:
            raise ValueError(
                f"{run.directory} holds the weights {run.config.model.pretrained}, not {pretrained or 'those of timm'}; "
                "remove that directory to make a new one"
            )
        return run
    with torch.random.fork_rng(devices=[]):
        model = create_model(config, num_classes=pretrained_cfg(name).num_classes, with_head=True).eval()
    class_names, synsets = class_names_of(model)
    values = {"model": model.state_dict(), "input_spec": input_spec(model).to_dict(), "images": {}}

    def fill(run: Run) -> None:
        run.save_checkpoint("best.pt", values | {"class_names": class_names, "synsets": synsets})
        run.save_json("train.json", _training_summary(model))

    source = model.pretrained_from
    run, lock = Run.create(config.run_directory, config, device=torch.device("cpu"), pretrained=source, fill=fill)
    lock.release()
    print(f"made {run.directory} of {model.pretrained_from['file']}")
    return run


def class_names_of(model: nn.Module) -> tuple[list[str], list[str]]:
    """Names and WordNet synsets of the classes of ImageNet weights; numbers and no synsets for other weights."""
    subset = infer_imagenet_subset(model)
    if subset is None:
        return [str(number) for number in range(model.num_classes)], []
    info = ImageNetInfo(subset)
    synsets = info.label_names()
    full = [info.index_to_description(i) for i in range(len(synsets))]  # tench, Tinca tinca
    short = [text.split(",")[0] for text in full]
    names = [text if short.count(text) == 1 else long for text, long in zip(short, full)]
    return [text if names.count(text) == 1 else f"{text} ({synset})" for text, synset in zip(names, synsets)], synsets


def _config(name: str, pretrained: str | None, output_root: str) -> Config:
    if not timm.is_model(name):
        hint = did_you_mean(name, timm.list_models())
        raise ValueError(f"{name}: no such run directory, and no model of timm{hint}")
    weights = pretrained_cfg(name)
    interpolation = "bilinear" if weights.interpolation == "bilinear" else "bicubic"
    values = {
        "name": f"pretrained/{name}",
        "output_root": output_root,
        "data": {
            "dataset": "imagefolder",
            "val_fraction": 0,
            "test_fraction": 0,
            "crop_pct": weights.crop_pct,
            "crop_mode": weights.crop_mode,
            "interpolation": interpolation,
        },
        "model": {"name": name, "pretrained": str(Path(pretrained)) if pretrained else True},
    }
    return resolve_image_size(Config.model_validate(values))


def _training_summary(model: nn.Module) -> dict:
    """``train.json`` of a run that was not trained here, with the same keys as that of a trained one."""
    nothing = ("best_epoch", "val_accuracy", "train_accuracy", "images_per_second", "precision", "target")
    return dict.fromkeys(nothing) | {
        "selected_by": "its authors",
        "epochs_run": 0,
        "stopped_because": "not_trained_here",
        "diverged": False,
        "seconds": 0.0,
        "params": sum(parameter.numel() for parameter in model.parameters()),
        "trainable_params": 0,
        "num_images": {"train": 0, "val": 0, "test": 0},
        "processes": 1,
    }
