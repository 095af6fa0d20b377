"""What the scripts share at the command line: errors without tracebacks, short tables, a machine-readable result."""

import difflib
import json
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def run_script(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Run ``main``; a ValueError raised by the project is a user's mistake: one line and exit code 2.

    An OSError (no permission, a full disk) is reported in the same way. A ValueError raised by a library is our bug, and
    keeps its traceback. Ctrl-C and a closed pipe (``| head``) give the usual exit codes. Progress bars are only shown in a
    terminal: in a file or a pipe they would be one endless line.
    """
    if not sys.stderr.isatty():
        os.environ.setdefault("TQDM_DISABLE", "1")  # read when tqdm is imported, which main does
    try:
        main(argv)
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("stopped by SIGINT; what was written is whole", file=sys.stderr)
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit does not fail
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print(f"error: {place}{error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except ValueError as error:
        if not raised_here(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


def command_line() -> str:
    """The command of this process, ready to be pasted into a shell."""
    return shlex.join(["python", *sys.argv])


def did_you_mean(name: str, known: Iterable[str], *, count: int = 1, cutoff: float = 0.6) -> str:
    """``" (did you mean a or b?)"`` with at most ``count`` known names of similar spelling, or an empty string."""
    nearest = difflib.get_close_matches(name, list(known), n=count, cutoff=cutoff)
    return f" (did you mean {' or '.join(nearest)}?)" if nearest else ""


def print_table(rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> None:
    """Print rows in columns, each as wide as its widest cell."""
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def print_result(values: dict, written: Iterable[Path] = ()) -> None:
    """Print the paths that a script wrote, then its result as one JSON object on the last line."""
    for path in written:
        print(f"wrote {path}")
    print(f"result: {json.dumps(values)}", flush=True)


def raised_here(error: BaseException) -> bool:
    """Whether the error was raised in the project's code rather than in a library."""
    traceback = error.__traceback__
    while traceback.tb_next:
        traceback = traceback.tb_next
    source = Path(traceback.tb_frame.f_code.co_filename).resolve()
    return source.is_relative_to(PROJECT) and "site-packages" not in source.parts
