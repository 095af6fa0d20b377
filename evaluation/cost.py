"""The cost of a model: parameters, multiply-accumulates, latency, memory; each with the convention by which it is counted."""

import logging
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from tqdm import tqdm

from architectures.kernels import attention_kernel, unfused_attention


def count_parameters(model: nn.Module) -> tuple[int, int]:
    """Number of all parameters, and of the trainable ones."""
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, _ in sizes), sum(n for n, trainable in sizes if trainable)


def count_gmacs(model: nn.Module, image: Tensor, *, attention: bool = True) -> tuple[float, list[str]]:
    """Multiply-accumulates of one forward pass of ``image`` (1 3 H W), in 10^9, by fvcore; FLOPs are twice that.

    fvcore skips fused attention, so unfused attention is used for the count. Otherwise a ViT's attention would be left out
    but not that of timm's Swin, which is never fused. ``attention=False`` leaves the kernels as they are, which gives the
    number that many papers report. Also returns the operators that were not counted, with how often they occur;
    element-wise ones are left out by convention.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    kernels = unfused_attention(model) if attention else nullcontext()
    with torch.no_grad(), kernels, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # fvcore's tracing is deprecated in PyTorch, but works
        analysis = FlopCountAnalysis(model, image)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        gmacs = analysis.total() / 1e9
        uncounted = analysis.unsupported_ops()
    return gmacs, [f"{name} x{count}" for name, count in sorted(uncounted.items())]


def count_gmacs_by_torch(model: nn.Module, image: Tensor) -> float:
    """The same count by ``torch.utils.flop_counter``, in 10^9, as a check: only matrix products and convolutions, with
    unfused attention, two FLOPs per multiply-accumulate. fvcore also counts normalisation and pooling, about one percent.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), unfused_attention(model), FlopCounterMode(display=False) as counter:
        model(image)
    return counter.get_total_flops() / 2e9


def measure_cost(
    model: nn.Module,
    size: tuple[int, int],
    *,
    batch_size: int,
    seconds: float,
    device: torch.device,
    context: Callable[[], AbstractContextManager],
) -> dict:
    """The cost of a forward pass at ``size`` (height, width), by the names of ``metrics.json``: GMACs, latency, throughput.

    Latency is measured at batch 1 and at ``batch_size``, each for ``seconds``, within ``context`` (such as autocast).
    """
    image = torch.zeros(1, 3, *size, device=device)
    gmacs, uncounted = count_gmacs(model, image)
    latency = {
        str(count): measure_latency(model, random_inputs(count, size, device), context=context, seconds=seconds)
        for count in tqdm(sorted({1, batch_size}), "measuring latency", leave=False)
    }
    return {
        "gmacs": gmacs,
        "gmacs_attention_skipped": count_gmacs(model, image, attention=False)[0],
        "gmacs_torch": count_gmacs_by_torch(model, image),
        "gmacs_convention": "multiply-accumulates of one image by fvcore, attention counted; FLOPs are twice that; "
        "gmacs_torch: by torch.utils.flop_counter, only matrix products and convolutions",
        "uncounted_ops": uncounted,
        "latency_ms": latency,
        "images_per_second": 1000 * batch_size / latency[str(batch_size)]["median"],
        "peak_memory_kind": "allocated on the device" if device.type == "cuda" else None,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "attention_kernel": attention_kernel(model),
    }


def random_inputs(count: int, size: tuple[int, int], device: torch.device) -> Tensor:
    """Normal noise in place of preprocessed images, float32 count 3 H W; zeros could be faster than real images."""
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(0)).to(device)


def measure_latency(
    model: nn.Module, images: Tensor, *, context: Callable[[], AbstractContextManager], seconds: float
) -> dict[str, float]:
    """Milliseconds of a forward pass of ``images`` (B 3 H W, preprocessed): median and 90th percentile.

    After a warm-up, passes are timed for ``seconds``, at least five and at most 1,000.
    """
    warm_up(model, images, context=context, seconds=seconds)
    return summarize_times(time_passes(model, images, context=context, seconds=seconds))


def warm_up(model: nn.Module, images: Tensor, *, context: Callable[[], AbstractContextManager], seconds: float) -> None:
    """Run forward passes until they no longer become faster: until three take on median above 95 % of the three before.

    At most for ``seconds``, but at least two passes.
    """
    times: list[float] = []
    while len(times) < 2 or sum(times) < 1000 * seconds:
        times += time_passes(model, images, context=context, seconds=0, at_least=1)
        if (
            len(times) >= 6
            and len(times) % 3 == 0
            and statistics.median(times[-3:]) > 0.95 * statistics.median(times[-6:-3])
        ):
            break


def time_passes(
    model: nn.Module,
    images: Tensor,
    *,
    context: Callable[[], AbstractContextManager],
    seconds: float,
    at_least: int = 5,
) -> list[float]:
    """Milliseconds of each of several forward passes; the device is synchronised before and after each."""
    synchronize = torch.cuda.synchronize if images.is_cuda else lambda: None
    times: list[float] = []
    with torch.inference_mode():
        while len(times) < at_least or (sum(times) < 1000 * seconds and len(times) < 1000):
            synchronize()
            start = time.perf_counter()
            with context():
                model(images)
            synchronize()
            times.append(1000 * (time.perf_counter() - start))
    return times


def summarize_times(times: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(times), "p90": statistics.quantiles(times, n=10, method="inclusive")[-1]}


def peak_memory_mb(device: torch.device) -> float | None:
    """Peak memory that PyTorch allocated on CUDA, in MB; None on CPU, where the process's peak is not the model's."""
    return torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else None
