"""What may go into a model and out of it."""
