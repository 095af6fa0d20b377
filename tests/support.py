"""Configs, models and images that are small enough for tests."""

from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from common.config import Config
from models import create_model

PROJECT = Path(__file__).parents[1]

TINY_VIT = {
    "data": {"dataset": "digits", "image_size": 16, "augment": {"crop_padding": 0, "hflip": 0, "degrees": 8}},
    "model": {"name": "shallow_vit", "kwargs": {"embed_dim": 32, "num_heads": 2}},
    "train": {"epochs": 2, "lr": 3e-3, "amp": "fp32"},
    "evaluate": {"latency_seconds": 0.01},
}


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
