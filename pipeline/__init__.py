"""embedmill: a corpus in, committed shards of text embeddings out."""
