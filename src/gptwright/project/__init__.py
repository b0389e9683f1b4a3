"""A project folder and everything a person can ask of it."""
