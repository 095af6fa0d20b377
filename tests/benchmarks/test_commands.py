"""The benchmarks run, and what they compare is the same."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def test_the_throughput_benchmark_measures_both_sides(tmp_path):
    output = tmp_path / "throughput.json"
    command = [sys.executable, "-m", "benchmarks.throughput", "--seconds", "0.2", "--rounds", "1", "--data-sizes", "32"]
    command += ["--models", "shallow_vit", "--batch-size", "16", "--output", str(output)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    results = json.loads(output.read_text())
    assert set(results["shallow_vit at 32 px"]) >= {"train", "evaluate", "peak_memory_mb", "precision", "compiled"}
    for stage in (results["data at 32 px"]["data"], results["shallow_vit at 32 px"]["train"]):
        for unit in ("per_second", "per_cpu_second"):
            assert stage[unit]["A"] > 0 and stage[unit]["B"] > 0


def test_the_speed_of_the_swins_is_measured_on_equal_terms(capsys):
    arguments = ["--image-size", "32", "--batch-size", "2", "--pairs", "2", "--amp", "fp32", "--device", "cpu"]
    importlib.import_module("benchmarks.swin_speed").main(arguments)
    result = json.loads(capsys.readouterr().out.splitlines()[-1].removeprefix("result: "))
    assert set(result["fp32"]) == {"timm_seconds", "swin_seconds", "ratio"} and result["fp32"]["ratio"] > 0


def test_counted_attention_follows_the_formulas_of_the_paper(tmp_path):
    benchmark = importlib.import_module("benchmarks.attention_complexity")
    output = tmp_path / "complexity"
    arguments = ["--sides", "28", "56", "--dim", "24", "--num-heads", "2", "--seconds", "0", "--device", "cpu"]
    benchmark.main([*arguments, "--output", str(output)])
    results = json.loads(output.with_suffix(".json").read_text())
    for rows in results["measured"].values():
        assert all(row["macs"] == pytest.approx(row["formula"], rel=0.01) for row in rows)
    assert output.with_suffix(".png").is_file()
    for kind, expected in (("global", 2), ("window", 1)):
        rows = [benchmark.formula(kind, side, 8, 7) for side in (140, 280)]
        assert benchmark.exponent([140**2, 280**2], rows) == pytest.approx(expected, abs=0.01)


def test_the_explanation_benchmark_compares_with_grad_cam(tmp_path):
    output = tmp_path / "explain.json"
    command = [sys.executable, "-m", "benchmarks.explain", "--models", "vit_tiny_patch16_224", "--image-size", "48"]
    command += ["--images", "2", "--rounds", "1", "--channels", "100", "--output", str(output)]
    subprocess.run(command, cwd=PROJECT, check=True, capture_output=True)
    results = json.loads(output.read_text())
    for method in ("gradcam", "scorecam"):
        result = results[f"vit_tiny_patch16_224 {method}"]
        assert result["A"]["maps"] > 0 and result["B fp32"]["ratio"] > 0
        assert result["B fp32"]["rank_correlation"]["min"] > 0.99  # the same maps
    assert "B bf16, 100 channels" in result
