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
    """Whether no epoch after the warmup learned anything to speak of, on training or on validation images.

    ``chance`` is the share of the largest class. To learn is to beat it by as much again, or by a tenth of what is left above
    it where that is less, and by three standard errors. Training accuracy alone would not do: mixed labels keep it low.
    """

    def learned(count: int) -> float:
        return chance + max(3 * math.sqrt(chance * (1 - chance) / max(count, 1)), min(chance, (1 - chance) / 10))

    rows = [row for row in log if row["epoch"] > cfg.warmup_epochs]
    return bool(rows) and not any(
        row["train_accuracy"] > learned(num_train) or (row["val_accuracy"] or 0) > learned(num_val) for row in rows
    )
