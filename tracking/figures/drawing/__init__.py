"""Parts that figures share: panels, lines, styles, the axis of rewind points."""
