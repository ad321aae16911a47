"""What `hbt.plan --topology` plans for is what `launch/tpu.py` creates."""

import sys

import pytest

from hbt.utils import slices
from tests import ROOT

sys.path.insert(0, str(ROOT / 'launch'))

import machines  # noqa: E402  (after the path to it)


def test_the_two_tables_of_shapes_are_equal():
    assert (slices.FLAT, slices.CUBE) == (machines.FLAT, machines.CUBE)


@pytest.mark.parametrize('version', ['v4', 'v5litepod', 'v5p', 'v6e'])
def test_a_name_means_the_same_chips_on_the_same_axes(version):
    made = machines.VERSIONS[version]
    for chips, shape in made.shapes.items():
        name = f'{version}-{chips * made.cores}'
        tpu, machine = slices.find_slice(name), machines.Machine('m', name)
        assert 'x'.join(map(str, tpu.axes)) == shape and tpu.chips == machine.chips
    assert set(slices.GENERATIONS) == {*machines.VERSIONS, 'v5e'} - {'v5litepod', 'tpu7x'}
