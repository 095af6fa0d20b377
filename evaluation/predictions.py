"""Predictions of a model for a split: logits and labels, with classes, probabilities, accuracy and loss."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.special import log_softmax, softmax
from torch import Tensor, nn
from tqdm import tqdm

from common import distributed
from common.devices import autocast
from common.runs import Run
from data import BatchPlan, Split
from models import input_spec, preprocessing

FORMS = {"logits": ("f", "NK"), "labels": ("iu", "N"), "class_names": ("U", "K"), "copies": ("b", "N")}
"""The arrays of ``predictions*.npz``; older files have no copies."""
ORIGIN = ("checkpoint_sha256", "fingerprint")
"""What identifies the origin of results: the SHA-256 of the weights' file, and the fingerprint of the images."""


@dataclass(frozen=True)
class Predictions:
    logits: np.ndarray  # float32 N K
    labels: np.ndarray  # int64 N
    copies: np.ndarray | None = None  # bool N: which images are copies of training or validation images; None: unknown

    @property
    def correct(self) -> np.ndarray:
        """Which images are recognised, bool N."""
        return self.predicted == self.labels

    @property
    def probabilities(self) -> np.ndarray:
        """float64 N K."""
        return softmax(self.logits.astype(np.float64), axis=1)

    @property
    def predicted(self) -> np.ndarray:
        """Class of the largest logit, int64 N."""
        return self.logits.argmax(axis=1)

    @property
    def accuracy(self) -> float:
        return float(self.correct.mean())

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, without label smoothing."""
        log_p = log_softmax(self.logits.astype(np.float64), axis=1)
        return float(-log_p[np.arange(len(self.labels)), self.labels].mean())


def predict(
    model: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    context: Callable[[], AbstractContextManager] = nullcontext,
) -> list[Predictions]:
    """Logits and labels of each batch.

    Args:
        model: images of the batches -> logits B K; must be in evaluation mode.
        batches: (images, int64 labels B) on the model's device.
        context: creates the context of each forward pass, such as autocast.
    """
    results = []
    with torch.inference_mode():
        for images, labels in batches:
            with context():
                logits = model(images)
            results.append((logits.float(), labels))  # stay on the device: no synchronisation per batch
    return [Predictions(logits.cpu().numpy(), labels.cpu().numpy()) for logits, labels in results]


class FlipAverage(nn.Module):
    """A classifier that averages its probabilities over an image and its mirror image; its output is their logarithm."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.input_spec = model, input_spec(model)

    def forward(self, images: Tensor) -> Tensor:
        """B 3 H W -> B K."""
        seen = torch.stack([self.model(images), self.model(images.flip(-1))])
        return seen.float().log_softmax(dim=-1).logsumexp(dim=0) - math.log(2)


def predict_split(
    model: nn.Module, split: Split, *, batch_size: int, device: torch.device, precision: str
) -> Predictions:
    """Logits and labels of every image of ``split``, in its order; the model is left in evaluation mode.

    Under torchrun with R ranks, each rank predicts every R-th batch and gets the results of all. The batches are those of a
    single process, and so are the numbers. Raises ValueError for an empty split or an unreadable photo.
    """
    preprocess, plan = preprocessing(model), split.plan(batch_size)
    loaded = _load_mine(split, plan, device)
    model.eval()
    parts = predict(
        model,
        ((preprocess(images), labels) for _, images, labels in loaded),
        context=lambda: autocast(device, precision),
    )
    ordered = _gather_in_order(parts, len(plan))
    if not ordered:
        raise ValueError(f"there are no images to predict: the {split.name} split is empty")
    return Predictions(np.concatenate([p.logits for p in ordered]), np.concatenate([p.labels for p in ordered]))


def predict_versions(
    model: nn.Module,
    split: Split,
    versions: Sequence[Callable[[Tensor, Tensor], Tensor]],
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
) -> np.ndarray:
    """Which images of ``split`` are recognised in each of several versions, bool V N; every image is read once.

    ``versions``: functions of images (uint8 B 3 H W) and their positions in the split (int64 B) -> uint8 B 3 h w.
    """
    preprocess, plan, parts = preprocessing(model), split.plan(batch_size), []
    model.eval()
    with torch.inference_mode():
        for positions, images, labels in _load_mine(split, plan, device):
            rows = []
            for version in versions:
                with autocast(device, precision):
                    logits = model(preprocess(version(images, positions)))
                rows.append(logits.float().argmax(dim=1) == labels)
            parts.append(torch.stack(rows).cpu().numpy())
    return np.concatenate(_gather_in_order(parts, len(plan)), axis=1)


def _load_mine(
    split: Split, plan: Sequence[BatchPlan], device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Positions, images and labels of this rank's batches."""
    mine = plan[distributed.rank() :: distributed.world_size()]
    bar = tqdm(split.load(mine, device), f"predicting {split.name}", total=len(mine), leave=False, unit=" batches")
    for batch, (images, labels) in zip(mine, bar):
        yield batch.indices, images, labels


def _gather_in_order(parts: list, count: int) -> list:
    """Each rank's results for its batches -> the results for all ``count`` batches, in their order."""
    ranks = distributed.gather(parts)
    return [ranks[i % len(ranks)][i // len(ranks)] for i in range(count)]


def load_predictions(run: Run, name: str) -> tuple[Predictions, list[str]]:
    """The predictions in a file of the run, and the class names. Raises ValueError if it is missing or damaged."""
    arrays = run.load_arrays(name, FORMS, optional=("copies",))
    logits, labels, names = arrays["logits"], arrays["labels"], arrays["class_names"].tolist()
    if labels.min() < 0 or labels.max() >= len(names):
        raise ValueError(f"{run.path(name)} has labels beyond its {len(names)} classes; evaluate the run again")
    return Predictions(logits, labels, arrays.get("copies")), names


def save_predictions(run: Run, name: str, predictions: Predictions, about: Mapping[str, object]) -> Path:
    """Write predictions, and the arrays of ``about``, into a file of the run."""
    arrays = {"logits": predictions.logits, "labels": predictions.labels, **about}
    if predictions.copies is not None:
        arrays["copies"] = predictions.copies
    return run.save_arrays(name, **arrays)


def origin_of_predictions(run: Run, name: str) -> dict[str, str | None]:
    """The weights and images of a file of predictions, by the names of ORIGIN; None for files of older versions."""
    with contextlib.suppress(ValueError):
        return {key: value.item() for key, value in run.load_arrays(name, dict.fromkeys(ORIGIN, ("U", ""))).items()}
    return dict.fromkeys(ORIGIN)
