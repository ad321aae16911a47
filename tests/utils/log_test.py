"""What a person sees of a run."""

import io
import struct
import time

import pytest
from tensorboardX.proto import event_pb2

from hbt import config
from hbt.training import telemetry
from hbt.utils import log
from tests import fake_runs, tiny


def read_values(workdir):
    """(step, value) of everything in the files for TensorBoard."""
    for path in sorted((workdir / 'tensorboard').iterdir()):
        file = io.BytesIO(path.read_bytes())
        while head := file.read(12):  # length, its checksum, an event, its checksum
            event = event_pb2.Event.FromString(file.read(struct.unpack('<Q', head[:8])[0]))
            file.read(4)
            yield from ((event.step, x) for x in event.summary.value)


@pytest.mark.parametrize('shown', [False, True])
def test_tensorboard_has_curves_of_language_pairs_only_where_they_are_asked_for(tmp_path, shown):
    line = {'loss': 1.0, 'loss/mono': 2.0, 'loss_by_pair/de-en': 3.0}
    writer = telemetry.open_metrics(tiny.make(log_pairs=shown), tmp_path, -1)
    writer.write(4, line)
    writer.close()
    assert log.read_metrics(tmp_path / 'metrics.jsonl') == [{'step': 4} | line]
    tags = {x.tag: x.simple_value for step, x in read_values(tmp_path) if step == 4}
    assert tags == {k: x for k, x in line.items() if shown or k != 'loss_by_pair/de-en'}


def test_tensorboard_has_the_settings_as_text(tmp_path):
    c = tiny.make(data=config.Data(query_prefix='a|b: '))
    telemetry.open_metrics(c, tmp_path, -1).close()
    ((_, value),) = read_values(tmp_path)
    assert value.metadata.plugin_data.plugin_name == 'text'
    lines = value.tensor.string_val[0].decode().splitlines()
    assert lines[:3] == ['| setting | value |', '|---|---|', '| name | `"tiny"` |']
    assert '| optim.lr | `0.001` |' in lines and '| data.query_prefix | `"a\\|b: "` |' in lines


def test_tensorboard_has_the_language_pairs_and_the_bias_of_an_evaluation_as_images(tmp_path):
    case = fake_runs.make_benchmark(names=('de', 'en', 'ja'))
    result = fake_runs.save_result(tmp_path / 'results', case)
    writer = log.MetricsWriter(tmp_path, -1)
    telemetry.draw_result(writer, result, config.Eval(best='mono.mrr@10'), 6)
    writer.close()
    images = {x.tag: x.image for step, x in read_values(tmp_path) if step == 6}
    assert list(images) == ['xquad_r/mrr@10', 'xquad_r/own_share']
    for image in images.values():
        assert image.encoded_image_string.startswith(b'\x89PNG')
        assert min(image.width, image.height) > 200


def test_a_bar_is_shown_again_where_nothing_happens(capsys, monkeypatch):
    monkeypatch.setattr(log, 'SILENCE', 0.1)
    with log.activity('saving', delay=0.05):
        time.sleep(0.6)
    with log.progress(total=2, desc='bar', bar_format='{desc}'):
        time.sleep(0.6)
    saving, bar = capsys.readouterr().err.strip().split('\n')
    assert len(saving.split('\r')) > 2 and {*saving.split('\r')} == {'saving [00:00]'}
    assert len(bar.split('\r')) > 3


def test_what_is_soon_over_leaves_nothing_in_a_file(capsys):
    with log.activity('saving'):
        log.info('message')
    assert capsys.readouterr() == ('message\n', '')


def test_what_is_compiled_is_numbered_and_said_once(capsys):
    compiled = set()
    for shape in (16, 32, 16, 64):
        with log.compiling(f'the step for {shape} rows', shape, compiled, [16, 32, 32]):
            pass
    shown = capsys.readouterr().err.splitlines()
    assert [x for x in dict.fromkeys(shown) if x] == [
        'compiling the step for 16 rows (1 of 2) [00:00]',
        'compiling the step for 32 rows (2 of 2) [00:00]',
        'compiling the step for 64 rows (3 of 3) [00:00]',
    ]


def test_bars_in_a_file_do_not_move_the_cursor(capsys):
    with log.progress(total=2, desc='outer') as outer, log.progress(total=2, desc='inner'):
        outer.update()
    assert '\x1b' not in capsys.readouterr().err
