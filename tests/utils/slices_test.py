"""Slices by the names that people rent, and what their links carry."""

import importlib.util

import pytest

from hbt.training import telemetry
from hbt.utils import slices


@pytest.mark.parametrize(
    'name, version, axes, chips',
    [
        ('v4-8', 'v4', (2, 2, 1), 4),
        ('v5e-16', 'v5e', (4, 4), 16),
        ('v5litepod-16', 'v5e', (4, 4), 16),
        ('v5p-16', 'v5p', (2, 2, 2), 8),
        ('v6e-1', 'v6e', (1, 1), 1),
    ],
)
def test_a_name_is_a_number_of_chips(name, version, axes, chips):
    tpu = slices.find_slice(name)
    assert tpu == (version, axes) and tpu.chips == chips


@pytest.mark.parametrize(
    'name, message',
    [
        ('v5e', "expected v4, v5e .* such as v5e-16, got 'v5e'"),
        ('v3-8', "expected v4, v5e .* got 'v3-8'"),
        ('v5e-2', "expected v5e of 1, 4, 8, .*256, got 'v5e-2'"),
        ('v5p-4', "expected v5p of 8, 16, .*4096, got 'v5p-4'"),
    ],
)
def test_another_name_is_refused_with_the_names_there_are(name, message):
    with pytest.raises(ValueError, match=f'--topology: {message}'):
        slices.find_slice(name)


def test_axes_of_16_or_of_whole_cubes_are_rings():
    wraps = {name: slices.find_slice(name).wraps for name in ('v5e-64', 'v5e-128', 'v6e-256')}
    rings = {'v5e-64': (False, False), 'v5e-128': (False, True), 'v6e-256': (True, True)}
    assert wraps == rings
    assert [slices.find_slice(x).wraps[2] for x in ('v4-32', 'v4-64', 'v4-128')] == [0, 0, 1]


def test_the_time_of_a_collective_follows_from_the_links():
    ring, mesh = slices.Slice('v5e', (1, 16)), slices.Slice('v5e', (4, 4))
    link = 45 * 10**9
    assert ring.collective_seconds('all-gather', 32 * link) == pytest.approx(15)  # 2 directions
    assert mesh.collective_seconds('all-gather', 32 * link) == pytest.approx(15)  # 2 axes
    assert mesh.collective_seconds('reduce-scatter', 32 * link) == pytest.approx(15)
    assert mesh.collective_seconds('all-reduce', 32 * link) == pytest.approx(30)
    assert mesh.collective_seconds('collective-permute', 2 * link) == pytest.approx(2)
    assert mesh.collective_seconds('all-to-all', 2 * link) == pytest.approx(2)
    assert ring.collective_seconds('all-to-all', 2 * link) == pytest.approx(4)
    assert slices.find_slice('v5e-1').collective_seconds('all-reduce', 10**9) == 0


def test_without_the_compiler_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(ValueError, match=r"--topology: expected libtpu, .*\.\[tpu\]'\)$"):
        slices.make_devices(slices.find_slice('v5e-8'))


@pytest.mark.slow
@pytest.mark.parametrize('name', ['v4-8', 'v4-128', 'v5e-1', 'v5e-8', 'v5e-256', 'v5p-16', 'v6e-8'])
def test_the_compiler_has_a_device_for_every_chip_with_a_known_peak(name):
    pytest.importorskip('libtpu')
    tpu = slices.find_slice(name)
    devices = slices.make_devices(tpu)
    assert len(devices) == tpu.chips and telemetry.peak_flops(devices[0].device_kind)
    hosts = {x.process_index for x in devices}
    assert len(hosts) == (1 if name in ('v4-8', 'v5e-1', 'v5e-8', 'v6e-8') else tpu.chips // 4)
