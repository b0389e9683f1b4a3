"""How the server behaves: the ``[serve]`` section, which a lower room holds because projects read it too."""

from gptwright.gateway.serving import ServeConfig, is_loopback

__all__ = ["ServeConfig", "is_loopback"]
