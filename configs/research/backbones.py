"""Is hybrid better than plain contrastive batches, and for multilingual BERT as for XLM-R base?

python launch/sweep.py configs/research/backbones.py
python -m hbt.report runs/sweep/backbones/*/ --out=reports/backbones

A plain batch has a language of its own in every pair, the same for query and passage (LAReQA's
X-X). Evaluated on XQuAD-R and MLQA-R (data/xquad-r, data/mlqa-r). Answered in the report by
"Comparison of the runs", every two of the four tested, and "Pairs of languages".
"""

from hbt.configs import hybrid_xlmr

BACKBONES = {
    'stores/hybrid_xlmr': 'FacebookAI/xlm-roberta-base',
    'stores/hybrid_mbert': 'google-bert/bert-base-multilingual-cased',
}


def get_config(arg=None):
    c = hybrid_xlmr.get_config(arg)
    c.name = c.name.replace('hybrid_xlmr', 'backbones')
    c.eval.root = 'data'
    return c


def sweep():
    for root, name in BACKBONES.items():
        own = {'encoder.init': name, 'data.tokenizer': name, 'data.root': root}
        for seed in range(3):
            yield {**own, 'sampler.alpha': 0.5, 'seed': seed}
            yield {**own, 'sampler.alpha': 1.0, 'sampler.mono': 'mixed', 'seed': seed}
