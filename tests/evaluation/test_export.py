"""A run as a folder that timm loads, and as ONNX."""

import json

import numpy as np
import pytest
import timm
import torch

import evaluate
from common.runs import Run
from models import input_spec, restore_model

BATCH = torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))


def restored(directory):
    run = Run.open(directory)
    return restore_model(run.config, run.load_checkpoint("best.pt"))


@pytest.fixture
def without_onnx(monkeypatch):
    monkeypatch.setattr("evaluation.export.ONNX_PACKAGES", ("a package that nobody has",))


@pytest.mark.parametrize("family", ["vit", "swin", "resnet"])
def test_timm_loads_what_was_exported(family_runs, tmp_path, without_onnx, family, capsys):
    folder = tmp_path / "exported"
    evaluate.main([str(family_runs[family]), "--export", str(folder)])
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    ours, theirs = restored(family_runs[family]), timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    with torch.no_grad():  # channels last or not: the same products in another order
        torch.testing.assert_close(theirs(BATCH), ours(BATCH), rtol=0, atol=1e-6)
    fed = timm.data.resolve_model_data_config(theirs)
    assert fed["input_size"] == (3, 24, 24) and tuple(fed["mean"]) == input_spec(ours).mean
    assert theirs.pretrained_cfg["label_names"] == ["cat", "dog", "frog"]
    assert not theirs.pretrained_cfg.get("tag") and "license" not in theirs.pretrained_cfg  # no one else's weights
    found = json.loads((family_runs[family] / "metrics.json").read_text())
    card = (folder / "README.md").read_text()
    assert f"{found['accuracy']:.2%}" in card and "trained from scratch" in card and "import architectures" not in card
    assert "result: " in capsys.readouterr().out.splitlines()[-1]


def test_our_own_architecture_says_what_must_be_imported(vit_run, tmp_path, without_onnx):
    evaluate.main([str(vit_run), "--export", str(tmp_path / "ours"), "--checkpoint", "last"])
    images = torch.randn(2, 3, 16, 16)
    theirs = timm.create_model(f"local-dir:{tmp_path / 'ours'}", pretrained=True).eval()
    run = Run.open(vit_run)
    with torch.no_grad():
        expected = restore_model(run.config, run.load_checkpoint("last.pt"))(images)
        torch.testing.assert_close(theirs(images), expected, rtol=0, atol=1e-6)
    card = (tmp_path / "ours" / "README.md").read_text()
    assert "import architectures" in card and "the last of 2 epochs" in card


def test_onnx_gives_the_same_logits(vit_run, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    evaluate.main([str(vit_run), "--export", str(tmp_path / "x")])
    session = onnxruntime.InferenceSession(tmp_path / "x" / "model.onnx")
    model, images = restored(vit_run), torch.randn(5, 3, 16, 16)
    (logits,) = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(logits, model(images).numpy(), atol=1e-4)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["size"]) == [16, 16] and json.loads(facts["mean"]) == list(input_spec(model).mean)


def test_an_existing_folder_is_left_alone(vit_run, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not an empty folder"):
        evaluate.main([str(vit_run), "--export", str(tmp_path)])
    with pytest.raises(ValueError, match="name one run"):
        evaluate.main([str(vit_run), str(vit_run), "--export", str(tmp_path / "new")])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
