import numpy as np
import pytest

from hbt.training import telemetry


def spike_indices(losses, before=()):
    detector = telemetry.SpikeDetector({'step': i, 'loss': x} for i, x in enumerate(before))
    return [i for i, loss in enumerate(losses) if detector.update(loss)]


@pytest.mark.parametrize('seed', range(5))
def test_one_jump_is_marked_and_noise_and_descent_are_not(seed):
    noise = np.random.default_rng(seed).normal(0, 0.05, 400)
    losses = 1 + 3 * np.exp(-np.arange(400) / 100) + noise
    assert spike_indices(losses) == []
    losses[200] += 1.0
    assert spike_indices(losses) == [200]


def test_a_jump_that_stays_is_marked_until_it_is_what_is_usual():
    marked = spike_indices([1.0] * 30 + [2.0] * 30)
    assert marked == list(range(30, 30 + telemetry.SPIKE_WINDOW // 2))


def test_a_steady_loss_may_move_by_a_few_percent_and_the_first_lines_are_never_spikes():
    assert spike_indices([1.0] * 20 + [1.05]) == []
    assert spike_indices([1.0] * 7 + [9.0]) == []


def test_a_resumed_run_knows_the_lines_before():
    losses = [1.0, 1.1] * 10
    assert spike_indices([3.0], before=losses) == [0] and spike_indices([3.0]) == []


def test_lines_whose_steps_were_all_skipped_have_no_loss():
    detector = telemetry.SpikeDetector([{'step': 1, 'skipped': 1.0}, {'step': 2, 'loss': 1.0}])
    assert list(detector.losses) == [1.0]
