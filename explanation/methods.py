"""The names of the heat-map methods; light, so that arguments are checked before anything heavy is imported."""

from common.console import did_you_mean

LIBRARY = {
    "gradcam": "GradCAM",
    "hirescam": "HiResCAM",
    "gradcam++": "GradCAMPlusPlus",
    "xgradcam": "XGradCAM",
    "layercam": "LayerCAM",
    "gradcamelementwise": "GradCAMElementWise",
    "finercam": "GradCAM",  # of another target, see attribution._class_score
    "eigencam": "EigenCAM",
    "eigengradcam": "EigenGradCAM",
    "fem": "FEM",
}
"""Ours -> the class's name in pytorch_grad_cam."""
ROLLOUTS = ("rollout", "gradrollout")
METHODS = ("auto", *LIBRARY, "lrp", "sglrp", "lrprollout", "scorecam", "ablationcam", *ROLLOUTS, "attention")
"""auto: method and layer by the architecture, see automatic.choose."""

CLASSLESS = ("eigencam", "fem", "rollout", "attention")
"""Methods whose maps are the same for every class."""


def check_method(method: str) -> None:
    """Raise ValueError, with the nearest name, for a method that does not exist."""
    if method not in METHODS:
        raise ValueError(
            f"--method {method} is unknown{did_you_mean(method.lower(), METHODS)}; known: {', '.join(METHODS)}"
        )


def uses_layer(method: str) -> bool:
    """Whether a layer can be given: the rollouts use all attention layers, and auto chooses its own."""
    check_method(method)
    return method not in ("auto", *ROLLOUTS)
