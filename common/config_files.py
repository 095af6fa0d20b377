"""Reading configs: YAML, overrides from the command line, and messages that name the key and what is allowed."""

import difflib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from common.config import Config
from common.console import did_you_mean
from common.yaml_files import parse_yaml


def load_config(path: str | Path, overrides: Iterable[str] = ()) -> Config:
    """Read a YAML config and apply ``section.key=value`` overrides (values are read as YAML).

    Raises ValueError, naming the file, the key and what is allowed, for a missing file, YAML that does not parse, an
    unknown key (with the nearest valid one), or a value of the wrong type or range.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path}: no such config file{_nearby_configs(path)}")
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ValueError(f"{path}: not valid YAML: {error}") from None
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a config is a mapping of sections (data, model, train, ...), not {values!r}")
    for override in overrides:
        _apply_override(values, override)
    values.setdefault("name", None)
    if values["name"] is None:
        values["name"] = path.stem
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{path}: {'; '.join(_explain(error.errors(), values))}") from None


PATTERN_HINTS = {
    "data.augment.aa": "should be written as rand-m9-n2-mstd0.5",
    "data.augment.color_jitter": "should be one number of at least 0, three, or four of which the last (hue) is at most 0.5",
    "model.tune": "should be full, head or last-N (N = 1, 2, ...)",
    "name": "should be letters, digits, '.', '_', '+', '-', and '/' between folders",
}


# Keys that change where files lie and how fast a run is, but not its result.
WITHOUT_EFFECT = (
    "output_root",
    "data.num_workers",
    "evaluate.latency_seconds",
    "train.checkpoint_every_steps",
    "train.tensorboard",
)


REOPENED = ("data.root", "data.cache_mb", "data.num_workers", "evaluate.batch_size", "evaluate.latency_seconds")
"""Keys that may be set for a run that is evaluated or explained: where its data lies, and how fast it is processed."""


def split_overrides(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """Split a command line for finished runs into its other words and its overrides.

    Raises ValueError for an override of a key that is not in REOPENED.
    """
    rest, overrides = [], []
    for word in words:
        is_override = re.match(r"((data|model|train|evaluate)\.[\w.]+|seed|name|output_root)=", word)
        (overrides if is_override else rest).append(word)
        if is_override and word.partition("=")[0] not in REOPENED:
            raise ValueError(f"{word}: a finished run's config is fixed; only {', '.join(REOPENED)} can be set here")
    return rest, overrides


RESIDENCY = ("data.residency", "data.resident_budget_mb", "data.cache_mb")
"""Where photos are kept. This changes the training images only with `augment.scale`, whose random crops are then cut from
the stored image instead of the photo."""


def differing_keys(one: Config, other: Config) -> list[str]:
    """Keys in which two configs differ, as ``key: old -> new``, apart from those that a resumed run may change.

    ``data.root`` may change: the pixels are compared to check that the images are still those of the run.
    """
    values = differing_values([one, other])
    values.pop("data.root", None)
    return [f"{key}: {old} -> {new}" for key, (old, new) in values.items()]


def differing_values(configs: Sequence[Config]) -> dict[str, list[Any]]:
    """Keys that determine a run's result and in which the configs differ, with the value of each config."""
    cropped = any(config.data.dataset == "imagefolder" and config.data.augment.scale for config in configs)
    ignored = WITHOUT_EFFECT if cropped else WITHOUT_EFFECT + RESIDENCY
    flat = [_flatten(config.model_dump(exclude={"reported"})) for config in configs]
    values = {key: [one.get(key) for one in flat] for key in sorted(set().union(*flat))}
    return {key: row for key, row in values.items() if key not in ignored and any(value != row[0] for value in row[1:])}


def describe_keys(section: type[BaseModel] = Config, prefix: str = "") -> list[str]:
    """One line per key, ``section.key = default: meaning``, for the help of the scripts."""
    lines = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            lines += describe_keys(field.annotation, f"{prefix}{name}.")
        else:
            default = "(required)" if field.is_required() else json.dumps(field.default)
            lines.append(f"{prefix}{name} = {default}: {' '.join(field.description.split())}")
    return lines


def _apply_override(values: dict, override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ValueError(f"override {override!r}: write it as section.key=value, such as train.epochs=5")
    *sections, last = key.split(".")
    for section in sections:
        if values.get(section) is None:
            values[section] = {}
        values = values[section]
        if not isinstance(values, dict):
            raise ValueError(f"override {override!r}: {section} is a value, not a section")
    try:
        values[last] = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"override {override!r}: {text!r} is not a YAML value: {error}") from None


def _explain(errors: list[dict], values: dict) -> list[str]:
    """pydantic's errors -> one sentence per key with the value and what is allowed."""
    described = dict(line.split(" = ", 1) for line in describe_keys())
    known = list(described)
    sentences, allowed = [], {}
    for error in errors:
        names = [part for part in error["loc"] if isinstance(part, str)]
        key = _longest_key(names, known)
        if error["type"] == "extra_forbidden":
            sentences.append(f"unknown key {'.'.join(names)}{_nearest_key('.'.join(names), described)}")
        elif error["type"] == "missing" and ".".join(names) == key:
            sentences.append(f"{key} is missing and has no default")
        elif error["type"] == "value_error":
            sentences.append(f"{key}: {error['ctx']['error']}" if key else str(error["ctx"]["error"]))
        else:
            allowed.setdefault(key, []).append(PATTERN_HINTS.get(key, error["msg"].removeprefix("Input ")))
    for key, messages in allowed.items():
        value = values
        for name in key.split("."):
            value = value.get(name) if isinstance(value, dict) else value
        sentences.append(f"{key} = {value!r} {', or '.join(dict.fromkeys(messages))}")
    return sentences


def _longest_key(names: list[str], known: list[str]) -> str:
    """The config key of an error location, without pydantic's own names for the branches of a union."""
    for length in range(len(names), 0, -1):
        key = ".".join(names[:length])
        if any(k == key or k.startswith(f"{key}.") for k in known):
            return key
    return ".".join(names)


def _nearest_key(key: str, known: dict[str, str]) -> str:
    """A hint: a key of the same name in another section, of similar spelling, or whose description has these words
    (learning_rate: train.lr); without one, the valid keys."""
    section, _, name = key.rpartition(".")
    same_name = [k for k in known if k.split(".")[-1] == name] or [k for k in known if k.endswith(f"_{name}")]
    words = re.compile(rf"\b{re.escape(name.replace('_', ' '))}\b", re.IGNORECASE)
    same_meaning = [k for k, about in known.items() if k.startswith(f"{section}.") and words.search(about)]
    same_meaning.sort(key=lambda k: not re.search(".*".join(k.split(".")[-1]), name))  # abbreviations of it first
    spelling = [difflib.get_close_matches(key, known, n=1, cutoff=cutoff) for cutoff in (0.85, 0.5)]
    nearest = same_name or spelling[0] or same_meaning or spelling[1]
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return hint or f"; valid keys: {', '.join(siblings or known)}"


def _nearby_configs(path: Path) -> str:
    return did_you_mean(str(path), [str(other) for other in path.parent.glob("*.yaml")])


def _flatten(values: dict, prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in values.items():
        flat |= _flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
