"""How a classifier reads its last tokens or cells: from a class token, or by pooling all of them."""

from dataclasses import dataclass

from torch import nn

KINDS = {"token": "token", "avg": "mean", "fast": "mean", "fastavg": "mean", "map": "attention", "max": "maximum"}
"""timm's ``global_pool`` or ``pool_type`` -> what `Pooling.kind` calls it; others keep timm's name."""


@dataclass(frozen=True)
class Pooling:
    """The pooling between the last block of a model and its classifier."""

    kind: str
    """token (class tokens), mean, attention (timm's 'map'), weights (learned: sequence pooling), maximum, or timm's name."""
    norm_after: bool
    """Whether the last norm comes after the pooling, so that the pooled tokens are not normalised."""

    @property
    def words(self) -> str:
        """For messages: "the classifier reads ..."."""
        known = {
            "token": "the class token",
            "mean": "the mean of all places",
            "attention": "all places through an attention of its own",
            "weights": "all places, weighted by a learned score",
            "maximum": "the maximum over all places",
        }
        return known.get(self.kind, f"its places by {self.kind!r}")


def pooling(model: nn.Module, shapes: dict[str, tuple[int, ...]] | None = None) -> Pooling:
    """The pooling of ``model``, from timm's attributes.

    Args:
        shapes: module -> shape of its output, from which it is seen whether ``norm`` gets pooled features (B C).
    """
    fc_norm = getattr(model, "fc_norm", None)
    norm_after = fc_norm is not None and not isinstance(fc_norm, nn.Identity)
    norm_after = norm_after or len((shapes or {}).get("norm", ())) == 2
    if getattr(model, "attn_pool", None) is not None:
        return Pooling("attention", norm_after)
    if isinstance(getattr(model, "pool", None), nn.Module) and not hasattr(model, "global_pool"):
        return Pooling("weights", norm_after)
    for owner in (model, getattr(model, "head", None)):
        name = getattr(owner, "global_pool", None)
        name = getattr(name, "pool_type", name)
        if isinstance(name, str):
            return Pooling(KINDS.get(name, name), norm_after)
    return Pooling("mean", norm_after)
