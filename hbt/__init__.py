"""Hybrid batch training of multilingual dual encoders, in JAX.

The programs are modules of this package (`python -m hbt` lists them); the work is done by its
subpackages, in the order of the data: `data`, `sampling`, `models`, `training`, `evaluation`,
`reporting`. `configs` holds one file per experiment, `config` every setting.
"""

__version__ = '0.1.0'
