"""Images per second of this project (B) against what a user would write (A), on the same model and pixels.

    python -m benchmarks.throughput                                             # CPU: small models at 32 px, data at 32 and 224
    python -m benchmarks.throughput --models vit_base_patch16_224 swin_base_patch4_window7_224 --image-size 224   # CUDA

A: torchvision-style dataset, per-image PIL transforms (RandomCrop(32, 4), Resize, flip, ToTensor, Normalize), DataLoader
with two workers, fp16 autocast with GradScaler on CUDA and fp32 on CPU, eager model, plain AdamW; evaluation in fp32.
B: `data`, `augmentation` and the training step of `train.py` as they are, with `train.amp: auto`.

Both run in one process and in turn (A B A B ...); the figures are medians over the rounds, and the ratios medians of the
ratios of neighbours. Per CPU-second counts the CPU time of the process and its workers, which other load on the machine
disturbs less than the clock. Pixels are random: throughput does not depend on content.

Measured by the first command on two cores of an AMD EPYC with AVX512-BF16 (PyTorch 2.15), images per CPU-second, A and B:
data at 32 px 6,996 and 110,867 (15.4x); data at 224 px 730 and 3,244 (4.5x); training shallow_vit 331 and 752 (2.3x), swin_32
128 and 435 (3.3x); evaluation shallow_vit 731 and 3,069 (4.2x), swin_32 404 and 1,311 (3.2x). No CUDA device was at hand:
the CUDA side of this file has not been run.

What was tried on that CPU, and what it gave (ratios to A per CPU-second):
- bf16 autocast instead of fp32: training 1.35x becomes 2.3x (shallow_vit) and 2.4x becomes 3.9x (swin_32), evaluation 1.6x
  becomes 3.4x and 3.0x. Kept where the CPU multiplies bf16 in hardware.
- keeping freed memory (glibc's thresholds): data at 224 px 1.2x becomes 4 to 5x, since a fresh 77 MB batch costs more in page
  faults than in arithmetic; nothing in training at 32 px. Kept.
- channels_last for ResNet-18: 1.08x in fp32, 1.06x in bf16. Kept, for convolutional networks.
- uint8 resize instead of float: 1.1x, and equal to PIL's. Kept.
- torch.compile: not on CPU, where a compile takes longer than it saves in runs of the length that a CPU sees.
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
import torchvision.transforms as T
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

import data
from common.config import Config
from common.devices import keep_freed_memory, select_device, select_precision, should_compile
from common.runs import Run
from evaluation.cost import count_gmacs, peak_memory_mb
from evaluation.predictions import predict_split
from images.sources import Pixels
from models import create_model, input_spec
from training.optimization import create_optimizer
from training.randomness import seed_epoch
from training.trainer import Trainer

PRESETS = {
    "swin_32": (
        "swin_tiny_patch4_window7_224",
        {"patch_size": 2, "window_size": 4, "embed_dim": 48, "depths": [2, 2, 2], "num_heads": [3, 6, 12]},
    ),
}
NUM_IMAGES, NUM_CLASSES = 4096, 10


class Images(Dataset):
    """32-pixel images as torchvision's CIFAR10 keeps them: a numpy array, a PIL image per access."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray, transform):
        self.pixels, self.labels, self.transform = pixels, labels, transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.pixels[i])), int(self.labels[i])


class Habit:
    """A."""

    def __init__(self, model: nn.Module, pixels: np.ndarray, size: int, batch_size: int, device: torch.device):
        spec = input_spec(model)
        tail = [T.ToTensor(), T.Normalize(spec.mean, spec.std)]
        training = T.Compose([T.RandomCrop(32, 4), T.Resize(size), T.RandomHorizontalFlip(), *tail])
        labels = np.arange(len(pixels)) % NUM_CLASSES
        options = dict(batch_size=batch_size, num_workers=2, pin_memory=device.type == "cuda")
        self.train_loader = DataLoader(Images(pixels, labels, training), shuffle=True, drop_last=True, **options)
        self.test_loader = DataLoader(Images(pixels, labels, T.Compose([T.Resize(size), *tail])), **options)
        self.model, self.device = model, device
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.05)
        self.loss = nn.CrossEntropyLoss()
        self.scaler = torch.amp.GradScaler(device.type, enabled=device.type == "cuda")

    def load(self, loader):
        for images, labels in loader:
            yield images.to(self.device), labels.to(self.device)

    def data(self):
        for images, _ in self.load(self.train_loader):
            yield len(images)

    def train(self):
        self.model.train()
        for images, labels in self.load(self.train_loader):
            self.optimizer.zero_grad()
            with torch.autocast(self.device.type, torch.float16, enabled=self.device.type == "cuda"):
                loss = self.loss(self.model(images), labels)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
            loss.item()  # for the progress bar, as everyone does
            yield len(images)

    def evaluate(self):
        self.model.eval()
        with torch.no_grad():
            for images, _ in self.load(self.test_loader):
                self.model(images).argmax(1).cpu()
                yield len(images)


class Ours:
    """B."""

    def __init__(self, config: Config, model: nn.Module, pixels: np.ndarray, device: torch.device, folder: Path):
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
        source = Pixels(tensor, torch.arange(len(tensor)) % NUM_CLASSES)
        self.split = data.Split(source, torch.arange(len(tensor)), name="train", resident=True)
        dataset = data.Dataset("random", [str(i) for i in range(NUM_CLASSES)], self.split, self.split, self.split)
        optimizer = create_optimizer(model, config)
        self.batch_size, self.device = config.train.batch_size, device
        precision = select_precision(config.train.amp, device)
        self.trainer = Trainer(Run(folder, config), dataset, model, optimizer, device=device, precision=precision)

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


def compare(
    habit: Habit, ours: Ours, device: torch.device, seconds: float, rounds: int, stages: tuple[str, ...]
) -> dict:
    results = {}
    for stage in stages:
        a, b = getattr(habit, stage), getattr(ours, stage)
        for side in (a, b):
            measure(side, device, seconds / 4)  # warm-up
        pairs = [(measure(a, device, seconds), measure(b, device, seconds)) for _ in range(rounds)]
        results[stage] = {
            unit: {
                "A": statistics.median(x[unit] for x, _ in pairs),
                "B": statistics.median(y[unit] for _, y in pairs),
                "ratio": statistics.median(y[unit] / x[unit] for x, y in pairs),
            }
            for unit in ("per_second", "per_cpu_second")
        }
    return results


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


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", nargs="+", default=["shallow_vit", "swin_32"], help=f"timm names or {list(PRESETS)}"
    )
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--data-sizes", type=int, nargs="*", default=[32, 224], help="sizes to measure data alone at")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=6, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--amp", default="auto", choices=("auto", "bf16", "fp16", "fp32"), help="of B")
    parser.add_argument("--device")
    parser.add_argument("--output", type=Path, default=Path("outputs/throughput.json"), help="where the results go")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    keep_freed_memory()
    pixels = np.random.default_rng(0).integers(0, 256, (NUM_IMAGES, 32, 32, 3), dtype=np.uint8)
    rate = matmul_rate(device) if device.type == "cuda" else None
    results = {"device": torch.cuda.get_device_name(device) if rate else f"cpu, {torch.get_num_threads()} threads"}
    jobs = [(f"data at {size} px", "shallow_vit", size, ("data",)) for size in args.data_sizes]
    jobs += [(f"{name} at {args.image_size} px", name, args.image_size, ("train", "evaluate")) for name in args.models]
    for title, name, size, stages in jobs:
        config = make_config(name, size, args.batch_size, args.amp)
        torch.manual_seed(0)
        models = [create_model(config, num_classes=NUM_CLASSES).to(device) for _ in range(2)]
        with tempfile.TemporaryDirectory() as folder:
            habit = Habit(models[0], pixels, size, args.batch_size, device)
            ours = Ours(config, models[1], pixels, device, Path(folder))
            begin = time.perf_counter()
            if "train" in stages:
                next(ours.train())  # compiles
            first_step = time.perf_counter() - begin
            result = compare(habit, ours, device, args.seconds, args.rounds, stages)
        result["precision"] = ours.trainer.precision
        result["compiled"] = should_compile("auto", device, num_images=1000 * NUM_IMAGES)
        result["first_step_seconds"] = first_step
        result["peak_memory_mb"] = peak_memory_mb(device)
        if rate and "train" in result:
            gmacs, _ = count_gmacs(models[1].eval(), torch.zeros(1, 3, size, size, device=device))
            used = 3 * 2 * gmacs * 1e9 * result["train"]["per_second"]["B"]
            result |= {"matmul_tflops": rate / 1e12, "model_flops_utilisation": used / rate}
        results[title] = result
        for stage in stages:
            for unit, values in result[stage].items():
                print(f"{title:>32} {stage:>9} images {unit.replace('_', ' '):<15} A {values['A']:9.0f}  B {values['B']:9.0f}  "
                      f"ratio {values['ratio']:.2f}", flush=True)  # fmt: skip
        if "model_flops_utilisation" in result:
            print(
                f"{title:>32} model FLOPs utilisation {result['model_flops_utilisation']:.1%} of {rate / 1e12:.0f} TFLOP/s"
            )
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(json.dumps(results, indent=2) + "\n")
    print(f"wrote {args.output}")
    print(f"result: {json.dumps(results)}")


if __name__ == "__main__":
    main()
