"""Load a run's data, build its model and try one small step before its directory changes, so that errors come early."""

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from common import distributed
from common.config import Config
from common.devices import autocast, choose_kernels, select_precision, set_deterministic
from common.folders import check_space
from common.runs import Run
from data import Augment, Dataset, load_dataset
from models import apply_tuning, checkpoint_activations, create_model, preprocessing, restore_model, train_mode
from training.optimization import Mixer, create_loss, create_optimizer
from training.randomness import seed_epoch
from training.stopping import stopping_target


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs and that does not change its directory."""

    config: Config
    dataset: Dataset
    model: nn.Module
    precision: str
    target: float | None
    """The validation accuracy at which training may stop."""
    checkpoint: dict | None
    """``last.pt`` of the run that is resumed; None for a new run."""
    optimizer_state: dict[int, dict]
    """The optimizer's state of each parameter after one step."""
    num_bytes: int
    """Disk space that the checkpoints need, including a temporary one that is being written."""


def rehearse_all(jobs: Sequence[tuple[Config, Path]], device: torch.device, *, resume: bool) -> None:
    """`prepare` each of several runs before the first is trained, so that errors in later ones are found at once."""
    coming = [directory for _, directory in jobs]
    needed = [prepare(*job, device, resume=resume, coming=coming).num_bytes for job in jobs]
    check_space(coming[0], sum(needed))


def prepare(
    config: Config,
    directory: Path,
    device: torch.device,
    *,
    resume: bool,
    coming: Sequence[Path] = (),
    dataset: Dataset | None = None,
) -> Prepared:
    """Load the data and build the model that ``config`` describes, and try one step.

    A run that is resumed takes its model from ``last.pt``, so that its pretrained weights are not needed again.

    Args:
        coming: runs that will exist when this one is trained; it may start from their weights or use their accuracy.
        dataset: the config's dataset, if it is already loaded.
    Raises:
        ValueError: anything that would stop the run.
    """
    last = Run(directory, config).path("last.pt")
    checkpoint = Run(directory, config).load_checkpoint("last.pt") if resume and last.is_file() else None
    check_processes(config)
    precision = select_precision(config.train.amp, device)
    baseline, target = config.train.stop_at_fraction_of, None
    if checkpoint and "target" in checkpoint:
        target = checkpoint["target"]
    elif not (baseline and _is_among(baseline.run, coming)):
        target = stopping_target(config)
    choose_kernels(precision, deterministic=config.train.deterministic)
    if config.train.deterministic:
        set_deterministic()
    measure = dataset is not None or not coming  # the images' mean and std, for which they must be read
    with distributed.main_first():  # so that downloads happen once
        dataset = dataset or load_dataset(config.data, seed=config.data.split_seed)
    check_fit(config, dataset, target)
    seed_epoch(config.seed, 0)
    if checkpoint:
        model = restore_model(config, checkpoint)
        apply_tuning(model, config.model.tune)
    else:
        pretrained = config.model.pretrained
        if isinstance(pretrained, str) and _is_among(pretrained, coming):
            config = config.model_copy(update={"model": config.model.model_copy(update={"pretrained": False})})
        names = dataset.class_names
        statistics = partial(dataset.train.pixel_statistics, device) if measure else None
        with distributed.main_first():
            model = create_model(config, num_classes=len(names), class_names=names, statistics=statistics)
    model = model.to(device)
    if config.train.grad_checkpointing:
        checkpoint_activations(model)
    optimizer_state, num_bytes = rehearse(config, dataset, model, device=device, precision=precision)
    existing = [last.with_name(name) for name in ("best.pt", "last.pt")]
    num_bytes -= sum(path.stat().st_size for path in existing if path.is_file())
    return Prepared(config, dataset, model, precision, target, checkpoint, optimizer_state, max(0, num_bytes))


def check_processes(config: Config) -> None:
    """Raise ValueError unless a batch can be divided among the processes that torchrun started."""
    size, parts, processes = config.train.batch_size, config.train.grad_accum_steps, distributed.world_size()
    if size % (processes * parts):
        raise ValueError(
            f"train.batch_size = {size} does not divide into {processes} processes x {parts} accumulation steps"
        )


def check_fit(config: Config, dataset: Dataset, target: float | None) -> None:
    """Raise ValueError for a config that is valid in itself but cannot work with this dataset."""
    stops = target is not None or config.train.patience or config.train.stop_at_fraction_of
    if not len(dataset.val) and stops:
        raise ValueError("early stopping needs validation images; set data.val_fraction above 0")
    height, width = dataset.train.source.size
    padding = config.data.augment.crop_padding
    if padding >= min(height, width):
        raise ValueError(
            f"data.augment.crop_padding = {padding}: images of {height}x{width} pixels would be cropped to nothing but "
            f"padding; {min(height, width) - 1} is the most"
        )


def rehearse(
    config: Config, dataset: Dataset, model: nn.Module, *, device: torch.device, precision: str
) -> tuple[dict[int, dict], int]:
    """One training step of a copy of ``model`` on random images, as many as in the run's smallest batch (at most two).

    Returns the optimizer's state, and the disk space in bytes that the checkpoints need. Raises ValueError if the step fails.
    """
    count, (height, width) = _smallest_part(config, dataset), dataset.train.source.size
    model = copy.deepcopy(model)
    optimizer = create_optimizer(model, config)
    loss = create_loss(config.train, dataset.train.labels, dataset.class_names).to(device)
    try:
        images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, device=device)
        _step(config, images, model, loss, optimizer, num_classes=len(dataset.class_names), precision=precision)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # models and optimizers by many authors raise different errors
        lines = str(error).strip().splitlines() or [""]
        raise ValueError(
            f"{config.name}: {config.model.name} with train.opt = {config.train.opt} cannot take a step on {count} "
            f"{'image' if count == 1 else 'images'} of {height}x{width} pixels ({type(error).__name__}: {lines[0]}); "
            "change model.kwargs, data.image_size, train.opt or train.batch_size"
        ) from None
    state = optimizer.state_dict()["state"]
    best = _num_bytes(model.state_dict())
    last = best * (2 if config.train.model_ema else 1) + _num_bytes(state)
    return state, best + 2 * last


def _step(config, images, model, loss, optimizer, *, num_classes: int, precision: str) -> None:
    generator, augment = torch.Generator().manual_seed(0), Augment(config.data.augment)
    count, device = len(images), images.device
    labels = torch.arange(count, device=device) % num_classes
    inputs, targets = augment.erase(preprocessing(model)(augment(images, generator)), generator), labels
    if config.train.mixup or config.train.cutmix:
        inputs, targets = Mixer(config.train, num_classes)(inputs, labels)
    train_mode(model)
    with autocast(device, precision):
        logits = model(inputs)
        if not isinstance(logits, torch.Tensor) or logits.shape != (count, num_classes):
            shape = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise ValueError(f"its output is {shape} instead of [{count}, {num_classes}]")
        value = loss(logits, targets)
    value.backward()
    optimizer.step()
    model.eval()
    with torch.inference_mode(), autocast(device, precision):
        model(inputs)


def _smallest_part(config: Config, dataset: Dataset) -> int:
    """Number of images in the smallest forward pass of an epoch, at most two."""
    cfg, processes = config.train, distributed.world_size()
    repeats = config.data.augment.aug_repeats
    plan = dataset.train.plan(cfg.batch_size, torch.Generator(), repeats=repeats, smallest=max(2, processes))
    parts = [len(batch.part(processes - 1, processes).indices) for batch in plan]
    return min(2, *(len(torch.arange(part).chunk(cfg.grad_accum_steps)[-1]) for part in parts))


def _num_bytes(state) -> int:
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return sum(map(_num_bytes, values))


def _is_among(path: str, directories: Sequence[Path]) -> bool:
    place = os.path.realpath(path)
    return any(place == real or place.startswith(real + os.sep) for real in map(os.path.realpath, directories))
