"""Documents become token shards, and shards become batches: tokenizer, chat rendering, shards, plans, packing."""
