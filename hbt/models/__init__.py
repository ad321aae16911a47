"""Encoders: the transformer itself, the files of pretrained models, and texts to embeddings.

`encoder` is made of `layers` and `attention`. `model_dir` reads and writes directories by
`huggingface`, `weights`, `torch_pickle` and `card`. `embedder` embeds texts, `embedding_file` whole
files of them, and `vocab_trim` leaves out token embeddings.
"""

__all__ = ['card', 'embedder', 'embedding_file', 'encoder', 'layers', 'model_dir', 'vocab_trim']
