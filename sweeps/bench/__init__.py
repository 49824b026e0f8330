"""Benchmarks: measured figures and their limits."""
