"""The width multiplier, in one place."""


def scaled(width: int, multiplier: float) -> int:
    """``width`` units times the multiplier, rounded, at least 1."""
    return max(1, round(width * multiplier))
