"""What global and window attention cost as the image grows: counted and timed, beside the two formulas of the Swin paper.

    python -m benchmarks.attention_complexity                 # one layer of Swin-T's first stage, 112 to 896 px

For H W tokens of width C and windows of side M (Liu et al. 2021, equations 1 and 2), in multiply-accumulates:
    global   4 H W C^2 + 2 (H W)^2 C
    window   4 H W C^2 + 2 M^2 H W C
Counted by PyTorch's FlopCounterMode from the operators that the layer runs (on the meta device, with its attention matrix in
the open), timed in inference with one image and the fused kernel. Neither layer adds a position bias, which the formulas do not
count either. The exponents are slopes of least-squares lines through log cost over log area.
Writes the numbers and a figure, by default outputs/attention_complexity.json and .png.
"""

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from architectures.swin import WindowAttention
from common.devices import autocast, keep_freed_memory, select_device, select_precision
from common.plotting import BLUE, ORANGE, PLAIN_TICKS, TICK_SIZE, new_figure, tidy
from common.runs import Folder
from evaluation.cost import measure_latency

KINDS = {"global": ORANGE, "window": BLUE}


def formula(kind: str, side: int, dim: int, window: int) -> int:
    """Multiply-accumulates of one layer on side x side tokens."""
    tokens = side**2
    reach = tokens if kind == "global" else window**2  # places that a place attends to
    return 4 * tokens * dim**2 + 2 * reach * tokens * dim


def make_layer(kind: str, side: int, dim: int, num_heads: int, window: int) -> WindowAttention:
    cut = side if kind == "global" else window
    switches = dict(shift=(0, 0), relative_position_bias=False, mask_padding=True)
    return WindowAttention(dim, num_heads, grid=(side, side), window=(cut, cut), **switches).eval()


def count_macs(layer: WindowAttention, side: int) -> int:
    """Multiply-accumulates that the layer runs for one image; on the meta device, where no size is too large."""
    layer = copy.deepcopy(layer).to("meta")
    layer.fused_attn = False
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        layer(torch.empty(1, side, side, layer.proj.in_features, device="meta"))
    return counter.get_total_flops() // 2


def exponent(areas: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log cost over log area."""
    return float(np.polyfit(np.log(areas), np.log(costs), 1)[0])


def measure(args: argparse.Namespace, device: torch.device, precision: str) -> dict[str, list[dict]]:
    results = {kind: [] for kind in KINDS}
    for pixels in args.sides:
        side = pixels // args.patch_size
        for kind, rows in results.items():
            layer = make_layer(kind, side, args.dim, args.num_heads, args.window_size)
            tokens = torch.randn(1, side, side, args.dim, device=device)
            times = measure_latency(
                layer.to(device), tokens, context=lambda: autocast(device, precision), seconds=args.seconds
            )
            row = {"image_side": pixels, "area": pixels**2, "macs": count_macs(layer, side)}
            row |= {"formula": formula(kind, side, args.dim, args.window_size), "milliseconds": times["median"]}
            rows.append(row)
            print(f"{pixels:4} px  {kind}  counted {row['macs'] / 1e9:9.3f} GMACs  formula {row['formula'] / 1e9:9.3f} GMACs  "
                  f"{row['milliseconds']:9.2f} ms", flush=True)  # fmt: skip
    return results


def draw(results: dict[str, list[dict]], exponents: dict, title: str) -> Figure:
    figure = new_figure(9, 3.6, title)
    for axes, key, label in zip(
        figure.subplots(1, 2), ("macs", "milliseconds"), ("multiply-accumulates", "milliseconds"), strict=True
    ):
        for kind, rows in results.items():
            sides = [row["image_side"] for row in rows]
            name = f"{kind}: area^{exponents[kind][key]:.2f}"
            style = "o" if key == "macs" else "o:"
            axes.plot(
                sides, [row[key] for row in rows], style, color=KINDS[kind], markersize=5, linewidth=1, label=name
            )
            if key == "macs":
                formulas = [row["formula"] for row in rows]
                axes.plot(sides, formulas, "-", color=KINDS[kind], linewidth=1, label=f"{kind}: formula")
        axes.set(xscale="log", yscale="log", xlabel="image side (pixels)", ylabel=label)
        axes.set_xticks(sides, [str(side) for side in sides], rotation=45)
        axes.yaxis.set_major_formatter(PLAIN_TICKS)
        axes.minorticks_off()
        axes.legend(loc="upper left", frameon=False, fontsize=TICK_SIZE)
        tidy(axes)
    return figure


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=list(range(112, 897, 112)), help="of the image, pixels")
    parser.add_argument("--patch-size", type=int, default=4)
    parser.add_argument("--dim", type=int, default=96, help="C")
    parser.add_argument("--num-heads", type=int, default=3)
    parser.add_argument("--window-size", type=int, default=7, help="M")
    parser.add_argument("--seconds", type=float, default=1, help="of timing, each; at least seven passes are run")
    parser.add_argument("--amp", default="auto", choices=("auto", "bf16", "fp16", "fp32"))
    parser.add_argument("--device")
    parser.add_argument("--output", type=Path, default=Path("outputs/attention_complexity"), help="without suffix")
    args = parser.parse_args(argv)
    device = select_device(args.device)
    precision = select_precision(args.amp, device)
    keep_freed_memory()
    results = measure(args, device, precision)
    exponents = {
        kind: {key: exponent([r["area"] for r in rows], [r[key] for r in rows]) for key in ("macs", "milliseconds")}
        for kind, rows in results.items()
    }
    for kind, slopes in exponents.items():
        print(f"{kind} attention grows as area^{slopes['macs']:.2f} in MACs, area^{slopes['milliseconds']:.2f} in time")
    worst = max(abs(row["macs"] / row["formula"] - 1) for rows in results.values() for row in rows)
    print(f"counted and formula differ by at most {worst:.2%}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU (threads: {torch.get_num_threads()})"
    title = f"One attention layer, {args.dim} channels, windows of {args.window_size}: {name}, {precision}"
    folder = Folder(args.output.parent)
    values = {"device": name, "precision": precision, "exponents": exponents, "measured": results}
    print(f"wrote {folder.save_json(f'{args.output.name}.json', values)}")
    print(f"wrote {folder.save_figure(f'{args.output.name}.png', draw(results, exponents, title))}")


if __name__ == "__main__":
    main()
