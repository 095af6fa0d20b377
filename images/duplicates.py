"""Images that stand in two places: exact copies, and near ones."""

import numpy as np


def copies_of(digests: np.ndarray, among: np.ndarray) -> np.ndarray:
    """For each digest (uint8 N 16) the first position ``among`` others (uint8 M 16) where it stands too, or -1: int64 N."""
    if not len(among):
        return np.full(len(digests), -1)
    known, first = np.unique(_as_bytes(among), return_index=True)
    wanted = _as_bytes(digests)
    places = np.searchsorted(known, wanted).clip(max=len(known) - 1)
    return np.where(known[places] == wanted, first[places], -1)


def _as_bytes(digests: np.ndarray) -> np.ndarray:
    """One opaque value for each row: (N 16) -> N."""
    return np.ascontiguousarray(digests).view(f"V{digests.shape[1]}")[:, 0]
