"""Ways to compose batches, compared on real data by an encoder that two CPU cores can train.

python -m hbt.prepare --input=data/lohelp.jsonl.gz --input=data/native_qa.jsonl.gz \\
    --input=data/lo_ui.jsonl.gz --input=data/flores.jsonl.gz --input=data/tatoeba.jsonl.gz \\
    --tokenizer=train:32000 --query_length=32 --passage_length=64 --out=stores/strategies \\
    --exact=drop --leakage=xquad_r:data --leakage=mlqa_r:data --leaks=drop
python -m hbt.main --config=configs/strategies.py:start=true --workdir=runs/start
python -m hbt.export --workdir=runs/start --out=models/start
python launch/sweep.py configs/strategies.py --jobs=2
python -m hbt.report runs/sweep/strategies/*/ --out=reports/strategies

No pretrained encoder can be trained on two cores in reasonable time, so each run starts from one
that has seen translation pairs alone, from random weights (the second command). It pools the
embeddings of tokens, without layers: in equal time one or two layers learn far less (RESULTS.md).
From there X-X, hybrid with three alphas, X-Y and multitask see as many pairs each: a step of
multitask has two batches, so each is half as large.
"""

from hbt import config
from hbt.utils import settings

LANGUAGES = ('ar', 'de', 'el', 'en', 'es', 'hi', 'ru', 'th', 'tr', 'vi', 'zh')  # of XQuAD-R
QUESTIONS = ('lohelp', 'native_qa')  # the other datasets are translation pairs
PAIRS = 128


def get_config(arg=None):
    args = settings.parse_argument(arg, start=False)
    c = config.Config(
        name='strategies' + args.suffix,
        steps=800,
        batch_size=PAIRS,
        log_every=50,
        ckpt_every=400,
        data=config.Data(root='stores/strategies', query_length=32, passage_length=64),
        sampler=config.Sampler(languages=LANGUAGES),
        encoder=config.Encoder(init='models/start', dtype='bfloat16'),
        optim=config.Optim(lr=5e-4, warmup=50),
        eval=config.Eval(benchmarks=('xquad_r', 'mlqa_r'), root='data'),
    )
    if args.start:
        c.steps, c.batch_size, c.loss.symmetric = 2000, 2 * PAIRS, True
        c.sampler.alpha, c.sampler.dataset_power = 0.0, 0.0
        c.sampler.dataset_weights = ','.join(f'{name}:0' for name in QUESTIONS)
        c.encoder = config.Encoder(
            hidden_dim=512, num_layers=0, num_heads=4, mlp_dim=1024, dtype='bfloat16'
        )
        c.encoder.dropout = c.encoder.attention_dropout = 0.0
        c.optim = config.Optim(lr=2e-3, warmup=100)
    return c


def sweep():
    """Five mixtures and multitask, with three seeds each."""
    for seed in range(3):
        for alpha in (1.0, 0.75, 0.5, 0.25, 0.0):
            yield {'sampler.kind': 'hybrid', 'sampler.alpha': alpha, 'seed': seed}
        yield {'sampler.kind': 'multitask', 'batch_size': PAIRS // 2, 'seed': seed}
