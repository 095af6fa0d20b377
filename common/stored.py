"""Reading files that an earlier stage wrote, or that another person sent: any damage gives one sentence with the file."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from common.shapes import Checkpoint, Corruptions, Environment, LastCheckpoint, Metrics, Shape, Statistics, Training

if TYPE_CHECKING:
    import numpy as np

Form = tuple[str, str]
"""What an array must be: the allowed kinds of its dtype (numpy's letters), and a letter for each axis.

Within a file, axes with the same letter must be equally long; no axis may be empty.
"""
SHAPES: dict[str, type[Shape]] = {
    "train": Training,
    "metrics": Metrics,
    "environment": Environment,
    "corruptions": Corruptions,
    "statistics": Statistics,
}
"""Start of a JSON file's name, up to the first hyphen or the suffix -> its keys."""


def read_json(path: Path) -> dict:
    """The object in a stage's JSON file; what it must hold follows from its name.

    Raises ValueError if the file is missing or damaged, or holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist yet; run the stage that writes it") from None
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON: {error}; run the stage that writes it again") from None
    check(path, values, _shape_of(path))
    return _Values(path, values)


def _shape_of(path: Path) -> type[Shape]:
    if path.parent.name == "gradcam" and path.name != "statistics.json":
        return Shape  # a map, whose file is named after its image: train-3, or metrics-of-a-photo
    return SHAPES.get(path.stem.partition("-")[0], Shape)


class _Values(dict):
    """The file's values; looking up a missing key raises a ValueError that names the file."""

    def __init__(self, path: Path, values: dict):
        super().__init__(values)
        self.path = path

    def __missing__(self, key: str):
        raise ValueError(f"{self.path} lacks {key}; run the stage that writes it again")


def load_arrays(path: Path, forms: Mapping[str, Form], optional: Collection[str] = ()) -> dict[str, np.ndarray]:
    """Arrays of an ``.npz`` file, by name; those in ``optional`` may be missing.

    Raises:
        ValueError: the file is damaged, lacks an array, or holds one of another dtype or shape.
    """
    import numpy as np

    advice = "run the stage that writes it again"
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {key: stored[key] for key in forms if key in stored or key not in optional}
    except Exception as error:  # a damaged archive fails in many ways
        raise ValueError(f"{path} cannot be used ({type(error).__name__}: {error}); {advice}") from None
    lengths: dict[str, int] = {}
    for key, array in arrays.items():
        kinds, axes = forms[key]
        fits = array.dtype.kind in kinds and array.ndim == len(axes) and array.size > 0
        if not fits or any(lengths.setdefault(axis, size) != size for axis, size in zip(axes, array.shape)):
            found = f"{key} is {array.dtype} of shape {array.shape}"
            raise ValueError(f"{path} is not as this project writes it ({found}); {advice}")
    return arrays


def read_log(path: Path, columns: Sequence[str]) -> list[dict[str, float]]:
    """Rows of ``log.csv`` as numbers; empty cells become NaN. Raises ValueError if it is missing or damaged."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            table = csv.DictReader(file)
            names = set(table.fieldnames or ())
            rows = [{key: float(value or "nan") for key, value in row.items()} for row in table]
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; train.py writes it: restore it from a copy") from None
    except (OSError, ValueError, TypeError, csv.Error) as error:
        raise ValueError(f"{path} is not a log as train.py writes it ({error}); restore it from a copy") from None
    if not set(columns) <= names:
        raise ValueError(f"{path} is not a log as train.py writes it (columns are missing); restore it from a copy")
    return rows


def load_checkpoint(path: Path) -> dict:
    """A checkpoint of ``train.py``, on the CPU; nothing in the file is executed. Raises ValueError for any other file."""
    import torch

    advice = "use the other of best.pt and last.pt, or train the run again with --overwrite"
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a truncated or foreign file fails in many ways
        raise ValueError(f"{path} is damaged or not a checkpoint ({type(error).__name__}); {advice}") from None
    check(path, values, LastCheckpoint if path.name == "last.pt" else Checkpoint, advice)
    return values


def check(path: Path, values: Any, shape: type[Shape], advice: str = "run the stage that writes it again") -> None:
    """Raise ValueError, with the file's name, unless the values have this shape."""
    try:
        shape.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        what = first["msg"].removeprefix("Value error, ")
        raise ValueError(
            f"{path} is not as this project writes it ({place or 'all of it'}: {what}); {advice}"
        ) from None
