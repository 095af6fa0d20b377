"""Do the tests notice? Small mistakes are put into the numeric modules one by one, and the tests of the module run.

    python -m benchmarks.mutations --count 200

A mistake is a comparison flipped, a constant moved by one, an operator swapped, `and` taken for `or`, a loop or a condition
turned off; cosmic-ray (requirements-dev.txt) makes it. Of each module the same number is drawn by --seed, each on a place of
its own. All of it happens in a copy of the tree. What is done stays in --folder, so that a second call goes on.

A survivor is a mistake that no test noticed: it needs an assertion, or is no mistake, since nothing can tell it from the code.
Exit code 1 if less than 90 % are noticed.
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from common.console import PROJECT, print_result, print_table, run_script

WANTED = 0.9
# Module -> the tests that are there to notice a mistake in it, the quick ones first.
MODULES = {
    "comparison/significance.py": ("comparison/test_significance.py", "comparison/test_further.py"),
    "common/intervals.py": ("evaluation/test_metrics.py", "comparison/test_significance.py"),
    "evaluation/metrics.py": ("evaluation/test_metrics.py", "evaluation/test_mistakes.py"),
    "evaluation/calibration.py": ("evaluation/test_metrics.py", "evaluation/test_confidence.py"),
    "evaluation/confidence.py": ("evaluation/test_confidence.py",),
    "explanation/rollout.py": ("explanation/test_rollout.py",),
    "explanation/attribution.py": ("explanation/test_attribution.py", "explanation/test_lrp.py"),
    "explanation/lrp.py": ("explanation/test_lrp.py",),
    "explanation/quality/faithfulness.py": ("explanation/quality/test_faithfulness.py",),
    "images/augmentation.py": ("images/test_augmentation.py",),
    "images/color.py": ("images/test_color.py", "images/test_augmentation.py"),
    "images/splits.py": ("images/test_splits.py",),
    "images/preprocessing.py": ("images/test_preprocessing.py", "images/test_augmentation.py"),
    "images/duplicates.py": ("images/test_duplicates.py",),
    "training/state.py": ("training/test_state.py", "training/test_steps.py"),
    "training/optimization.py": ("training/test_optimization.py",),
    "architectures/shallow_vit.py": ("architectures/test_defaults.py", "architectures/test_shallow_vit.py"),
    "architectures/small_vit.py": ("architectures/test_defaults.py", "architectures/test_small_vit.py"),
    "architectures/swin.py": ("architectures/test_defaults.py", "architectures/test_swin.py"),
    "architectures/weights.py": ("architectures/test_weights.py",),
}
SAME = ("_Eq_Is", "_Is_Eq", "_NotEq_IsNot", "_IsNot_NotEq")  # of names, None and small numbers both say one thing
LEFT_OUT = ("BitOr", "BitAnd", "RemoveDecorator", "ExceptionReplacer", "Variable")
"""Operators that are no such mistakes: annotations (`int | None`) are full of one, and others fail at once or never."""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=200, help="mistakes in all (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/mutations"), help="what is done (default: %(default)s)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=MODULES, default=list(MODULES), metavar="MODULE", help="of MODULES above"
    )
    args = parser.parse_args(argv)
    args.folder.mkdir(parents=True, exist_ok=True)
    each, more = divmod(args.count, len(args.only))
    rows, survivors = [], []
    with tempfile.TemporaryDirectory() as copy:
        copy_tree(Path(copy))
        for place, module in enumerate(tqdm(args.only, unit=" modules")):
            session = (args.folder / module.replace("/", ".")).with_suffix(".sqlite").resolve()
            if not session.is_file():
                prepare(session, module, Path(copy), count=each + (place < more), seed=args.seed)
            cosmic_ray("exec", session.with_suffix(".toml"), session, cwd=copy)
            noticed, missed = outcomes(session)
            survivors += missed
            rows.append([module, noticed + len(missed), noticed])
    print_table(rows, header=("module", "mistakes", "noticed"))
    for diff in survivors:
        print(diff)
    total, noticed = sum(row[1] for row in rows), sum(row[2] for row in rows)
    print_result({"mistakes": total, "noticed": noticed, "share": round(noticed / total, 3)}, [args.folder])
    if noticed < WANTED * total:
        raise SystemExit(1)


def copy_tree(folder: Path) -> None:
    """The files that git knows, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, target)


def prepare(session: Path, module: str, copy: Path, *, count: int, seed: int) -> None:
    """A session of cosmic-ray with ``count`` mistakes of a module. Raises ValueError if its tests fail without one."""
    tests = [f"tests/{name}" for name in MODULES[module]]
    command = f"{sys.executable} -m pytest -x -q -p no:cacheprovider -W ignore {' '.join(tests)}"
    if subprocess.run(command.split(), cwd=copy, env=environment(), capture_output=True).returncode:
        raise ValueError(f"{module}: its tests fail as it is; run {' '.join(tests)} first")
    config = session.with_suffix(".toml")
    config.write_text(
        f'[cosmic-ray]\nmodule-path = "{module}"\ntimeout = 300.0\nexcluded-modules = []\ntest-command = "{command}"\n'
        '[cosmic-ray.distributor]\nname = "local"\n',
        encoding="utf-8",
    )
    unfinished = session.with_suffix(".part")
    unfinished.unlink(missing_ok=True)
    cosmic_ray("init", config, unfinished, cwd=copy)
    keep_some(unfinished, count, random.Random(f"{seed} {module}"))
    unfinished.replace(session)


def keep_some(session: Path, count: int, chance: random.Random) -> None:
    """Mark all but ``count`` mistakes of a session as skipped; no two of those that are left are at one place."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import WorkerOutcome, WorkResult

    with use_db(str(session), WorkDB.Mode.open) as db:
        items = sorted(
            db.pending_work_items, key=lambda item: (item.mutations[0].start_pos, item.mutations[0].operator_name)
        )
        chance.shuffle(items)
        places, skipped = set(), []
        for item in items:
            mutation = item.mutations[0]
            name = mutation.operator_name
            counts = not name.endswith(SAME) and not any(part in name for part in LEFT_OUT)
            fits = counts and mutation.start_pos not in places
            if fits and len(places) < count:
                places.add(mutation.start_pos)
            else:
                skipped.append(item.job_id)
        db.set_multiple_results(skipped, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def cosmic_ray(command: str, config: Path, session: Path, *, cwd: Path | str) -> None:
    program = [sys.executable, "-m", "cosmic_ray.cli", command, str(config), str(session)]
    done = subprocess.run(program, cwd=cwd, env=environment(), capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"cosmic-ray {command} failed: {done.stderr.strip()[-2000:]}")


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}


def outcomes(session: Path) -> tuple[int, list[str]]:
    """How many mistakes were noticed, and the diffs of the others."""
    from cosmic_ray.work_db import WorkDB, use_db
    from cosmic_ray.work_item import TestOutcome, WorkerOutcome

    with use_db(str(session), WorkDB.Mode.open) as db:
        results = [result for _, result in db.results if result.worker_outcome != WorkerOutcome.SKIPPED]
    missed = [result.diff for result in results if result.test_outcome == TestOutcome.SURVIVED]
    return len(results) - len(missed), missed


if __name__ == "__main__":
    run_script(main)
