"""The folder for the results of several runs; other runs or other options get another folder."""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from common.folders import Folder
from common.runs import Run

LONGEST = 80  # characters of a name that lists its members
BETWEEN = "-vs-"
OPTIONS = re.compile(r"-(train|val|flip|last)$")  # how a name with options ends


def comparison_folder(runs: Sequence[Run], output: Path | None, suffix: str = "") -> Folder:
    """Where results over several runs go: ``output``, or a folder of their names and ``suffix`` below ``comparisons``."""
    folder = Folder(output or Path(runs[0].config.output_root) / "comparisons" / folder_name(runs, suffix))
    folder.figure_format = runs[0].figure_format
    return folder


def folder_name(runs: Sequence[Run], suffix: str = "") -> str:
    """The runs' names joined by ``-vs-``; where these are ambiguous, the start of a hash follows.

    ``x-vs-y-flip`` may be the runs x and y with an option, or the runs x and y-flip: the second gets the hash. It is taken
    over the names, the options and the runs' paths relative to the output folder, so that this folder can be moved.
    """
    root = Path(runs[0].config.output_root)
    names = [run.config.name for run in runs]
    name = BETWEEN.join(name.replace("/", "-") for name in names)
    places = [Path(os.path.relpath(run.directory, root)).as_posix() for run in runs]
    unambiguous = len(name) <= LONGEST and name.split(BETWEEN) == names == places and not OPTIONS.search(name)
    if len(name) > LONGEST:
        name = f"{names[0].replace('/', '-')[:LONGEST]}-and-{len(runs) - 1}-more"
    if unambiguous:
        return name + suffix
    return f"{name}{suffix}~{hashlib.sha256(repr((names, places, suffix)).encode()).hexdigest()[:8]}"
