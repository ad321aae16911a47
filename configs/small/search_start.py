"""The search for the settings of the start of the small experiments, on held-out text.

python launch/sweep.py configs/small/search_start.py --jobs=2 --out=runs/small/search_start
python -m hbt.report runs/small/search_start/*/ --out=reports/small/search_start

From the settings of `configs/small/start.py` one is changed at a time, after a sixth of its pairs.
Evaluated on sentences and on software help that no run is trained on.
"""

from hbt.configs.small import start

STEPS = 500
PAIRS = 1024
EQUAL = ','.join(f'{x}:0' for x in start.QUESTIONS)  # as likely as each other, but for these


def get_config(arg=None):
    c = start.get_config(arg)
    c.name = c.name.replace('start', 'search_start')
    c.steps = c.ckpt_every = STEPS
    return c


def sweep():
    yield {'seed': 100}
    yield {'seed': 100, 'data.root': 'stores/small/store32000'}
    yield {'seed': 100, 'encoder.hidden_dim': 256}
    for factor in (0.5, 2.0):
        pairs, steps = round(PAIRS * factor), round(STEPS / factor)
        yield {'seed': 100, 'batch_size': pairs, 'steps': steps}
    for temperature in (0.02, 0.1):
        yield {'seed': 100, 'loss.temperature': temperature}
    for lr in (3.5e-3, 1.4e-2):
        yield {'seed': 100, 'optim.lr': lr}
    yield {'seed': 100, 'sampler.dataset_weights': EQUAL}
