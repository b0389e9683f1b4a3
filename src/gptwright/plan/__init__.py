"""What to build on this machine, measured before it is promised."""
