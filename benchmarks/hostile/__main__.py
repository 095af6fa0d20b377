"""Give the scripts bad input: every case must succeed, or end with one sentence and exit code 2.

    python -m benchmarks.hostile
    python -m benchmarks.hostile --only configs optimizers --list 20

The sweep: every key of a config with values of every type and range, every optimizer of timm, models that cannot work at
their size, run directories damaged in every file, weights and images and names from elsewhere, and arguments of all three
scripts. Each case runs in a process of its own, with a time limit. A case fails if there is a traceback, if it hangs, if it
accepts what it should refuse or the other way round, or if a refusal leaves a run behind. Exit code 1 if any does.
"""

import argparse
import json
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("TQDM_DISABLE", "1")

import torch

from benchmarks.children import Outcome
from benchmarks.hostile.configs import configs, documents, models, optimizers
from benchmarks.hostile.inputs import arguments, names, pictures
from benchmarks.hostile.runs import runs
from benchmarks.hostile.world import Case, World
from common.console import print_table

GROUPS: dict[str, Callable[[World], Iterator[Case]]] = {
    "configs": configs,
    "optimizers": optimizers,
    "models": models,
    "documents": documents,
    "runs": runs,
    "pictures": pictures,
    "names": names,
    "arguments": arguments,
}


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GROUPS, help="groups of cases (default: all)")
    parser.add_argument("--part", nargs=2, type=int, default=(1, 1), metavar=("I", "N"), help="the I-th of N parts")
    parser.add_argument("--output", type=Path, help="a JSON file of counts and failures")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        cases = [case for name in args.only or GROUPS for case in GROUPS[name](world)]
        cases = cases[args.part[0] - 1 :: args.part[1]]
        counts, failures = Counter(), []
        for case in cases:
            kind, detail = judge(case, world.run(case))
            counts[case.group, kind] += 1
            if kind not in ("ended well", "refused"):
                failures.append(f"{kind}: {case.group}: {case.name}: {detail}")
                print(failures[-1], flush=True)
            if args.output:  # as far as it came
                found = {"counts": [[*key, count] for key, count in counts.items()], "failures": failures}
                args.output.write_text(json.dumps(found, indent=1))
    kinds = [
        "ended well",
        "refused",
        "traceback",
        "hung",
        "wrongly accepted",
        "wrongly refused",
        "left behind",
        "unclear",
    ]
    groups = [*dict.fromkeys(case.group for case in cases)]
    rows = [(group, *(counts[group, kind] for kind in kinds)) for group in groups]
    print_table([*rows, ("all", *(sum(column) for column in list(zip(*rows))[1:]))], header=("cases", *kinds))
    sys.exit(bool(failures))


def judge(case: Case, outcome: Outcome) -> tuple[str, str]:
    """How a case ended, and the line that shows it."""
    line = outcome.last_line[:300]
    if outcome.hung:
        return "hung", f"after {outcome.seconds:.0f} s"
    if "Traceback (most recent call last)" in outcome.output or outcome.code not in (0, 2):
        return "traceback", f"exit code {outcome.code}: {line}"
    if outcome.code == 0:
        return ("wrongly accepted", line) if case.refused else ("ended well", "")
    if case.refused is False:
        return "wrongly refused", line
    if case.left and case.left.exists():
        return "left behind", f"{case.left.name} ({line})"
    if "error: " not in outcome.output or case.names not in outcome.output:
        return "unclear", line
    return "refused", ""


if __name__ == "__main__":
    main()
