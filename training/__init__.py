"""Training a run: the loop, its state, stopping and resuming."""
