"""All random generators: seeded by (seed, epoch), and saved within an epoch.

An epoch's order, augmentation, mixup and dropout depend only on the config's seed and the epoch's number, so that a resume at
the start of an epoch needs no saved state. Within an epoch the states are saved as plain values.
"""

import random

import numpy as np
import torch


def seed_epoch(seed: int, epoch: int, rank: int = 0) -> tuple[torch.Generator, torch.Generator]:
    """Seed the global generators (dropout, drop path, timm's mixup); return one for the order and one for augmentation.

    Both are on the CPU. The order is the same on every rank, and each rank takes its part of it; the other generators differ
    between ranks, so that no two ranks draw the same masks.
    """
    shared, number = (
        int(np.random.SeedSequence(key).generate_state(1)[0]) for key in ((seed, epoch), (seed, epoch, rank + 1))
    )
    torch.manual_seed(number)
    np.random.seed(number)
    random.seed(number)
    return torch.Generator().manual_seed(shared), torch.Generator().manual_seed(number)


def get_states(generator: torch.Generator) -> dict:
    """The states of all generators, as tensors and plain values."""
    name, keys, *rest = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "generator": generator.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "python": [version, list(internal), gauss],
    }


def set_states(states: dict, generator: torch.Generator) -> None:
    """Set all generators to states that `get_states` returned."""
    generator.set_state(states["generator"])
    torch.set_rng_state(states["torch"])
    if states["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"])
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
