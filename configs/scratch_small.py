"""A small encoder from random weights, for a CPU and parallel data of one's own.

python -m hbt.prepare --input=FILE --tokenizer=NAME_OR_PATH --out=stores/mine
python -m hbt.main --config=configs/scratch_small.py --config.data.root=stores/mine
"""

from hbt import config


def get_config(arg=None):
    args = config.parse(arg, alpha=0.5)
    return config.Config(
        name='scratch_small' if args.alpha == 0.5 else f'scratch_small_alpha{args.alpha:g}',
        steps=700,
        batch_size=64,
        log_every=50,
        ckpt_every=350,
        data=config.Data(query_length=32, passage_length=96),
        sampler=config.Sampler(alpha=args.alpha),
        encoder=config.Encoder(
            dim=256, layers=4, heads=4, hidden=1024, dropout=0.0, attention_dropout=0.0
        ),
        loss=config.Loss(temperature=0.05),
        optim=config.Optim(lr=1e-3, warmup=100),
    )
