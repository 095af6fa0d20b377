"""When training stops, which epoch is best, and whether the model learned anything."""

import math

from common.config import Config, TrainConfig
from common.runs import Run


def stopping_target(config: Config) -> float | None:
    """The validation accuracy at which training stops, or None.

    Raises ValueError if the run of ``train.stop_at_fraction_of`` is not finished or has no validation accuracy.
    """
    relative = config.train.stop_at_fraction_of
    if relative is None:
        return config.train.stop_at
    baseline = Run.open_finished(relative.run)
    reached = baseline.read_json("train.json")["val_accuracy"]
    if reached is None:
        raise ValueError(f"train.stop_at_fraction_of: {baseline.directory} has no validation accuracy")
    return relative.fraction * reached


def selection_key(row: dict) -> tuple[float, float]:
    """Key to choose the best epoch: validation accuracy, then loss; equal for all epochs without validation images."""
    return (0, 0) if row["val_accuracy"] is None else (row["val_accuracy"], -row["val_loss"])


def reason_to_stop(log: list[dict], cfg: TrainConfig, target: float | None) -> str | None:
    """Why to stop after the last row of ``log``: ``target_reached``, ``no_improvement``, ``all_epochs_done``; None: go on."""
    if not log:
        return None
    if target is not None and log[-1]["val_accuracy"] >= target:
        return "target_reached"
    if cfg.patience:
        best = max(range(len(log)), key=lambda i: log[i]["val_accuracy"])  # the first one if several are equal
        if len(log) - 1 - best >= cfg.patience:
            return "no_improvement"
    return "all_epochs_done" if len(log) >= cfg.epochs else None


def stayed_near_chance(log: list[dict], cfg: TrainConfig, *, chance: float, num_train: int, num_val: int) -> bool:
    """Whether the model clearly learned nothing; False if there are too few images to tell.

    ``chance`` is the share of the largest class. The threshold for learning is twice that share, or chance plus a tenth of
    the way to 1 if that is lower. Nothing was learned if in no epoch after the warmup the accuracy plus two standard errors,
    on training or on validation images, reaches the threshold. Nothing was learned, either, if no accuracy above the
    threshold exceeds chance by three standard errors, and the training loss never fell below that of guessing. Without
    validation images only the last epoch counts, since it is the result. Training accuracy alone would not be enough, since
    mixed labels keep it low.
    """
    threshold = chance + min(chance, (1 - chance) / 10)
    rows = [row for row in log if row["epoch"] > cfg.warmup_epochs]
    rows = rows[-1:] if rows and rows[-1]["val_accuracy"] is None else rows
    measured = [(row["train_accuracy"], num_train) for row in rows]
    measured += [(row["val_accuracy"], num_val) for row in rows if row["val_accuracy"] is not None]

    def largest(accuracy: float, count: int) -> float:
        return accuracy + 2 * math.sqrt(max(accuracy * (1 - accuracy), chance * (1 - chance)) / max(count, 1))

    shown = any(a > threshold and a > chance + 3 * math.sqrt(chance * (1 - chance) / max(n, 1)) for a, n in measured)
    guessing = all(row["train_loss"] >= -math.log(chance) for row in rows)
    return bool(rows) and (all(largest(a, n) < threshold for a, n in measured) or (guessing and not shown))
