"""The benchmarks run, and what they compare is the same."""

import importlib
import json
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def test_the_throughput_benchmark_measures_all_sides_at_one_precision(tmp_path, monkeypatch):
    output = tmp_path / "throughput.json"
    arguments = ["--seconds", "0.02", "--rounds", "1", "--data-sizes", "32", "--models", "shallow_vit"]
    arguments += ["--batch-size", "16", "--device", "cpu", "--output", str(output)]
    benchmark = importlib.import_module("benchmarks.throughput")
    monkeypatch.setattr(benchmark, "NUM_IMAGES", 64)
    benchmark.main(arguments)
    results = json.loads(output.read_text())
    model = results["shallow_vit at 32 px"]
    assert set(model) >= {"train", "evaluate", "peak_memory_mb", "precision", "compiled", "auto_is_fastest"}
    other = "fp32" if model["precision"] == "bf16" else "bf16"
    everyone = {"here", "limit", f"here, {other}", "habit", "tensors", "timm"}
    assert set(model["train"]) == set(model["evaluate"]) == everyone
    assert set(results["data at 32 px"]["data"]) == {"here", "habit", "tensors", "timm"}
    for stage in (results["data at 32 px"]["data"], model["train"]):
        assert stage["here"]["ratio"] == 1 and all(side["per_cpu_second"] > 0 for side in stage.values())


def test_the_table_of_throughput_has_a_row_for_each_side(tmp_path):
    write = importlib.import_module("benchmarks.tables").write_between_markers
    sides = {"here": {"per_cpu_second": 2000, "ratio": 1}, "habit": {"per_cpu_second": 500, "ratio": 4}}
    results = {"device": "cpu", "small at 32 px": {"precision": "bf16", "train": sides, "evaluate": sides}}
    table = importlib.import_module("benchmarks.throughput").table(results)
    assert "| torchvision, PIL | 500 (4.00) | 500 (4.00) |" in table and "| here, bf16 | 2,000 (1.00) |" in table
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- throughput: begin -->\nold\n<!-- throughput: end -->\nafter\n")
    write(page, "throughput", table)
    assert page.read_text() == f"before\n<!-- throughput: begin -->\n{table}\n<!-- throughput: end -->\nafter\n"
    with pytest.raises(ValueError, match="lacks the lines <!-- error_rates: begin -->"):
        write(page, "error_rates", table)


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
    arguments = ["--models", "vit_tiny_patch16_224", "--image-size", "48", "--images", "2", "--rounds", "1"]
    importlib.import_module("benchmarks.explain").main([*arguments, "--channels", "100", "--output", str(output)])
    results = json.loads(output.read_text())
    for method in ("gradcam", "scorecam"):
        result = results[f"vit_tiny_patch16_224 {method}"]
        assert result["A"]["maps"] > 0 and result["B fp32"]["ratio"] > 0
        assert result["B fp32"]["rank_correlation"]["min"] > 0.99  # the same maps
    assert "B bf16, 100 channels" in result


def test_the_time_of_relevance_is_measured_beside_grad_cam(tmp_path):
    output = tmp_path / "explain.json"
    arguments = ["--models", "vit_tiny_patch16_224", "--image-size", "48", "--images", "2", "--rounds", "1"]
    importlib.import_module("benchmarks.explain").main([*arguments, "--relevance", "--output", str(output)])
    cost = json.loads(output.read_text())["vit_tiny_patch16_224 relevance"]
    assert list(cost) == ["gradcam", "lrp at blocks.11.norm1", "lrp at patch_embed", "auto (lrprollout)"]
    assert cost["gradcam"] == 1 and all(times > 0 for times in cost.values())


def test_readers_of_photos_are_compared_in_one_run(tmp_path):
    benchmark = importlib.import_module("benchmarks.photos")
    output = tmp_path / "photos.json"
    benchmark.main(
        ["--sizes", "10 KB", "--count", "1", "--image-size", "64", "--seconds", "0.01", "--output", str(output)]
    )
    result = json.loads(output.read_text())["10 KB"]
    assert set(result["per_cpu_second"]) == {"torchvision, PIL", "timm", "torchvision, tensors", "here"}
    assert all(rate > 0 for rate in result["per_cpu_second"].values())
    assert 5e3 < result["bytes"] < 12e3 and 0 < result["grey_levels"]["mean"] < 4


def test_estimates_of_scaling_follow_from_their_arguments(capsys):
    scaling = importlib.import_module("benchmarks.scaling")
    scaling.main(["--photos-per-core", "50"])
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert len(rows) == 1 + 2 * 2 * 3 and "cores to decode" in rows[0][4]
    vit = scaling.MODELS[0]
    assert scaling.activations(vit, checkpointed=False) == 34 * 12 * 197 * 768
    assert scaling.activations(vit, checkpointed=True) == (2 * 12 + 34) * 197 * 768


@pytest.mark.parametrize("path", sorted((PROJECT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_finds_what_it_imports(path):
    importlib.import_module(f"benchmarks.{path.stem}")
