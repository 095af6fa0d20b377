"""The training loop of one run, from its config to its last epoch."""

import math
import time
from contextlib import ExitStack, nullcontext
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from architectures.kernels import training_attention
from common import distributed
from common.config import Config
from common.devices import autocast, should_compile
from common.folders import check_space
from common.runs import Run, is_run, remove_run
from data import Augment, BatchPlan
from evaluation.metrics import top_k_accuracy
from evaluation.predictions import predict_split
from models import preprocessing, train_mode
from training.copies import print_notes
from training.optimization import Mixer, create_loss, create_optimizer, create_scheduler
from training.progress import Interrupted, Journal, Signals, TrainingBar, Watcher, scalar_writer, start_line
from training.randomness import seed_epoch
from training.rehearsal import Prepared, prepare
from training.state import TrainingState
from training.stopping import reason_to_stop


def train(
    config: Config, directory: Path, *, device: torch.device, resume: bool = False, overwrite: bool = False
) -> Run:
    """Train ``config`` into ``directory``. Raises Interrupted on SIGINT, SIGTERM and SIGHUP, with everything saved."""
    run, exists, is_main = Run(directory, config), is_run(directory), distributed.is_main()
    with ExitStack() as locks:
        if exists and is_main:
            locks.enter_context(run.lock())
        prepared = prepare(config, directory, device, resume=resume)
        if is_main:
            print_notes(prepared.dataset)
        check_space(directory, prepared.num_bytes)
        # From here on the run's directory changes; errors in the config were raised above.
        if is_main and not (resume and exists):
            source = prepared.model.pretrained_from
            run, lock = Run.create(directory, config, device=device, pretrained=source, replace=exists)
            locks.push(lock)
        distributed.barrier()
        try:
            Trainer(run, prepared, device=device).fit()
        except (torch.OutOfMemoryError, ValueError) as error:
            if is_main and not (run.finished or run.path("last.pt").is_file()) and is_run(directory):
                remove_run(directory)  # no epoch was finished, so that the same command can start again
            if isinstance(error, ValueError):
                raise
            raise out_of_memory(config, device) from None
    return run


def out_of_memory(config: Config, device: torch.device) -> ValueError:
    """The error, with remedies, for a batch that is too large for the device's memory."""
    size, parts = config.train.batch_size, config.train.grad_accum_steps
    return ValueError(
        f"out of memory on {device} with train.batch_size={size}; try train.grad_accum_steps={2 * parts}, which "
        f"takes the same steps, or train.batch_size={max(1, size // 2)}"
    )


class Trainer:
    """One run's training loop. Random numbers depend on the seed and the epoch's number: see `randomness`."""

    def __init__(self, run: Run, prepared: Prepared, *, device: torch.device):
        self.cfg = cfg = run.config.train
        self.run, self.dataset, self.model = run, prepared.dataset, prepared.model
        self.device, self.precision, self.target = device, prepared.precision, prepared.target
        dataset, model, precision = self.dataset, self.model, self.precision
        self.measures = ("loss", "accuracy") + ("top5_accuracy",) * cfg.log_top5
        self.optimizer = optimizer = create_optimizer(model, run.config)
        self.watched = ("val", "test") if cfg.log_test else ("val",)  # no epoch is chosen by the test split
        self.rank, self.world_size = distributed.rank(), distributed.world_size()
        self.augment = Augment(run.config.data.augment)
        self.preprocess = preprocessing(model)
        self.mixer = Mixer(cfg, len(dataset.class_names)) if cfg.mixup or cfg.cutmix else None
        self.loss = create_loss(cfg, dataset.train.labels, dataset.class_names).to(device)
        self.steps_per_epoch = len(self.plan(torch.Generator()))
        self.scheduler = create_scheduler(optimizer, run.config, steps_per_epoch=self.steps_per_epoch)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.ema = ModelEmaV3(model, decay=cfg.model_ema_decay, use_warmup=True) if cfg.model_ema else None
        self.state = TrainingState(run, dataset, model, optimizer, self.scaler, self.ema, self.target)
        self.forward, self.evaluated = model, self.state.evaluated
        if self.world_size > 1:
            self.forward = nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        self.exchange_later = self.forward.no_sync if self.world_size > 1 else nullcontext
        if should_compile(cfg.compile, device, num_images=cfg.epochs * len(dataset.train)):
            self.forward, self.evaluated = torch.compile(self.forward), torch.compile(self.evaluated)
        if prepared.checkpoint:
            expected = prepared.optimizer_state
            self.state.restore(prepared.checkpoint, expected=expected, steps_per_epoch=self.steps_per_epoch)
        self.writer = scalar_writer(run) if cfg.tensorboard and distributed.is_main() else None

    def fit(self) -> None:
        """Train epochs until there is a reason to stop, then write the summary.

        Raises ValueError if the loss is not finite, and Interrupted at a signal.
        """
        log = self.state.log
        stopped_because = reason_to_stop(log, self.cfg, self.target)  # if it was killed after its last epoch
        if distributed.is_main():
            name = self.run.config.model.name
            print(start_line(self.dataset, self.model, name, self.device, self.precision), flush=True)
            print(f"writing {self.run.directory}", flush=True)
        journal = Journal(self.cfg.epochs, len(log))
        with Signals() as self.signals:
            while not stopped_because:
                signal = max(distributed.gather(self.signals.received))
                if signal:  # came in the last step of an epoch, or in validation
                    raise Interrupted(signal)
                row = self.train_epoch(len(log))
                if not math.isfinite(row["train_loss"]):
                    stopped_because = "non_finite_loss"
                    log.append(row | {f"{name}_{key}": None for name in self.watched for key in self.measures})
                    break
                row |= self.validate()
                self.state.end_epoch(row)
                if distributed.is_main():
                    print(journal.line(row), flush=True)
                if self.writer:
                    for key in row.keys() - {"epoch"}:
                        self.writer.add_scalar(key, math.nan if row[key] is None else row[key], row["epoch"])
                stopped_because = reason_to_stop(log, self.cfg, self.target)
        facts = {"precision": self.precision, "processes": self.world_size, "target": self.target}
        self.state.summarize(stopped_because, steps_per_epoch=self.steps_per_epoch, **facts)
        if self.writer:
            self.writer.close()
        if self.signals.received:  # came in the last epoch: this run is finished, but later configs must not start
            raise Interrupted(self.signals.received)
        if stopped_because == "non_finite_loss":
            remedy = ", or set train.amp=bf16" if self.precision == "fp16" else ""
            raise ValueError(
                f"{self.run.directory}: the loss is not finite in epoch {row['epoch']} (lr {row['lr']:.2g}, "
                f"{self.precision}); lower train.lr or lengthen train.warmup_epochs{remedy}"
            )

    def plan(self, order: torch.Generator) -> list[BatchPlan]:
        """The batches of an epoch, the same on every rank."""
        return self.dataset.train.plan(
            self.cfg.batch_size,
            order,
            repeats=self.run.config.data.augment.aug_repeats,
            smallest=max(2, self.world_size),
            balanced=self.cfg.sampler == "balanced",
        )

    def train_epoch(self, epoch: int) -> dict:
        """One epoch, or the rest of an interrupted one -> its row of the log."""
        order, generator = seed_epoch(self.run.config.seed, epoch, self.rank)
        plan = self.plan(order)
        first, before, sums = self.state.take_progress(generator, self.device)  # sums: loss, hits, images
        start = time.perf_counter() - before
        train_mode(self.model)
        batches = self.dataset.train.load([b.part(self.rank, self.world_size) for b in plan[first:]], self.device)
        with TrainingBar(f"epoch {epoch + 1}/{self.cfg.epochs}", plan, first, visible=distributed.is_main()) as bar:
            watcher = Watcher(bar, self.signals, save_every=self.cfg.checkpoint_every_steps)
            for step, (images, labels) in enumerate(batches, first):
                self.schedule(epoch, step)
                sums += self.train_step(images, labels, len(plan[step].indices), generator)
                if self.ema:
                    self.ema.update(self.model, step=epoch * self.steps_per_epoch + step)
                if not watcher.look(step, sums):
                    break
                if step + 1 < len(plan) and watcher.wants_saving(step):
                    self.state.save_progress(step + 1, time.perf_counter() - start, sums, generator)
                    if watcher.signal:
                        raise Interrupted(watcher.signal)
            bar.show(sums)
        loss_sum, hits, images_seen = sum(distributed.gather(sums.cpu().double())).tolist()
        seconds = time.perf_counter() - start
        return {
            "epoch": epoch + 1,
            "lr": self.state.learning_rates[-1],
            "train_loss": loss_sum / images_seen,
            "train_accuracy": hits / images_seen,
            "seconds": seconds,
            "images_per_second": images_seen / seconds,
        }

    def schedule(self, epoch: int, step: int) -> None:
        """Set the learning rate for a step of an epoch, and record it."""
        since_start = epoch * self.steps_per_epoch
        self.scheduler.step_update(since_start + step if self.cfg.sched_on_updates else since_start)
        self.state.learning_rates.append(max(group["lr"] for group in self.optimizer.param_groups))

    def prepare_batch(self, images: Tensor, labels: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """uint8 b 3 H W and int64 b -> the model's input, float b 3 H W, and labels or, for mixed images, shares b K."""
        inputs = self.augment.erase(self.preprocess(self.augment(images, generator)), generator)
        return self.mixer(inputs, labels) if self.mixer else (inputs, labels)

    def train_step(self, images: Tensor, labels: Tensor, batch_size: int, generator: torch.Generator) -> Tensor:
        """One optimizer step on this rank's part (uint8 b 3 H W, int64 b) of a batch -> sums of loss, hits, images."""
        inputs, targets = self.prepare_batch(images, labels, generator)
        sums = torch.zeros(3, device=self.device)
        parts = list(zip(*(x.chunk(self.cfg.grad_accum_steps) for x in (inputs, targets, labels))))
        for number, (chunk, target, label) in enumerate(parts, 1):
            # Ranks exchange gradients once, in the last part. The attention kernel must also be set for the backward pass,
            # which may compute activations again.
            exchange = nullcontext() if number == len(parts) else self.exchange_later()
            with exchange, training_attention(self.model, self.device, self.precision):
                with autocast(self.device, self.precision):
                    logits = self.forward(chunk)
                    loss = self.loss(logits, target)
                # The gradient is that of the mean over the whole batch; DistributedDataParallel divides by the ranks.
                self.scaler.scale(loss * len(chunk) * self.world_size / batch_size).backward()
            hits = (logits.detach().argmax(dim=1) == label).sum()
            shown = F.cross_entropy(
                logits.detach().float(), target, reduction="sum"
            )  # without label smoothing, as in validation
            sums += torch.stack([shown, hits, torch.full_like(hits, len(chunk))])
        if self.cfg.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return sums

    def validate(self) -> dict:
        """Loss and accuracy on the validation split (and the test split with ``log_test``); None for an empty split."""
        row = {}
        for name in self.watched:
            row |= {f"{name}_{key}": None for key in self.measures}
            if len(self.dataset.split(name)):
                predictions = predict_split(
                    self.evaluated,
                    self.dataset.split(name),
                    batch_size=self.run.config.evaluate.batch_size,
                    device=self.device,
                    precision=self.precision,
                )
                row |= {f"{name}_loss": predictions.loss, f"{name}_accuracy": predictions.accuracy}
                if self.cfg.log_top5 and predictions.logits.shape[1] > 5:
                    row[f"{name}_top5_accuracy"] = top_k_accuracy(predictions, 5)
        return row
