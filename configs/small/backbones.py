"""Is hybrid better than plain contrastive batches, and for BERT's shape as for XLM-R's, in small?

python launch/sweep.py configs/small/backbones.py --out=runs/small/backbones
python -m hbt.report runs/small/backbones/*/ --out=reports/small/backbones

A plain batch has a language of its own in every pair, the same for query and passage (LAReQA's
X-X). Two encoders without layers: with the embeddings, positions and byte pairs of XLM-R, and with
the embeddings, positions, token types and word pieces of BERT, each from a start of its own.
"""

from hbt.configs.small import strategies

FAMILIES = ('xlmr', 'bert')


def get_config(arg=None):
    c = strategies.get_config(arg)
    c.name = c.name.replace('strategies', 'backbones')
    c.optim.lr = 5e-4
    return c


def sweep():
    for family in FAMILIES:
        own = {'data.root': f'stores/small/{family}', 'encoder.init': f'models/small/{family}'}
        for seed in range(3):
            yield {**own, 'sampler.alpha': 0.5, 'seed': seed}
            yield {**own, 'sampler.alpha': 1.0, 'sampler.mono': 'mixed', 'seed': seed}
