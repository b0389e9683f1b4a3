"""The OpenAI-compatible HTTP API over one's own models."""
