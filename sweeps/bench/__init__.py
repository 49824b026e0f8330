"""Benchmarks: each figure beside what it may be."""
