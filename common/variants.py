"""Several runs from one config: seeds and grids of values, each run with its own name."""

import itertools
import re
from collections.abc import Sequence

from common.config import Config
from common.config_files import load_config


def load_variants(path: str, overrides: Sequence[str], seeds: Sequence[int], grid: Sequence[str]) -> list[Config]:
    """The config in a file, once for each seed and each combination of the grid's values.

    Each is the same as the config of a run that is started alone with these overrides and the name ``name-lr1e-4-seed2``.

    Args:
        overrides: ``section.key=value``, for all runs.
        seeds: seeds of the runs; none: the config's seed, which does not appear in the names.
        grid: ``section.key=value,value``.
    Raises:
        ValueError: as `load_config`; also for a grid without values, and for a key or a seed that is given twice.
    """
    twice = [seed for i, seed in enumerate(seeds) if seed in seeds[:i]]
    if twice:
        raise ValueError(f"--seeds {twice[0]} is given twice; name each seed once")
    axes = [_axis(word) for word in grid]
    overrides = [
        *overrides,
        *(f"{key}={values[0]}" for key, values in axes if len(values) == 1),
    ]  # one value: not an axis
    axes = [(key, values) for key, values in axes if len(values) > 1]
    keys = [key for key, _ in axes] + [word.partition("=")[0] for word in overrides]
    keys += ["seed"] if seeds else []
    repeated = [key for i, key in enumerate(keys) if key in keys[:i] or (key == "name" and i < len(axes))]
    if repeated:
        raise ValueError(f"{repeated[0]} is given more than once, or cannot be an axis of a grid; give it once")
    if not axes and not seeds:
        return [load_config(path, overrides)]
    axes += [("seed", [str(seed) for seed in seeds])] if seeds else []
    base = load_config(path, overrides).name
    configs = []
    for values in itertools.product(*(values for _, values in axes)):
        chosen = [(key, value) for (key, _), value in zip(axes, values)]
        name = "-".join([base, *(f"{key.rpartition('.')[2]}{_in_name(value)}" for key, value in chosen)])
        others = [word for word in overrides if not word.startswith("name=")]
        configs.append(load_config(path, [*others, *(f"{key}={value}" for key, value in chosen), f"name={name}"]))
    return configs


def _axis(word: str) -> tuple[str, list[str]]:
    key, _, text = word.partition("=")
    values, depth = [""], 0
    for character in text:
        depth += (character in "[{") - (character in "]}")
        if character == "," and not depth:  # commas within brackets belong to the value
            values.append("")
        else:
            values[-1] += character
    if not key or not all(map(str.strip, values)):
        raise ValueError(f"--grid {word}: write it as section.key=value,value, such as train.lr=1e-4,5e-4")
    return key, [value.strip() for value in values]


def _in_name(value: str) -> str:
    """A value as a part of a run's name; an underscore separates text from the key."""
    text = re.sub(r"[^\w.+-]+", "_", value).strip("_")
    return text if text[:1].isdigit() else f"_{text}"
