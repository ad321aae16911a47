"""Hybrid batch training of multilingual dual encoders, in JAX.

The programs are modules of this package (`python -m hbt` lists them); the work is done by its
subpackages, in the order of the data: `data`, `sampling`, `models`, `training`, `evaluation`,
`serving`, `reporting`. `configs` holds one file per experiment, `config` every setting. `load`
gives a trained model.
"""

__version__ = '0.1.0'


def load(
    name,
    step: str | None = None,
    batch_size: int = 256,
    dtype: str = 'float32',
    dim: int | None = None,
):
    """Loads a model to encode and search texts, as a `hbt.serving.dual_encoder.DualEncoder`.

    Args:
      name: a model directory, a name on the hub, or the directory of a training run.
      step: of a training run: best (if none is given), latest, or the number of a kept step.
      batch_size: texts encoded at a time, over all devices.
      dtype: type of the computation.
      dim: only so many first dimensions of the embeddings, at length 1 again; None: all.

    Raises:
      ValueError: for a model that hbt cannot compute, and for a dim that its embeddings lack.
    """
    from hbt.serving import dual_encoder  # loads JAX, which programs that only list files need not

    return dual_encoder.load_model(name, step, batch_size, dtype, dim)
