"""The README and docs/: snippets work as they stand there, links lead somewhere, files named exist."""

import json
import re
import sys
import types

import numpy as np
import pytest
import timm
import torch
from support import PROJECT, TINY_VIT, make_config, write_config
from timm.models import register_model
from torch import nn

import evaluate
import gradcam
import train
from explanation import methods
from explanation.layers import map_layer, map_layers
from explanation.quality.randomization import layer_groups
from images import sources
from models import apply_tuning, create_model, input_spec

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
DIGITS = {"data": TINY_VIT["data"], "train": {"epochs": 1, "amp": "fp32"}, "evaluate": TINY_VIT["evaluate"]}


def snippet(title):
    """The first block of code below a heading of docs/extending.md."""
    text = (PROJECT / "docs" / "extending.md").read_text(encoding="utf-8").split(f"## {title}\n")[1]
    return re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]


def run_as_module(name, code):
    module = sys.modules[name] = types.ModuleType(name)
    exec(code, vars(module))
    return module


def result_of(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("result: "))


@pytest.fixture(scope="module")
def tiny_conv():
    return run_as_module("architectures.tiny_conv", snippet("A model")).TinyConv


def build(name, **model):
    return create_model(make_config(model={"name": name, **model}), num_classes=10)


# ---------------------------------------------------------------- pages


def test_the_readme_is_short():
    assert len(PAGES[0].read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if not target.startswith(("http://", "https://")):
            file, _, section = target.partition("#")
            path = page.parent / file if file else page
            assert path.is_file(), target
            assert not section or section in headings(path), target


def headings(page):
    """Names of a page's sections, as links give them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_name_what_exists(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"python -m ((?:benchmarks|comparison|explanation)\.\w+)", text):
        path = PROJECT / name.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), name
    for name in re.findall(r"configs/[\w/.-]+\.yaml", text):
        assert (PROJECT / name).is_file(), name
    for name in re.findall(r"(?:^|`)make ([a-z][a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{name}:", (PROJECT / "Makefile").read_text(), re.MULTILINE), name


# ---------------------------------------------------------------- a model


def test_the_documented_model_is_trained_evaluated_and_explained(tiny_conv, tmp_path, capsys, caplog):
    path = write_config(tmp_path, {**DIGITS, "model": {"name": "tiny_conv"}}, "toy")
    train.main([str(path), f"output_root={tmp_path}", "train.layer_decay=0.8"])
    assert "No pretrained configuration" not in caplog.text
    run = str(tmp_path / "toy")
    evaluate.main([run])
    capsys.readouterr()
    gradcam.main([run, "--list-layers"])
    result = result_of(capsys)
    assert result["default"] == "conv" and result["layers"] == {"conv": [8, 8]}
    gradcam.main([run, "--index", "0", "--method", "hirescam"])
    assert result_of(capsys)["grid"] == [8, 8]
    gradcam.main([run, "--analyze", "4"])
    analysis = json.loads((tmp_path / "toy" / "gradcam" / "statistics.json").read_text())
    assert analysis["randomization"]["groups"] == ["head", "conv"]
    # The same weights under other classes, the head alone trained: what a first fine-tuning does.
    path = write_config(tmp_path, {**DIGITS, "data": {"dataset": "digits", "image_size": 24}}, "tuned")
    model = {"name": "tiny_conv", "pretrained": f"{run}/best.pt", "tune": "head"}
    train.main([str(path), f"model={json.dumps(model)}", f"output_root={tmp_path}"])
    states = [torch.load(tmp_path / name / "best.pt", weights_only=True)["model"] for name in ("toy", "tuned")]
    assert torch.equal(states[0]["conv.weight"], states[1]["conv.weight"])
    assert not torch.equal(states[0]["head.weight"], states[1]["head.weight"])


def test_the_documented_model_has_variants_normalisation_and_a_head(tiny_conv, tmp_path):
    model = build("tiny_conv_wide")
    assert isinstance(model, tiny_conv) and model.num_features == 128
    assert input_spec(model).mean == (0.485, 0.456, 0.406)
    apply_tuning(model, "head")
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    with pytest.raises(ValueError, match=r"last-2: TinyConv does not say which layers.*group_matcher"):
        build("tiny_conv", tune="last-2")
    other = create_model(make_config(model={"name": "tiny_conv"}), num_classes=3)  # a head of other classes is replaced
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    again = build("tiny_conv", pretrained=str(tmp_path / "weights.pth"))
    assert torch.equal(again.conv.weight, other.conv.weight) and again.head.out_features == 10
    assert [name for name, _ in layer_groups(again)] == ["conv", "head"]


def test_a_model_that_takes_the_image_size_is_given_it():
    code = snippet("A model").replace("num_classes=10,", "num_classes=10, img_size=7,")
    code = code.replace("self.num_features = width", "self.num_features, self.side = width, img_size")
    run_as_module("architectures.sized_conv", code.replace("tiny_conv", "sized_conv"))
    assert build("sized_conv").side == 16


class Plain(nn.Module):
    """As little as PyTorch asks of a classifier; two convolutions, the second one unused."""

    def __init__(self, num_classes, blind=False):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head, self.blind = nn.Linear(8, num_classes), blind

    def forward(self, x):
        x = self.first(x)
        self.second(x)
        return self.head((x.detach() if self.blind else x).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def plain():
    def plain_conv(pretrained=False, **kwargs):
        return Plain(kwargs["num_classes"], kwargs.get("blind", False))

    def strict_conv(pretrained=False, **kwargs):
        return Plain(**kwargs)

    register_model(plain_conv), register_model(strict_conv)


def test_a_model_that_is_registered_with_timm_alone_trains(plain, tmp_path):
    path = write_config(tmp_path, {**DIGITS, "model": {"name": "plain_conv"}}, "plain")
    train.main([str(path), f"output_root={tmp_path}"])
    build("plain_conv", pretrained=str(tmp_path / "plain" / "best.pt"))
    assert timm.get_pretrained_cfg("plain_conv") is None  # the case that this is about
    with pytest.raises(ValueError, match=r"head: Plain does not say which layers.*get_classifier"):
        build("plain_conv", tune="head")
    with pytest.raises(
        ValueError, match=r"'pretrained_cfg'; register it with architectures\.registry\.register_variants"
    ):
        build("strict_conv")


def test_the_default_layer_of_an_unknown_architecture_is_the_last_that_a_gradient_reaches(plain):
    model = build("plain_conv")
    assert [(layer.name, reached) for layer, reached in map_layers(model)] == [("first", True), ("second", False)]
    assert map_layer(model).name == "first"
    assert (
        map_layer(build("plain_conv", kwargs={"blind": True})).name == "second"
    )  # none: the layers can still be listed
    model.first = nn.Conv2d(3, 8, 16)
    model.second = nn.Conv2d(8, 8, 1)
    with pytest.raises(ValueError, match="no layer of Plain keeps a grid larger than 1x1"):
        map_layer(model)


# ---------------------------------------------------------------- a dataset


def test_the_documented_dataset_is_learned_and_the_same_in_every_process(tmp_path, monkeypatch):
    code, made = snippet("A dataset"), []
    for _ in range(2):
        names = {**vars(sources), "DATASETS": {}}
        exec(code, names)
        made.append(names["DATASETS"]["brightness"])
    first, second = (make(None)[0]["train"] for make in made)
    assert torch.equal(first.images, second.images) and torch.equal(first.labels, second.labels)
    monkeypatch.setitem(sources.DATASETS, "brightness", made[0])
    values = {**TINY_VIT, "data": {"dataset": "brightness", "image_size": 16}}  # default augmentation
    train.main([str(write_config(tmp_path, values, "bright")), f"output_root={tmp_path}", "train.epochs=1"])
    result = json.loads((tmp_path / "bright" / "train.json").read_text())
    assert result["val_accuracy"] > 0.95 and not result["diverged"]


# ---------------------------------------------------------------- a CAM method


def test_the_documented_cam_method_makes_maps(monkeypatch, vit_run, family_runs):
    entry = eval("{" + snippet("A CAM method") + "}")
    (name,) = entry
    assert name not in methods.LIBRARY
    monkeypatch.setattr(methods, "LIBRARY", {**methods.LIBRARY, **entry})
    monkeypatch.setattr(methods, "METHODS", (*methods.METHODS, name))
    for run in (vit_run, family_runs["swin"], family_runs["resnet"]):
        gradcam.main([str(run), "--index", "1", "--method", name])
        map_ = np.load(run / "gradcam" / f"test-1-{name}.npy")
        assert np.isfinite(map_).all() and map_.max() > map_.min()
