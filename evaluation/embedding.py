"""The features before the classifier's head: drawn in two dimensions, and classified by their nearest neighbours."""

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from common.devices import autocast
from common.intervals import wilson_interval
from common.runs import Run
from data import Dataset, Split
from evaluation import figures
from models import preprocessing

NEIGHBOURS, PERPLEXITY = 20, 30
MOST_DRAWN, MOST_TRAINED = 2_000, 10_000  # images; of more, a seeded sample, since the cost grows with the square


def embed(
    run: Run, model: nn.Module, dataset: Dataset, origin: dict, *, device: torch.device, precision: str, suffix: str
) -> list:
    """Write ``embedding.json``, ``embedding.npz`` and ``figures/embedding.png`` of a run; returns their paths.

    ``origin`` is stored with the results: the split, and the digests of its images and of the weights.
    """
    split, size = dataset.split(origin["split"]), run.config.evaluate.batch_size
    read = lambda part, indices: features(model, part, indices, batch_size=size, device=device, precision=precision)  # noqa: E731
    indices = sample(len(split), MOST_DRAWN)
    held_out, logits = read(split, indices)
    labels, predicted = split.labels[indices].numpy(), logits.argmax(axis=1)
    about = origin | {"images": len(indices), "head_accuracy": float((predicted == labels).mean())}
    if len(dataset.train):
        seen = sample(len(dataset.train), MOST_TRAINED)
        about |= neighbours(read(dataset.train, seen)[0], dataset.train.labels[seen].numpy(), held_out, labels)
    about |= {"perplexity": perplexity(len(indices)), "seed": 0, "features": held_out.shape[1]}
    places = project(held_out)
    title = f"{run.config.name}: features of {len(indices):,} images of the {split.name} split"
    print(sentence(about))
    picture = figures.embedding(places, labels, predicted, dataset.class_names, note=sentence(about), title=title)
    arrays = {"places": places, "labels": labels, "predicted": predicted, "indices": indices}
    return [
        run.save_json(f"embedding{suffix}.json", about),
        run.save_arrays(f"embedding{suffix}.npz", **arrays),
        run.save_figure(f"figures/embedding{suffix}.png", picture),
    ]


def sentence(about: dict) -> str:
    """A sentence with the accuracy of the classifier's head and of the nearest neighbours."""
    head = f"accuracy of the head {about['head_accuracy']:.1%}"
    if "knn_accuracy" not in about:
        return f"{head}; without training images there are no neighbours"
    low, high = about["knn_accuracy_ci95"]
    nearest = f"of the {about['neighbours']} nearest of {about['train_images']:,} training images"
    return f"{head}, {nearest} {about['knn_accuracy']:.1%} (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"


def sample(count: int, most: int) -> np.ndarray:
    """Positions of at most ``most`` of ``count`` images, ascending; always the same ones."""
    return np.sort(np.random.default_rng(0).permutation(count)[:most])


def features(
    model: nn.Module, split: Split, indices: np.ndarray, *, batch_size: int, device: torch.device, precision: str
) -> tuple[np.ndarray, np.ndarray]:
    """The input of the classifier's head for images of a split, float32 N D, and the logits N K.

    Raises ValueError for a model that does not say which layer its classifier is.
    """
    heads = model.get_classifier() if hasattr(model, "get_classifier") else None
    head = heads[0] if isinstance(heads, tuple | list | nn.ModuleList) else heads
    if not isinstance(head, nn.Module) or isinstance(head, nn.Identity):
        raise ValueError(
            f"--embedding: {type(model).__name__} does not say which layer its classifier is (get_classifier)"
        )
    given: list[Tensor] = []
    preprocess, logits = preprocessing(model), []
    starts = tqdm(range(0, len(indices), batch_size), f"features of {split.name}", unit=" batches", leave=False)
    hook = head.register_forward_pre_hook(lambda module, args: given.append(args[0].flatten(1).float().cpu()))
    with hook, torch.inference_mode(), autocast(device, precision):
        for start in starts:
            images = torch.stack([split.image(int(i)) for i in indices[start : start + batch_size]])
            logits.append(model.eval()(preprocess(images.to(device))).float().cpu())
    return torch.cat(given).numpy(), torch.cat(logits).numpy()


def neighbours(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, labels: np.ndarray) -> dict:
    """Accuracy of a majority vote of the nearest training images by cosine distance, with Wilson's interval.

    Args:
        train, test: features, float N D each.
        train_labels, labels: int N each.
    """
    from sklearn.neighbors import KNeighborsClassifier

    count = min(NEIGHBOURS, len(train))
    hits = KNeighborsClassifier(count, metric="cosine").fit(train, train_labels).predict(test) == labels
    return {
        "knn_accuracy": float(hits.mean()),
        "knn_accuracy_ci95": wilson_interval(hits.sum(), len(hits)).tolist(),
        "neighbours": count,
        "train_images": len(train),
    }


def perplexity(count: int) -> float:
    """The usual 30, or less if there are too few images."""
    return float(min(PERPLEXITY, max(1, (count - 1) // 3)))


def project(values: np.ndarray) -> np.ndarray:
    """Features N D -> positions N 2 by t-SNE (van der Maaten and Hinton 2008).

    Neighbours stay neighbours, but distances between groups mean nothing. Raises ValueError for fewer than four images.
    """
    from sklearn.manifold import TSNE

    if len(values) < 4:
        raise ValueError(f"--embedding: {len(values)} images are too few for t-SNE; at least 4 are needed")
    return TSNE(perplexity=perplexity(len(values)), init="pca", random_state=0).fit_transform(values)
