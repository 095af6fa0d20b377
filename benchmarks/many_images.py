"""What a folder with very many photos costs before the first step: seconds, and bytes per image, in every process.

    python -m benchmarks.many_images --counts 10000 100000 1000000

The files are mocked: their names are made up, they are not looked up on disk, and reading one gives the same small picture.
Everything else is what train.py does: names and labels, the index of files, splits, an epoch's order and crops, workers that
read. The time that a disk takes to list files, and a processor to decode them, is not included. Each count runs in a process
of its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch
from PIL import Image

from common.config import DataConfig
from data import load_dataset
from images import files, index, sources

CLASSES = 100


def private_bytes(process: int | str) -> int:
    """Memory that a process shares with no other."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def measure(count: int) -> dict[str, float]:
    """Seconds and bytes of ``count`` photos in this process and its workers."""
    picture = Image.new("RGB", (64, 48))

    def walk(folder, left_out):
        return (f"{folder}/{Path(folder).name}_{i:08}.JPEG" for i in range(count // CLASSES))

    def decode(paths, missing, num_workers):
        for start in range(0, len(missing), 64):
            numbers = range(start, min(start + 64, len(missing)))
            yield [(i.to_bytes(index.DIGEST_BYTES, "little"), 48, 64) for i in numbers]

    mocks = [
        mock.patch.object(files, "_walk", walk),
        mock.patch.object(index, "_decode", decode),
        mock.patch.object(index, "_key", lambda path, start: hash(path) & (2**63 - 1) | 1),
        mock.patch.object(sources, "open_image", return_value=picture),
    ]
    with tempfile.TemporaryDirectory() as root, mock.patch.dict("os.environ", {"VIT_VS_SWIN_CACHE": f"{root}/cache"}):
        for i in range(CLASSES):
            Path(root, "photos", f"n{i:08}").mkdir(parents=True)
        for one in mocks:
            one.start()
        cfg = DataConfig(dataset="imagefolder", root=f"{root}/photos", image_size=32, residency="stream", num_workers=2)
        cfg = cfg.model_copy(update={"augment": cfg.augment.model_copy(update={"scale": (0.35, 1.0)})})
        before, start = private_bytes("self"), time.perf_counter()
        peak_before, cpu = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        split = load_dataset(cfg, seed=0).train
        batches = split.batches(256, torch.device("cpu"), torch.Generator().manual_seed(0))
        next(batches)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        peak = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before)
        held = private_bytes("self") - before
        workers = [private_bytes(worker.pid) for worker in split._reader._loader._iterator._workers]
        batches.close()
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_bytes_an_image": peak / count,
        "held_bytes_an_image": held / count,
        "worker_mb": max(workers) / 1e6,
    }


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="photos")
    parser.add_argument("--here", action="store_true", help="measure in this process, which the others are started as")
    args = parser.parse_args(argv)
    if args.here:
        print(json.dumps(measure(args.counts[0])))
        return
    print(
        "| photos | CPU-seconds to the first batch | peak, bytes an image | held, bytes an image | a worker's own, MB |"
    )
    print("|---|---|---|---|---|")
    for count in args.counts:
        command = [sys.executable, "-m", "benchmarks.many_images", "--here", "--counts", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        print(
            f"| {count:,} | {row['cpu_seconds']:.2f} | {row['peak_bytes_an_image']:.0f} | "
            f"{row['held_bytes_an_image']:.0f} | {row['worker_mb']:.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
