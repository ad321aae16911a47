"""From batches to a trained model: loss, optimizer, step, the loop around it, checkpoints.

`loop` trains one config in a run directory (`run_dir`) by `train_step`, which needs `losses`,
`optimizer` and `train_state`; `telemetry` measures it and `checkpoint` saves it. `planning` says
what a step takes, `replay` computes one again, `hard_negatives` searches negatives with a model,
and `model_export` writes it as a model directory. The store is there before training begins.
"""

__all__ = ['checkpoint', 'hard_negatives', 'loop', 'model_export', 'planning', 'replay', 'run_dir']
