"""From files of texts to a store of tokens.

`readers` parse the formats, `curation` cleans and translates texts, `tokenization` encodes them,
`build` writes the store and `store` opens it. Texts are then indices into a `ragged.TokenTable`.
Nothing here imports JAX, so that the work also runs on machines without it (`apache_beam`).
"""

__all__ = ['build', 'ragged', 'store', 'tokenization', 'tokenizer_files']
