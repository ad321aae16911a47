"""The embedded demonstration: real words of many languages from the Unicode CLDR, no downloads.

python -m hbt.main --config=configs/demo.py            hybrid, a few minutes on 2 cores
python -m hbt.main --config=configs/demo.py:alpha=1    X-X: monolingual batches only
python -m hbt.main --config=configs/demo.py:alpha=0    X-Y: cross-lingual batches only
"""

from hbt import config
from hbt.utils import settings


def get_config(arg=None):
    args = settings.parse_argument(arg, alpha=0.5)
    return config.Config(
        name='demo' + args.suffix,
        steps=600,
        batch_size=64,
        log_every=50,
        ckpt_every=500,
        data=config.Data(
            root='stores/demo',
            sources=('cldr:8000',),
            tokenizer='train:6000',
            query_length=24,
            passage_length=40,
        ),
        sampler=config.Sampler(alpha=args.alpha),
        encoder=config.Encoder(
            hidden_dim=128,
            num_layers=2,
            num_heads=4,
            mlp_dim=512,
            max_positions=130,
            dropout=0.0,
            attention_dropout=0.0,
        ),
        loss=config.Loss(temperature=0.05),
        optim=config.Optim(lr=1e-3, warmup=100),
        eval=config.Eval(benchmarks=('cldr',), at_start=True),
    )
