"""Comparison of several evaluated runs: significance, caveats, tables, figures and the report."""
