"""Does hybrid batch training help multilingual retrieval outside of questions and answers?

python launch/sweep.py configs/research/mtop.py
python -m hbt.report runs/sweep/mtop/alpha*/ --out=reports/mtop --measure=mono.map \
    --measure=mono.recall@5 --measure=cross.map --measure=cross.recall@5 --measure=multi.map \
    --measure=multi.recall@5 --measure=multi.rank_distance

The paper's training, evaluated on utterances to an assistant (MTOP: data/mtop/LANGUAGE/test.txt),
which ask for their translations, and for utterances of the same intent. Answered in the report by
"Comparison of the runs" and "Language bias", with means and spreads over three seeds.
"""

from hbt.configs import hybrid_xlmr


def get_config(arg=None):
    c = hybrid_xlmr.get_config(arg)
    c.name = c.name.replace('hybrid_xlmr', 'mtop')
    c.eval.benchmarks, c.eval.root = ('mtop_translation', 'mtop_intent'), 'data'
    return c


sweep = hybrid_xlmr.sweep  # X-X, X-Y and hybrid, with three seeds each
