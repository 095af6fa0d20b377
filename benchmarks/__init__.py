"""Measurements of the project itself; run from the root of the project: python -m benchmarks.NAME."""
