"""Heat maps from a model, a layer and a batch: grad-cam's methods, faster versions of slow ones, LRP, attention rollout.

The layer's layout is taken into account, and every map is checked.

Legend: B images, C channels, h w the layer's grid.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import numpy as np
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget, FinerWeightedTarget
from torch import Tensor, nn

from architectures.kernels import fused_attention
from explanation import methods
from explanation.attention_maps import attention_of
from explanation.automatic import choose
from explanation.layers import MapLayer
from explanation.lrp import relevance
from explanation.masking import ablation_cam, score_cam
from explanation.methods import check_method
from explanation.rollout import attention_rollout, gradient_rollout

ROLLOUT_BATCH = 16  # images whose attention matrices are kept at once

REMEDY = "choose another --layer, or leave out --layer and --method"


@dataclass(frozen=True)
class Options:
    """Options of heat maps besides the method."""

    channels: int | None = None
    """For scorecam, see `masking.score_cam`."""
    patch: tuple[int, int] | None = None
    """For attention, see `attention_maps.attention_of`."""
    context: Callable[[], AbstractContextManager] = nullcontext
    """The context in which the model runs, such as autocast; by default none, for maps in float32."""


DEFAULTS = Options()


def heat_maps(
    model: nn.Module,
    layer: MapLayer | None,
    images: Tensor,
    targets: Sequence[int],
    *,
    method: str = "gradcam",
    options: Options = DEFAULTS,
) -> tuple[np.ndarray, dict[int, str]]:
    """Evidence for one class per image, on the layer's own grid.

    Args:
        model: classifier in float32 and evaluation mode; its parameters are frozen by this call.
        layer: the layer whose output is used; may be None if `methods.uses_layer` is False.
        images: preprocessed float32 B 3 H W, on the model's device.
        targets: the class to explain, one per image.
        method: one of `methods.METHODS`; attention's map is the mean over the heads.
        options: for a few methods, and the precision.
    Returns:
        float32 B h w, raw values, negative evidence set to 0, not rescaled (rollouts: on the grid of the first attention);
        and the faults: position -> why the map is unusable (not finite, blank, constant, or on a grid of one cell).
    Raises:
        ValueError: unknown method; a layer that the gradient of the class score does not reach; a rollout of a model
            without attention.
    """
    check_method(method)
    if method == "auto":
        choice = choose(model)
        method, layer = choice.method, choice.layer
    if options.channels is not None and method != "scorecam":
        raise ValueError(f"the number of channels is an option of scorecam, not of {method}")
    model.requires_grad_(False)
    with fused_attention(model):  # the rollouts switch it off themselves
        if method == "attention":
            maps = _attention(model, layer, images, options)
        elif method in methods.LIBRARY:
            maps = _library_maps(model, layer, images, targets, method, options.context)
        else:
            maps = _own_maps(model, layer, images, targets, method, options)
    maps = np.maximum(maps, 0).astype(np.float32)
    faults = {i: _find_fault(map_) for i, map_ in enumerate(maps)}
    return maps, {i: fault for i, fault in faults.items() if fault}


def _attention(model, layer, images, options) -> np.ndarray:
    parts = images.split(ROLLOUT_BATCH)
    with options.context(), torch.no_grad():
        maps = [attention_of(model, part, layer.name, options.patch).mean(dim=1) for part in parts]
    return torch.cat(maps).cpu().numpy()


def _own_maps(model, layer, images, targets, method, options) -> np.ndarray:
    context = options.context
    if method in ("lrp", "sglrp"):
        return relevance(model, layer, images, targets, method=method, context=context).cpu().numpy()
    if method in ("gradrollout", "lrprollout"):
        parts = zip(images.split(ROLLOUT_BATCH), torch.tensor(list(targets)).split(ROLLOUT_BATCH))
        maps = torch.cat([gradient_rollout(model, part, chosen.tolist(), context=context) for part, chosen in parts])
        if method == "lrprollout":
            factor = relevance(model, layer, images, targets, method=method, context=context).clamp(min=0)
            maps = maps * nn.functional.interpolate(factor[:, None], maps.shape[1:], mode="bilinear")[:, 0]
        return maps.cpu().numpy()
    with torch.no_grad():
        if method == "rollout":
            maps = torch.cat([attention_rollout(model, x, context=context) for x in images.split(ROLLOUT_BATCH)])
        elif method == "scorecam":
            maps = score_cam(model, layer, images, targets, context=context, channels=options.channels)
        else:
            maps = ablation_cam(model, layer, images, targets, context=context)
    return maps.cpu().numpy()


def _library_maps(model, layer, images, targets, method, context) -> np.ndarray:
    place = f"{method} at {layer.name}"
    library_class = getattr(pytorch_grad_cam, methods.LIBRARY[method])
    # A clone, since a layer that works in place (ReLU) may follow.
    to_maps = lambda output: layer.to_maps(output).float().clone()  # noqa: E731
    with layer.module.register_forward_hook(_start_graph):  # before grad-cam's own hooks, which then see its output
        cam = _raw_maps(library_class)(model, [layer.module], reshape_transform=to_maps)
        try:
            with context():
                maps = cam(images, [_class_score(target, method, place) for target in targets])
            if cam.uses_gradients and not cam.activations_and_grads.gradients:
                raise ValueError(f"{place}: no gradient of the class score reaches this layer; {REMEDY}")
        finally:
            cam.activations_and_grads.release()
    return maps


def _class_score(target: int, method: str, place: str) -> Callable[[Tensor], Tensor]:
    """What grad-cam differentiates: logits (K) of one image -> its score."""

    def score(logits: Tensor) -> Tensor:
        if not logits.requires_grad:
            raise ValueError(f"{place}: no gradient of the class score reaches this layer; {REMEDY}, or eigencam")
        if method != "finercam":
            return ClassifierOutputTarget(target)(logits)
        # Finer-CAM (Zhang et al. 2025): the class's score minus those of the (up to three) classes with the closest scores.
        others = (logits - logits[target]).abs().argsort()
        similar = [i for i in others.tolist() if i != target][:3]
        return FinerWeightedTarget(target, similar, alpha=1)(logits)

    return score


def _start_graph(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    """Start the graph at this layer, since no gradient is needed before it; also works on frozen models."""
    return output.detach().requires_grad_().clone()  # the clone may be changed in place


def _raw_maps(method: type) -> type:
    """grad-cam's ``method``, but with its map on the layer's grid instead of rescaled to the image's size."""

    class RawMaps(method):
        def compute_cam_per_layer(self, input_tensor, targets, eigen_smooth):
            activations = self.activations_and_grads.activations[0].numpy()
            gradients = self.activations_and_grads.gradients
            gradient = gradients[0].numpy() if gradients else np.zeros_like(activations)
            return self.get_cam_image(input_tensor, self.target_layers[0], targets, activations, gradient, eigen_smooth)

        def aggregate_multi_layers(self, cam_per_target_layer):
            return cam_per_target_layer

    return RawMaps


def _find_fault(map_: np.ndarray) -> str | None:
    if not np.isfinite(map_).all():
        return "the map has NaN or infinite values (have the weights diverged?)"
    if map_.size == 1:
        return "the grid is 1x1, which locates nothing"
    if map_.max() <= 0:
        return "the map is blank, nothing in it speaks for the class"
    if np.ptp(map_) <= 1e-6 * map_.max():
        return "the map is the same everywhere"
    return None
