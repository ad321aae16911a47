"""Is one objective a step (hybrid) better than both in every step, in small?

python launch/sweep.py configs/small/multitask.py --out=runs/small/multitask
python -m hbt.report runs/small/multitask/*/ --out=reports/small/multitask \\
    --measure=mono.map@10 --measure=multi.map@10

Greek and Thai, which have the fewest resources of the languages of XQuAD-R, are in one group in 16
of the training data. A step of multitask has two batches, each half as large.
"""

from hbt.configs.small import strategies


def get_config(arg=None):
    c = strategies.get_config(arg)
    c.name = c.name.replace('strategies', 'multitask')
    c.data.root = 'stores/small/scarce'
    return c


def sweep():
    for seed in range(3):
        yield {'sampler.kind': 'hybrid', 'seed': seed}
        yield {'sampler.kind': 'multitask', 'batch_size': strategies.PAIRS // 2, 'seed': seed}
