"""Where texts come from: one module a kind of source, all listed and gathered through ``kinds``."""
