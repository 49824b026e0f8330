"""Benchmarks: figures with their limits."""
