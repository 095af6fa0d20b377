"""The run directory: everything that one stage passes to the next.

``outputs/<name>/`` holds the full config, its provenance, the log, checkpoints, metrics and figures. It is created together
with its first files, one process at a time writes it, and only files that belong to a run are ever deleted.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import stored
from common.config import Config
from common.config_files import differing_keys, load_config
from common.environment import describe_environment
from common.folders import LEFTOVER, Folder, beside, leftovers
from common.locks import FILE as LOCK_FILE
from common.locks import Lock

if TYPE_CHECKING:  # importing these takes seconds, and a wrong argument should be reported at once
    import numpy as np
    import torch

LOG_COLUMNS = (
    *("epoch", "lr", "train_loss", "train_accuracy"),
    *("val_loss", "val_accuracy", "seconds", "images_per_second"),
)
SUBFOLDERS = ("figures", "gradcam", "images", "tensorboard")
RUN_FILE = re.compile(
    r"(config\.yaml|environment\.json|log\.csv|(best|last)\.pt|train\.json"
    r"|(metrics|predictions|report|mistakes|corruptions|embedding)[^/]*\.(json|npz|txt|csv|html|md|tex)"
    r"|(figures|gradcam)/[^/]+\.(png|pdf|svg|npy|npz|json|csv|md|html)"
    r"|images/[^/]+/predictions\.(csv|json)|tensorboard/.+)"
)
"""The files of a run: the scripts write no others there, and delete no others."""
NO_RUN_NAMES = ("checks", "comparisons", "pretrained")  # folders below `output_root` for other results
LONGEST_NAME = 200  # bytes of a part of a path; systems allow 255, and temporary files have longer names


class Run(Folder):
    """One run directory. `create` makes a new one, `open` opens an existing one."""

    def __init__(self, directory: str | Path, config: Config):
        super().__init__(directory)
        self.config = config

    @classmethod
    def create(
        cls,
        directory: str | Path,
        config: Config,
        *,
        device: torch.device,
        pretrained: dict | None = None,
        replace: bool = False,
        fill: Callable[[Run], Any] = lambda run: None,
    ) -> tuple[Run, Lock]:
        """Make the run with ``config.yaml`` and ``environment.json`` in it; returns it and its lock, which is held.

        It is made under a temporary name and then renamed: a killed process leaves nothing under the name, or a full run.

        Args:
            pretrained: where the weights come from.
            replace: delete the existing run of that name, which the caller has locked.
            fill: writes further files that the run should have from the start.
        Raises ValueError if the directory cannot be written, or another process has just made it.
        """
        place = Path(os.path.realpath(directory))  # a symbolic link stays; the run is made where it points
        aside = beside(place)
        with contextlib.ExitStack() as undo:
            try:
                aside.parent.mkdir(parents=True, exist_ok=True)
                remove_leftovers(place.parent)
                undo.callback(shutil.rmtree, aside, ignore_errors=True)
                aside.mkdir()
                lock = undo.enter_context(Lock(aside))
                run = cls(aside, config)
                run.save_text("config.yaml", config.to_yaml())
                run.save_json("environment.json", describe_environment(device) | {"pretrained": pretrained})
                fill(run)
                if replace:
                    remove_run(place, then=lambda: os.rename(aside, place))
                else:
                    os.rename(aside, place)
            except OSError as error:
                taken = place.is_dir() and any(place.iterdir())
                reason = "another process has just made it" if taken else error.strerror or error
                raise ValueError(f"{directory} cannot be written ({reason})") from None
            undo.pop_all()
        lock.directory = Path(directory)
        return cls(directory, config), lock

    @classmethod
    def open(cls, directory: str | Path, overrides: Sequence[str] = ()) -> Run:
        """Open an existing run; ``overrides`` of its config are not saved. Raises ValueError if ``directory`` is no run."""
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
        """Open a run for the stages after training. Raises ValueError if its training is not finished."""
        run = cls.open(directory, overrides)
        if not run.finished:
            raise ValueError(f"{directory} holds an unfinished run; finish it with: {resume_command(directory)}")
        return run

    @property
    def finished(self) -> bool:
        """Whether the training is finished."""
        return self.path("train.json").is_file()

    @contextlib.contextmanager
    def lock(self, *, shared: bool = False) -> Iterator[None]:
        """Within this context no other process writes here (``shared``: none trains here); deletes old temporary files."""
        with Lock(self.directory, shared=shared):
            remove_leftovers(Path(os.path.realpath(self.directory)).parent)
            for folder in (self.directory, *map(self.path, SUBFOLDERS)):
                for path in leftovers(folder):
                    if path.is_file() and RUN_FILE.fullmatch(_final_name(path.relative_to(self.directory).as_posix())):
                        path.unlink(missing_ok=True)
            yield

    def write(self, name: str, writer: Callable[[Path], Any]) -> Path:
        assert RUN_FILE.fullmatch(name), f"{name} is not among the files of a run; add it to RUN_FILE"
        if not self.directory.is_dir():
            raise ValueError(f"{self.directory} was moved or deleted meanwhile; {name} was not written")
        return super().write(name, writer)

    def read_json(self, name: str) -> dict:
        return stored.read_json(self.path(name))

    def load_arrays(
        self, name: str, forms: Mapping[str, stored.Form], optional: Collection[str] = ()
    ) -> dict[str, np.ndarray]:
        """As `stored.load_arrays`, for a file of the run. Also raises ValueError if it is missing."""
        path = self.path(name)
        if not path.is_file():
            raise ValueError(f"{path} does not exist yet; make it with: python evaluate.py {self.directory}")
        return stored.load_arrays(path, forms, optional)

    def checksum(self, name: str) -> str:
        """SHA-256 of a file, as ``sha256sum`` prints it."""
        digest = hashlib.sha256()
        with self.path(name).open("rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
        return digest.hexdigest()

    def save_log(self, rows: Sequence[dict]) -> Path:
        """Write ``log.csv`` anew: a row for each epoch that was run, an empty cell for a missing value;
        train.log_test and log_top5 add columns."""
        columns = dict.fromkeys([*LOG_COLUMNS, *(key for row in rows for key in row)])

        def writer(path):
            with path.open("w", newline="", encoding="utf-8") as file:
                table = csv.DictWriter(file, columns)
                table.writeheader()
                table.writerows(rows)

        return self.write("log.csv", writer)

    def read_log(self) -> list[dict[str, float]]:
        """Rows of ``log.csv`` as numbers; empty cells are NaN."""
        return stored.read_log(self.path("log.csv"), LOG_COLUMNS)

    def load_checkpoint(self, name: str) -> dict:
        path = self.path(name)
        if not path.is_file():
            raise ValueError(f"{self.directory} has no {name}; train it with train.py first")
        return stored.load_checkpoint(path)


def open_runs(
    directories: Sequence[Path],
    output: Path | None,
    overrides: Sequence[str] = (),
    *,
    figure_format: str | None = None,
) -> list[Run]:
    """Open the finished runs in ``directories``, each once; a folder of runs means all of them.

    Unfinished runs in a folder of runs are left out, with a note, unless all are unfinished. ``figure_format`` is one of
    `VECTOR_FORMATS`, in which figures of the runs and of their comparison (in ``output``) are also written.

    Raises ValueError if a directory is no finished run, two runs have the same name, or a single run has an ``output``.
    """
    runs: dict[str, Run] = {}
    found = [run for directory in directories for run in _usable(directory, runs_below(directory))]
    for directory in {path.resolve(): path for path in found}.values():
        run = Run.open_finished(directory, overrides)
        run.figure_format = figure_format
        other = runs.setdefault(run.config.name, run)
        if other is not run:
            raise ValueError(
                f"{other.directory} and {directory} are both named {run.config.name}; edit name in one's config.yaml"
            )
    if output and len(runs) == 1 and all(map(is_run, directories)):  # else the others of a folder came to no end
        raise ValueError("--output is the folder of a comparison; name another run, or leave --output out")
    return list(runs.values())


def runs_below(directory: Path) -> list[Path]:
    """The runs in a folder and its subfolders, sorted by path; the path itself if it is a run, or holds none."""
    if not directory.is_dir() or is_run(directory):
        return [directory]
    found = []
    for folder, folders, _ in os.walk(directory):
        if is_run(Path(folder)):
            found.append(Path(folder))
            folders.clear()
        folders[:] = [name for name in folders if name not in NO_RUN_NAMES]
    return sorted(found) or [directory]


def _usable(folder: Path, directories: list[Path]) -> list[Path]:
    """The finished runs below a folder that have a best.pt; if there are none, all, so that opening them says why."""
    lacking = {d: next((n for n in ("train.json", "best.pt") if not (d / n).is_file()), None) for d in directories}
    chosen = [directory for directory, name in lacking.items() if not name]
    if directories == [folder] or not chosen:
        return directories
    for directory, name in lacking.items():
        if name == "train.json":
            print(f"note: {directory} is left out: it is unfinished ({resume_command(directory)})", file=sys.stderr)
        elif name:
            print(f"note: {directory} is left out: no epoch of it was finished", file=sys.stderr)
    return chosen


@contextlib.contextmanager
def in_use(runs: Iterable[Run]) -> Iterator[None]:
    """Within this context no other process trains ``runs``, though others may evaluate them; ValueError if one does now."""
    with contextlib.ExitStack() as locks:
        for run in runs:
            locks.enter_context(run.lock(shared=True))
        yield


def resume_command(directory: Path) -> str:
    """The command, from the current folder, that resumes the run in ``directory``."""
    return f"python train.py {shlex.quote(str(directory / 'config.yaml'))} --resume"


def is_run(directory: Path) -> bool:
    return all((directory / name).is_file() for name in ("config.yaml", "environment.json"))


def directory_of(path: Path, config: Config, overrides: Sequence[str]) -> Path:
    """The run directory for the config file ``path``; for a run's own config.yaml that run, even if it was moved."""
    own = path.name == "config.yaml" and is_run(path.parent)
    elsewhere = any(word.partition("=")[0] in ("name", "output_root") for word in overrides)
    return path.parent if own and not elsewhere else config.run_directory


def check_directory(directory: Path, config: Config, *, resume: bool, overwrite: bool) -> None:
    """Raise ValueError unless a run may be made, resumed or replaced in ``directory``; imports nothing that takes long."""
    if config.name.split("/")[0] in NO_RUN_NAMES:
        raise ValueError(f"name = {config.name!r}: {config.output_root}/{config.name.split('/')[0]} is not for runs")
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in directory.parts):
        raise ValueError(f"name = {config.name[:40] + '...'!r}: a folder's name may have {LONGEST_NAME} bytes at most")
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        outer = next(filter(is_run, directory.parents), None)
        if outer:
            raise ValueError(f"{directory} would lie within the run {outer}; choose another name")
        return
    if not is_run(directory):
        raise ValueError(f"{directory} exists and is not a run directory; move it away or choose another name")
    if not (resume or overwrite):
        finished = (directory / "train.json").is_file()
        state = "is finished; pass" if finished else "holds an unfinished run; pass --resume to go on,"
        raise ValueError(f"{directory} {state} --overwrite to replace it, or name=... for another")
    if overwrite:
        check_removable(directory)


def check_unchanged(directory: Path, config: Config) -> None:
    """Raise ValueError if a run would be resumed with another config, whose ``data.image_size`` is not None."""
    changed = differing_keys(load_config(directory / "config.yaml"), config) if is_run(directory) else []
    if changed:
        raise ValueError(f"{directory} cannot be resumed with another config ({'; '.join(changed)}); see --overwrite")


def check_removable(directory: Path) -> None:
    """Raise ValueError unless ``directory`` is a run and holds nothing but its files."""
    if not is_run(directory):
        raise ValueError(f"{directory} exists and is not a run directory; move it away or choose another name")
    strange = strangers(directory)
    if strange:
        more = f" and {len(strange) - 3} more" if len(strange) > 3 else ""
        raise ValueError(
            f"{directory} also holds files that are not a run's ({', '.join(strange[:3])}{more}), and is not deleted; move "
            "them away, or choose another name"
        )


def strangers(directory: Path) -> list[str]:
    """Files and folders in a run directory that are not a run's; paths relative to it."""
    found = []
    for folder, folders, files in os.walk(directory):
        inside = Path(folder).relative_to(directory)
        names = [(inside / name).as_posix() for name in files]
        found += [name for name in names if name != LOCK_FILE and not RUN_FILE.fullmatch(_final_name(name))]
        for name in folders:
            path = inside / name
            if path.parts[0] not in SUBFOLDERS or (directory / path).is_symlink():
                found.append(f"{path.as_posix()}/")
        folders[:] = [name for name in folders if (inside / name).parts[0] in SUBFOLDERS]
    return sorted(found)


def remove_run(directory: Path, *, then: Callable[[], Any] = lambda: None) -> None:
    """Delete a run directory, as `check_removable` allows; ``then`` is called after it is renamed and before it is deleted."""
    check_removable(directory)
    directory = Path(os.path.realpath(directory))
    old = beside(directory, "old-")
    os.rename(directory, old)  # in one step: a killed process leaves no incomplete run under this name
    try:
        then()
    except OSError:
        os.rename(old, directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Delete the runs in ``folder`` that killed processes were making or deleting."""
    for path in leftovers(folder):
        if path.is_dir() and not strangers(path):
            shutil.rmtree(path, ignore_errors=True)


def _final_name(path: str) -> str:
    """The final name of a temporary file; other names are returned as they are."""
    folder, slash, name = path.rpartition("/")
    match = LEFTOVER.fullmatch(name)
    return folder + slash + (match[2] if match else name)
