"""Machines are created and deleted by a stand-in for gcloud that fails at every call in turn.

What is sent to a host runs here for real, in a home of its own, with a stand-in for uv.
"""

import importlib.metadata
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests import ROOT

sys.path.insert(0, str(ROOT / 'launch'))

import cloud  # noqa: E402
import hosts  # noqa: E402
import machines  # noqa: E402
import tpu  # noqa: E402

TOOLS = (
    'bash cat chmod cp cut env flock git gzip ln ls mkdir mv rm setsid sleep tail tar tr'.split()
)
UV = f"""#!/usr/bin/env bash
echo "uv $*" >>"$FAKE/uv"
[[ $1 == venv ]] || exit 0
mkdir -p "${{*: -1}}/bin"
ln -s {sys.executable} "${{*: -1}}/bin/python"
"""
ROUTES = {
    'one VM': '--type=v6e-8 --zone=us-east5-b --spot --bucket=b',
    'queued slice': '--type=v5p-16 --zone=us-east5-a --queued --bucket=b',
    'group': '--type=tpu7x-16 --zone=us-central1-c --route=gce --spot --bucket=b',
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A folder that is the cloud, a small checkout, and a PATH without the real gcloud."""
    tools, root = tmp_path / 'bin', tmp_path / 'root'
    tools.mkdir()
    for name in TOOLS:
        if shutil.which(name) is None:
            pytest.skip(f'the hosts are Linux, and {name} is not here')
        (tools / name).symlink_to(shutil.which(name))
    (tools / 'gcloud').symlink_to(ROOT / 'tests' / 'stand_ins' / 'gcloud')
    done = '#!/usr/bin/env bash\necho "${0##*/} $*" >>"$FAKE/calls"\n'
    here = 'shift $(($# - 1)); cd "$HOME"; bash -c "$1"\n'
    for name, text in {
        'uv': UV,
        'gcsfuse': done,
        'mountpoint': 'exit 1\n',
        'ssh': done + here,
    }.items():
        (tools / name).write_text(text if text[0] == '#' else f'#!/usr/bin/env bash\n{text}')
        (tools / name).chmod(0o755)
    (tools / 'scp').write_text(done + 'cp "$3" "$HOME/${4#*:}"\n')
    (tools / 'scp').chmod(0o755)
    (root / 'launch').mkdir(parents=True)
    shutil.copy(ROOT / 'launch' / 'host.sh', root / 'launch')
    subprocess.run(['git', 'init', '-q', root], check=True)
    (tmp_path / 'made').mkdir()
    values = {'PATH': tools, 'FAKE': tmp_path, 'HBT_MACHINES': tmp_path / 'machines'}
    values |= {'HOME': tmp_path / 'home', 'CLOUDSDK_CONFIG': tmp_path / 'config'}
    for name, value in (values | {'FAIL_AT': 0, 'FAIL_HOW': 'not'}).items():
        monkeypatch.setenv(name, str(value))
    (tmp_path / 'home').mkdir()
    monkeypatch.setattr(hosts, 'ROOT', root)
    monkeypatch.setattr(cloud, 'RETRIES', 2)
    monkeypatch.setattr(tpu, 'PATIENCE', 2)
    before = {s: signal.getsignal(s) for s in cloud.SIGNALS}
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)
    for pid in tmp_path.glob('home/**/hbt/pid'):
        subprocess.run(['bash', '-c', f'kill -KILL -- -{pid.read_text()}'], capture_output=True)


def call(line: str, *command: str) -> int:
    verb, *rest = shlex.split(line)
    last = ['--', *command] if command else []
    return tpu.main([verb, '--poll=0.01', '--settle=0', *rest, *last])


def created(world) -> set[str]:
    return {path.name for path in (world / 'made').iterdir()} | {
        path.name.removeprefix('late.') for path in world.glob('late.*')
    }


def calls(world) -> list[str]:
    path = world / 'calls'
    return path.read_text().splitlines() if path.exists() else []


def recorded(world) -> list[str]:
    return sorted(path.stem for path in (world / 'machines').glob('*.json'))


def fresh(world, how: str, at: int, monkeypatch) -> None:
    """An empty cloud whose call number `at` fails."""
    for name in ('made', 'machines', 'home'):
        shutil.rmtree(world / name, ignore_errors=True)
        (world / name).mkdir()
    for path in (*world.glob('late.*'), world / 'calls', world / 'state'):
        path.unlink(missing_ok=True)
    monkeypatch.setenv('FAIL_HOW', how)
    monkeypatch.setenv('FAIL_AT', str(at))


def check_nothing_is_forgotten(world, code: int, output: str) -> None:
    """What exists is recorded; a failure also prints the commands that delete it."""
    if created(world):
        assert recorded(world) == ['m']
    if code and created(world):
        assert 'STILL THERE' in output or 'python launch/tpu.py stop m' in output
        if 'STILL THERE' in output:
            lines = [
                shlex.split(line) for line in output.splitlines() if line.startswith('  gcloud')
            ]
            assert {name.split('.')[1].split('-x')[0] for name in created(world)} <= {
                word for line in lines for word in line
            }


@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('how', ['before', 'after', 'down'])
def test_a_creation_that_fails_at_any_call_leaves_nothing_that_is_not_told(
    world, route, how, monkeypatch, capfd
):
    assert call(f'create m {ROUTES[route]}') == 0
    total, resources = len(calls(world)), created(world)
    assert resources and recorded(world) == ['m']
    for at in range(1, total + 1):
        fresh(world, how, at, monkeypatch)
        code = call(f'create m {ROUTES[route]}')
        output = ''.join(capfd.readouterr())
        check_nothing_is_forgotten(world, code, output)
        assert code == 1 and 'injected' in output
        if how != 'down':
            assert created(world) == set() and recorded(world) == []


@pytest.mark.parametrize('route', ROUTES)
@pytest.mark.parametrize('how', ['before', 'after', 'down'])
def test_a_deletion_that_fails_at_any_call_keeps_its_record(world, route, how, monkeypatch, capfd):
    for at in range(1, 40):
        fresh(world, 'not', 0, monkeypatch)
        assert call(f'create m {ROUTES[route]}') == 0
        (world / 'calls').unlink()
        monkeypatch.setenv('FAIL_HOW', how)
        monkeypatch.setenv('FAIL_AT', str(at))
        capfd.readouterr()
        code = call('stop m')
        output = ''.join(capfd.readouterr())
        check_nothing_is_forgotten(world, code, output)
        assert (code == 0) == (created(world) == set() and recorded(world) == [])
        if how != 'down':
            assert code == 0
        if len(calls(world)) < at:
            return
    raise AssertionError('expected an end of the calls')


def test_what_takes_effect_after_its_creation_failed_is_deleted_too(world, monkeypatch):
    fresh(world, 'late', 4, monkeypatch)
    assert call(f'create m {ROUTES["one VM"]} --poll=0.02 --settle=0.3') == 1
    assert ' create m' in calls(world)[3]
    assert created(world) == set() and recorded(world) == []


def test_a_creation_is_undone_by_the_end_of_the_terminal(world):
    run = [sys.executable, ROOT / 'launch' / 'tpu.py', 'create', 'm', '--poll=0.05', '--settle=0']
    (world / 'gate').write_text('')
    gcloud = world / 'bin' / 'gcloud'
    gcloud.unlink()
    gcloud.write_text(
        f'#!/usr/bin/env bash\n{ROOT}/tests/stand_ins/gcloud "$@"; code=$?\n'
        '[[ "$*" != *" create "* ]] || exec sleep 30\nexit "$code"\n'
    )
    gcloud.chmod(0o755)
    child = subprocess.Popen([*run, *ROUTES['queued slice'].split()], stderr=subprocess.PIPE)
    end = time.monotonic() + 20
    while not created(world) and time.monotonic() < end:
        time.sleep(0.02)
    assert created(world) == {'queued.m'} and recorded(world) == ['m']
    child.send_signal(signal.SIGHUP)
    assert b'nothing is left' in child.communicate(timeout=20)[1]
    assert child.returncode == 1 and created(world) == set() and recorded(world) == []


def test_a_machine_that_never_gets_ready_is_deleted(world, capfd):
    real = machines.STATES.pop('ACTIVE')
    try:
        assert call(f'create m {ROUTES["queued slice"]} --wait=0.001') == 1
    finally:
        machines.STATES['ACTIVE'] = real
    assert 'not ready (waiting)' in capfd.readouterr().err
    assert created(world) == set() and recorded(world) == []


def test_what_exists_already_is_never_deleted_by_a_creation(world, monkeypatch, capfd):
    assert call(f'create m {ROUTES["group"]}') == 0
    resources = created(world)
    assert call(f'create m {ROUTES["one VM"]}') == 1
    assert 'recorded already' in capfd.readouterr().err and created(world) == resources
    shutil.rmtree(world / 'machines')
    assert call(f'create m {ROUTES["group"]}') == 1
    assert 'exists already' in capfd.readouterr().err and created(world) == resources


@pytest.mark.parametrize('route', ROUTES)
def test_a_dry_run_shows_every_verb_and_asks_nothing(world, route, capfd):
    data = hosts.ROOT / 'data.txt'
    data.write_text('x')
    assert call(f'create m --dry_run {ROUTES[route]}') == 0
    assert call(f'setup m --dry_run --data={data}') == 0
    flag = [] if route == 'one VM' else ['--config.distributed=true']
    assert call('run m --dry_run --stop', '-m', 'hbt.main', *flag) == 0
    assert call(f'create m --dry_run {ROUTES[route]}') == 0
    for line in ('logs m --dry_run --follow', 'status --dry_run', 'stop m --dry_run'):
        assert call(line) == 0
    text = capfd.readouterr().out
    assert calls(world) == [] and created(world) == set() and recorded(world) == []
    for word in (' create ', ' scp ', ' ssh ', 'host.sh start -m hbt.main', ' delete m '):
        assert word in text, word


def test_the_commands_of_each_route(world):
    api = machines.Machine('m', 'v6e-16', 'us-east5-b', spot=True, bucket='b', project='p')
    [(_, line)] = machines.resources(api)
    assert shlex.join(line) == (
        'gcloud compute tpus tpu-vm create m --version=v2-alpha-tpuv6e --accelerator-type=v6e-16 '
        '--zone=us-east5-b --labels=hbt-launch=m --spot --project=p'
    )
    api.queued = True
    [(_, line)] = machines.resources(api)
    assert shlex.join(line) == (
        'gcloud compute tpus queued-resources create m --node-id=m '
        '--runtime-version=v2-alpha-tpuv6e --accelerator-type=v6e-16 --zone=us-east5-b '
        '--labels=hbt-launch=m --spot --project=p'
    )
    gce = machines.Machine('m', 'tpu7x-16', 'us-central1-c', route='gce', bucket='b')
    assert [kind for kind, _ in machines.resources(gce)] == [
        'workload policy',
        'instance template',
        'instance group',
    ]
    policy, template, group = (shlex.join(line) for _, line in machines.resources(gce))
    assert '--region=us-central1' in policy and '--accelerator-topology=2x2x2' in policy
    assert '--machine-type=tpu7x-standard-4t' in template
    assert '--size=2' in group and '--workload-policy=m' in group
    one = machines.Machine('m', 'v6e-8', 'us-east5-b', route='gce')
    assert '--machine-type=ct6e-standard-8t' in machines.resources(one)[0][1]


@pytest.mark.parametrize(
    ('kind', 'hosts_'),
    [('v4-8', 1), ('v4-32', 4), ('v5litepod-8', 1), ('v5litepod-16', 4), ('v5p-16', 2)]
    + [('v6e-1', 1), ('v6e-4', 1), ('v6e-8', 1), ('v6e-16', 4), ('tpu7x-8', 1), ('tpu7x-16', 2)],
)
def test_hosts_of_a_type(kind, hosts_):
    assert machines.Machine('m', kind).hosts == hosts_


@pytest.mark.parametrize(
    ('line', 'output'),
    [
        ('M --type=v6e-8 --zone=us-east5-b', 'NAME'),
        ('m --type=v6-8 --zone=us-east5-b', '--type: expected v4'),
        ('m --type=v6e-12 --zone=us-east5-b', 'v6e comes in 1, 4, 8'),
        ('m --type=v6e-8 --zone=us-east5', '--zone'),
        ('m --type=tpu7x-8 --zone=us-east5-b', 'tpu7x is served by gce'),
        ('m --type=v4-8 --zone=us-east5-b --route=gce', 'v4 is served by api'),
        ('m --type=v6e-8 --zone=us-east5-b --spot', '--bucket'),
        ('m --type=v6e-16 --zone=us-east5-b', '--bucket'),
        ('m --type=v6e-8 --zone=us-east5-b --bucket=gs://b', '--bucket: expected the name'),
        ('m --type=v6e-8 --zone=us-east5-b --route=gce --queued', '--queued'),
        ('m --type=v6e-8 --host=gpu1', '--host'),
        ('m --type=v6e-8 --zone=nowhere-east5-b', 'NOT_FOUND'),
    ],
)
def test_names_types_and_zones_are_checked_before_anything_is_created(world, line, output, capfd):
    assert call(f'create {line}') == 1
    assert output in capfd.readouterr().err
    assert not any(' create ' in one for one in calls(world)) and recorded(world) == []


PROGRAM = """
import os, pathlib, sys, time
home = pathlib.Path.home(); fake = home.parents[1]
print('try', flush=True)
os.environ['JAX_COMPILATION_CACHE_DIR']
if os.environ['JAX_COORDINATOR_PORT'] != '8476': sys.exit(9)
tries = fake / ('tries.' + home.name); n = len(tries.read_text()) if tries.exists() else 0
tries.write_text('x' * (n + 1))
code = sys.argv[1:][n] if n + 1 < len(sys.argv) else '0'
if code == 'preempted':
    count = lambda: [len(path.read_text()) for path in fake.glob('tries.*')]
    while len(count()) < len(list(home.parent.glob('m*'))) or min(count()) <= n: time.sleep(0.01)
    (fake / 'state').write_text('PREEMPTED')
    time.sleep(60)
sys.exit(int(code))
"""


@pytest.mark.parametrize('route', ROUTES)
def test_a_run_on_every_host_is_restarted_until_it_is_done(world, route, monkeypatch):
    monkeypatch.setattr(tpu, 'PATIENCE', 100)
    (hosts.ROOT / 'program.py').write_text(PROGRAM)
    assert call(f'create m {ROUTES[route]}') == 0
    (hosts.ROOT / 'data').mkdir()
    (hosts.ROOT / 'data' / 'x').write_text('data')
    assert call(f'setup m --data={hosts.ROOT / "data"}') == 0
    homes = sorted((world / 'home').iterdir())
    assert len(homes) == (1 if route == 'one VM' else 2)
    for home in homes:
        assert (home / 'hbt' / 'code' / 'data' / 'x').read_text() == 'data'
    assert call('run m --stop', 'program.py', '75', 'preempted', '0') == 0
    lines = calls(world)
    assert sum(' ssh ' in one and ' start program.py' in one for one in lines) == 3 * len(homes)
    creations = [one for one in lines if ' tpus ' in one or ' instance-groups ' in one]
    assert sum(' create m ' in one for one in creations) == 2
    installed = [one for one in (world / 'uv').read_text().splitlines() if 'install' in one]
    dates = {one.split('--exclude-newer ')[1].split()[0] for one in installed}
    assert len(installed) == 2 * len(homes) and len(dates) == 1  # the same packages again
    assert created(world) == set() and recorded(world) == []


def test_a_run_that_fails_shows_its_log_and_says_what_still_costs_money(world, capfd):
    (hosts.ROOT / 'program.py').write_text("print('loss is nan'); raise SystemExit(3)")
    assert call(f'create m {ROUTES["queued slice"]}') == 0
    assert call('setup m') == 0
    assert call('run m', 'program.py') == 1
    out, err = capfd.readouterr()
    assert '[1] loss is nan' in out and 'python launch/tpu.py stop m' in err
    assert created(world) == {'queued.m'} and recorded(world) == ['m']
    assert call('run m --stop', 'program.py') == 1
    assert created(world) == set() and recorded(world) == []


def test_hosts_that_never_end_are_ended_when_another_asks_for_a_restart(world):
    program = 'import pathlib, sys, time\nhome = pathlib.Path.home()\n'
    program += 'once = home / "once"\nif once.exists(): sys.exit(0)\nonce.write_text("")\n'
    program += 'if home.name == "m-0": sys.exit(75)\ntime.sleep(60)\n'
    (hosts.ROOT / 'program.py').write_text(program)
    assert call(f'create m {ROUTES["queued slice"]}') == 0
    assert call('setup m') == 0
    assert call('run m', 'program.py') == 0


def test_a_run_goes_on_without_its_starter_and_is_followed_later(world, capfd):
    wait = (
        'import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.01)'
    )
    (hosts.ROOT / 'program.py').write_text(wait)
    assert call(f'create m {ROUTES["one VM"]}') == 0
    assert call('setup m') == 0
    assert call('run m --detach', 'program.py', str(world / 'go')) == 0
    assert call('setup m') == 1  # not under the feet of a running program
    assert 'a program is running already' in capfd.readouterr().err
    assert call('run m --stop', 'program.py', 'other') == 1
    assert 'expected no program there, got one' in capfd.readouterr().err
    (world / 'go').write_text('')
    assert call('run m') == 0
    assert 'm: done' in capfd.readouterr().err


def test_a_stop_lets_the_program_save_its_state(world):
    save = 'import pathlib, signal, sys, time\ndef end(*_):\n pathlib.Path(sys.argv[1])'
    save += '.write_text("saved"); sys.exit(75)\nsignal.signal(signal.SIGTERM, end)\nprint("up")\n'
    (hosts.ROOT / 'program.py').write_text(save + 'time.sleep(60)')
    assert call(f'create m {ROUTES["one VM"]}') == 0
    assert call('setup m') == 0
    assert call('run m --detach', 'program.py', str(world / 'saved')) == 0
    log = world / 'home' / 'm-0' / 'hbt' / 'log'
    while not log.exists() or 'up' not in log.read_text():
        time.sleep(0.02)
    assert call('stop m') == 0
    assert (world / 'saved').read_text() == 'saved' and created(world) == set()


def test_a_machine_that_is_stopped_is_not_created_again_by_who_follows_its_run(world):
    (hosts.ROOT / 'program.py').write_text('import time; time.sleep(60)')
    assert call(f'create m {ROUTES["one VM"]}') == 0
    assert call('setup m') == 0
    assert call('run m --detach', 'program.py') == 0
    run = [sys.executable, ROOT / 'launch' / 'tpu.py', 'run', 'm', '--poll=0.01']
    child = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
    assert 'm: running' in child.stderr.readline()
    assert call('stop m') == 0
    assert 'stopped by another process' in child.communicate(timeout=20)[1]
    assert child.returncode == 1 and created(world) == set() and recorded(world) == []


@pytest.mark.parametrize(
    'how', [*(pytest.param(x, marks=pytest.mark.slow) for x in ('before', 'after')), 'down']
)
def test_a_restart_that_fails_at_any_call_forgets_nothing(world, how, monkeypatch, capfd):
    (hosts.ROOT / 'program.py').write_text('')
    assert call(f'create m {ROUTES["one VM"]}') == 0
    record = json.loads((world / 'machines' / 'm.json').read_text()) | {'command': ['program.py']}
    for at in range(1, 60, 6 if how == 'down' else 1):
        fresh(world, how, at, monkeypatch)
        (world / 'made' / 'tpu.m').write_text('us-east5-b m\n')
        (world / 'machines' / 'm.json').write_text(json.dumps(record))
        (world / 'state').write_text('PREEMPTED')
        code = call('run m --stop --restarts=4')
        output = ''.join(capfd.readouterr())
        check_nothing_is_forgotten(world, code, output)
        assert (code == 0) == ('m: done' in output and created(world) == set()), output
        assert code == 0 or how == 'down', output
        if len(calls(world)) < at:
            return
    raise AssertionError('expected an end of the calls')


@pytest.mark.parametrize('how', ['before', 'after'])
def test_a_start_that_fails_leaves_no_program_and_says_what_costs_money(
    world, how, monkeypatch, capfd
):
    (hosts.ROOT / 'program.py').write_text('import time; time.sleep(60)')
    assert call(f'create m {ROUTES["queued slice"]}') == 0
    assert call('setup m') == 0
    for at in range(1, 5):  # two ask how it is, two start
        (world / 'calls').unlink()
        monkeypatch.setenv('FAIL_HOW', how)
        monkeypatch.setenv('FAIL_AT', str(at))
        assert call('run m --detach', 'program.py') == 1
        assert 'python launch/tpu.py stop m' in capfd.readouterr().err
        monkeypatch.setenv('FAIL_HOW', 'not')
        word, busy, _ = hosts.jobs(cloud.Cloud(False, 0.01, 0), cloud.Cloud(False, 0, 0).load('m'))
        assert not busy, word


def test_several_hosts_need_the_distributed_setting(world, capfd):
    assert call(f'create m {ROUTES["queued slice"]}') == 0
    assert call('run m', '-m', 'hbt.main') == 1
    assert '--config.distributed=true' in capfd.readouterr().err


def test_the_status_shows_what_costs_money_and_how_to_delete_it(world, monkeypatch, capfd):
    assert call(f'create m {ROUTES["one VM"]}') == 0
    assert call(f'create g {ROUTES["group"]}') == 0
    (world / 'machines' / 'g.json').unlink()
    capfd.readouterr()
    assert call('status') == 0
    out = capfd.readouterr().out
    assert 'm: v6e-8 us-east5-b api spot, 1 host(s): ready' in out
    assert 'delete: python launch/tpu.py stop m' in out
    for line in out.splitlines():
        if 'not recorded here' in line:
            subprocess.run(shlex.split(line.split('delete: ')[1]), capture_output=True)
    assert created(world) == {'tpu.m'}
    fresh(world, 'down', 1, monkeypatch)
    assert call('status') == 1
    assert 'they may cost money' in capfd.readouterr().err


def test_a_host_reached_by_ssh_has_the_same_verbs(world, capfd):
    (hosts.ROOT / 'program.py').write_text(PROGRAM.replace('parents[1]', 'parent'))
    assert call('create m --type=cuda13 --host=me@gpu1') == 0
    assert call('setup m') == 0
    version = importlib.metadata.version('jax')
    assert f'jax[cuda13]=={version}' in (world / 'uv').read_text()
    assert call('run m', 'program.py', '75', '0') == 0
    assert call('logs m --lines=5') == 0
    assert '[0] try\n[0] try\n' in capfd.readouterr().out
    assert call('stop m') == 0 and recorded(world) == []
    assert not any(line.startswith('gcloud') for line in calls(world))


@pytest.mark.parametrize(('code', 'requeued'), [(0, False), (75, True), (1, False)])
def test_a_job_of_slurm_is_queued_again_where_it_was_preempted(world, code, requeued, monkeypatch):
    for name, text in {'srun': f'exit {code}', 'scontrol': ''}.items():
        tool = world / 'bin' / name
        tool.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$FAKE/calls"\n{text}\n')
        tool.chmod(0o755)
    monkeypatch.setenv('SLURM_JOB_ID', '7')
    script = ROOT / 'launch' / 'slurm.sh'
    assert subprocess.run([script, '-m', 'hbt.main', '--a=b c']).returncode == code
    first, *rest = calls(world)
    assert first == 'srun --label --wait=120 python -m hbt.main --a=b c'
    assert rest == ['scontrol requeue 7'] * requeued


def test_the_shell_scripts_pass_shellcheck():
    checker = pathlib.Path(sys.executable).with_name('shellcheck')
    scripts = [*(ROOT / 'launch').glob('*.sh'), ROOT / 'tests' / 'stand_ins' / 'gcloud']
    done = subprocess.run([checker, *scripts], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_record_is_plain_json(world):
    assert call(f'create m {ROUTES["one VM"]}') == 0
    values = json.loads((world / 'machines' / 'm.json').read_text())
    assert values['type'] == 'v6e-8' and values['zone'] == 'us-east5-b'
    assert os.environ['FAKE'] == str(world)
