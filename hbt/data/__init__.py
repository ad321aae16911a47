"""From files of texts to a store of tokens: readers, curation, tokenisation, the store."""
