"""A small encoder from random weights, for a CPU and parallel data of one's own.

python -m hbt.prepare --input=FILE --tokenizer=NAME_OR_PATH --out=stores/mine
python -m hbt.main --config=configs/scratch_small.py --config.data.root=stores/mine
python launch/sweep.py configs/scratch_small.py --config.data.root=stores/mine

About 25 minutes on 2 cores with XLM-R's tokenizer, whose 250,002 rows are most of the model.
"""

from hbt import config
from hbt.utils import settings


def get_config(arg=None):
    args = settings.parse_argument(arg, alpha=0.5, kind='hybrid')
    return config.Config(
        name='scratch_small' + args.suffix,
        steps=1600,
        batch_size=128,
        log_every=50,
        ckpt_every=400,
        data=config.Data(query_length=24, passage_length=64),
        sampler=config.Sampler(kind=args.kind, alpha=args.alpha),
        encoder=config.Encoder(
            hidden_dim=192,
            num_layers=2,
            num_heads=4,
            mlp_dim=768,
            dropout=0.0,
            attention_dropout=0.0,
        ),
        optim=config.Optim(lr=2e-3, warmup=100),
    )


def sweep():
    """Five mixtures, from X-Y to X-X, with three seeds each."""
    for alpha in (0.0, 0.25, 0.5, 0.75, 1.0):
        for seed in range(3):
            yield {'sampler.alpha': alpha, 'seed': seed}
