"""The run directory: the only hand-over between stages.

``outputs/<name>/`` holds a resolved config, provenance, the log, checkpoints, metrics and figures. Files are written
beside their place and renamed, so that a reader, or a crash, never meets half a file.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.config import Config
from common.config_files import differing_keys, load_config

if TYPE_CHECKING:  # these take seconds to import, and a wrong argument should be answered at once
    import numpy as np
    import torch

LOG_COLUMNS = (
    "epoch",
    "lr",
    "train_loss",
    "train_accuracy",
    "val_loss",
    "val_accuracy",
    "seconds",
    "images_per_second",
)
TEST_COLUMNS = ("test_loss", "test_accuracy")  # of runs with train.log_test
VECTOR_FORMATS = ("pdf", "svg")
VECTOR_DPI = 300  # of the photos in them
PACKAGES = ("torch", "torchvision", "timm", "grad-cam", "scikit-learn", "matplotlib", "fvcore", "numpy", "pillow")


class Folder:
    """A place for results. Paths are relative to it; every file is written beside its place, then renamed."""

    figure_format: str | None = None
    """One of VECTOR_FORMATS, as which every figure is written beside its PNG."""

    def __init__(self, directory: str | Path):
        self.directory = Path(directory)

    def path(self, name: str) -> Path:
        return self.directory / name

    def write(self, name: str, writer: Callable[[Path], Any]) -> Path:
        """Let ``writer`` write a temporary file, then rename it to ``name``."""
        target = self.path(name)
        temporary = target.with_name(f".{os.getpid()}-{target.name}")  # keeps the suffix, which writers go by
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            writer(temporary)
            os.replace(temporary, target)
        except OSError as error:
            raise ValueError(f"{target} cannot be written ({error.strerror}); what stood there is unchanged") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return target

    def save_text(self, name: str, text: str) -> Path:
        return self.write(name, lambda path: path.write_text(text, encoding="utf-8"))

    def save_json(self, name: str, values: dict) -> Path:
        return self.save_text(name, json.dumps(values, indent=2, default=_plain, allow_nan=False) + "\n")

    def save_figure(self, name: str, figure) -> Path:
        """The figure as ``name``, a PNG, and beside it as `figure_format`, if one is asked for; returns the PNG's path."""
        path = self.write(name, figure.savefig)
        if self.figure_format:
            from matplotlib import rc_context

            with rc_context({"pdf.fonttype": 42}):  # TrueType, which publishers ask for
                beside = str(Path(name).with_suffix(f".{self.figure_format}"))
                self.write(beside, lambda path: figure.savefig(path, dpi=VECTOR_DPI))
        return path

    def save_arrays(self, name: str, **arrays: np.ndarray) -> Path:
        import numpy as np

        return self.write(name, lambda path: np.savez_compressed(path, **arrays))


class Run(Folder):
    """One run directory. Make one with `create`, or find one with `open`."""

    def __init__(self, directory: str | Path, config: Config):
        super().__init__(directory)
        self.config = config

    @classmethod
    def create(
        cls, directory: str | Path, config: Config, *, device: torch.device, pretrained: dict | None = None
    ) -> Run:
        """Make the directory with ``config.yaml`` and ``environment.json``; ``pretrained``: where the weights come from."""
        run = cls(directory, config)
        run.save_text("config.yaml", config.to_yaml())
        run.save_json("environment.json", describe_environment(device) | {"pretrained": pretrained})
        return run

    @classmethod
    def open(cls, directory: str | Path, overrides: Sequence[str] = ()) -> Run:
        """Find an existing run; ``overrides`` of its config are kept nowhere. Raises ValueError if ``directory`` is none."""
        directory = Path(directory)
        if not directory.is_dir():
            raise ValueError(f"{directory}: no such run directory; make one with train.py")
        if not is_run(directory):
            raise ValueError(
                f"{directory} is not a run directory: train.py's config.yaml and environment.json are missing"
            )
        return cls(directory, load_config(directory / "config.yaml", overrides))

    @classmethod
    def open_finished(cls, directory: str | Path, overrides: Sequence[str] = ()) -> Run:
        """Find a run for the stages after training. Raises ValueError if its training has not come to its end."""
        run = cls.open(directory, overrides)
        if not run.finished:
            raise ValueError(
                f"{directory} holds an unfinished run; finish it with: python train.py {run.path('config.yaml')} --resume"
            )
        return run

    @property
    def finished(self) -> bool:
        """Whether training came to its end."""
        return self.path("train.json").is_file()

    def read_json(self, name: str) -> dict:
        try:
            return json.loads(self.path(name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{self.path(name)} does not exist yet; run the stage that writes it") from None
        except ValueError as error:
            raise ValueError(f"{self.path(name)} is not valid JSON: {error}") from None

    def load_arrays(self, name: str, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """Arrays of an ``.npz`` file. Raises ValueError if it is missing, damaged, or lacks one of the keys."""
        import numpy as np

        path = self.path(name)
        if not path.is_file():
            raise ValueError(f"{path} does not exist yet; make it with: python evaluate.py {self.directory}")
        try:
            with np.load(path) as arrays:
                return {key: arrays[key] for key in keys}
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise ValueError(f"{path} cannot be used ({error}); run the stage that writes it again") from None

    def checksum(self, name: str) -> str:
        """SHA-256 of a file, as ``sha256sum`` prints it."""
        digest = hashlib.sha256()
        with self.path(name).open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        return digest.hexdigest()

    def save_log(self, rows: Iterable[dict]) -> Path:
        """Rewrite ``log.csv``; an epoch that was not run has no row, a value that does not exist an empty cell."""

        columns = LOG_COLUMNS + TEST_COLUMNS if self.config.train.log_test else LOG_COLUMNS

        def writer(path):
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows(rows)

        return self.write("log.csv", writer)

    def read_log(self) -> list[dict[str, float]]:
        """Rows of ``log.csv`` as numbers; empty cells are NaN."""
        if not self.path("log.csv").is_file():
            return []
        with self.path("log.csv").open(newline="", encoding="utf-8") as file:
            return [{key: float(value or "nan") for key, value in row.items()} for row in csv.DictReader(file)]

    def save_checkpoint(self, name: str, values: dict) -> Path:
        """Tensors and plain values only, so that ``torch.load(weights_only=True)`` opens the file."""
        import torch

        return self.write(name, lambda path: torch.save(values, path))

    def load_checkpoint(self, name: str) -> dict:
        import torch

        path = self.path(name)
        if not path.is_file():
            raise ValueError(f"{self.directory} has no {name}; train it with train.py first")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # a truncated or foreign file fails in many ways
            raise ValueError(
                f"{path} is damaged or not a checkpoint ({type(error).__name__}); "
                "use the other of best.pt and last.pt, or train the run again with --overwrite"
            ) from None


def scalar_writer(run: Run):
    """A TensorBoard writer into the run. Raises ValueError if the package is missing."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ValueError("train.tensorboard needs the package tensorboard: pip install tensorboard") from None
    return SummaryWriter(str(run.path("tensorboard")))


def open_runs(
    directories: Sequence[Path],
    output: Path | None,
    overrides: Sequence[str] = (),
    *,
    figure_format: str | None = None,
) -> list[Run]:
    """The finished runs in ``directories``, each once, for a comparison in ``output``.

    ``figure_format``: of `VECTOR_FORMATS`; what the figures of these runs, and of their comparison, are also written as.
    Raises ValueError where two have the same name, by which reports and their folders know them, and for an ``output``
    of a single run.
    """
    runs: dict[str, Run] = {}
    for directory in {path.resolve(): path for path in directories}.values():
        run = Run.open_finished(directory, overrides)
        run.figure_format = figure_format
        other = runs.setdefault(run.config.name, run)
        if other is not run:
            raise ValueError(
                f"{other.directory} and {directory} are both named {run.config.name}; edit name in one's config.yaml"
            )
    if output and len(runs) == 1:
        raise ValueError("--output is the folder of a comparison; name another run, or leave --output out")
    return list(runs.values())


def comparison_folder(runs: Sequence[Run], output: Path | None, suffix: str = "") -> Folder:
    """Where results over several runs go: ``output``, or a folder of their names and ``suffix`` below ``comparisons``."""
    folder = Folder(output or _comparison_path(runs, suffix))
    folder.figure_format = runs[0].figure_format
    return folder


def _comparison_path(runs: Sequence[Run], suffix: str) -> Path:
    names = [run.config.name.replace("/", "-") for run in runs]
    name = "-vs-".join(names)
    if len(name) > 80:
        name = f"{names[0]}-and-{len(runs) - 1}-more"
    return Path(runs[0].config.output_root) / "comparisons" / f"{name}{suffix}"


def is_run(directory: Path) -> bool:
    return all((directory / name).is_file() for name in ("config.yaml", "environment.json"))


def check_directory(config: Config, *, resume: bool, overwrite: bool) -> None:
    """Refuse, before anything is imported that takes long, to touch what must not be touched."""
    directory = config.run_directory
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not is_run(directory):
        raise ValueError(f"{directory} exists and is not a run directory; move it away or choose another name")
    if not (resume or overwrite):
        finished = (directory / "train.json").is_file()
        state = "is finished; pass" if finished else "holds an unfinished run; pass --resume to go on,"
        raise ValueError(f"{directory} {state} --overwrite to replace it, or name=... for another")


def check_unchanged(config: Config) -> None:
    """Refuse to resume a run with another config; ``data.image_size`` is set."""
    directory = config.run_directory
    changed = differing_keys(load_config(directory / "config.yaml"), config) if is_run(directory) else []
    if changed:
        raise ValueError(f"{directory} cannot be resumed with another config ({'; '.join(changed)}); see --overwrite")


def remove_run(directory: Path) -> None:
    """Delete a run directory, and never anything else."""
    if not is_run(directory):
        raise ValueError(f"{directory} exists and is not a run directory; move it away or choose another name")
    shutil.rmtree(directory)


def describe_environment(device: torch.device) -> dict:
    """What a number depends on beside its config: versions, commit, device, command."""
    import torch

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = None
    on_cuda = device.type == "cuda"
    return {
        "command": sys.argv,
        "python": sys.version.split()[0],
        "packages": versions,
        "git_commit": _git("rev-parse", "HEAD"),
        "git_changed": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "device": torch.cuda.get_device_name(device) if on_cuda else "cpu",
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _plain(value: Any) -> Any:
    """numpy values -> JSON's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} does not go into JSON")
