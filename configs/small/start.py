"""The start of the small experiments: a static encoder that parallel text has aligned.

launch/reproduce.sh --small --data=DIR

DIR has the data, as `launch/reproduce.sh` says, and the command makes everything else: the store
stores/small/store, this start with three seeds (models/small/start0 to 2), the runs of
configs/small and their reports.

python launch/sweep.py configs/small/start.py --jobs=2 --out=runs/small/start
python -m hbt.main --config=configs/small/start.py:family=bert --workdir=runs/small/bert

A pretrained encoder cannot be trained on two CPU cores in reasonable time. A table of token
embeddings can: 16 minutes for two at once, from random weights, on translations alone. Its settings
were chosen on held-out text (RESULTS.md): sentences and software help that no run is trained on.
"""

from hbt import config
from hbt.utils import settings

LANGUAGES = ('ar', 'de', 'el', 'en', 'es', 'hi', 'ru', 'th', 'tr', 'vi', 'zh')  # of XQuAD-R
QUESTIONS = ('lohelp', 'native_qa', 'native_qa_words')  # the other datasets are translations
WEIGHTS = {  # translations: how likely a dataset is
    **dict(xnli=4, tatoeba_tests=3, flores=3, mkqa=3, tico19=2, bible=1.5, newstest=1.5, pawsx=1.5),
    **dict(tatoeba=1, quran=0.5, xcopa=0.5, games=1, stamps=1, lo_ui=2, mediawiki=2, science_mo=1),
    **dict(wordnet=3, wiktionary=3, freedict=2, viet_dict=2, thai_loans=0.1, cldr_emoji=1),
    **dict(wikidata_titles=6, lama_facts=3, person_names=0.5, csc_places=0.5, geo_mo=0.5),
    **dict(geonames=0.3, natural_earth=0.2, iso_codes=0.5, cldr_names=1, osm_presets=1, sky=0.5),
}
EVAL = 'stores/small/eval'
HELP = 'jsonl:help.jsonl.gz'  # held out
FEWER = (  # of the starts of other families
    'lo_ui',
    'flores',
    'tatoeba',
    'xnli',
    'tatoeba_tests',
    'wordnet',
    'wiktionary',
    'lama_facts',
)


def get_config(arg=None):
    args = settings.parse_argument(arg, family='static')
    c = config.Config(
        name='start' + args.suffix,
        steps=3000,
        batch_size=1024,
        log_every=50,
        ckpt_every=1000,
        data=config.Data(root='stores/small/store', query_length=32, passage_length=64),
        sampler=config.Sampler(alpha=0.0, datasets='mixed', languages=LANGUAGES, dataset_power=0.0),
        encoder=config.Encoder(family=args.family, hidden_dim=512, num_layers=0, dropout=0.0),
        optim=config.Optim(lr=7e-3, warmup=100),
        loss=config.Loss(symmetric=True),
        eval=config.Eval(benchmarks=('jsonl:pud.jsonl.gz', HELP), root=EVAL),
    )
    weights = WEIGHTS
    if args.family != 'static':  # of configs/small/backbones.py, with less text and fewer steps
        weights = {name: WEIGHTS[name] for name in FEWER}
        c.data.root, c.steps, c.optim.lr = f'stores/small/{args.family}', 1000, 2e-3
        c.encoder.num_heads = 8
        c.encoder.type_vocab_size = 2 if args.family == 'bert' else 1
    weights = dict.fromkeys(QUESTIONS, 0) | weights
    c.sampler.dataset_weights = ','.join(f'{name}:{x:g}' for name, x in weights.items())
    return c


def sweep():
    """Three seeds, and for `configs/small/scaling.py` two widths."""
    for seed in range(3):
        yield {'seed': seed}
    for dim in (128, 256):
        yield {'encoder.hidden_dim': dim}
