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
