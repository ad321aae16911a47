"""Spikes of the loss: lines of the log far above those before.

Hides the rule. A line is a spike where its loss is more than FAR spreads above the median of the
LINES lines before it; the spread is 1.4826 times the median absolute deviation (the standard
deviation, for normal noise, and a spike hardly moves it; Huber 1981), and at least 1 % of the
median. Called by `main`.
"""

import collections
from collections import abc

import numpy as np

LINES = 20
LEAST = 8  # lines before anything is called a spike
FAR = 6


class Spikes:
    """The losses of the last lines of a log."""

    def __init__(self, lines: abc.Iterable[dict]):
        """Goes on after these lines."""
        found = (line['loss'] for line in lines if 'loss' in line)
        self.losses = collections.deque(found, LINES)

    def seen(self, loss: float) -> str:
        """Takes the loss of the next line; says so, if it is a spike, else nothing."""
        before = np.array(self.losses)
        self.losses.append(loss)
        if len(before) < LEAST:
            return ''
        median = np.median(before)
        spread = max(1.4826 * np.median(abs(before - median)), 0.01 * abs(median))
        if not loss > median + FAR * spread:
            return ''
        return (
            f'the loss jumped to {loss:.4g}: the {len(before)} lines before have the median '
            f'{median:.4g} with a spread of {spread:.2g}'
        )
