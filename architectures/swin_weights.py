"""Convert published Swin weights to the names and sizes of `architectures.swin`."""

import re

from timm.layers import resample_abs_pos_embed, resample_patch_embed, resize_rel_pos_bias_table
from torch import Tensor, nn

# timm's names, and the authors' where they differ.
RENAMED = {r"^head\.fc\.": "head.", r"^absolute_pos_embed$": "pos_embed"}
COMPUTED = ("relative_position_index", "attn_mask")


def convert_weights(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Rename the keys of timm's or the authors' weights; interpolate those for another image, patch or window size."""
    merged_at_end = "layers.0.downsample.reduction.weight" in state  # as the authors do; timm and we merge at the start
    wanted, converted = model.state_dict(), {}
    for key, value in state.items():
        if key.endswith(COMPUTED):
            continue
        for pattern, name in RENAMED.items():
            key = re.sub(pattern, name, key)
        if merged_at_end:
            key = re.sub(r"^layers\.(\d+)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", key)
        if key in wanted and value.shape != wanted[key].shape:
            value = _resize(key, value, wanted[key], model)
        converted[key] = value
    return converted


def _resize(key: str, value: Tensor, wanted: Tensor, model: nn.Module) -> Tensor:
    """Interpolate over positions; a tensor of another width is returned unchanged, and the caller reports it."""
    if key == "patch_embed.proj.weight" and value.shape[:2] == wanted.shape[:2]:
        return resample_patch_embed(value, list(wanted.shape[2:]))
    if key.endswith("relative_position_bias_table") and value.shape[1] == wanted.shape[1]:
        window = model.get_submodule(key.rpartition(".")[0]).window
        return resize_rel_pos_bias_table(value, new_window_size=window, new_bias_shape=tuple(wanted.shape))
    if key == "pos_embed" and value.shape[-1] == wanted.shape[-1]:  # 1 H W C here, 1 (H W) C at the authors'
        old_grid = value.shape[1:3] if value.ndim == 4 else None
        tokens = value.flatten(1, -2)
        return resample_abs_pos_embed(tokens, wanted.shape[1:3], old_grid, num_prefix_tokens=0).view_as(wanted)
    return value
