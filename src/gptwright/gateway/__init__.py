"""Hosted and remote models behind one interface, by the OpenAI protocol. Keys come from the environment only."""
