"""Pretrained weights are explained and evaluated without training."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

import evaluate
import gradcam
from explanation.pretrained import class_names_of
from explanation.targets import find_class

NAME = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file of (random) weights for all 1,000 classes, and the model that holds them."""
    torch.manual_seed(0)
    model = timm.create_model(NAME).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.1)
    path = tmp_path_factory.mktemp("weights") / "vit.pth"
    torch.save(model.state_dict(), path)
    return path, model


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.jpg"
    pixels = np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((400, 300), Image.Resampling.BICUBIC).save(path, quality=95)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "outputs" / "pretrained" / NAME


def explain(weights, photo, *arguments):
    gradcam.main([NAME, "--pretrained", str(weights), "--image", str(photo), "--method", "rollout", *arguments])


def test_probabilities_are_those_of_timms_transform_and_forward(here, weights, photo, capsys):
    path, model = weights
    config = resolve_model_data_config(model)
    assert config["crop_pct"] == 0.9
    with torch.no_grad():
        expected = model(create_transform(**config)(Image.open(photo).convert("RGB"))[None])[0].softmax(0)
    explain(path, photo)
    (described,) = here.glob("gradcam/photo-rollout*.json")
    values = json.loads(described.read_text())
    index = int(expected.argmax())
    assert values["target_index"] == index
    assert values["probability"] == pytest.approx(float(expected[index]), abs=1e-4)
    assert values["prediction"] == class_names_of(model)[0][index]
    environment = json.loads((here / "environment.json").read_text())
    assert len(environment["pretrained"]["sha256"]) == 64
    explain(path, photo)  # the directory is there already
    with pytest.raises(ValueError, match=r"holds the weights"):
        explain(path.with_name("other.pth"), photo)


def test_a_head_of_other_classes_is_refused(here, weights, photo, tmp_path):
    state = {k: v[:10] if k.startswith("head.") else v for k, v in weights[1].state_dict().items()}
    torch.save(state, tmp_path / "ten.pth")
    with pytest.raises(ValueError, match=r"does not fit.*head\.weight is \[10, 192\]"):
        explain(tmp_path / "ten.pth", photo)
    assert not here.exists()


def test_a_folder_named_by_classes_or_synsets_is_evaluated(here, weights, photo, tmp_path, capsys):
    explain(weights[0], photo)
    for folder in ("n02123045", "tiger_cat", "Persian cat"):
        (tmp_path / "photos" / folder).mkdir(parents=True)
        Image.open(photo).save(tmp_path / "photos" / folder / "a.png")
    evaluate.main([str(here), f"data.root={tmp_path / 'photos'}"])
    with np.load(here / "predictions.npz") as arrays:
        assert sorted(arrays["labels"].tolist()) == [281, 282, 283]
        assert arrays["logits"].shape == (3, 1000)
    metrics = json.loads((here / "metrics.json").read_text())
    assert metrics["num_images"] == 3
    gradcam.main([str(here), "--index", "0", "--method", "rollout", f"data.root={tmp_path / 'photos'}"])
    (tmp_path / "photos" / "tigercat").mkdir()
    Image.open(photo).save(tmp_path / "photos" / "tigercat" / "a.png")
    with pytest.raises(ValueError, match=r"tigercat: the weights know no class of that name \(did you mean tiger_cat"):
        evaluate.main([str(here), f"data.root={tmp_path / 'photos'}"])


def test_only_where_the_data_lie_is_set_afterwards(here):
    with pytest.raises(ValueError, match=r"model\.name=x: a finished run's config is fixed; only data\.root"):
        evaluate.main([str(here), "model.name=x"])


def test_names_that_are_neither_run_nor_model(here, photo):
    with pytest.raises(ValueError, match=r"vit_tiny_patch16_225: no such run.*did you mean vit_tiny_patch16_224"):
        gradcam.main(["vit_tiny_patch16_225", "--image", str(photo)])
    with pytest.raises(ValueError, match=r"--pretrained x\.pth is for one MODEL"):
        gradcam.main(["outputs/run", "--image", str(photo), "--pretrained", "x.pth"])


def test_classes_are_found_by_the_words_of_their_names():
    names, synsets = class_names_of(timm.create_model("test_vit"))
    assert len(set(names)) == len(set(synsets)) == 1000
    assert names[find_class("Siamese", names)].startswith("Siamese cat")
    assert find_class("tiger cat", names) == 282
    with pytest.raises(ValueError, match=r"fits several classes.*Persian cat"):
        find_class("cat", names)
    with pytest.raises(ValueError, match=r"--target zzz is no class.*tench"):
        find_class("zzz", names)
