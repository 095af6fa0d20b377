"""Heat maps from a model, a layer and a batch, through grad-cam, with a layout that is right and a map that is checked.

Legend: B images, C channels, h w the layer's grid.
"""

import difflib
from collections.abc import Callable, Sequence

import numpy as np
import pytorch_grad_cam
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

METHODS = {
    "gradcam": pytorch_grad_cam.GradCAM,
    "hirescam": pytorch_grad_cam.HiResCAM,
    "gradcam++": pytorch_grad_cam.GradCAMPlusPlus,
    "xgradcam": pytorch_grad_cam.XGradCAM,
    "layercam": pytorch_grad_cam.LayerCAM,
    "eigencam": pytorch_grad_cam.EigenCAM,
    "eigengradcam": pytorch_grad_cam.EigenGradCAM,
}

REMEDY = "choose another --layer (for transformers the last block's norm1) or a --method such as layercam"


def check_method(method: str) -> None:
    """Raise ValueError, with the nearest names, for a method that does not exist."""
    if method not in METHODS:
        nearest = difflib.get_close_matches(method.lower(), METHODS, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise ValueError(f"--method {method}: unknown; {hint}known: {', '.join(METHODS)}")


def heat_maps(
    model: nn.Module,
    layer: nn.Module,
    to_maps: Callable[[Tensor], Tensor],
    images: Tensor,
    targets: Sequence[int],
    *,
    method: str = "gradcam",
    layer_name: str = "the layer",
    faults: dict[int, str] | None = None,
) -> np.ndarray:
    """Evidence for one class per image, on the layer's own grid.

    Args:
        model: classifier in float32 and evaluation mode; its parameters are frozen by this call.
        layer: module of the model whose output is looked at.
        to_maps: brings that output to B C h w.
        images: preprocessed float32 B 3 H W, on the model's device.
        targets: the class to explain, one per image.
        method: a key of METHODS.
        layer_name: for messages.
        faults: collects what is wrong with which image's map, instead of the error that it otherwise is.
    Returns:
        float32 B h w, raw values, negative evidence cut to 0; not rescaled.
    Raises:
        ValueError: unknown method; a map without gradient, not finite, blank, or the same everywhere.
    """
    check_method(method)
    model.requires_grad_(False)
    start = layer.register_forward_hook(_start_graph)  # before grad-cam's own hooks, which then see its output
    cam = _raw_maps(METHODS[method])(model, [layer], reshape_transform=lambda x: to_maps(x).float())
    try:
        maps = cam(images, [ClassifierOutputTarget(target) for target in targets])
        if cam.uses_gradients and not cam.activations_and_grads.gradients:
            raise ValueError(f"{method} at {layer_name}: no gradient of the class score reaches this layer")
    finally:
        cam.activations_and_grads.release()
        start.remove()
    maps = np.maximum(maps, 0).astype(np.float32)
    for i, map_ in enumerate(maps):
        fault = _find_fault(map_)
        if fault and faults is None:
            raise ValueError(f"{method} at {layer_name}: {fault}; {REMEDY}")
        if fault:
            faults[i] = fault
    return maps


def map_statistics(map_: np.ndarray) -> dict[str, float]:
    """Smallest, largest, mean value and standard deviation of one map."""
    return {"min": map_.min(), "max": map_.max(), "mean": map_.mean(), "std": map_.std()}


def _start_graph(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    """The gradient is needed from the layer on only: cut the graph in front of it. Works on frozen models, too."""
    return output.detach().requires_grad_()


def _raw_maps(method: type) -> type:
    """grad-cam's ``method``, ending in its map on the layer's grid instead of a rescaled picture-sized one."""

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
