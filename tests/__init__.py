"""Tests, laid out as the package is."""

import pathlib

ROOT = pathlib.Path(__file__).parents[1]
FIXTURES = ROOT / 'tests' / 'fixtures'
