"""The search for the settings of the small runs, on held-out text.

python launch/sweep.py configs/small/search_runs.py --jobs=2 --out=runs/small/search_runs
python -m hbt.report runs/small/search_runs/*/ --out=reports/small/search_runs

From the settings of the hybrid run of `configs/small/strategies.py` one is changed at a time.
Evaluated on sentences and on software help that no run is trained on.
"""

from hbt.configs.small import start, strategies


def get_config(arg=None):
    c = strategies.get_config(arg)
    c.name = c.name.replace('strategies', 'search_runs')
    c.seed, c.encoder.init = 100, 'models/small/start0'  # a seed of no other run
    c.eval = start.get_config().eval
    return c


def sweep():
    yield {'seed': 100}
    for lr in (1e-3, 1e-2):
        yield {'optim.lr': lr}
    for temperature in (0.02, 0.1):
        yield {'loss.temperature': temperature}
