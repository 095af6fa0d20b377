"""Export a run to a folder: weights and config as timm writes them, a model card, and ONNX if that is installed."""

import json
import logging
from importlib.util import find_spec
from pathlib import Path

import torch
from timm.models import get_pretrained_cfg_value, save_for_hf
from torch import nn

import architectures
from common.console import print_result
from common.documents import format_interval
from common.runs import Folder, Run
from models import InputSpec, input_spec, restore_model

ONNX_PACKAGES = ("onnx", "onnxscript")


def export(run: Run, folder: Path, *, checkpoint: str = "best") -> None:
    """Write a finished run into ``folder``, which is new or empty, and print the paths.

    ``timm.create_model("local-dir:FOLDER", pretrained=True)`` builds the same model; for the project's own architectures
    ``import architectures`` must register them first. Raises ValueError if the folder cannot be written.
    """
    stored = run.load_checkpoint(f"{checkpoint}.pt")
    class_names, target = list(stored["class_names"]), Folder(folder)
    model = restore_model(run.config, stored).to(memory_format=torch.contiguous_format)
    try:
        save_for_hf(
            model,
            str(folder),
            model_config={"label_names": class_names, "pretrained_cfg": {"tag": "", "license": license_of(run)}},
            model_args=model_arguments(run, model),
            data_config=data_config(input_spec(model)),
            safe_serialization=True,
        )
    except OSError as error:
        raise ValueError(f"--export {folder} cannot be written ({error.strerror}); name another folder") from None
    written = [target.path("config.json"), target.path("model.safetensors")]
    if all(find_spec(package) for package in ONNX_PACKAGES):
        written.append(target.write("model.onnx", lambda path: write_onnx(model, class_names, path)))
    card = model_card(run, model, class_names, checkpoint=checkpoint, files=[path.name for path in written])
    print_result({"run": str(run.directory), "export": str(folder)}, [*written, target.save_text("README.md", card)])


def license_of(run: Run) -> str | None:
    """The licence of the pretrained weights; the licence of the run's own weights is up to its owner."""
    return (run.read_json("environment.json")["pretrained"] or {}).get("license")


def model_arguments(run: Run, model: nn.Module) -> dict:
    """The arguments of ``timm.create_model``, besides the number of classes, that build the model again."""
    arguments = dict(run.config.model.kwargs)
    if get_pretrained_cfg_value(run.config.model.name, "fixed_input_size"):
        arguments["img_size"] = list(input_spec(model).size)
    return arguments


def data_config(spec: InputSpec) -> dict:
    """The model's input, by timm's keys."""
    return {
        "input_size": (3, *spec.size),
        "mean": spec.mean,
        "std": spec.std,
        "interpolation": spec.interpolation,
        "crop_pct": 1.0,
        "crop_mode": "center",
    }


def write_onnx(model: nn.Module, class_names: list[str], path: Path) -> None:
    """Write ONNX for any batch size: ``images`` float B 3 H W, normalised -> ``logits`` B K; its metadata has the input."""
    import onnx

    spec, talk = input_spec(model), logging.getLogger("torch.onnx")
    level = talk.level
    talk.setLevel(logging.ERROR)
    try:
        program = torch.onnx.export(
            model,
            (torch.zeros(2, 3, *spec.size),),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    finally:
        talk.setLevel(level)
    proto = program.model_proto
    facts = spec.to_dict() | {"class_names": class_names, "images": "RGB in [0, 1], less mean, divided by std"}
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in facts.items()})
    onnx.save(proto, path)


def model_card(run: Run, model: nn.Module, class_names: list[str], *, checkpoint: str, files: list[str]) -> str:
    """Markdown on the model: what it is, what it was trained on, how accurate it is, and how to load it."""
    config, spec = run.config, input_spec(model)
    training, environment = run.read_json("train.json"), run.read_json("environment.json")
    name, source = "metrics.json" if checkpoint == "best" else f"metrics-{checkpoint}.json", environment["pretrained"]
    accuracy = f"not evaluated (python evaluate.py {run.directory})"
    if run.path(name).is_file():
        found = run.read_json(name)
        interval = format_interval(found["accuracy_ci95"])
        accuracy = f"{found['accuracy']:.2%} (95 % interval {interval}) on {found['num_images']:,} test images"
    weights = "none: trained from scratch"
    if source:
        weights = f"{source['corpus']}, licence {source['license'] or 'unknown'}, SHA-256 {source['sha256']}"
    own = type(model).__module__.partition(".")[0] == architectures.__name__
    selected = f"epoch {training['best_epoch']} of {training['epochs_run']} (by {training['selected_by']})"
    if checkpoint == "last":
        selected = f"the last of {training['epochs_run']} epochs"
    size = " x ".join(map(str, spec.size))
    rows = {
        "architecture": f"`{config.model.name}` {json.dumps(config.model.kwargs) if config.model.kwargs else ''}".strip(),
        "parameters": f"{training['params'] / 1e6:.2f} M, {training['trainable_params'] / 1e6:.2f} M of them trained",
        "accuracy": accuracy,
        "data": f"{config.data.dataset}; split seed {config.data.split_seed}, validation {config.data.val_fraction:g} of "
        "the training images if the data has no such split",
        "training": f"seed {config.seed}; weights of {selected}",
        "pretrained weights": weights,
        "input": f"RGB, {size} pixels ({spec.interpolation}), mean {list(spec.mean)}, std {list(spec.std)} of [0, 1]",
        "made with": ", ".join(
            f"{package} {version}" for package, version in environment["packages"].items() if version
        ),
    }
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    lines = ["import timm", f'model = timm.create_model("local-dir:{config.name}", pretrained=True).eval()']
    if own:
        lines.insert(1, "import architectures  # of the project that trained it: registers the model")
    code = "\n".join(lines)
    classes = ", ".join(class_names)
    return (
        f"---\nlibrary_name: timm\ntags: [image-classification, timm]\n---\n\n# {config.name}\n\n| | |\n|---|---|\n{table}\n\n"
        f"Classes, in the order of the logits: {classes}.\n\nFiles: {', '.join(files)}.\n\n"
        f"Load it, with this folder in place of `{config.name}`:\n\n```python\n{code}\n```\n"
    )
