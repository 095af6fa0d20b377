import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import evaluate
from benchmarks import results

PROJECT = Path(__file__).parents[1]


def test_the_throughput_benchmark_measures_both_sides(tmp_path):
    output = tmp_path / "throughput.json"
    command = [sys.executable, "benchmarks/throughput.py", "--seconds", "0.2", "--rounds", "1", "--data-sizes", "32"]
    command += ["--models", "shallow_vit", "--batch-size", "16", "--output", str(output)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    results = json.loads(output.read_text())
    assert set(results["shallow_vit at 32 px"]) >= {"train", "evaluate", "peak_memory_mb", "precision", "compiled"}
    for stage in (results["data at 32 px"]["data"], results["shallow_vit at 32 px"]["train"]):
        for unit in ("per_second", "per_cpu_second"):
            assert stage[unit]["A"] > 0 and stage[unit]["B"] > 0


def test_results_are_written_from_the_runs(vit_run, tmp_path):
    shutil.copytree(vit_run, tmp_path / "outputs" / "tiny")
    evaluate.main([str(tmp_path / "outputs" / "tiny")])
    results.main([str(tmp_path / "outputs"), "--output", str(tmp_path / "RESULTS.md")])
    text = (tmp_path / "RESULTS.md").read_text()
    metrics = json.loads((tmp_path / "outputs" / "tiny" / "metrics.json").read_text())
    assert f"| tiny | shallow_vit | digits | 16x16 | 2 | 0 | 180 | {100 * metrics['accuracy']:.2f} |" in text
    assert "could not be downloaded" in text
    with pytest.raises(ValueError, match="has no evaluated runs"):
        results.main([str(tmp_path / "empty"), "--output", str(tmp_path / "RESULTS.md")])
