"""Predictions of a model on a split: one function, so that accuracy in training and in evaluation cannot differ."""

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

import distributed
from analysis.metrics import Predictions, predict
from data import Preprocess, Split
from devices import autocast
from models import input_spec


def predict_split(
    model: nn.Module, split: Split, *, batch_size: int, device: torch.device, precision: str
) -> Predictions:
    """Logits and labels of every image of ``split``, in its order; the model is left in evaluation mode.

    Under torchrun each rank predicts every K-th batch, and all of them get the whole: the batches, and so the numbers,
    are those of one process.
    """
    spec = input_spec(model)
    preprocess = Preprocess(spec.size, spec.mean, spec.std, spec.interpolation).to(device)
    plan = split.plan(batch_size)
    mine = plan[distributed.rank() :: distributed.world_size()]
    bar = tqdm(split.load(mine, device), f"predicting {split.name}", total=len(mine), leave=False, unit=" batches")
    model.eval()
    parts = predict(
        model,
        ((preprocess(images), labels) for images, labels in bar),
        context=lambda: autocast(device, precision),
    )
    ranks = distributed.gather(parts)
    ordered = [ranks[i % len(ranks)][i // len(ranks)] for i in range(len(plan))]
    if not ordered:
        raise ValueError(f"there are no images to predict: the {split.name} split is empty")
    return Predictions(np.concatenate([p.logits for p in ordered]), np.concatenate([p.labels for p in ordered]))
