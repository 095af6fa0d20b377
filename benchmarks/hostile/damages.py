"""Ways in which a file of a run can be wrong, for `benchmarks.hostile`."""

import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

NESTED = 12
"""Places within a JSON file that are damaged, drawn with a seed."""
OTHER_VALUES = {"null": None, "text": "text", "number": -1, "list": [1, 2, 3]}
OTHER_ARRAYS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "shorter": lambda array: array[:-1],
    "deeper": lambda array: array[None],
    "text": lambda array: np.array(["text"] * len(array)),
    "not finite": lambda array: array * np.nan if array.dtype.kind == "f" else array,
    "empty": lambda array: array[:0],
    "larger": lambda array: array + 1000 if array.dtype.kind in "iu" else array,
    "objects": lambda array: np.array([os.getcwd] * len(array), dtype=object),
}


def damages(path: Path) -> dict[str, Callable[[], None]]:
    """Ways in which a file of a run can be wrong."""

    def replace(make: Callable[[], None]) -> Callable[[], None]:
        def call():
            path.unlink()
            make()

        return call

    whole = path.read_bytes()
    found = {
        "missing": path.unlink,
        "empty": lambda: path.write_bytes(b""),
        "half": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "noise": lambda: path.write_bytes(np.random.default_rng(0).bytes(999)),
        "bit": lambda: path.write_bytes(
            whole[: len(whole) // 3] + bytes([whole[len(whole) // 3] ^ 64]) + whole[len(whole) // 3 + 1 :]
        ),
        "pickle": lambda: path.write_bytes(pickle.dumps(os.getcwd)),
        "folder": replace(path.mkdir),
        "loop": replace(lambda: path.symlink_to(path)),
    }
    if path.suffix in (".json", ".yaml"):
        for name, text in (("null", "null"), ("list", "[1, 2]"), ("other keys", '{"a": 1}'), ("deep", "[" * 99_999)):
            found[name] = lambda text=text: path.write_text(text)
    if path.suffix == ".json":
        found |= {
            f"{name} values": lambda value=value: damage_json(path, value) for name, value in OTHER_VALUES.items()
        }
        places = [place for place in nested(json.loads(whole)) if len(place) > 1]
        for number in np.random.default_rng(0).permutation(len(places))[:NESTED].tolist():
            for name in ("lacking", "text"):
                key = f"{name} {'.'.join(map(str, places[number]))}"
                found[key] = lambda place=places[number], name=name: damage_nested(path, place, name)
    if path.suffix == ".pt":
        values = torch.load(path, weights_only=True)
        for key in values:
            found |= {
                f"{key} {name}": lambda key=key, value=value: torch.save(values | {key: value}, path)
                for name, value in OTHER_VALUES.items()
            }
    if path.suffix == ".npz":
        found |= {
            f"{name} arrays": lambda change=change: damage_arrays(path, change) for name, change in OTHER_ARRAYS.items()
        }
    if path.suffix == ".csv":
        found["text"] = lambda: path.write_text("epoch,lr\nmany,few\n")
    return found


def damage_json(path: Path, value) -> None:
    """Every value that is no mapping becomes another."""

    def change(values):
        return {key: change(one) if isinstance(one, dict) else value for key, one in values.items()}

    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def nested(values, place: tuple = ()) -> Iterator[tuple]:
    """The keys and positions that lead to every value within JSON."""
    for key, value in values.items() if isinstance(values, dict) else enumerate(values):
        yield (*place, key)
        if isinstance(value, dict | list):
            yield from nested(value, (*place, key))


def damage_nested(path: Path, place: tuple, name: str) -> None:
    """One value is taken away, or becomes a text that reads as a number."""
    values = within = json.loads(path.read_text())
    for key in place[:-1]:
        within = within[key]
    if name == "lacking":
        del within[place[-1]]
    else:
        within[place[-1]] = "0.5"
    path.write_text(json.dumps(values))


def damage_arrays(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    with np.load(path) as arrays:
        values = {key: change(array) if array.ndim else array for key, array in arrays.items()}
    np.savez(path, **values)
