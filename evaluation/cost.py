"""What a model costs: parameters, FLOPs, latency, memory; each number with the convention that it follows."""

import logging
import statistics
import time
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from tqdm import tqdm

from architectures.kernels import attention_kernel, unfused_attention


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """All parameters and the trainable ones."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trainable in sizes if trainable)


def count_gmacs(model: nn.Module, image: Tensor, *, attention: bool = True) -> tuple[float, list[str]]:
    """Multiply-accumulates of one forward pass of ``image`` (1 3 H W), in 10^9, by fvcore; FLOPs are twice that.

    fvcore skips fused attention, so that it is taken apart for the count (Swin's in timm never is fused, and a count that
    skips ViT's alone compares unlike things); ``attention=False`` leaves the kernels as they are, which gives the figure
    that many reports print. Also returns the operators that were not counted, with how often they occur; element-wise
    ones are left out by convention.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    in_the_open = unfused_attention(model) if attention else nullcontext()
    with torch.no_grad(), in_the_open, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore's tracing is deprecated in PyTorch, and works
        analysis = FlopCountAnalysis(model, image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        gmacs = analysis.total() / 1e9
        uncounted = analysis.unsupported_ops()
    return gmacs, [f"{name} x{count}" for name, count in sorted(uncounted.items())]


def measure_cost(
    model: nn.Module,
    size: tuple[int, int],
    *,
    batch_size: int,
    seconds: float,
    device: torch.device,
    context: Callable[[], AbstractContextManager],
) -> dict:
    """What a forward pass at ``size`` (height, width) takes, by the names of ``metrics.json``: GMACs, latency, throughput.

    Latency is measured at batch 1 and at ``batch_size``, each for ``seconds``, within ``context`` (such as autocast).
    """
    image = torch.zeros(1, 3, *size, device=device)
    gmacs, uncounted = count_gmacs(model, image)
    latency = {
        str(count): measure_latency(
            model, image.expand(count, -1, -1, -1).contiguous(), context=context, seconds=seconds
        )
        for count in tqdm(sorted({1, batch_size}), "measuring latency", leave=False)
    }
    return {
        "gmacs": gmacs,
        "gmacs_attention_skipped": count_gmacs(model, image, attention=False)[0],
        "gmacs_convention": "multiply-accumulates of one image by fvcore, attention counted; FLOPs are twice that",
        "uncounted_ops": uncounted,
        "latency_ms": latency,
        "images_per_second": 1000 * batch_size / latency[str(batch_size)]["median"],
        "peak_memory_kind": "allocated on the device" if device.type == "cuda" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "attention_kernel": attention_kernel(model),
    }


def measure_latency(
    model: nn.Module, images: Tensor, *, context: Callable[[], AbstractContextManager], seconds: float
) -> dict[str, float]:
    """Milliseconds of a forward pass of ``images`` (B 3 H W, preprocessed): median and 90th percentile.

    Two passes of warm-up are discarded; then at least five, and as many as fit into ``seconds``, are timed, with the
    device synchronised around each.
    """
    synchronize = torch.cuda.synchronize if images.is_cuda else lambda: None
    times, begin = [], None
    with torch.inference_mode():
        for i in range(1000):
            synchronize()
            start = time.perf_counter()
            with context():
                model(images)
            synchronize()
            if i == 1:
                begin = time.perf_counter()
            elif i > 1:
                times.append(1000 * (time.perf_counter() - start))
            if len(times) >= 5 and time.perf_counter() - begin > seconds:
                break
    return {"median": statistics.median(times), "p90": statistics.quantiles(times, n=10, method="inclusive")[-1]}


def peak_memory_mb(device: torch.device) -> float | None:
    """Most memory so far, in MB, in PyTorch's allocations on CUDA; None on CPU, where the process's peak is no model's."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
