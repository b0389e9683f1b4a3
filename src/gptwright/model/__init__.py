"""The transformer, its presets and costs, and the formats it is read from and written to."""
