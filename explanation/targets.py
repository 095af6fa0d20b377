"""Which class is explained in each picture."""

import re
from collections.abc import Sequence

import numpy as np

from common.console import did_you_mean
from explanation.pictures import Picture


def find_class(name: str, class_names: list[str]) -> int:
    """The index of a class, given by its name, its number, or words that occur in only one class name (cat: Persian cat).

    Raises ValueError with the classes that fit, or with some of all classes.
    """
    if name in class_names:  # first, since a class may be called by a number
        return class_names.index(name)
    if name.isdecimal() and int(name) < len(class_names):
        return int(name)
    words = [rf"\b{re.escape(word)}\b" for word in name.split()]
    fitting = [known for known in class_names if all(re.search(word, known, re.IGNORECASE) for word in words)]
    if len(fitting) == 1:
        return class_names.index(fitting[0])
    if fitting:
        raise ValueError(f"--target {name} fits several classes, name one of them: {'; '.join(fitting)}")
    shown = ", ".join(class_names[:20]) + (", ..." if len(class_names) > 20 else "")
    hint = did_you_mean(name, class_names, count=3)
    raise ValueError(f"--target {name} is no class{hint}; classes: {shown}, or 0 to {len(class_names) - 1}")


def check_targets(targets: Sequence[str], class_names: list[str], pictures: Sequence[Picture]) -> None:
    """Raise ValueError for an unknown class, for a class that is given twice, and for --target label without labels."""
    seen = {}
    for target in targets:
        if target == "label" and target not in class_names:
            if any(picture.label is None for picture in pictures):
                raise ValueError("--target label: an image file has no label; name a class")
            key = "label"
        else:
            key = class_names[find_class(target, class_names)]
        if key in seen:
            raise ValueError(f"--target {seen[key]} {target}: both are class {key}; give each class once")
        seen[key] = target


def choose_targets(
    target: str | None, class_names: list[str], pictures: Sequence[Picture], probabilities: np.ndarray
) -> list[int]:
    """The class to explain in each picture: the predicted one (None), the true one ("label"), or the one class named."""
    if target is None:
        return probabilities.argmax(axis=1).tolist()
    if target == "label" and target not in class_names:
        return [picture.label for picture in pictures]
    return [find_class(target, class_names)] * len(pictures)
