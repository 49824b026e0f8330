"""An LSTM that reads an image row by row (Hochreiter & Schmidhuber 1997)."""

from __future__ import annotations

from torch import Tensor, nn

from lth_core.models.scale import check_unused, scaled
from lth_core.spec import ModelSpec


class RowLSTM(nn.Module):
    """Layers of LSTM over the rows of an example, and a linear layer on the last state.

    Args:
        features: values of one row.
    """

    def __init__(
        self, features: int, units: int, layers: int, dropout: float, classes: int
    ) -> None:
        super().__init__()
        self.features = features
        self.rows = nn.LSTM(features, units, num_layers=layers, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(units, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (b, classes) from images (b, channels, height, width) or series (b, length)."""
        if x.dim() == 4:
            x = x.transpose(1, 2)  # a row has the values of all channels
        states, _ = self.rows(x.reshape(x.shape[0], -1, self.features))
        logits: Tensor = self.output(self.dropout(states[:, -1]))
        return logits


def lstm(spec: ModelSpec, shape: tuple[int, ...], classes: int) -> nn.Module:
    """LSTM of 64 units and one layer, times ``width`` and by ``depth``."""
    check_unused(spec, "stem", "widths")
    features = shape[0] * shape[2] if len(shape) == 3 else 1
    return RowLSTM(features, scaled(64, spec.width), spec.depth or 1, spec.dropout, classes)
