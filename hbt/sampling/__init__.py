"""From a store of tokens to batches: which pairs are drawn for a step, and how they are packed.

`mixture` finds the pools of pairs and their proportions, `sampler` draws from them by the random
numbers of `draws` and the alpha of `schedule`, `batches` collects the texts of the drawn pairs, and
`packing` puts them into rows. `proportions` reports what is planned and drawn. Only numpy is used.
"""

__all__ = ['batches', 'packing', 'proportions', 'sampler', 'schedule']
