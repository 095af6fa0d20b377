"""The device, the precision, and settings that make computations fast on it."""

import ctypes
import os
import sys

import torch

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def select_device(name: str | None) -> torch.device:
    """The device called ``cpu``, ``cuda`` or ``cuda:N``; None: CUDA if available, else the CPU.

    Raises ValueError for another name, and for a CUDA device that this machine lacks.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name}: should be cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: only cpu and cuda are supported")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"--device {name}: no CUDA device is available here; use --device cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: this machine has CUDA devices 0 to {torch.cuda.device_count() - 1}")
    return device


def select_precision(amp: str, device: torch.device) -> str:
    """Resolve ``train.amp`` to bf16, fp16 or fp32.

    ``auto`` is bf16 where the hardware multiplies bf16 (CUDA compute capability 8.0; CPUs with AVX512-BF16 or AMX), else
    fp16 on CUDA and fp32 on CPU. Raises ValueError for fp16 on CPU.
    """
    if amp == "fp16" and device.type == "cpu":
        raise ValueError("train.amp = 'fp16' needs CUDA; on CPU use bf16, fp32 or auto")
    if amp != "auto":
        return amp
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp16"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which forward passes run; does nothing for fp32."""
    return torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")


def should_compile(setting: bool | str, device: torch.device, *, num_images: int) -> bool:
    """Whether ``torch.compile`` pays: on CUDA, for runs of at least 1.5 million images.

    Compiling takes about a minute, as long as 3.6 epochs of ViT-B/16 on a fast GPU, and makes ViT 1.1 to 1.2 and Swin 1.6
    to 1.8 times as fast; on CPU it takes 10 to 45 s and gains little.
    """
    if setting == "auto":
        return device.type == "cuda" and num_images >= 1.5e6
    return setting


def choose_kernels(precision: str, *, deterministic: bool) -> None:
    """Let CUDA use its fastest kernels that are precise enough for ``precision``.

    With bf16 or fp16 the remaining fp32 products may use TF32, which is at least as precise as either; with fp32 they may
    not. cuDNN tries its algorithms once for each shape, unless results must repeat bit for bit.
    """
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.backends.cudnn.benchmark = not deterministic


def set_deterministic() -> None:
    """Make CUDA repeat bit for bit (CPU does anyway)."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def keep_freed_memory() -> None:
    """Let glibc keep large freed blocks for the next step instead of returning them to the system.

    Every step allocates the same activations; without this, the system has to zero new pages for them each time.
    """
    if sys.platform.startswith("linux"):
        try:
            libc = ctypes.CDLL("libc.so.6")
        except OSError:  # another C library
            return
        m_trim_threshold, m_mmap_threshold = -1, -3  # malloc.h
        libc.mallopt(m_mmap_threshold, 1 << 30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
