"""The gptwright command: parse, call, print."""
