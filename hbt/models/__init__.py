"""Encoders: the transformer itself, the files of pretrained models, and texts to embeddings.

`encoder` computes embeddings, of `layers` and `attention`. `model_dir` reads and writes directories
of sentence-transformers: configuration and names by `huggingface`, tensors by `weights` and
`torch_pickle`, the README by `card`. `embedder` turns texts into embeddings, `embedding_file` a
whole file of them, and `vocab_trim` leaves out token embeddings.
"""

__all__ = ['card', 'embedder', 'embedding_file', 'encoder', 'layers', 'model_dir', 'vocab_trim']
