"""What is measured: the plan, the images, and each image's values before they are summarized or written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from data import Split
from explanation.pictures import sample_indices


@dataclass(frozen=True)
class Plan:
    """What --analyze is asked for, the same for every run."""

    num_images: int
    split: str
    seed: int
    checkpoint: str
    layer: str | None
    """None: each model's default."""
    methods: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """The images of a split that are measured."""

    split: Split
    positions: Sequence[int]
    """Of the images in the split, ascending."""
    seed: int
    """Of the drawing and of all that is random in the measures."""

    @classmethod
    def draw(cls, split: Split, num_images: int, seed: int) -> "Sample":
        """All images where the split has fewer."""
        return cls(split, sample_indices(split, num_images, seed, option="--analyze"), seed)

    def __len__(self) -> int:
        return len(self.positions)

    def part(self, start: int, count: int) -> "Sample":
        """At most ``count`` images, from the one at ``start`` on."""
        return replace(self, positions=self.positions[start : start + count])

    def pixels(self) -> Tensor:
        """uint8 B 3 H W."""
        return torch.stack([self.split.image(i) for i in self.positions])


@dataclass(frozen=True)
class Measured:
    """Values of one method's (or baseline's) maps, a row for each image; NaN where a measure has none."""

    scores: Mapping[str, np.ndarray]
    """B, by measure, see `faithfulness.MEASURES`."""
    curves: Mapping[str, np.ndarray]
    """B by `faithfulness.FRACTIONS`, by measure; of those that are areas."""
    form: Mapping[tuple[str, str], np.ndarray] = field(default_factory=dict)
    """B, by grid (native, common) and statistic; none of a baseline."""

    @classmethod
    def join(cls, parts: Sequence["Measured"]) -> "Measured":
        """The images of all parts, one part after the other."""
        return cls(
            _concatenate([part.scores for part in parts]),
            _concatenate([part.curves for part in parts]),
            _concatenate([part.form for part in parts]),
        )

    def items(self, name: str) -> Iterable[tuple[str, np.ndarray]]:
        """As gradcam/statistics.npz names them: method/grid/statistic, method/curves/measure, method/measure."""
        yield from ((f"{name}/{grid}/{key}", values) for (grid, key), values in self.form.items())
        yield from ((f"{name}/curves/{key}", values) for key, values in self.curves.items())
        yield from ((f"{name}/{key}", values) for key, values in self.scores.items())


def _concatenate(parts: Sequence[Mapping]) -> dict:
    return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
