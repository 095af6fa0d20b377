"""Optimizer, learning-rate schedule, loss, and mixup."""

import inspect
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.optim import create_optimizer_v2, get_optimizer_class, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from common.config import Config, TrainConfig
from common.console import did_you_mean

FUSED = ("adam", "adamw")
"""Optimizers of torch with a fused version, which updates all weights in one kernel, on CUDA and on CPU."""

OWN_KEYS = ("opt", "lr", "weight_decay", "layer_decay")
OF_GROUPS = ("filter_bias_and_bn", "layer_decay_min_scale")
"""Arguments of `create_optimizer_v2` besides those of the optimizer itself."""


def create_optimizer(model: nn.Module, config: Config) -> torch.optim.Optimizer:
    """timm's optimizer ``train.opt``, in torch's fused version if there is one.

    Biases, norms, and parameters in the model's ``no_weight_decay`` (positions, relative-position tables) get no weight
    decay; ``layer_decay`` scales the learning rate by depth. Raises ValueError for an unknown name, and for ``opt_kwargs``
    that the optimizer does not take.
    """
    cfg = config.train
    if cfg.opt not in list_optimizers():
        hint = did_you_mean(cfg.opt, list_optimizers(), count=3) or "; the usual one is adamw"
        raise ValueError(f"train.opt = {cfg.opt!r} is no optimizer of timm{hint}")
    fused = {"fused": True} if cfg.opt in FUSED else {}
    try:
        optimizer = create_optimizer_v2(
            model,
            opt=cfg.opt,
            lr=config.learning_rate,
            weight_decay=cfg.weight_decay,
            layer_decay=cfg.layer_decay,
            **(fused | cfg.opt_kwargs),
        )
    except (AssertionError, AttributeError, ImportError, LookupError, RuntimeError, TypeError, ValueError) as error:
        what = (str(error).splitlines() or [""])[0]
        if cfg.opt_kwargs and _can_be_made(model, config):
            _check_names(cfg)
            raise ValueError(
                f"train.opt_kwargs = {cfg.opt_kwargs}: {cfg.opt} does not take such values ({what})"
            ) from None
        raise ValueError(
            f"train.opt = {cfg.opt!r} cannot be made here ({type(error).__name__}: {what}); the usual one is adamw"
        ) from None
    _check_names(cfg)
    return optimizer


def _check_names(cfg: TrainConfig) -> None:
    """Raise ValueError for ``opt_kwargs`` that timm would silently ignore, such as momentum for adamw."""
    taken = inspect.signature(get_optimizer_class(cfg.opt, bind_defaults=False)).parameters
    names = [*(name for name in taken if name not in ("params", *OWN_KEYS)), *OF_GROUPS]
    for name in cfg.opt_kwargs:
        if name in OWN_KEYS:
            raise ValueError(f"train.opt_kwargs: {name} has a key of its own; set train.{name}")
        if name not in names:
            raise ValueError(f"train.opt_kwargs: {cfg.opt} does not take {name!r}; it takes {', '.join(names)}")


def _can_be_made(model: nn.Module, config: Config) -> bool:
    """Whether the optimizer can be made without ``opt_kwargs``, so that these are to blame."""
    try:
        create_optimizer(model, config.model_copy(update={"train": config.train.model_copy(update={"opt_kwargs": {}})}))
    except ValueError:
        return False
    return True


def create_scheduler(optimizer: torch.optim.Optimizer, config: Config, *, steps_per_epoch: int) -> Scheduler:
    """Linear warmup, then half a cosine (or a constant); call ``step_update(step)`` before each step."""
    cfg, lr = config.train, config.learning_rate
    warmup = min(cfg.warmup_epochs, cfg.epochs / 2)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=cfg.epochs - warmup,  # timm counts these without the warmup if warmup_prefix is set
        warmup_epochs=warmup,
        warmup_prefix=True,
        warmup_lr=min(cfg.warmup_lr, lr),
        min_lr=lr if cfg.sched == "constant" else cfg.min_lr,  # a cosine between equal ends is constant
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )
    return scheduler


class WeightedLoss(nn.Module):
    """Cross-entropy with a weight for each class; the sum is divided by the number of images, not by the weights."""

    def __init__(self, weights: Tensor, smoothing: float):
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("weights", weights)  # float K

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits B K; targets int64 B, or float B K with the share of each class -> a scalar."""
        loss = F.cross_entropy(logits, targets, self.weights, label_smoothing=self.smoothing, reduction="sum")
        return loss / len(logits)


def create_loss(cfg: TrainConfig, labels: Tensor, class_names: Sequence[str]) -> nn.Module:
    """Cross-entropy with label smoothing, weighted by class if ``train.class_weights`` says so.

    ``labels``: int64 N, of the training images. Raises ValueError for a weight of an unknown class.
    """
    if cfg.class_weights is None:
        return nn.CrossEntropyLoss(label_smoothing=cfg.smoothing)
    if cfg.class_weights == "balanced":
        from sklearn.utils.class_weight import compute_class_weight

        classes = np.arange(len(class_names))
        weights = compute_class_weight("balanced", classes=classes, y=labels.numpy())
    else:
        unknown = [name for name in cfg.class_weights if name not in class_names]
        if unknown:
            hint = did_you_mean(unknown[0], class_names)
            raise ValueError(f"train.class_weights: there is no class {unknown[0]}{hint}")
        weights = [cfg.class_weights.get(name, 1.0) for name in class_names]
    return WeightedLoss(torch.tensor(weights, dtype=torch.float32), cfg.smoothing)


class Mixer:
    """timm's mixup and CutMix for a batch; in a batch of odd size the last image stays unmixed."""

    def __init__(self, cfg: TrainConfig, num_classes: int):
        self.num_classes = num_classes
        self.mixup = Mixup(
            mixup_alpha=cfg.mixup,
            cutmix_alpha=cfg.cutmix,
            prob=cfg.mixup_prob,
            switch_prob=cfg.mixup_switch_prob,
            label_smoothing=0.0,  # done by the loss
            num_classes=num_classes,
        )

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """float B 3 H W and int64 B -> mixed images, in place, and label weights float B K."""
        weights = F.one_hot(labels, self.num_classes).float()
        even = len(images) - len(images) % 2
        if even:
            images[:even], weights[:even] = self.mixup(images[:even], labels[:even])
        return images, weights
