"""Which evaluation of a run is meant: split, checkpoint and test-time augmentation; file names contain unusual values."""

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
        """The variant of the values in metrics.json."""
        return cls(values["split"], values["checkpoint"], values["tta"])

    def on(self, split: str) -> "Variant":
        """The same weights on another split."""
        return replace(self, split=split)

    @property
    def weights(self) -> str:
        """File name of the checkpoint."""
        return f"{self.checkpoint}.pt"

    @property
    def suffix(self) -> str:
        """The end of file names: empty for the best checkpoint on the test split, else such as ``-val-flip``."""
        usual = {"test": "", "best": "", None: ""}
        return "".join(usual.get(value, f"-{value}") for value in (self.split, self.tta, self.checkpoint))

    @property
    def words(self) -> str:
        """Words for titles: the split, and values that are not the default."""
        parts = [f"{self.split} split"] + ([self.weights] if self.checkpoint != "best" else [])
        return ", ".join(parts + (["averaged with the mirrored image"] if self.tta else []))
