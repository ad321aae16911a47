"""Encoders: the transformer, the files of checkpoints, and texts to embeddings."""
