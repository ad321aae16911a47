"""A config for tests: `--config=tests/tiny.py`."""

from hbt import config


def get_config(arg=None):
    del arg
    return config.tiny(
        batch_size=8,
        steps=12,
        ckpt_every=3,
        data=config.Data(
            sources=('cldr:60',), tokenizer='train:800', query_length=16, passage_length=32
        ),
    )
