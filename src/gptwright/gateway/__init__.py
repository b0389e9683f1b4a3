"""Models that run elsewhere, behind the interface of our own."""
