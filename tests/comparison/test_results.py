"""The page of results is written from the runs alone."""

import json
import shutil

import pytest

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
    assert "have no result" in text
    assert "\npython train.py configs/tiny.yaml data.root=data/flowers data/b.yaml\n" in text
    with pytest.raises(ValueError, match="has no evaluated runs"):
        results.main([str(tmp_path / "empty"), "--output", str(tmp_path / "results.md")])
