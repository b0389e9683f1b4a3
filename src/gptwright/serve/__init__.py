"""HTTP: an OpenAI-compatible API, keys, limits, metrics; mounts an ASGI app that it is given."""
