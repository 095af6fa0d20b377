"""The benchmarks run, and what they compare is the same."""

import json
import subprocess
import sys
from pathlib import Path

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


def test_the_explanation_benchmark_compares_with_grad_cam(tmp_path):
    output = tmp_path / "explain.json"
    command = [sys.executable, "benchmarks/explain.py", "--models", "vit_tiny_patch16_224", "--image-size", "48"]
    command += ["--images", "2", "--rounds", "1", "--channels", "100", "--output", str(output)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    results = json.loads(output.read_text())
    for method in ("gradcam", "scorecam"):
        result = results[f"vit_tiny_patch16_224 {method}"]
        assert result["A"]["maps"] > 0 and result["B fp32"]["ratio"] > 0
        assert result["B fp32"]["rank_correlation"]["min"] > 0.99  # the same maps
    assert "B bf16, 100 channels" in result
