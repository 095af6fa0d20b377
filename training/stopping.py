"""When to stop, and which epoch is best."""

import math

from common.config import Config, TrainConfig
from common.runs import Run


def stopping_target(config: Config) -> float | None:
    """The validation accuracy at which training may stop."""
    relative = config.train.stop_at_fraction_of
    if relative is None:
        return config.train.stop_at
    baseline = Run.open_finished(relative.run)
    reached = baseline.read_json("train.json")["val_accuracy"]
    if reached is None:
        raise ValueError(f"train.stop_at_fraction_of: {baseline.directory} has no validation accuracy")
    return relative.fraction * reached


def selection_key(row: dict) -> tuple[float, float]:
    """What the best epoch is chosen by: validation accuracy, then loss; the same for all where nothing is held out."""
    return (0, 0) if row["val_accuracy"] is None else (row["val_accuracy"], -row["val_loss"])


def reason_to_stop(log: list[dict], cfg: TrainConfig, target: float | None) -> str | None:
    """Whether to stop after the last row of ``log``: ``target_reached``, ``no_improvement``, ``all_epochs_done``, or None."""
    if not log:
        return None
    if target is not None and log[-1]["val_accuracy"] >= target:
        return "target_reached"
    if cfg.patience:
        best = max(range(len(log)), key=lambda i: log[i]["val_accuracy"])  # the first of equals
        if len(log) - 1 - best >= cfg.patience:
            return "no_improvement"
    return "all_epochs_done" if len(log) >= cfg.epochs else None


def stayed_near_chance(log: list[dict], cfg: TrainConfig, *, chance: float, num_train: int, num_val: int) -> bool:
    """Whether training is known to have learned nothing to speak of: not that too few images could show that it did.

    ``chance`` is the share of the largest class. To learn is to beat it by as much again, or by a tenth of what is left above
    it where that is less. Nothing was learned if no epoch after the warmup can have done so, on training or on validation
    images, within two standard errors of its accuracy; or if none is shown to have (by three) and the training loss never fell
    below that of guessing. Without validation images the last epoch is the result, and counts alone. Training accuracy alone
    would not do: mixed labels keep it low.
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
