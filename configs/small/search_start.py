"""The search for the settings of the start of the small experiments, on held-out text.

python launch/sweep.py configs/small/search_start.py --jobs=2 --out=runs/small/search_start
python -m hbt.report runs/small/search_start/*/ --out=reports/small/search_start

From the settings of `configs/small/start.py` one is changed at a time, after a sixth of its pairs.
Evaluated on sentences and on software help that no run is trained on.
"""

from hbt.configs.small import start

STEPS = 500
EQUAL = ','.join(f'{x}:0' for x in start.QUESTIONS)  # as likely as each other, but for these


def get_config(arg=None):
    c = start.get_config(arg)
    c.name = c.name.replace('start', 'search_start')
    c.steps = c.ckpt_every = STEPS
    c.seed = 100  # of no other run
    return c


def sweep():
    yield {'seed': 100}
    yield {'data.root': 'stores/small/store32000'}
    yield {'encoder.hidden_dim': 256}
    for pairs, steps in ((512, 2 * STEPS), (2048, STEPS // 2)):
        yield {'batch_size': pairs, 'steps': steps}
    for temperature in (0.02, 0.1):
        yield {'loss.temperature': temperature}
    for lr in (3.5e-3, 1.4e-2):
        yield {'optim.lr': lr}
    yield {'sampler.dataset_weights': EQUAL}
