"""A trained model in use: one object to encode and to search with, and corpora embedded once.

`dual_encoder` has the public model object, which `hbt.load` gives. `entries` reads files of
documents and queries, `index` embeds a corpus into a folder, `resident` searches documents that lie
on the devices, and `answers` shows and writes what was found.
"""

__all__ = ['answers', 'dual_encoder', 'entries', 'index', 'resident']
