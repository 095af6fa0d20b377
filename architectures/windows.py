"""Windows of a grid, as in Swin Transformer (Liu et al. 2021, section 3.2): partition, its inverse, and attention masks.

Legend: B images, M window side (Mh Mw if the grid is smaller), Y X number of windows down and across, N = Mh Mw positions in
a window.
"""

import torch
from torch import Tensor


def window_partition(x: Tensor, window: tuple[int, int]) -> Tensor:
    """B (Y Mh) (X Mw) ... -> B Y X Mh Mw ..., a view."""
    return x.unflatten(2, (-1, window[1])).unflatten(1, (-1, window[0])).transpose(2, 3)


def window_reverse(x: Tensor) -> Tensor:
    """B Y X Mh Mw ... -> B (Y Mh) (X Mw) ..."""
    return x.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def relative_position_index(window: tuple[int, int]) -> Tensor:
    """Row of the bias table for each pair of positions in a window, int64 N N: offsets run from -(M-1) to M-1."""
    places = torch.cartesian_prod(*(torch.arange(side) for side in window))  # N 2
    down, across = (places[:, None] - places[None]).unbind(-1)
    return (down + window[0] - 1) * (2 * window[1] - 1) + across + window[1] - 1


def attention_mask(grid: tuple, window: tuple, shift: tuple, mask_padding: bool) -> Tensor | None:
    """Which positions of a window may attend to each other after the cyclic shift: 0 or -inf, (Y X) N N; None if all may.

    A window holds up to four pieces of the image, which the shift brought together from opposite edges (figure 4). A position
    attends only within its piece. With ``mask_padding`` the padding is a separate piece.
    """
    height, width = (side + -side % m for side, m in zip(grid, window))
    if not any(shift) and not (mask_padding and (height, width) != tuple(grid)):
        return None
    wrapped_rows = torch.arange(height) >= height - shift[0]
    wrapped_columns = torch.arange(width) >= width - shift[1]
    piece = 2 * wrapped_rows[:, None].long() + wrapped_columns[None]
    if mask_padding:
        real = (torch.arange(height) < grid[0])[:, None] & (torch.arange(width) < grid[1])[None]
        piece = piece.where(real.roll((-shift[0], -shift[1]), (0, 1)), -1)
    piece = window_partition(piece[None], window).flatten(3).flatten(0, 2)  # (Y X) N
    return torch.zeros(()).where(piece[:, :, None] == piece[:, None], float("-inf"))
