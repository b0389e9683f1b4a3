"""How good a model is, and how sure we can be."""
