"""How do the samplings scale with data, batch and width, and what does a shared script give?

python launch/sweep.py configs/small/scaling.py --out=runs/small/scaling
python -m hbt.report runs/small/scaling/*/ runs/small/strategies/alpha{1.0,0.5}_seed0/ \\
    --out=reports/small/scaling --measure=mono.mrr --measure=mono.mrr@10 --measure=multi.mrr@10

From the size of `configs/small/strategies.py`, whose runs have the largest data and width, one size
changes at a time: a quarter and a sixteenth of its groups, batches of a quarter and twice as many
pairs, and starts of 128 and 256 dimensions.
"""

from hbt.configs.small import strategies


def get_config(arg=None):
    c = strategies.get_config(arg)
    c.name = c.name.replace('strategies', 'scaling')
    return c


def sweep():
    for alpha in (1.0, 0.5):
        for part in (4, 16):
            yield {'sampler.alpha': alpha, 'data.root': f'stores/small/every{part}'}
        for pairs in (strategies.PAIRS // 4, strategies.PAIRS * 2):
            yield {'sampler.alpha': alpha, 'batch_size': pairs}
        for dim in (128, 256):
            yield {'sampler.alpha': alpha, 'encoder.init': f'models/small/start{{seed}}_{dim}'}
