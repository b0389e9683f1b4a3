"""Training: one loop for pretraining, fine-tuning and continued training. The entry is ``gptwright.train.loop.train``."""
