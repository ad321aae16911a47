"""From a store of tokens to batches: which pairs are drawn for a step, and how they are packed.

`mixture` finds pools of pairs and their proportions, `sampler` draws from them by `draws` and the
alpha of `schedule`, `batches` collects texts and packs them by `packing`; `proportions` reports.
"""

__all__ = ['batches', 'packing', 'proportions', 'sampler', 'schedule']
