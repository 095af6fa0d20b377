"""How a layer's output corresponds to places of the image: its layout, and a test of it.

Legend: B images, C channels, h w the layer's grid, N = h w tokens, p tokens in front of them, H W the image.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models import input_spec

REGIONS = (2, 3)
"""Rows and columns of the image that the place test changes one after the other."""


@dataclass(frozen=True)
class Layout:
    """How an output corresponds to the image."""

    grid: tuple[int, int]
    axis: int
    """Axis of the channels: 1, or -1 for the last."""
    prefix: int = 0
    """Number of class and register tokens before the patches; only for outputs of tokens."""

    def to_maps(self, output: Tensor) -> Tensor:
        """B C h w, as a view."""
        if output.ndim == 4:
            return output if self.axis == 1 else output.permute(0, 3, 1, 2)  # B h w C -> B C h w
        tokens = output if self.axis == 1 else output.transpose(1, 2)  # B N C -> B C N
        return tokens[..., self.prefix :].unflatten(2, self.grid)


def find_layout(model: nn.Module, name: str, shape: Sequence[int] | None) -> Layout | None:
    """The layout of an output of this shape, for one image; None if it is not a map over the image.

    The axis of the channels follows from the layer's own weights (norms, convolutions, linear layers), else from which other
    axes have the shape of the image, else from what the model states. A grid must have the image's aspect ratio, in cells.
    """
    if shape is None or len(shape) not in (3, 4) or shape[0] != 1 or is_inside_attention(model, name):
        return None
    size = input_spec(model).size
    axis = _channel_axis(model.get_submodule(name))
    says = -1 if getattr(model, "output_fmt", "NCHW") == "NHWC" else 1
    axes = [axis] if axis else [says, -says] if len(shape) == 4 else [-1, 1]
    if len(shape) == 4:
        grids = {axis: tuple(shape[2:] if axis == 1 else shape[1:3]) for axis in axes}
        return next((Layout(grids[axis], axis) for axis in axes if _fits(grids[axis], _cells(model, size))), None)
    for axis in axes:  # tokens
        length = shape[1 if axis == -1 else 2]
        for prefix in dict.fromkeys((0, getattr(model, "num_prefix_tokens", 0), 1, 2)):
            grid = _grid_of(length - prefix, model, name)
            if grid:
                return Layout(grid, axis, prefix)
    return None


def _grid_of(count: int, model: nn.Module, name: str) -> tuple[int, int] | None:
    """The grid for this number of tokens: the one that the model states, or one with the image's aspect ratio."""
    parents = [model.get_submodule(parent) for parent in _ancestors(name)]
    stated = [getattr(parent, "input_resolution", None) for parent in reversed(parents)]
    stated.append(getattr(getattr(model, "patch_embed", None), "grid_size", None))
    for grid in stated:
        if grid and grid[0] * grid[1] == count:
            return tuple(grid)
    cells = _cells(model, input_spec(model).size)
    near = round((max(count, 1) * cells[0] / cells[1]) ** 0.5)
    for rows in (near, near + 1, near - 1):
        if rows > 0 and count > 0 and count % rows == 0 and _fits((rows, count // rows), cells):
            return rows, count // rows
    return None


def _fits(grid: Sequence[int], size: Sequence[float]) -> bool:
    """Whether one stride, rounded alike in height and width, makes this grid of an image."""
    (rows, columns), (height, width) = grid, size
    if rows > height or columns > width:
        return False
    if rows * width == columns * height:
        return True
    down = (height / (rows + 1), height / rows, width / (columns + 1), width / columns)
    up = (height / rows, height / max(rows - 1, 1e-9), width / columns, width / max(columns - 1, 1e-9))
    if max(down[0], down[2]) < min(down[1], down[3]) or max(up[0], up[2]) < min(up[1], up[3]):
        return True
    # Convolutions without padding lose cells at the edges, of both sides as many.
    return height != width and abs(rows * width - columns * height) <= max(height, width)


def _cells(model: nn.Module, size: tuple[int, int]) -> tuple[float, float]:
    """The image's height and width in units of a patch, which need not be square."""
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if isinstance(patch, (tuple, list)) and len(patch) == 2 and patch[0] != patch[1]:
        return size[0] / patch[0], size[1] / patch[1]
    return size


def _channel_axis(module: nn.Module) -> int | None:
    """The channel axis of the module's output according to its weights; None for a container."""
    if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm)) or type(module).__name__.endswith("Norm2d"):
        return 1
    weight = getattr(module, "weight", None)
    if isinstance(module, (nn.LayerNorm, nn.Linear)) or ("Norm" in type(module).__name__ and weight is not None):
        return -1
    return None


def is_inside_attention(model: nn.Module, name: str) -> bool:
    """Whether a module is part of an attention layer, where axes are heads, windows or shifted grids."""
    return any(hasattr(model.get_submodule(parent), "qkv") for parent in _ancestors(name))


def _ancestors(name: str) -> list[str]:
    """The parents of ``a.b.c``: the model itself, ``a``, ``a.b``."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(len(parts))]


@contextmanager
def watch_outputs(
    model: nn.Module, modules: dict[str, nn.Module], see: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """The model in evaluation mode, ``see(name, output)`` called for each of the modules that runs."""

    def hook_of(name):
        return lambda module, args, output: see(name, output) if isinstance(output, Tensor) else None

    training = model.training
    with ExitStack() as hooks:
        hooks.callback(model.train, training)
        for name, module in modules.items():
            if name:
                hooks.enter_context(module.register_forward_hook(hook_of(name)))
        model.eval()
        yield


@dataclass(frozen=True)
class Placement:
    """The result of the place test for a layer."""

    share: float
    """Share of the cells that change most when their own region of the image changes."""
    contrast: float
    """Median over cells: the change caused by the most effective region, over the mean of all regions (1: all equal)."""

    @property
    def verdict(self) -> str:
        """right; wrong (cells respond to single regions other than their own); mixed (to all regions alike: no evidence)."""
        if self.share >= 0.5:
            return "right"
        return "wrong" if self.contrast >= 1.5 else "mixed"


def place_test(model: nn.Module, layouts: dict[str, Layout]) -> dict[str, Placement]:
    """The place test: six regions of an image are changed one after the other; each must change the cells at its place most.

    One forward pass of seven noise images, for all layers at once. Layers that the pass does not reach, or whose output never
    changes, are left out.
    """
    placements = {}
    for name, moved in _changes(model, layouts).items():
        alive = moved.sum(0) > 0
        if alive.any():
            contrast = (moved.amax(0) / moved.mean(0))[alive].median().item()
            placements[name] = Placement(_own_share(moved), contrast)
    return placements


def _own_share(moved: Tensor) -> float:
    """Share of the cells with any change (R h w) that change most with a region that overlaps them.

    Strides may shift a grid by half a cell against the image, so the best of such shifts counts.
    """
    (rows, columns), (_, height, width) = REGIONS, moved.shape
    strongest, alive = moved.argmax(0), moved.sum(0) > 0
    row, column = strongest // columns, strongest % columns
    shares = []
    for down in (0, 0.5, -0.5):
        y = (torch.arange(height, device=moved.device)[:, None] + down) * rows / height
        for across in (0, 0.5, -0.5):
            x = (torch.arange(width, device=moved.device) + across) * columns / width
            vertical = (y < row + 1) & (y + rows / height > row)
            overlaps = vertical & (x < column + 1) & (x + columns / width > column)
            shares.append(overlaps[alive].float().mean().item())
    return max(shares)


def _changes(model: nn.Module, layouts: dict[str, Layout]) -> dict[str, Tensor]:
    """Layer -> how much each cell changes (R h w, summed over channels) when one of the R regions of an image changes."""
    (height, width), (rows, columns) = input_spec(model).size, REGIONS
    generator = torch.Generator().manual_seed(0)
    image, other = torch.randn(2, 3, height, width, generator=generator)
    images = image.repeat(1 + rows * columns, 1, 1, 1)
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        down = slice(round(row * height / rows), round((row + 1) * height / rows))
        across = slice(round(column * width / columns), round((column + 1) * width / columns))
        images[i + 1, :, down, across] = other[:, down, across]
    result: dict[str, Tensor] = {}

    def see(name, output):
        if len(output) == len(images):
            maps = layouts[name].to_maps(output).float()
            result[name] = (maps[1:] - maps[:1]).abs().sum(1)

    modules = {name: model.get_submodule(name) for name in layouts}
    with watch_outputs(model, modules, see), torch.no_grad():
        model(images.to(next(model.parameters()).device))
    return result
