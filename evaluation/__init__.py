"""Evaluation of one run: scores, cost, robustness, and its report."""
