"""How do the samplings scale with data, batch and model, and what does a shared script give?

mkdir -p data/every4 data/every16
for n in 4 16; do for f in data/*.jsonl.gz; do
    zcat $f | awk "NR % $n == 1" | gzip > data/every$n/${f##*/}; done; done
python -m hbt.prepare --tokenizer=FacebookAI/xlm-roberta-base --out=stores/every4 --input=...
python launch/sweep.py configs/research/scaling.py
python -m hbt.report runs/sweep/scaling/*/ --out=reports/scaling --measure=mono.mrr \
    --measure=mono.mrr@10 --measure=multi.mrr@10

MIRACL (data/miracl, as the hub lays it out), each language in its own corpus and all in one pool;
`hbt.prepare` also makes stores/every16. Answered in the report by "Scaling", with fitted power
laws, and by "what the query language shares with the languages of training".
"""

from hbt.configs import hybrid_xlmr


def get_config(arg=None):
    c = hybrid_xlmr.get_config(arg)
    c.name = c.name.replace('hybrid_xlmr', 'scaling')
    c.eval.benchmarks, c.eval.root = ('miracl',), 'data'
    return c


def sweep():
    """From the paper's size one size changes at a time."""
    for alpha in (1.0, 0.0, 0.5):
        yield {'sampler.alpha': alpha}
        for root in ('stores/every4', 'stores/every16'):
            yield {'sampler.alpha': alpha, 'data.root': root}
        for pairs in (400, 1600):
            yield {'sampler.alpha': alpha, 'batch_size': pairs}
        yield {'sampler.alpha': alpha, 'encoder.init': 'FacebookAI/xlm-roberta-large'}
