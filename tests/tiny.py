"""The smallest useful experiment, and a config of it: `--config=tests/tiny.py`."""

import dataclasses

from hbt import config


def make(**changes) -> config.Config:
    """Two layers, 32 dimensions, a few steps."""
    c = config.Config(
        name='tiny',
        steps=6,
        batch_size=16,
        log_every=1,
        ckpt_every=2,
        data=config.Data(query_length=32, passage_length=64),
        encoder=config.Encoder(
            hidden_dim=32, num_layers=2, num_heads=4, mlp_dim=64, max_positions=130, dropout=0.1
        ),
        optim=config.Optim(lr=1e-3, warmup=2),
    )
    return dataclasses.replace(c, **changes)


def get_config(arg=None):
    del arg
    return make(
        batch_size=8,
        steps=12,
        ckpt_every=3,
        data=config.Data(
            sources=('cldr:60',), tokenizer='train:800', query_length=16, passage_length=32
        ),
    )
