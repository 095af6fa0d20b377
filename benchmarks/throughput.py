"""Images per second of this project against what users write, on the same model and pixels.

    python -m benchmarks.throughput                                             # CPU: small models at 32 px, data at 32 and 224
    python -m benchmarks.throughput --write docs/performance.md                 # and the table into its place there
    python -m benchmarks.throughput --models vit_base_patch16_224 swin_base_patch4_window7_224 --image-size 224   # CUDA

`habit`: torchvision-style dataset, per-image PIL transforms (RandomCrop(32, 4), Resize, flip, ToTensor, Normalize), DataLoader
with two workers, eager model, plain AdamW. `tensors`: the same with torchvision v2 transforms of uint8 tensors. `timm`: its
create_loader (random resized crop, flip) and the step of its train.py. `here`: `data`, `augmentation` and the training step of
`train.py` as they are. `limit`: that step on one batch that lies ready, so without any data.

All of them run at one precision, that of `--amp`, by default the one that `train.amp: auto` chooses: these are the ratios to
quote first. A CPU is also measured at its other precision (`here, bf16` or `here, fp32`), which `auto` must not be slower than;
and on CUDA the habit in fp16, as it is usually run.

All run in one process and in turn; the figures are medians over the rounds, and the ratios (here to each) medians of the
ratios within a round. Per CPU-second counts the CPU time of the process and its workers, which other load on the machine
disturbs less than the clock. Pixels are random: throughput does not depend on content. No CUDA device was at hand: the CUDA
side of this file has not been run.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

import data
from architectures.kernels import training_attention
from benchmarks.tables import write_between_markers
from benchmarks.usual import NUM_CLASSES, Usual, usual_loader
from common.config import Config
from common.devices import autocast, keep_freed_memory, select_device, select_precision, should_compile
from common.documents import markdown_table
from common.runs import Run
from evaluation.cost import count_gmacs, peak_memory_mb
from evaluation.predictions import predict_split
from images.sources import Pixels
from models import create_model, input_spec
from training.randomness import seed_epoch
from training.rehearsal import Prepared
from training.trainer import Trainer

PRESETS = {
    "swin_32": (
        "swin_tiny_patch4_window7_224",
        {"patch_size": 2, "window_size": 4, "embed_dim": 48, "depths": [2, 2, 2], "num_heads": [3, 6, 12]},
    ),
}
NUM_IMAGES = 4096
NAMES = {"limit": "limit, no data", "habit": "torchvision, PIL", "tensors": "torchvision, tensors"}


class Here:
    def __init__(self, config: Config, model: nn.Module, pixels: np.ndarray, device: torch.device, folder: Path):
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        source = Pixels(tensor, torch.arange(len(tensor)) % NUM_CLASSES)
        self.split = data.Split(source, torch.arange(len(tensor)), name="train", resident=True)
        dataset = data.Dataset("random", [str(i) for i in range(NUM_CLASSES)], self.split, self.split, self.split)
        self.batch_size, self.device = config.train.batch_size, device
        precision = select_precision(config.train.amp, device)
        prepared = Prepared(config, dataset, model, precision, None, None, {}, 0)
        self.trainer = Trainer(Run(folder, config), prepared, device=device)

    def data(self):
        order, generator = seed_epoch(0, 0)
        for images, _ in self.split.batches(self.batch_size, self.device, order):
            yield len(self.trainer.preprocess(self.trainer.augment(images, generator)))

    def train(self):
        order, generator = seed_epoch(0, 0)
        self.trainer.model.train()
        for images, labels in self.split.batches(self.batch_size, self.device, order):
            self.trainer.train_step(images, labels, len(images), generator)
            yield len(images)

    def evaluate(self):
        model, precision = self.trainer.model, self.trainer.precision
        predict_split(model, self.split, batch_size=self.batch_size, device=self.device, precision=precision)
        yield len(self.split)


class Limit:
    """The step, and the forward pass, without data: on one batch that was preprocessed before."""

    def __init__(self, here: Here):
        images, labels = next(iter(here.split.batches(here.batch_size, here.device)))
        self.trainer = here.trainer
        self.inputs, self.labels = self.trainer.preprocess(images), labels

    def train(self):
        trainer = self.trainer
        trainer.model.train()
        with training_attention(trainer.model, trainer.device, trainer.precision):
            while True:
                with autocast(trainer.device, trainer.precision):
                    loss = trainer.loss(trainer.forward(self.inputs), self.labels)
                trainer.scaler.scale(loss).backward()
                trainer.scaler.unscale_(trainer.optimizer)
                nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
                trainer.scaler.step(trainer.optimizer)
                trainer.scaler.update()
                trainer.optimizer.zero_grad()
                yield len(self.labels)

    def evaluate(self):
        self.trainer.model.eval()
        with torch.inference_mode(), autocast(self.trainer.device, self.trainer.precision):
            while True:
                self.trainer.model(self.inputs)
                yield len(self.labels)


def make_sides(name: str, size: int, args: argparse.Namespace, device: torch.device, folder: Path) -> dict[str, object]:
    """All that is compared, by name, each with a model of its own."""

    def make_here(amp: str) -> Here:
        config = make_config(name, size, args.batch_size, amp)
        torch.manual_seed(0)
        return Here(config, create_model(config, num_classes=NUM_CLASSES).to(device), pixels, device, folder)

    pixels = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 32, 32, 3), dtype=np.uint8)
    here = make_here(args.amp)
    precision = here.trainer.precision
    sides = {"here": here, "limit": Limit(here)}
    if device.type == "cpu" and precision != "fp16":
        other = "fp32" if precision == "bf16" else "bf16"
        sides[f"here, {other}"] = make_here(other)
    spec = input_spec(here.trainer.model)
    usual = [(kind, precision) for kind in ("habit", "tensors", "timm")]
    for kind, own in usual + ([("habit", "fp16")] if device.type == "cuda" else []):
        model = create_model(make_config(name, size, args.batch_size, own), num_classes=NUM_CLASSES).to(device)
        loaders = {t: usual_loader(kind, pixels, size, args.batch_size, spec, device, t) for t in (True, False)}
        sides[kind if own == precision else f"{kind}, {own}"] = Usual(kind, model, loaders, device, own)
    return sides


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(stage: Callable, device: torch.device, seconds: float) -> dict[str, float]:
    """Images per second of the clock and of the CPU while ``stage`` is repeated for about ``seconds``."""
    count, clock, cpu = 0, time.perf_counter(), cpu_seconds()
    while time.perf_counter() - clock < seconds:
        passes = stage()
        for images in passes:
            count += images
            if time.perf_counter() - clock > seconds:
                break
        passes.close()  # ends the workers, so that their time is counted
    if device.type == "cuda":
        torch.cuda.synchronize()
    return {"per_second": count / (time.perf_counter() - clock), "per_cpu_second": count / (cpu_seconds() - cpu)}


def compare(sides: dict[str, object], stage: str, args: argparse.Namespace, device: torch.device) -> dict:
    """Of each side: images per second and per CPU-second, and how many times as many `here` makes."""
    able = {name: getattr(side, stage) for name, side in sides.items() if hasattr(side, stage)}
    if stage == "data":  # no model takes part
        able = {name: run for name, run in able.items() if "," not in name}
    for run in able.values():
        measure(run, device, args.seconds / 4)  # warm-up
    rounds = [{name: measure(run, device, args.seconds) for name, run in able.items()} for _ in range(args.rounds)]
    result = {}
    for name in able:
        result[name] = {
            unit: statistics.median(row[name][unit] for row in rounds) for unit in ("per_second", "per_cpu_second")
        }
        ratios = (row["here"]["per_cpu_second"] / row[name]["per_cpu_second"] for row in rounds)
        result[name]["ratio"] = statistics.median(ratios)
        print(
            f"    {stage:>9} {name:<12} {result[name]['per_cpu_second']:10,.0f} images per CPU-second, "
            f"{result[name]['per_second']:10,.0f} per second; here: {result[name]['ratio']:.2f}x",
            flush=True,
        )
    return result


def matmul_rate(device: torch.device) -> float:
    """bf16 FLOP/s of a large matrix product."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    for _ in range(5):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(20):
        a @ a
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - start)


def make_config(name: str, size: int, batch_size: int, amp: str) -> Config:
    timm_name, kwargs = PRESETS.get(name, (name, {}))
    return Config.model_validate(
        {
            "name": "benchmark",
            "data": {"dataset": "cifar10", "image_size": size, "interpolation": "bilinear"},
            "model": {"name": timm_name, "kwargs": kwargs},
            "train": {"batch_size": batch_size, "amp": amp, "epochs": 1000},  # long: compiled where that pays
        }
    )


def measure_job(name: str, size: int, stages: tuple[str, ...], args: argparse.Namespace, device: torch.device) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        sides = make_sides(name, size, args, device, Path(folder))
        here, begin = sides["here"], time.perf_counter()
        if "train" in stages:
            next(here.train())  # compiles
        result = {"precision": here.trainer.precision, "first_step_seconds": time.perf_counter() - begin}
        result |= {stage: compare(sides, stage, args, device) for stage in stages}
    result["compiled"] = should_compile("auto", device, num_images=1000 * NUM_IMAGES)
    result["peak_memory_mb"] = peak_memory_mb(device)
    if device.type == "cuda" and "train" in result:
        rate = matmul_rate(device)
        gmacs, _ = count_gmacs(here.trainer.model.eval(), torch.zeros(1, 3, size, size, device=device))
        used = 3 * 2 * gmacs * 1e9 * result["train"]["here"]["per_second"]
        result |= {"matmul_tflops": rate / 1e12, "model_flops_utilisation": used / rate}
        print(f"    model FLOPs utilisation {used / rate:.1%} of {rate / 1e12:.0f} TFLOP/s")
    for other, values in result.get("train", {}).items():
        if other.startswith("here, ") and args.amp == "auto":
            result["auto_is_fastest"] = values["ratio"] >= 0.95  # what the measurement itself may vary by
            print(f"    train.amp: auto takes {result['precision']}: {values['ratio']:.2f}x {other.split(', ')[1]}")
    return result


def table(results: dict) -> str:
    """Markdown: images per CPU-second of each side, and how many times as many `here` makes."""
    measured = {
        title if stage == "data" else f"{stage} {title}": job[stage]
        for title, job in results.items()
        if title != "device"
        for stage in ("data", "train", "evaluate")
        if stage in job
    }
    (precision,) = {job["precision"] for title, job in results.items() if title != "device"}
    rows = []
    for side in dict.fromkeys(side for sides in measured.values() for side in sides):
        cells = [
            f"{sides[side]['per_cpu_second']:,.0f} ({sides[side]['ratio']:.2f})" if side in sides else "-"
            for sides in measured.values()
        ]
        rows.append([f"here, {precision}" if side == "here" else NAMES.get(side, side), *cells])
    return "\n".join(markdown_table(["images per CPU-second (here / it)", *measured], rows))


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="*", default=["shallow_vit", "swin_32"], help=f"timm names or {list(PRESETS)}"
    )
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--data-sizes", type=int, nargs="*", default=[32, 224], help="sizes to measure data alone at")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--amp", default="auto", choices=("auto", "bf16", "fp16", "fp32"), help="precision of all sides"
    )
    parser.add_argument("--stages", nargs="+", choices=("train", "evaluate"), default=["train", "evaluate"])
    parser.add_argument("--device")
    parser.add_argument("--output", type=Path, default=Path("outputs/throughput.json"), help="where the results go")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown file whose marked part the table replaces")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    keep_freed_memory()
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
    results = {"device": where}
    jobs = [(f"data at {size} px", "shallow_vit", size, ("data",)) for size in args.data_sizes]
    jobs += [(f"{name} at {args.image_size} px", name, args.image_size, args.stages) for name in args.models]
    for title, name, size, stages in jobs:
        print(title, flush=True)
        results[title] = measure_job(name, size, tuple(stages), args, device)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2) + "\n")
    if args.write:
        write_between_markers(args.write, "throughput", table(results))
    print(f"wrote {args.output}")
    print(f"result: {json.dumps(results)}")


if __name__ == "__main__":
    main()
