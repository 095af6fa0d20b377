"""Small images, small models, and runs that are trained once for all tests."""

import atexit
import os
import shutil
import tempfile

os.environ["VIT_VS_SWIN_CACHE"] = tempfile.mkdtemp()  # of the scripts that tests start, too
atexit.register(shutil.rmtree, os.environ["VIT_VS_SWIN_CACHE"], ignore_errors=True)
os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from support import TINY_VIT, make_folder, write_config

import train

torch.set_num_threads(1)  # models this small gain nothing from more


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are composed and then saved as one pixel: for tests of something else, since drawing takes most of the time."""
    monkeypatch.setattr(Figure, "savefig", lambda figure, path, **options: Image.new("RGB", (1, 1)).save(path))


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
