"""Study files: schema, reader, axes, presets."""
