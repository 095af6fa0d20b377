"""Scripts in processes of their own. They are forked from a server that has imported torch, since that takes seconds."""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from support import PROJECT, save_pixel

import evaluation.scoring  # noqa: F401
import training.trainer  # noqa: F401

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["processes"])


def start_script(script: str, *arguments, output: Path, **environment: str):
    """``python script arguments`` in a process of its own; what it says goes to ``output``.out and .err."""
    process = SERVER.Process(target=_run, args=(script, list(map(str, arguments)), str(output), environment))
    with pytest.MonkeyPatch.context() as patch:  # where the server, which the first process starts, finds this file
        patch.setenv("PYTHONPATH", os.pathsep.join([str(PROJECT), str(PROJECT / "tests")]))
        process.start()
    return process


def _run(script, arguments, output, environment):
    for number, kind in ((1, "out"), (2, "err")):
        with open(f"{output}.{kind}", "wb") as file:
            os.dup2(file.fileno(), number)
    os.environ.update(environment)
    torch.set_num_threads(1)
    Figure.savefig = save_pixel
    sys.argv = [script, *arguments]
    runpy.run_path(str(PROJECT / script), run_name="__main__")
