"""Ways to compose batches, compared on real data by an encoder that two CPU cores can train.

python launch/sweep.py configs/small/strategies.py --out=runs/small/strategies
python -m hbt.report runs/small/strategies/*/ --out=reports/small/strategies \\
    --measure=mono.map --measure=cross.map --measure=multi.map --measure=multi.recall@5 \\
    --measure=multi.rank_distance

From the start of its seed (configs/small/start.py) X-X, X-X with a language in every pair, hybrid
with three alphas, X-Y and multitask see as many pairs each: a step of multitask has two batches,
so each is half as large. Drawn by size from software help, questions on Wikipedia, the same
translated word by word, interface strings and sentences. Evaluated on XQuAD-R, MLQA-R and help that
no run is trained on.
"""

from hbt import config
from hbt.configs.small import start
from hbt.utils import settings

PAIRS = 512
DATASETS = (*start.QUESTIONS, 'lo_ui', 'flores', 'tatoeba')


def get_config(arg=None):
    args = settings.parse_argument(arg)
    return config.Config(
        name='strategies' + args.suffix,
        steps=200,
        batch_size=PAIRS,
        log_every=20,
        ckpt_every=200,
        data=config.Data(root='stores/small/every1', query_length=32, passage_length=64),
        sampler=config.Sampler(languages=start.LANGUAGES),
        encoder=config.Encoder(init='models/small/start{seed}'),
        optim=config.Optim(lr=3e-3, warmup=20),
        eval=config.Eval(benchmarks=('xquad_r', 'mlqa_r', start.HELP), root=start.EVAL),
    )


def sweep():
    """Four mixtures, X-X in two ways and multitask, with three seeds each."""
    for seed in range(3):
        for alpha in (1.0, 0.75, 0.5, 0.25, 0.0):
            yield {'sampler.alpha': alpha, 'seed': seed}
        yield {'sampler.alpha': 1.0, 'sampler.mono': 'mixed', 'seed': seed}
        yield {'sampler.kind': 'multitask', 'batch_size': PAIRS // 2, 'seed': seed}
