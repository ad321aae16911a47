"""From files of texts to a store of tokens: `readers` parse the formats, `curation` cleans and
translates, `build` writes the store and `store` opens it. Nothing here imports JAX, so that the
work also runs on machines without it (`apache_beam`).
"""

__all__ = ['build', 'ragged', 'store', 'tokenization', 'tokenizer_files']
