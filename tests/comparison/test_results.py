"""The page of results is written from the runs alone."""

import json
import shutil
from types import SimpleNamespace

import pytest
from support import make_config

import evaluate
from comparison import results


def test_results_are_written_from_the_runs(vit_run, tmp_path):
    shutil.copytree(vit_run, tmp_path / "outputs" / "tiny")
    environment = tmp_path / "outputs" / "tiny" / "environment.json"
    values = json.loads(environment.read_text())
    values["command"] = ["train.py", "configs/tiny.yaml", "data.root=/home/ann/my images/flowers", "/home/ann/b.yaml"]
    environment.write_text(json.dumps(values))
    evaluate.main([str(tmp_path / "outputs" / "tiny")])
    results.main([str(tmp_path / "outputs"), "--output", str(tmp_path / "results.md")])
    text = (tmp_path / "results.md").read_text()
    metrics = json.loads((tmp_path / "outputs" / "tiny" / "metrics.json").read_text())
    assert f"| tiny | shallow_vit | digits | 16x16 | 2 | 0 | 180 | {100 * metrics['accuracy']:.2f} |" in text
    assert "Nothing here was run on a GPU" in text and "ImageNet" not in text
    assert "\npython train.py configs/tiny.yaml data.root=data/flowers data/b.yaml\n" in text
    with pytest.raises(ValueError, match="has no evaluated runs"):
        results.main([str(tmp_path / "empty"), "--output", str(tmp_path / "results.md")])


def test_what_must_be_said_of_data_and_weights_follows_from_the_runs():
    weights = {"name": "resnet18", "pretrained": "/elsewhere/tf_efficientnet_lite0.fp16.safetensors"}
    config = make_config(data={"dataset": "imagefolder", "root": "/elsewhere/flowers"}, model=weights)
    run = SimpleNamespace(config=config, read_json=lambda name: {"device": "cuda"})
    told = results.limits([run])
    assert [line.split(" ")[0] for line in told] == ["flowers:", "The"] and "EfficientNet-Lite0" in told[1]
