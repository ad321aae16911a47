"""Is one objective a step (hybrid) better than both in every step, for high and low resources?

python launch/sweep.py configs/research/multitask.py
python -m hbt.report runs/sweep/multitask/*/ --out=reports/multitask --measure=mono.map@10 \
    --measure=multi.map@10

Evaluated on MIRACL (data/miracl). Multitask takes half of the steps, so that both see as many pairs
at the same size of a batch. Answered in the report by "Comparison of the runs" and "high and low
resources", a table of "Languages, scripts and resources".
"""

from hbt.configs import hybrid_xlmr

STEPS = {'hybrid': 50_000, 'multitask': 25_000}


def get_config(arg=None):
    c = hybrid_xlmr.get_config(arg)
    c.name = c.name.replace('hybrid_xlmr', 'multitask')
    c.eval.benchmarks, c.eval.root = ('miracl',), 'data'
    return c


def sweep():
    for kind, steps in STEPS.items():
        for seed in range(3):
            yield {'sampler.kind': kind, 'steps': steps, 'seed': seed}
