"""How much of each sampling's quality is lost out of the domain that it was trained on, in small?

for source in help wikipedia; do
  python launch/sweep.py configs/small/domain.py:source=$source --out=runs/small/domain_$source
done
python -m hbt.report runs/small/domain_help/*/ --out=reports/small/domain_help \\
    --in_domain=jsonl:help.jsonl.gz --measure=mono.map --measure=cross.map --measure=multi.map \\
    --measure=multi.rank_distance
python -m hbt.report runs/small/domain_wikipedia/*/ --out=reports/small/domain_wikipedia \\
    --in_domain=xquad_r --in_domain=mlqa_r --measure=mono.map --measure=cross.map \\
    --measure=multi.map

Trained on software help alone, or on questions on Wikipedia and their translations word by word. As
all batches of the first come from the same groups, it is also the control of
`configs/small/strategies.py`.
"""

from hbt.configs.small import strategies
from hbt.utils import settings

SOURCES = {'help': ('lohelp',), 'wikipedia': ('native_qa', 'native_qa_words')}


def get_config(arg=None):
    args = settings.parse_argument(arg, source='help')
    c = strategies.get_config()
    c.name = 'domain_' + args.source
    others = {*strategies.DATASETS}.difference(SOURCES[args.source])
    c.sampler.dataset_weights = ','.join(f'{name}:0' for name in sorted(others))
    return c


def sweep():
    """X-X, hybrid and X-Y, with three seeds each."""
    for seed in range(3):
        for alpha in (1.0, 0.5, 0.0):
            yield {'sampler.alpha': alpha, 'seed': seed}
