"""Train the classifier that a config describes.

    python train.py configs/quickstart.yaml
    python train.py configs/quickstart.yaml train.epochs=5 seed=1 name=quickstart-seed1

Writes outputs/<name>/: config.yaml, environment.json, log.csv, best.pt, last.pt, train.json and figures. Several configs
are trained one after another.
"""

import argparse
import difflib
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import create_scheduler_v2
from torch import nn
from tqdm import tqdm

from analysis.efficiency import count_parameters
from analysis.figures import learning_rate, training_curves
from analysis.metrics import Predictions, predict
from config import Config, describe_keys, load_config
from console import print_result, print_table, run_script
from data import Augment, Dataset, Preprocess, load_dataset
from devices import autocast, select_device, select_precision
from models import create_model, input_spec, resolve_image_size, train_mode
from runs import Run, is_run, remove_run


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    device = select_device(args.device)
    configs = [resolve_image_size(load_config(path, args.overrides)) for path in args.configs]
    directories = [config.run_directory for config in configs]
    for directory in directories:
        if directories.count(directory) > 1:
            raise ValueError(f"two of the configs write to {directory}; give each a name of its own")
        check_directory(directory, resume=args.resume, overwrite=args.overwrite)
    for config in configs:
        if args.resume and (config.run_directory / "train.json").is_file():
            print(f"{config.run_directory} is finished already")
            continue
        report(train(config, device=device, resume=args.resume, overwrite=args.overwrite))


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="keys of a config, with their defaults:\n  " + "\n  ".join(describe_keys()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("configs", nargs="+", metavar="CONFIG | section.key=value", help="YAML files, and overrides")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="go on with unfinished runs, leave finished ones alone")
    existing.add_argument("--overwrite", action="store_true", help="replace runs of the same name")
    parser.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    args = parser.parse_intermixed_args(argv)
    args.overrides = [word for word in args.configs if "=" in word]
    args.configs = [word for word in args.configs if "=" not in word]
    if not args.configs:
        parser.error("name at least one config file")
    return args


def check_directory(directory: Path, *, resume: bool, overwrite: bool) -> None:
    """Refuse, before any work, to touch what must not be touched."""
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not is_run(directory):
        raise ValueError(f"{directory} exists and is not a run directory; move it away or choose another name")
    if not (resume or overwrite):
        state = "is finished" if (directory / "train.json").is_file() else "holds an unfinished run"
        raise ValueError(f"{directory} {state}; pass --resume to go on, --overwrite to replace it, or name=...")


def train(config: Config, *, device: torch.device, resume: bool = False, overwrite: bool = False) -> Run:
    """Train ``config`` into its run directory."""
    precision = select_precision(config.train.amp, device)
    dataset = load_dataset(config.data, seed=config.data.split_seed)
    seed_epoch(config.seed, 0, device)
    model = create_model(config, num_classes=len(dataset.class_names)).to(device)
    optimizer = create_optimizer(model, config, device)
    # From here on the run's directory changes; what is wrong with the config has shown itself above.
    if config.run_directory.exists() and overwrite:
        remove_run(config.run_directory)
    run = Run.open(config.run_directory) if resume and is_run(config.run_directory) else None
    run = run or Run.create(config.run_directory, config, device=device)
    Trainer(run, dataset, model, optimizer, device=device, precision=precision, resume=resume).fit()
    return run


def create_optimizer(model: nn.Module, config: Config, device: torch.device) -> torch.optim.Optimizer:
    """timm's optimizer of that name; biases, norms and what the model lists (positions) are not decayed."""
    cfg = config.train
    if cfg.opt not in list_optimizers():
        nearest = difflib.get_close_matches(cfg.opt, list_optimizers(), n=3)
        raise ValueError(f"train.opt = {cfg.opt!r} is no optimizer of timm; nearest: {', '.join(nearest) or 'adamw'}")
    fused = {"fused": True} if device.type == "cuda" and cfg.opt in ("adam", "adamw") else {}
    return create_optimizer_v2(model, opt=cfg.opt, lr=config.learning_rate, weight_decay=cfg.weight_decay, **fused)


class Trainer:
    """The state of a run while it trains: what ``last.pt`` saves and a resume restores.

    Randomness is a function of (seed, epoch), so a resume at an epoch's start repeats what would have happened.
    """

    def __init__(
        self,
        run: Run,
        dataset: Dataset,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        precision: str,
        resume: bool = False,
    ):
        self.run, self.dataset, self.model, self.optimizer = run, dataset, model, optimizer
        self.device, self.precision = device, precision
        self.cfg = cfg = run.config.train
        spec = input_spec(model)
        self.augment = Augment(run.config.data.augment)
        self.preprocess = Preprocess(spec.size, spec.mean, spec.std, spec.interpolation).to(device)
        self.loss = nn.CrossEntropyLoss(label_smoothing=cfg.smoothing)
        self.steps_per_epoch = dataset.train.num_batches(cfg.batch_size)
        lr, warmup = run.config.learning_rate, min(cfg.warmup_epochs, cfg.epochs / 2)
        self.scheduler, _ = create_scheduler_v2(
            optimizer,
            sched="cosine",
            num_epochs=cfg.epochs - warmup,  # timm: without the warmup, if that is a prefix
            warmup_epochs=warmup,
            warmup_prefix=True,
            warmup_lr=min(cfg.warmup_lr, lr),
            min_lr=lr if cfg.sched == "constant" else cfg.min_lr,  # a cosine between equal ends is constant
            step_on_epochs=False,
            updates_per_epoch=self.steps_per_epoch,
        )
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.log: list[dict] = []
        self.learning_rates: list[float] = []  # of every step
        self.best: dict | None = None  # log row of the best epoch
        if resume and run.path("last.pt").is_file():
            self.restore(run.load_checkpoint("last.pt"))

    def fit(self) -> None:
        stopped_because = "all_epochs_done"
        for epoch in range(len(self.log), self.cfg.epochs):
            row = self.train_epoch(epoch) | self.validate()
            self.log.append(row)
            if not math.isfinite(row["train_loss"]):
                stopped_because = "non_finite_loss"
                break
            self.save()
        self.finish(stopped_because)

    def train_epoch(self, epoch: int) -> dict:
        """One pass over the training images -> its row of the log."""
        generator = seed_epoch(self.run.config.seed, epoch, self.device)
        train_mode(self.model)
        loss_sum, correct = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        seen, shown, start = 0, time.perf_counter(), time.perf_counter()
        batches = self.dataset.train.batches(self.cfg.batch_size, self.device, generator)
        with tqdm(total=len(self.dataset.train), desc=f"epoch {epoch + 1}/{self.cfg.epochs}", unit=" images") as bar:
            for step, (images, labels) in enumerate(batches, epoch * self.steps_per_epoch):
                self.scheduler.step_update(step)
                self.learning_rates.append(max(group["lr"] for group in self.optimizer.param_groups))
                loss, logits = self.train_step(self.preprocess(self.augment(images, generator)), labels)
                loss_sum += loss * len(labels)  # stay on the device: reading them would wait for it
                correct += (logits.argmax(dim=1) == labels).sum()
                seen += len(labels)
                bar.update(len(labels))
                if time.perf_counter() - shown > 1:
                    bar.set_postfix(loss=f"{loss_sum.item() / seen:.4f}", accuracy=f"{correct.item() / seen:.2%}")
                    shown = time.perf_counter()
            mean_loss, accuracy = loss_sum.item() / seen, correct.item() / seen
            bar.set_postfix(loss=f"{mean_loss:.4f}", accuracy=f"{accuracy:.2%}")
        seconds = time.perf_counter() - start
        return {
            "epoch": epoch + 1,
            "lr": self.learning_rates[-1],
            "train_loss": mean_loss,
            "train_accuracy": accuracy,
            "seconds": seconds,
            "images_per_second": seen / seconds,
        }

    def train_step(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """One optimizer step; images are preprocessed float32 B 3 H W. Returns loss and logits, detached."""
        with autocast(self.device, self.precision):
            logits = self.model(images)
            loss = self.loss(logits, labels)
        self.scaler.scale(loss).backward()
        if self.cfg.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        return loss.detach(), logits.detach()

    def validate(self) -> dict:
        """Loss and accuracy on the validation split; empty where there is none."""
        if not len(self.dataset.val):
            return {"val_loss": None, "val_accuracy": None}
        predictions = self.predict("val")
        return {"val_loss": predictions.loss, "val_accuracy": predictions.accuracy}

    def predict(self, split: str) -> Predictions:
        batches = self.dataset.split(split).batches(self.run.config.evaluate.batch_size, self.device)
        self.model.eval()
        return predict(
            self.model,
            ((self.preprocess(images), labels) for images, labels in batches),
            context=lambda: autocast(self.device, self.precision),
        )

    def save(self) -> None:
        """After an epoch: the best model so far, then all that a resume needs.

        Best is the highest validation accuracy, among equals the lowest loss; the latest, where nothing is held out.
        """
        row = self.log[-1]
        if self.best is None or selection_key(row) >= selection_key(self.best):
            self.best = row
            self.run.save_checkpoint("best.pt", self.describe_model() | {"epoch": row["epoch"]})
        self.run.save_checkpoint(
            "last.pt",
            self.describe_model()
            | {
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "log": self.log,
                "learning_rates": self.learning_rates,
                "best": self.best,
                "epoch": row["epoch"],
            },
        )
        self.run.save_log(self.log)

    def describe_model(self) -> dict:
        """The weights and what it takes to rebuild and feed the model."""
        return {
            "model": {key: tensor.cpu() for key, tensor in self.model.state_dict().items()},
            "class_names": list(self.dataset.class_names),
            "input_spec": input_spec(self.model).to_dict(),
        }

    def restore(self, checkpoint: dict) -> None:
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.scaler.load_state_dict(checkpoint["scaler"])
        self.log, self.best = checkpoint["log"], checkpoint["best"]
        self.learning_rates = checkpoint["learning_rates"]
        print(f"resuming {self.run.directory} after epoch {len(self.log)}")

    def finish(self, stopped_because: str) -> None:
        """Write ``train.json`` and the figures; raise ValueError if the run diverged."""
        log = {key: [np.nan if row[key] is None else row[key] for row in self.log] for key in self.log[0]}
        name, best_epoch = self.run.config.name, self.best and self.best["epoch"]
        self.run.save_log(self.log)
        self.run.save_figure("figures/curves.png", training_curves(log, best_epoch=best_epoch, title=name))
        epochs = (np.arange(len(self.learning_rates)) + 1) / self.steps_per_epoch
        self.run.save_figure("figures/learning_rate.png", learning_rate(epochs, self.learning_rates, title=name))
        params, trainable = count_parameters(self.model)
        self.run.save_json(
            "train.json",
            {
                "best_epoch": best_epoch,
                "selected_by": "validation accuracy" if len(self.dataset.val) else "last epoch",
                "val_accuracy": self.best and self.best["val_accuracy"],
                "train_accuracy": self.best and self.best["train_accuracy"],
                "epochs_run": len(self.log),
                "stopped_because": stopped_because,
                "seconds": sum(log["seconds"]),
                "images_per_second": float(np.median(log["images_per_second"])),
                "precision": self.precision,
                "params": params,
                "trainable_params": trainable,
                "num_images": {split: len(self.dataset.split(split)) for split in ("train", "val", "test")},
            },
        )
        if stopped_because == "non_finite_loss":
            raise ValueError(
                f"{self.run.directory}: the loss is not finite in epoch {len(self.log)} (lr {self.log[-1]['lr']:.2g}, "
                f"{self.precision}); lower train.lr, lengthen train.warmup_epochs, or set train.amp=bf16 or fp32"
            )


def selection_key(row: dict) -> tuple[float, float]:
    """What `best.pt` is chosen by; the same for every epoch where nothing is held out."""
    return (0, 0) if row["val_accuracy"] is None else (row["val_accuracy"], -row["val_loss"])


def seed_epoch(seed: int, epoch: int, device: torch.device) -> torch.Generator:
    """Seed dropout and the like for an epoch, and return the generator of its order and augmentation."""
    number = int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0])
    torch.manual_seed(number)
    np.random.seed(number)
    return torch.Generator(device).manual_seed(number)


def report(run: Run) -> None:
    """The short table at the end."""
    result = run.read_json("train.json")
    accuracy, params = result["val_accuracy"], result["params"]
    print_table(
        [
            ("run", run.directory),
            ("best epoch", f"{result['best_epoch']} of {result['epochs_run']} (by {result['selected_by']})"),
            ("validation accuracy", "no validation split" if accuracy is None else f"{accuracy:.2%}"),
            (
                "parameters",
                f"{params / 1e6:.2f} M, {result['trainable_params'] / params:.0%} trained",
            ),
            (
                "training time",
                f"{result['seconds']:.1f} s, {result['images_per_second']:.0f} images/s, {result['precision']}",
            ),
        ]
    )
    names = ("best.pt", "log.csv", "train.json", "figures/curves.png", "figures/learning_rate.png")
    print_result({"run": str(run.directory)} | result, [run.path(name) for name in names])


if __name__ == "__main__":
    run_script(main)
