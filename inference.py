"""Predictions of a model on a split: one function, so that accuracy in training and in evaluation cannot differ."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

import distributed
from analysis.metrics import Predictions, predict
from data import Preprocess, Split
from devices import autocast
from models import input_spec


class FlipAverage(nn.Module):
    """A classifier that averages its probabilities over an image and its mirror image; returns their logarithm."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model, self.input_spec = model, input_spec(model)

    def forward(self, images: Tensor) -> Tensor:
        """B 3 H W -> B K."""
        seen = torch.stack([self.model(images), self.model(images.flip(-1))])
        return seen.float().log_softmax(dim=-1).logsumexp(dim=0) - math.log(2)


def preprocessing(model: nn.Module) -> Preprocess:
    """What turns uint8 images into the model's input, on its device."""
    spec = input_spec(model)
    return Preprocess(spec.size, spec.mean, spec.std, spec.interpolation).to(next(model.parameters()).device)


def predict_split(
    model: nn.Module,
    split: Split,
    *,
    batch_size: int,
    device: torch.device,
    precision: str,
    corrupt: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Predictions:
    """Logits and labels of every image of ``split``, in its order; the model is left in evaluation mode.

    Under torchrun each rank predicts every K-th batch, and all of them get the whole: the batches, and so the numbers,
    are those of one process. ``corrupt`` changes the images (uint8 B 3 H W, and their int64 B positions in the split)
    before they are preprocessed.
    """
    preprocess = preprocessing(model)
    plan = split.plan(batch_size)
    mine = plan[distributed.rank() :: distributed.world_size()]
    bar = tqdm(split.load(mine, device), f"predicting {split.name}", total=len(mine), leave=False, unit=" batches")
    model.eval()
    parts = predict(
        model,
        (
            (preprocess(images if corrupt is None else corrupt(images, selection.indices)), labels)
            for selection, (images, labels) in zip(mine, bar)
        ),
        context=lambda: autocast(device, precision),
    )
    ranks = distributed.gather(parts)
    ordered = [ranks[i % len(ranks)][i // len(ranks)] for i in range(len(plan))]
    if not ordered:
        raise ValueError(f"there are no images to predict: the {split.name} split is empty")
    return Predictions(np.concatenate([p.logits for p in ordered]), np.concatenate([p.labels for p in ordered]))
