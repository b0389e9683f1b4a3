"""Text out of a trained model: KV cache, batching, sampling, streaming."""
