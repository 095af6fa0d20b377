"""What is shown and heard while a run is trained: the bar, and signals."""

import math
import signal
import time
from collections.abc import Sequence

from tqdm import tqdm


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
