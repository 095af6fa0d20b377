"""Which evaluation of a run is meant; the files of all but the usual one carry it in their names."""

from collections.abc import Mapping
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Variant:
    split: str = "test"
    checkpoint: str = "best"
    tta: str | None = None
    """Test-time augmentation: "flip" averages with the mirrored image."""

    @classmethod
    def of(cls, values: Mapping) -> "Variant":
        """From what metrics.json holds, or from the arguments of a script."""
        return cls(values["split"], values["checkpoint"], values["tta"])

    def on(self, split: str) -> "Variant":
        """The same weights on another split."""
        return replace(self, split=split)

    @property
    def weights(self) -> str:
        """Name of the file of the checkpoint."""
        return f"{self.checkpoint}.pt"

    @property
    def suffix(self) -> str:
        """What file names carry: nothing for the best checkpoint on the test split."""
        usual = {"test": "", "best": "", None: ""}
        return "".join(usual.get(value, f"-{value}") for value in (self.split, self.tta, self.checkpoint))

    @property
    def words(self) -> str:
        """For titles: the split, and what is not usual."""
        parts = [f"{self.split} split"] + ([self.weights] if self.checkpoint != "best" else [])
        return ", ".join(parts + (["averaged with the mirrored image"] if self.tta else []))
