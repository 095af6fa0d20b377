"""Estimates on paper: what training on ImageNet-1k and ImageNet-21k would ask of a machine, on 1, 8 and 64 GPUs.

    python -m benchmarks.scaling --photos-per-core 62 --tflops 800 --utilisation 0.5

Nothing here is measured: every number follows from the arguments (whose defaults are stated below) and from the models'
sizes. Replace them by what `benchmarks.photos` and `benchmarks.throughput` say of your machine.

- images per second of a GPU: utilisation x TFLOP/s / (6 x GMACs): 2 FLOPs a MAC, training three times the forward pass.
- cores for decoding: images per second / photos per core-second. Storage: images per second x bytes a photo.
- gradients: 4 bytes a parameter, sent and received about twice by a ring; against the link, per step. The batch is
  `--batch-size` images a GPU. Exchange overlaps with the backward pass, so that a share well below 1 costs little.
- memory: weights, gradients and the two states of AdamW at 4 bytes each, and activations in bf16: 34 values a token and layer
  of width C, as Korthikanti et al. 2022 count bytes, equation 1, without the attention matrix, which is never stored; with
  checkpointing one such layer and 2 bytes of input for every other one.
"""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Model:
    name: str
    params: float  # M
    gmacs: float
    layers: tuple[tuple[int, int, int], ...]  # blocks, tokens, width of each stage


MODELS = (
    Model("ViT-B/16", 86.6, 17.58, ((12, 197, 768),)),
    Model("Swin-B", 87.8, 15.47, ((2, 3136, 128), (2, 784, 256), (18, 196, 512), (2, 49, 1024))),
)
DATASETS = {"ImageNet-1k": (1.281e6, 110e3), "ImageNet-21k": (14.2e6, 100e3)}  # photos, bytes each
GPUS = (1, 8, 64)
LAYER_BYTES = 34


def activations(model: Model, *, checkpointed: bool) -> float:
    """Bytes an image."""
    per_block = [(blocks, tokens * width) for blocks, tokens, width in model.layers]
    if not checkpointed:
        return sum(blocks * LAYER_BYTES * size for blocks, size in per_block)
    return sum(blocks * 2 * size for blocks, size in per_block) + max(LAYER_BYTES * size for _, size in per_block)


def estimate(model: Model, dataset: str, gpus: int, args: argparse.Namespace) -> dict[str, float]:
    """What one epoch, and ``args.epochs`` of them, take."""
    photos, size = DATASETS[dataset]
    per_gpu = args.utilisation * args.tflops * 1e12 / (6 * model.gmacs * 1e9)
    rate = gpus * per_gpu
    states = 16 * model.params * 1e6
    step = args.batch_size / per_gpu
    exchange = 2 * 4 * model.params * 1e6 * (gpus - 1) / gpus / (args.link * 1e9)
    return {
        "images/s": rate,
        "cores to decode": rate / args.photos_per_core,
        "storage, MB/s": rate * size / 1e6,
        "gradients, MB a step": 4 * model.params,
        "exchange / step": exchange / step,
        "memory, GB": (states + args.batch_size * activations(model, checkpointed=False)) / 1e9,
        "checkpointed, GB": (states + args.batch_size * activations(model, checkpointed=True)) / 1e9,
        "hours": args.epochs * photos / rate / 3600,
    }


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos-per-core", type=float, default=100, help="decoded and resized per CPU-second")
    parser.add_argument("--tflops", type=float, default=800, help="bf16 matrix rate of a GPU")
    parser.add_argument("--utilisation", type=float, default=0.5, help="share of it that training reaches")
    parser.add_argument("--link", type=float, default=25, help="between machines or GPUs, GB/s each way")
    parser.add_argument("--batch-size", type=int, default=256, help="images a GPU and step")
    parser.add_argument("--epochs", type=int, default=300)
    args = parser.parse_args(argv)
    print(f"Estimates, not measurements: {vars(args)}\n")
    header = ["model", "data", "GPUs", *estimate(MODELS[0], "ImageNet-1k", 1, args)]
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for model in MODELS:
        for dataset in DATASETS:
            for gpus in GPUS:
                values = estimate(model, dataset, gpus, args).values()
                cells = [f"{value:,.0f}" if value >= 100 else f"{value:.2g}" for value in values]
                print("| " + " | ".join([model.name, dataset, str(gpus), *cells]) + " |")


if __name__ == "__main__":
    main()
