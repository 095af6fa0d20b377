"""Small images, small models, and runs that are trained once for all tests."""

import atexit
import os
import shutil
import tempfile
from pathlib import Path

os.environ["VIT_VS_SWIN_CACHE"] = tempfile.mkdtemp()  # of the scripts that tests start, too
atexit.register(shutil.rmtree, os.environ["VIT_VS_SWIN_CACHE"], ignore_errors=True)
os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported

import pytest
import torch
from matplotlib.figure import Figure
from support import SAVE_FIGURE, TINY_VIT, make_folder, save_pixel, write_config

import train

torch.set_num_threads(1)  # models this small gain nothing from more


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def undrawn():
    """Figures are composed, and saved as one pixel: to draw them would take more time than all else. See ``drawn``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_pixel)
        yield


@pytest.fixture
def drawn(monkeypatch):
    """Figures are drawn: for tests that look at them, or of what may not be drawable."""
    monkeypatch.setattr(Figure, "savefig", SAVE_FIGURE)


def copy_runs(runs, folder):
    """Copies for one file of tests, which may write into them; checkpoints, which nobody writes into, are linked."""

    def copy(source, target):
        (os.link if source.endswith(".pt") else shutil.copy2)(source, target)

    return [Path(shutil.copytree(run, folder / run.name, copy_function=copy)) for run in runs]


@pytest.fixture(scope="session")
def trained_vit(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vit")
    train.main([str(write_config(folder, TINY_VIT)), f"output_root={folder}"])
    return folder / "tiny"


@pytest.fixture(scope="module")
def vit_run(trained_vit, tmp_path_factory):
    """A small ViT, trained for two epochs on the digits."""
    return copy_runs([trained_vit], tmp_path_factory.mktemp("vit-copy"))[0]


@pytest.fixture(scope="session")
def folder_root(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("images"), splits=("train", "test"))


@pytest.fixture(scope="session")
def trained_families(tmp_path_factory, folder_root):
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
    return [folder / name for name in models]


@pytest.fixture(scope="module")
def family_runs(trained_families, tmp_path_factory):
    """One short run each of timm's ViT, timm's Swin and a ResNet, on 24 px images in folders; by name."""
    return {run.name: run for run in copy_runs(trained_families, tmp_path_factory.mktemp("families-copy"))}
