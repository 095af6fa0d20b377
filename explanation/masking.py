"""CAMs whose channel weights are measured instead of differentiated: the class score with only one channel, or without it.

One forward pass per channel, in batches; only the class score of each masked pass is kept.

Legend: B images, C channels, h w the layer's grid, H W pixels, K classes.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from explanation.layers import MapLayer

BATCH = {"cpu": 16, "cuda": 128}  # masked images in one pass


def score_cam(
    model: nn.Module,
    layer: MapLayer,
    images: Tensor,
    targets: Sequence[int],
    *,
    context: Callable[[], AbstractContextManager],
    channels: int | None = None,
) -> Tensor:
    """Score-CAM (Wang et al. 2020): channels weighted by the class score of the image seen through them; B h w.

    Masks are stretched to the image with corners aligned and scaled to [0, 1], weights are the softmax of the logits: as
    grad-cam does it.

    Args:
        context: creates the context of the masked passes, such as autocast; the channels keep the model's precision.
        channels: measure only this many channels of each image, those that vary most over the grid; the others get the
            mean of the measured scores. This is faster, but the map is different.
    """
    activations = _activations(model, layer, images)  # B C h w
    maps = []
    for image, activation, target in zip(images, activations, targets):
        strongest = activation.flatten(1).std(dim=1).argsort(descending=True)[:channels]
        scores = []
        for part in activation[strongest].split(BATCH[images.device.type]):
            masks = F.interpolate(part[None], image.shape[1:], mode="bilinear", align_corners=True)[0]  # n H W
            low, high = masks.amin(dim=(1, 2), keepdim=True), masks.amax(dim=(1, 2), keepdim=True)
            masks = (masks - low) / (high - low + 1e-8)
            with context():
                logits = model(image * masks[:, None])
            scores.append(logits[:, target].float())
        scores = torch.cat(scores)
        all_scores = scores.mean().repeat(len(activation)).index_copy(0, strongest, scores)
        maps.append(torch.einsum("c,chw->hw", all_scores.softmax(0), activation))
    return torch.stack(maps)


def ablation_cam(
    model: nn.Module,
    layer: MapLayer,
    images: Tensor,
    targets: Sequence[int],
    *,
    context: Callable[[], AbstractContextManager],
) -> Tensor:
    """Ablation-CAM (Ramaswamy and Desai 2020, equation 3): channels weighted by what the score loses without them; B h w.

    An ablated channel is 0 everywhere, as in the paper, and the loss is relative to the size of the score, whatever its
    sign. (grad-cam sets channels of layers without ReLU to -10^7 instead, and flips the map where a score is negative.)
    """
    activations = _activations(model, layer, images)  # B C h w
    maps = []
    for image, activation, target in zip(images, activations, targets):
        scores = []
        for part in torch.arange(-1, len(activation), device=images.device).split(BATCH[images.device.type]):
            with context(), _without_channels(layer, part):
                logits = model(image.expand(len(part), -1, -1, -1))
            scores.append(logits[:, target].float())
        original, *_ = scores = torch.cat(scores)
        maps.append(torch.einsum("c,chw->hw", (original - scores[1:]) / original.abs(), activation))
    return torch.stack(maps)


def _activations(model: nn.Module, layer: MapLayer, images: Tensor) -> Tensor:
    kept = []

    def keep(module, args, output):
        kept.append(layer.to_maps(output).float().clone())

    with layer.module.register_forward_hook(keep):
        model(images)
    return kept[0]


@contextmanager
def _without_channels(layer: MapLayer, channels: Tensor):
    """Set channel ``channels[i]`` of the layer to 0 for the i-th image of a batch; -1 leaves the image unchanged."""

    def ablate(module, args, output):
        output = output.clone()
        maps = layer.to_maps(output)  # a view
        for i, channel in enumerate(channels.tolist()):
            if channel >= 0:
                maps[i, channel] = 0
        return output

    with layer.module.register_forward_hook(ablate):
        yield
