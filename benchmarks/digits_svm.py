"""What the quickstart is compared with: an RBF support vector machine on the same split of the digits.

    python -m benchmarks.digits_svm

C and gamma are chosen by accuracy on the validation split; the test split is looked at once.
"""

from itertools import product
from pathlib import Path

from sklearn.svm import SVC

from common.config_files import load_config
from common.intervals import wilson_interval
from data import Split, load_dataset

CONFIG = Path(__file__).resolve().parents[1] / "configs" / "quickstart.yaml"


def main() -> None:
    config = load_config(CONFIG)
    dataset = load_dataset(config.data, seed=config.data.split_seed)
    fitted = [
        SVC(C=c, gamma=gamma).fit(*arrays(dataset.train))
        for c, gamma in product((1, 10, 100), (1e-3, 3e-3, 1e-2, "scale"))
    ]
    best = max(fitted, key=lambda svm: svm.score(*arrays(dataset.val)))
    images, labels = arrays(dataset.test)
    correct = int((best.predict(images) == labels).sum())
    low, high = wilson_interval(correct, len(labels))
    print(f"RBF SVM, C = {best.C}, gamma = {best.gamma}: {correct} of {len(labels)} test images, "
          f"{correct / len(labels):.2%} (95 % interval {low:.2%} to {high:.2%})")  # fmt: skip


def arrays(split: Split):
    """One grey channel in [0, 1] per pixel, N x 256, and the labels."""
    pixels = split.source.images[split.indices][:, 0].flatten(1) / 255
    return pixels.numpy(), split.labels.numpy()


if __name__ == "__main__":
    main()
