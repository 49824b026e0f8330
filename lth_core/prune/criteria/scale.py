"""What makes final and initial weights comparable."""

from torch import Tensor


def as_initial(w: Tensor, initial: Tensor) -> Tensor:
    """|w|, scaled to the mean size of |w0|; a layer whose weights are all 0 stays so."""
    size = w.abs()
    mean = size.mean()
    return size * (initial.abs().mean() / mean) if mean > 0 else size
