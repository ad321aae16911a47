"""From batches of a store to a trained model.

`loop` trains a config in a run directory (`run_dir`) by `train_step` (`losses`, `optimizer`,
`train_state`); `telemetry` measures and `checkpoint` saves it. `planning` says what a step takes,
`replay` computes one again, `hard_negatives` mines with a model, `model_export` writes it.
"""

__all__ = ['checkpoint', 'hard_negatives', 'loop', 'model_export', 'planning', 'replay', 'run_dir']
