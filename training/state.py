"""The state of a run during training: saved in ``last.pt``, restored by a resume, summarized in ``train.json``."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from common import distributed
from common.config import Config
from common.runs import Run
from data import Dataset
from evaluation.cost import count_parameters
from models import input_spec
from training.figures import learning_rate, training_curves
from training.randomness import get_states, set_states
from training.stopping import selection_key, stayed_near_chance


def changes_of_images(config: Config) -> str:
    """How training images are changed, in words for a figure; "" if they are not."""
    augment = config.data.augment.model_dump(exclude={"ratio", "aug_repeats"})  # alone these change nothing
    words = ["augmented"] if any(augment.values()) else []
    return " and ".join(words + (["mixed"] if config.train.mixup or config.train.cutmix else []))


@dataclass
class TrainingState:
    run: Run
    dataset: Dataset
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    target: float | None
    """The validation accuracy at which training may stop."""
    log: list[dict] = field(default_factory=list)
    """A row per finished epoch, with the columns of ``log.csv``."""
    learning_rates: list[float] = field(default_factory=list)
    """The learning rate of every step."""
    best: dict | None = None
    """The row of the best epoch."""
    progress: dict | None = None
    """Of an unfinished epoch: step, seconds, and each rank's sums and random states."""

    def __post_init__(self):
        self.images = self.dataset.fingerprints()

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated: the one with averaged weights, if there is one."""
        return self.ema.module if self.ema else self.model

    def end_epoch(self, row: dict) -> None:
        """Add an epoch's row; write ``best.pt`` if it is the best so far, and ``last.pt`` and ``log.csv``."""
        self.log.append(row)
        if self.best is None or selection_key(row) >= selection_key(self.best):
            self.best = row
            self._write("best.pt", lambda: self._describe(self.evaluated) | {"epoch": row["epoch"]})
        self._write_last()
        if distributed.is_main():
            self.run.save_log(self.log)

    def save_progress(self, step: int, seconds: float, sums: Tensor, generator: torch.Generator) -> None:
        """Write ``last.pt`` within an epoch, after ``step`` of its steps; called by every rank."""
        self.progress = {
            "step": step,
            "seconds": seconds,
            "sums": distributed.gather(sums.cpu()),
            "states": distributed.gather(get_states(generator)),
        }
        self._write_last()
        self.progress = None

    def take_progress(self, generator: torch.Generator, device: torch.device) -> tuple[int, float, Tensor]:
        """Where to continue within the epoch: step, seconds spent, this rank's sums (loss, hits, images).

        With as many processes as before, their random numbers continue as without an interruption. With another number, the
        first process gets the sums of all, and each draws the random numbers of the epoch's start.
        """
        progress, self.progress = self.progress, None
        if progress is None:
            return 0, 0.0, torch.zeros(3, device=device)
        rank, sums = distributed.rank(), progress["sums"]
        if len(sums) == distributed.world_size():
            try:
                set_states(progress["states"][rank], generator)
            except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
                raise self._foreign(error) from None
            own = sums[rank]
        else:
            own = sum(sums) if rank == 0 else torch.zeros_like(sums[0])
        return progress["step"], progress["seconds"], own.to(device)

    def restore(self, checkpoint: dict, *, expected: dict[int, dict], steps_per_epoch: int) -> None:
        """Restore the state from ``last.pt``, and ``log.csv`` with it.

        ``expected``: the optimizer's state of each parameter, to recognize the file of another run. Raises ValueError if
        the file does not belong to this run, or if the images have changed.
        """
        self.dataset.check_images(checkpoint.get("images", {}))
        try:
            self.optimizer.load_state_dict(checkpoint["optimizer"])
            self.scaler.load_state_dict(checkpoint["scaler"])
            if self.ema:
                self.ema.module.load_state_dict(checkpoint["ema"])
            loaded = checkpoint["optimizer"]["state"]
            for index in expected.keys() & loaded.keys():
                for key, value in expected[index].items():
                    if torch.as_tensor(loaded[index][key]).shape != torch.as_tensor(value).shape:
                        raise ValueError(f"{key} of parameter {index} has another shape")
            if checkpoint["progress"] and checkpoint["progress"]["step"] >= steps_per_epoch:
                raise ValueError(f"step {checkpoint['progress']['step']} of an epoch of {steps_per_epoch}")
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise self._foreign(error) from None
        for name in ("log", "learning_rates", "best", "progress"):
            setattr(self, name, checkpoint[name])
        if distributed.is_main():
            self.run.save_log(self.log)
            print(f"resuming {self.run.directory} after epoch {len(self.log)}{self._place_within()}")

    def _foreign(self, error: Exception) -> ValueError:
        what = (str(error).splitlines() or [""])[0]
        return ValueError(
            f"{self.run.path('last.pt')} is not of this run ({type(error).__name__}: {what}); restore the file, or train "
            "again with --overwrite"
        )

    def _place_within(self) -> str:
        if not self.progress:
            return ""
        before, now = len(self.progress["sums"]), distributed.world_size()
        drawn = f", with {now} instead of {before} processes: it draws other random numbers" if before != now else ""
        return f", step {self.progress['step']} of the next{drawn}"

    def summarize(self, stopped_because: str, *, steps_per_epoch: int, **more) -> None:
        """Write ``train.json``, with ``more`` in it, the log and the figures."""
        if not distributed.is_main():
            return
        name, best = self.run.config.name, self.best or {}
        log = {key: [np.nan if row[key] is None else row[key] for row in self.log] for key in self.log[0]}
        self.run.save_log(self.log)
        changed = changes_of_images(self.run.config)
        curves = training_curves(log, best_epoch=best.get("epoch"), title=name, training_images=changed)
        self.run.save_figure("figures/curves.png", curves)
        epochs = (np.arange(len(self.learning_rates)) + 1) / steps_per_epoch
        self.run.save_figure("figures/learning_rate.png", learning_rate(epochs, self.learning_rates, title=name))
        params, trainable = count_parameters(self.model)
        labels = self.dataset.train.labels
        counts = {split: len(self.dataset.split(split)) for split in ("train", "val", "test")}
        seen = dict(
            chance=(labels.bincount().max() / len(labels)).item(), num_train=counts["train"], num_val=counts["val"]
        )
        self.run.save_json(
            "train.json",
            {
                "best_epoch": best.get("epoch"),
                "selected_by": "validation accuracy" if len(self.dataset.val) else "last epoch",
                "val_accuracy": best.get("val_accuracy"),
                "train_accuracy": best.get("train_accuracy"),
                "epochs_run": len(self.log),
                "stopped_because": stopped_because,
                "diverged": stayed_near_chance(self.log, self.run.config.train, **seen),
                "seconds": sum(log["seconds"]),
                "images_per_second": float(np.median(log["images_per_second"])),
                "params": params,
                "trainable_params": trainable,
                "num_images": counts,
                **more,
            },
        )

    def _write_last(self) -> None:
        self._write(
            "last.pt",
            lambda: (
                self._describe(self.model)
                | {
                    "optimizer": self.optimizer.state_dict(),
                    "scaler": self.scaler.state_dict(),
                    "ema": self.ema and self.ema.module.state_dict(),
                    "log": self.log,
                    "learning_rates": self.learning_rates,
                    "best": self.best,
                    "epoch": len(self.log),
                    "progress": self.progress,
                    "target": self.target,
                }
            ),
        )

    def _write(self, name: str, make: Callable[[], dict]) -> None:
        if distributed.is_main():
            self.run.save_checkpoint(name, make())

    def _describe(self, model: nn.Module) -> dict:
        """The weights, and what is needed to rebuild the model and to prepare its input."""
        return {
            "model": {key: tensor.cpu() for key, tensor in model.state_dict().items()},
            "class_names": list(self.dataset.class_names),
            "input_spec": input_spec(model).to_dict(),
            "images": self.images,
        }
