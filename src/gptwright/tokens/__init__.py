"""Documents become token shards, and shards become batches."""
