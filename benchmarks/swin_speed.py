"""A training step of `architectures.swin` (B) against timm's Swin (A): same weights, images and optimizer.

    python -m benchmarks.swin_speed                                 # Swin-T at 224 px, batch 32, fp32 and, if there is, bf16
    python -m benchmarks.swin_speed --model swin_b --batch-size 128

A step is forward, cross-entropy, backward and AdamW. Both models run in one process and take turns, A B B A, so that other
load on the machine meets both alike; times are medians of the steps and the ratio A / B (above 1: B is faster) is the
median over neighbours. On CPU the seconds are the process's CPU time, on CUDA the clock's.
"""

import argparse
import json
import statistics
import time

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from architectures.swin import checkpoint_filter_fn
from common.devices import autocast, keep_freed_memory, select_device, select_precision

TIMMS = {"swin_t": "swin_tiny", "swin_s": "swin_small", "swin_b": "swin_base", "swin_l": "swin_large"}


class Side:
    def __init__(self, model: nn.Module, device: torch.device, precision: str):
        self.model, self.device, self.precision = model.to(device).train(), device, precision
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def step(self, images: Tensor, labels: Tensor) -> float:
        """Seconds of one training step."""
        synchronize = torch.cuda.synchronize if self.device.type == "cuda" else lambda: None
        clock = time.perf_counter if self.device.type == "cuda" else time.process_time
        synchronize()
        start = clock()
        with autocast(self.device, self.precision):
            loss = F.cross_entropy(self.model(images), labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        synchronize()
        return clock() - start


def compare(args: argparse.Namespace, device: torch.device, precision: str) -> dict:
    torch.manual_seed(0)
    a = timm.create_model(f"{TIMMS[args.model]}_patch4_window7_224", img_size=args.image_size)
    b = timm.create_model(args.model, img_size=args.image_size)
    b.load_state_dict(checkpoint_filter_fn(a.state_dict(), b))
    images = torch.randn(args.batch_size, 3, args.image_size, args.image_size, device=device)
    labels = torch.randint(0, 1000, (args.batch_size,), device=device)
    a, b = Side(a, device, precision), Side(b, device, precision)
    for side in (a, b):  # warm-up
        side.step(images, labels)
    times = {a: [], b: []}
    for pair in range(args.pairs):
        for side in (a, b) if pair % 2 == 0 else (b, a):
            times[side].append(side.step(images, labels))
    ratio = statistics.median(x / y for x, y in zip(times[a], times[b]))
    return {"timm_seconds": statistics.median(times[a]), "swin_seconds": statistics.median(times[b]), "ratio": ratio}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=TIMMS, default="swin_t")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=6, help="steps of each side")
    parser.add_argument("--amp", nargs="+", default=["fp32", "auto"], help="precisions")
    parser.add_argument("--device")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    keep_freed_memory()
    results = {}
    for precision in dict.fromkeys(select_precision(amp, device) for amp in args.amp):
        results[precision] = result = compare(args, device, precision)
        print(f"{args.model} {precision}: timm {result['timm_seconds']:.2f} s, swin {result['swin_seconds']:.2f} s a step, "
              f"ratio {result['ratio']:.2f}", flush=True)  # fmt: skip
    print(f"result: {json.dumps(results)}")


if __name__ == "__main__":
    main()
