"""The paper's experiment with a schedule: monolingual batches first, hybrid ones later.

python -m hbt.main --config=configs/annealed_xlmr.py

Alpha falls from 1 to 0.5 over the first half of the steps and stays there. Another schedule:
--config.sampler.alpha_points=0:0,20000:0.8 --config.sampler.alpha_curve=cosine
"""

from hbt.configs import hybrid_xlmr


def get_config(arg=None):
    c = hybrid_xlmr.get_config(arg)
    c.name = c.name.replace('hybrid', 'annealed')
    c.sampler.alpha_points = f'0:1,{c.steps // 2}:0.5'
    return c
