"""Measures imd against references in the same run (docs/performance.md)."""
