"""What the scripts share at the command line: errors without tracebacks, short tables, a result for machines."""

import json
import math
import signal
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from tqdm import tqdm

PROJECT = Path(__file__).resolve().parent


def run_script(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run ``main``; a ValueError that the project raised is the user's to mend: one line and exit code 2.

    One that a library raised is a defect of ours, and keeps its traceback.
    """
    try:
        main(argv)
    except ValueError as error:
        if not _raised_here(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


class Interrupted(Exception):
    """Stopped by a signal, with everything saved."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class Signals:
    """Within this context SIGINT and SIGTERM are remembered in ``received`` instead of ending the process.

    A second one ends it at once.
    """

    def __enter__(self) -> "Signals":
        self.received = 0
        self._before = {number: signal.signal(number, self._remember) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _remember(self, number: int, frame) -> None:
        self.received = number
        signal.signal(number, self._before[number])


class TrainingBar(tqdm):
    """Progress over the images of an epoch, with running means of loss and accuracy now and then."""

    def __init__(self, title: str, plan: Sequence, first: int, *, visible: bool):
        """``plan`` holds the batches (each with ``indices``), of which the ``first`` ones are done."""
        self.sizes = [len(selection.indices) for selection in plan]
        self.step = first
        self.shown = time.perf_counter()
        done = sum(self.sizes[:first])
        super().__init__(desc=title, total=sum(self.sizes), initial=done, unit=" images", disable=not visible)

    def advance(self) -> None:
        """One batch is done."""
        self.update(self.sizes[self.step])
        self.step += 1

    def is_due(self) -> bool:
        """Whether a second has passed since the means were shown."""
        return time.perf_counter() - self.shown > 1

    def show(self, sums) -> bool:
        """Show the means of ``sums`` (a tensor: loss, hits, images); whether the loss is finite."""
        loss, hits, images = sums.tolist()
        self.set_postfix(loss=f"{loss / images:.4f}", accuracy=f"{hits / images:.2%}")
        self.shown = time.perf_counter()
        return math.isfinite(loss)


def print_table(rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> None:
    """Columns padded to their widest cell."""
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def print_result(values: dict, written: Iterable[Path] = ()) -> None:
    """The paths that a script wrote, then its result as one JSON object on the last line."""
    for path in written:
        print(f"wrote {path}")
    print(f"result: {json.dumps(values)}", flush=True)


def _raised_here(error: BaseException) -> bool:
    traceback = error.__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    source = Path(traceback.tb_frame.f_code.co_filename).resolve()
    return source.is_relative_to(PROJECT) and "site-packages" not in source.parts
