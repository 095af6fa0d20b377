"""A preview of a run: a sheet of training images as the model will see them, and the measured cost of a few steps."""

import statistics
import time
from dataclasses import dataclass

import torch

from common.folders import free_space
from common.runs import Run
from evaluation.cost import count_parameters
from evaluation.figures import image_grid
from models import train_mode
from training.copies import name_of
from training.progress import describe_duration
from training.randomness import seed_epoch
from training.rehearsal import Prepared
from training.trainer import Trainer, out_of_memory

VERSIONS, MOST_IMAGES = 5, 6  # augmented versions of each image, and number of images, on the sheet
MOST_STEPS, SECONDS = 20, 20  # timing ends when either is reached


@dataclass(frozen=True)
class Cost:
    """The cost of a run, estimated from a few of its steps."""

    params: int
    trainable_params: int
    steps: int
    """Number of timed steps, without the first; 1 if the first took all the time."""
    step_seconds: float
    """Median time of a training step with a full batch, including reading the data."""
    epoch_seconds: float
    """Time of an epoch without validation."""
    epochs: int
    peak_memory_mb: float | None
    peak_memory_kind: str
    checkpoints_mb: float
    free_mb: float
    place: str
    """The folder on whose disk ``free_mb`` are free."""

    def rows(self) -> list[tuple[str, str]]:
        """Rows of a table: label and value."""
        timed = (
            f"median of {self.steps} after the first" if self.steps > 1 else "the first one alone, its start included"
        )
        memory = "not measured here" if self.peak_memory_mb is None else f"{self.peak_memory_mb:,.0f} MB"
        return [
            ("parameters", f"{self.params / 1e6:.2f} M, {self.trainable_params / self.params:.0%} trained"),
            ("a training step", f"{self.step_seconds:.3g} s ({timed})"),
            ("an epoch", f"about {describe_duration(self.epoch_seconds)}, without validation"),
            ("all epochs", f"about {describe_duration(self.epochs * self.epoch_seconds)} for {self.epochs} at most"),
            ("peak memory", f"{memory} ({self.peak_memory_kind})"),
            ("checkpoints", f"{self.checkpoints_mb:,.1f} MB; {self.free_mb:,.0f} MB are free in {self.place}"),
        ]


def create_trainer(run: Run, prepared: Prepared, device: torch.device) -> Trainer:
    """The run's trainer, but without TensorBoard files."""
    train = run.config.train.model_copy(update={"tensorboard": False})
    return Trainer(Run(run.directory, run.config.model_copy(update={"train": train})), prepared, device=device)


def draw_inputs(trainer: Trainer):
    """A figure with a row for each of a few training images: the image itself, then several versions for the model."""
    train, names = trainer.dataset.train, trainer.dataset.class_names
    versions = min(VERSIONS, len(train))
    order, generator = seed_epoch(trainer.run.config.seed, 0)
    first = train.plan(versions * min(MOST_IMAGES, len(train) // versions), order, repeats=versions)[:1]
    chosen = first[0].indices[::versions].tolist()
    images, labels = next(iter(train.load(first, trainer.device)))
    columns = []
    for k in range(versions):  # one batch per column, so that mixing happens within a column
        inputs, targets = trainer.prepare_batch(images[k::versions], labels[k::versions], generator)
        pixels = trainer.preprocess.undo(inputs).permute(0, 2, 3, 1).cpu().numpy()
        columns.append([(picture, _words(target, names)) for picture, target in zip(pixels, targets.cpu())])
    pictures, captions = [], []
    for row, i in enumerate(chosen):
        pictures.append(train.image(i).permute(1, 2, 0).numpy())
        captions.append(f"{names[train.labels[i]]}\n{name_of(train, i)}")
        for column in columns:
            pictures.append(column[row][0])
            captions.append(column[row][1])
    title = "Training images as they are (left) and as the model sees them"
    return image_grid(pictures, captions, columns=versions + 1, title=title)


def measure_cost(trainer: Trainer, prepared: Prepared) -> Cost:
    """Time a few training steps on real batches. Raises ValueError if the device has too little memory."""
    device, config = trainer.device, trainer.run.config
    _forget_peak(device)
    try:
        times = _time_steps(trainer)
    except torch.OutOfMemoryError:
        raise out_of_memory(config, device) from None
    warm = times[1:] or times
    seconds = statistics.median(warm)  # per image
    epoch_images = sum(len(batch.indices) for batch in trainer.plan(torch.Generator()))
    params, trainable = count_parameters(trainer.model)
    peak, kind = _peak_memory_mb(device)
    place, free = free_space(trainer.run.directory)
    return Cost(
        params=params,
        trainable_params=trainable,
        steps=len(warm),
        step_seconds=seconds * min(config.train.batch_size, epoch_images),
        epoch_seconds=seconds * epoch_images,
        epochs=config.train.epochs,
        peak_memory_mb=peak,
        peak_memory_kind=kind,
        checkpoints_mb=prepared.num_bytes / 1e6,
        free_mb=free / 1e6,
        place=str(place),
    )


def _time_steps(trainer: Trainer) -> list[float]:
    """Seconds per image of each step, including the wait for its batch; continues with further epochs if one is short."""
    times, spent, epoch = [], 0.0, 0
    synchronize = torch.cuda.synchronize if trainer.device.type == "cuda" else lambda: None
    train_mode(trainer.model)
    while len(times) < MOST_STEPS and spent < SECONDS:
        order, generator = seed_epoch(trainer.run.config.seed, epoch)
        plan = trainer.plan(order)[: MOST_STEPS - len(times)]
        batches = trainer.dataset.train.load(plan, trainer.device)
        start = time.perf_counter()
        for images, labels in batches:
            trainer.schedule(0, len(times))
            trainer.train_step(images, labels, len(images), generator)
            if trainer.ema:
                trainer.ema.update(trainer.model, step=len(times))
            synchronize()
            now = time.perf_counter()
            times.append((now - start) / len(images))
            spent, start = spent + now - start, now
            if spent >= SECONDS:
                break
        epoch += 1
    return times


def _words(target: torch.Tensor, names: list[str]) -> str:
    """The class of an image; for a mixed image, the classes with their shares."""
    if not target.ndim:
        return names[target]
    shares = [(float(target[k]), names[k]) for k in target.argsort(descending=True) if target[k] >= 0.005]
    return shares[0][1] if len(shares) == 1 else "\n".join(f"{share:.0%} {name}" for share, name in shares)


def _forget_peak(device: torch.device) -> None:
    """Reset the measured peak memory, if the system supports it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        with open("/proc/self/clear_refs", "w") as file:  # Linux, proc(5): 5 resets the peak resident size
            file.write("5")
    except OSError:
        pass


def _peak_memory_mb(device: torch.device) -> tuple[float | None, str]:
    """Peak memory in MB (None if unknown), and a description of what was measured."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6, "allocated by PyTorch on the device"
    kind = "resident size of this process, its libraries and kept images included"
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024 / 1e6, kind
    except (OSError, StopIteration):  # not Linux
        return None, kind
