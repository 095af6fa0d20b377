"""Small images, small models, and runs that are trained once for all tests."""

import os

os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import train
from config import Config, load_config
from models import create_model

torch.set_num_threads(1)  # models this small gain nothing from more

TINY_VIT = {
    "data": {"dataset": "digits", "image_size": 16, "augment": {"crop_padding": 0, "hflip": 0, "degrees": 8}},
    "model": {"name": "shallow_vit", "kwargs": {"embed_dim": 32, "num_heads": 2}},
    "train": {"epochs": 2, "lr": 3e-3, "amp": "fp32"},
    "evaluate": {"latency_seconds": 0.01},
}


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def make_config(**sections) -> Config:
    """A valid config without a file; a section replaces keys of a digits/shallow_vit default."""
    values = {"name": "test", "data": {"dataset": "digits", "image_size": 16}, "model": {"name": "shallow_vit"}}
    for key, value in sections.items():
        values[key] = {**values.get(key, {}), **value} if isinstance(value, dict) else value
    return Config.model_validate(values)


def make_randomized(model: dict, image_size, *, num_classes=5, std=0.1):
    """A model in evaluation mode whose weights are random and large enough for attention and maps to have structure."""
    torch.manual_seed(0)
    built = create_model(make_config(data={"image_size": image_size}, model=model), num_classes=num_classes).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=std)
    return built


def write_config(folder, values, name="tiny"):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def make_folder(root, *, splits=("train",), classes=("cat", "dog", "frog"), count=12, size=(24, 24), seed=0):
    """Class folders of noise around one colour per class; ``splits`` of ("",) makes a single folder."""
    random = np.random.default_rng(seed)
    for split in splits:
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = random.integers(0, 120, (*size, 3))
                pixels[..., number % 3] += 120
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03}.png")
    return root


@pytest.fixture(scope="session")
def vit_run(tmp_path_factory):
    """A small ViT, trained for two epochs on the digits."""
    folder = tmp_path_factory.mktemp("vit")
    train.main([str(write_config(folder, TINY_VIT)), f"output_root={folder}"])
    return folder / "tiny"


@pytest.fixture(scope="session")
def folder_root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("images"), splits=("train", "test"))


@pytest.fixture(scope="session")
def family_runs(tmp_path_factory, folder_root):
    """One short run each of timm's ViT, timm's Swin and a ResNet, on 24 px images in folders."""
    folder = tmp_path_factory.mktemp("families")
    models = {
        "vit": {"name": "vit_tiny_patch16_224", "kwargs": {"patch_size": 8, "depth": 2}},
        "swin": {
            "name": "swin_tiny_patch4_window7_224",
            "kwargs": {"patch_size": 2, "window_size": 3, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 4]},
        },
        "resnet": {"name": "resnet18"},
    }
    for name, model in models.items():
        values = {
            "data": {"dataset": "imagefolder", "root": str(folder_root), "image_size": 24, "val_fraction": 0.2},
            "model": model,
            "train": {"epochs": 1, "batch_size": 8},
            "evaluate": {"latency_seconds": 0.01},
        }
        train.main([str(write_config(folder, values, name)), f"output_root={folder}"])
    return {name: folder / name for name in models}


__all__ = ["TINY_VIT", "load_config", "make_config", "make_folder", "make_randomized", "write_config"]
