"""Output and signals during training: lines for the log, the progress bar, and reactions to signals."""

import math
import signal
import time
from collections.abc import Sequence

import torch
from torch import nn
from tqdm import tqdm

from common import distributed
from common.runs import Run
from data import Dataset
from evaluation.cost import count_parameters
from models import input_spec


def start_line(dataset: Dataset, model: nn.Module, name: str, device: torch.device, precision: str) -> str:
    """One line on the model (called ``name``), the data, the device and the precision of a training."""
    params, trainable = count_parameters(model)
    counts = ", ".join(f"{len(dataset.split(split)):,} {split}" for split in ("train", "val", "test"))
    height, width = input_spec(model).size
    processes = f", {distributed.world_size()} processes" if distributed.world_size() > 1 else ""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return (
        f"{name}: {params / 1e6:.2f} M parameters ({trainable / params:.0%} trained), {height}x{width} px; "
        f"{dataset.name}: {counts} images; {device.type} ({where}{processes}), {precision}"
    )


class Journal:
    """A printed line for each epoch, with the estimated time that is left."""

    def __init__(self, epochs: int, done: int):
        self.epochs, self.first, self.start = epochs, done, time.perf_counter()

    def line(self, row: dict) -> str:
        """The line for an epoch's ``row`` of the log; later epochs are assumed to last as long as those of this process."""
        number = row["epoch"]
        left = (time.perf_counter() - self.start) / (number - self.first) * (self.epochs - number)
        parts = [f"epoch {number:>{len(str(self.epochs))}}/{self.epochs}"]
        for split, words in (("train", "training"), ("val", "validation"), ("test", "test")):
            if row.get(f"{split}_loss") is not None:
                parts.append(f"{words} loss {row[f'{split}_loss']:.4f}, accuracy {row[f'{split}_accuracy']:.2%}")
            if row.get(f"{split}_top5_accuracy") is not None:
                parts[-1] += f", top-5 {row[f'{split}_top5_accuracy']:.2%}"
        parts.append(f"{row['images_per_second']:,.0f} images/s")
        return "  ".join(parts + ([f"{describe_duration(left)} left"] if number < self.epochs else []))


def describe_duration(seconds: float) -> str:
    """Seconds as text with at most two units: 45 s, 12 min, 3 h 20 min."""
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


class Interrupted(Exception):
    """Stopped by a signal, with everything saved."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class Signals:
    """Within this context SIGINT, SIGTERM and SIGHUP are stored in ``received`` instead of ending the process.

    A second signal of the same kind has its usual effect. Signals that the process was started to ignore (SIGHUP under
    nohup) stay ignored.
    """

    NUMBERS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

    def __enter__(self) -> "Signals":
        self.received = 0
        heard = [number for number in self.NUMBERS if signal.getsignal(number) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._remember) for number in heard}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame) -> None:
        self.received = number
        signal.signal(number, self._before[number])


class TrainingBar(tqdm):
    """Progress over the images of an epoch, with means of loss and accuracy so far."""

    def __init__(self, title: str, plan: Sequence, first: int, *, visible: bool):
        """``plan`` holds the batches (each with ``indices``), of which the ``first`` ones are done."""
        self.sizes = [len(batch.indices) for batch in plan]
        self.step = first
        self.shown = time.perf_counter()
        done = sum(self.sizes[:first])
        hidden = None if visible else True  # None: where the output is no terminal
        super().__init__(title, total=sum(self.sizes), initial=done, unit=" images", leave=False, disable=hidden)

    def advance(self) -> None:
        """Count one more batch as done."""
        self.update(self.sizes[self.step])
        self.step += 1

    def is_due(self) -> bool:
        """Whether a second has passed since the means were last shown."""
        return time.perf_counter() - self.shown > 1

    def show(self, sums) -> bool:
        """Show the means of ``sums`` (a tensor: loss, hits, images); returns whether the loss is finite."""
        loss, hits, images = sums.tolist()
        self.set_postfix(loss=f"{loss / images:.4f}", accuracy=f"{hits / images:.2%}")
        self.shown = time.perf_counter()
        return math.isfinite(loss)


class Watcher:
    """Checks within an epoch, at intervals: is the loss finite, has a signal come? Every rank gets the same answer."""

    def __init__(self, bar: TrainingBar, signals: Signals, *, save_every: int | None):
        """``save_every``: number of steps after which ``last.pt`` is saved; None: only at a signal."""
        self.bar, self.signals, self.save_every = bar, signals, save_every
        self.alone, self.signal = distributed.world_size() == 1, 0

    def look(self, step: int, sums: torch.Tensor) -> bool:
        """Call after each step; ``sums``: loss, hits, images. Returns False if the loss of any rank is not finite.

        Reading the sums waits for the device, and all ranks must do so at the same steps, so it is not done at each step.
        """
        self.bar.advance()
        self.signal = self.signals.received if self.alone else 0
        if not (self.bar.is_due() if self.alone else step % 20 == 19):
            return True
        seen = distributed.gather((self.bar.show(sums), self.signals.received))  # so that all ranks do the same
        self.signal = max(number for _, number in seen)
        return all(finite for finite, _ in seen)

    def wants_saving(self, step: int) -> bool:
        """Whether to save after this step: a signal has come, or ``save_every`` steps have passed."""
        return bool(self.signal or (self.save_every and (step + 1) % self.save_every == 0))


def scalar_writer(run: Run):
    """A TensorBoard writer for the run's folder. Raises ValueError if the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("train.tensorboard needs the package tensorboard: pip install tensorboard") from None
    return SummaryWriter(str(run.path("tensorboard")))
