"""How much of each sampling's quality is lost out of the domain that it was trained on?

python launch/sweep.py configs/research/domain.py
python -m hbt.report runs/sweep/domain/*/ --out=reports/domain --in_domain=xquad_r \
    --in_domain=mr_tydi --measure=mono.map --measure=cross.map --measure=multi.map

Trained on questions to Wikipedia alone. In its domain: XQuAD-R and Mr. TyDi (data/xquad-r,
data/mr-tydi). Out of it: utterances to an assistant (data/mtop), and held-out groups of software
help in the training format (data/help.jsonl.gz). Answered in the report by "Domain shift".
"""

from hbt.configs import hybrid_xlmr

WIKIPEDIA = ('wikiqa', 'nq', 'entityquestions', 'mrtydi')


def get_config(arg=None):
    c = hybrid_xlmr.get_config(arg)
    c.name = c.name.replace('hybrid_xlmr', 'domain')
    c.data.root = 'stores/wikipedia'
    c.data.sources = tuple(f'data/{name}.jsonl.gz' for name in WIKIPEDIA)
    c.eval.benchmarks = ('xquad_r', 'mr_tydi', 'mtop_intent', 'jsonl:help.jsonl.gz')
    c.eval.root = 'data'
    return c


sweep = hybrid_xlmr.sweep  # X-X, X-Y and hybrid, with three seeds each
