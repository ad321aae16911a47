"""Creates TPU machines, sets them up, runs a program on every host until it is done, deletes them.

python launch/tpu.py create big --type=v6e-16 --zone=us-east5-b --spot --queued --bucket=mine
python launch/tpu.py setup big --data=stores/mine
python launch/tpu.py run big --stop -- -m hbt.main --config=FILE --workdir=bucket/runs/1 ...
python launch/tpu.py logs big | status | stop big        --dry_run shows the commands of any verb
"""

import argparse
import contextlib
import shlex
import signal
import subprocess
import sys
import time

import cloud
import hosts
import machines

STOP = 'python launch/tpu.py stop'
PATIENCE = 3  # failures seen in a row before a failure is believed, and not a preemption


def create(at: cloud.Cloud, args) -> None:
    m = machines.Machine(
        name=args.name,
        type=args.type,
        zone=args.zone,
        route='ssh' if args.host else args.route,
        host=args.host,
        project=args.project,
        spot=args.spot,
        queued=args.queued,
        bucket=args.bucket,
        extra=args.extra,
    )
    machines.check(m)
    cloud.create(at, m, args.wait)
    if not at.dry:
        cloud.say(f'{m.name}: {m.hosts} host(s) ready; they cost money until: {STOP} {m.name}')


def setup(at: cloud.Cloud, args) -> None:
    m = at.load(args.name)
    m.data = tuple(hosts.inside(path) for path in args.data)
    hosts.setup(at, m)


def run(at: cloud.Cloud, args) -> None:
    """Starts the command, or follows the one started before if none is given."""
    m = at.load(args.name)
    if args.command:
        m.command = tuple(args.command)
        distributed = '--config.distributed=true' in m.command
        if 'hbt.main' in m.command and (m.hosts > 1) != distributed:
            raise ValueError(
                f'{m.name}: {m.hosts} host(s): expected --config.distributed=true exactly where '
                f'there are several, got {shlex.join(m.command)}'
            )
        hosts.start(at, m)
        at.save(m)
    if args.detach:
        return
    try:
        if reason := watch(at, m, args.restarts, args.wait):
            show(at, m, args.lines)
            raise ValueError(f'{m.name}: {reason}; the end of the log is above')
    except ValueError:
        if args.stop:
            cloud.delete(at, m)
        raise
    if args.stop:
        cloud.delete(at, m)


def watch(at: cloud.Cloud, m: machines.Machine, restarts: int, wait: float) -> str:
    """Follows the run until it is done, restarting what was preempted. Returns why, if it fails."""
    bad, missed, prepared = 0, 0, True
    while True:
        word, busy, lines = 'unknown', False, []
        with report_errors():
            word = cloud.state(at, m)
            if word == 'ready':
                word, busy, lines = hosts.jobs(at, m) if prepared else ('again', False, [])
        cloud.say(f'{time.strftime("%H:%M:%S")} {m.name}: {word}', *lines[:4], sep='\n  ')
        if word == 'done':
            return ''
        if not missed and not at.is_active(m):
            return 'stopped by another process, and not restarted'
        # Hosts of a slice end one after the other; those whose fellows are gone may never end.
        bad = bad + 1 if word in ('failed', 'unknown') or word == 'again' and busy else 0
        if word != 'again' and bad >= (PATIENCE if word == 'failed' else 10 * PATIENCE):
            return 'the program failed' if word == 'failed' else 'its hosts cannot be reached'
        if word in ('gone', 'missing') or word == 'again' and (not busy or bad >= PATIENCE):
            if not restarts:
                return f'{word}, and no restart left'
            restarts, bad, missed = restarts - 1, 0, missed + 1
            with report_errors():
                if word != 'again':
                    prepared = False
                    cloud.delete(at, m)
                    cloud.create(at, m, wait)
                elif prepared:
                    hosts.end(at, m)
                if not prepared:
                    hosts.setup(at, m)
                    prepared = True
                hosts.start(at, m)
                missed = 0
        time.sleep(at.poll * min(2**missed, 20))


@contextlib.contextmanager
def report_errors():
    """Prints failures of the cloud; the caller tries again."""
    try:
        yield
    except ValueError as error:
        cloud.say(error)


def logs(at: cloud.Cloud, args) -> None:
    """Prints the end of the log of every host, or one host's as it is written."""
    m = at.load(args.name)
    if getattr(args, 'follow', False):
        host = hosts.names(at, m)[args.worker]
        argv = machines.reach(m, host, f'tail -n {args.lines} -F hbt/log')
        print('+', shlex.join(argv))
        if not at.dry:
            subprocess.run(argv)
        return
    show(at, m, args.lines)


def show(at: cloud.Cloud, m: machines.Machine, lines: int) -> None:
    for i, done in enumerate(hosts.everywhere(at, m, f'tail -n {lines} hbt/log')):
        for line in (done.stdout or done.stderr).splitlines():
            print(f'[{i}] {line}')


def status(at: cloud.Cloud, args) -> None:
    """Prints what is recorded and what the cloud shows with the label, with how to delete it."""
    problems = []
    for m in at.recorded():
        try:
            word = cloud.state(at, m)
        except ValueError as error:
            word = f'unknown: {error}'
            problems.append(m.name)
        kind = m.host or f'{m.zone} {m.route}{" spot" if m.spot else ""}{" queued" * m.queued}'
        print(f'{m.name}: {m.type} {kind}, {m.hosts} host(s): {word}; delete: {STOP} {m.name}')
    everywhere = machines.Machine('', '', zone='-', project=args.project)
    recorded = {m.name for m in at.recorded()}
    for kind in ('TPU VM', 'queued resource', 'instance', 'instance template'):
        try:
            labelled = [item for item in at.list_items(everywhere, kind) if item.label]
        except ValueError as error:
            cloud.say(error)
            problems.append(kind)
            continue
        for item in labelled:
            print(f'{kind} {item.name} {item.zone} {item.state}'.rstrip())
            if item.label not in recorded:
                for argv in cloud.orphan(kind, item, args.project):
                    print(f'  not recorded here; delete: {shlex.join(argv)}')
    if problems:
        raise ValueError(f'status: could not ask for {", ".join(problems)}; they may cost money')


def stop(at: cloud.Cloud, args) -> None:
    """Lets the program save its state, then deletes all of the machine."""
    m = at.load(args.name)
    m.stopping = True
    at.save(m)
    with report_errors():
        if cloud.state(at, m) == 'ready':
            hosts.end(at, m)
    cloud.delete(at, m)


def parse(argv: list[str]) -> argparse.Namespace:
    cut = argv.index('--') if '--' in argv else len(argv)
    common = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    common.add_argument('--dry_run', action='store_true', help='show the commands, run none')
    common.add_argument('--poll', type=float, default=30, help='seconds between questions')
    common.add_argument('--settle', type=float, default=120, help='seconds to look after a failure')
    common.add_argument('--wait', type=float, default=60, help='minutes to wait for capacity')
    common.add_argument('--project', default='', help='none: the one gcloud is configured for')
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest='verb', required=True)
    subs = {v: verbs.add_parser(v, parents=[common], allow_abbrev=False) for v in VERBS}
    for verb in set(VERBS) - {'status'}:
        subs[verb].add_argument('name')
    add = subs['create'].add_argument
    add('--type', required=True, help='such as v4-8, v5litepod-16, v5p-8, v6e-16, tpu7x-16')
    add('--zone', default='', help='such as us-east5-b')
    add('--route', default='api', help='api: Cloud TPU API; gce: Compute Engine, v5p and newer')
    add('--host', default='', help='[user@]host: any host with ssh, nothing is created')
    add('--spot', action='store_true', help='cheaper, and taken away at any time')
    add('--queued', action='store_true', help='wait in the queue of the Cloud TPU API')
    add('--bucket', default='', help='of Cloud Storage; the folder bucket/ on every host')
    add('--extra', default='', help='more flags of the creating command, such as --network=mine')
    subs['setup'].add_argument('--data', action='append', default=[], help='in the checkout')
    subs['run'].add_argument('--detach', action='store_true', help='do not follow it')
    subs['run'].add_argument('--stop', action='store_true', help='delete the machine at the end')
    subs['run'].add_argument('--restarts', type=int, default=100, help='after preemption')
    for verb in ('run', 'logs'):
        subs[verb].add_argument('--lines', type=int, default=20, help='of the log of each host')
    subs['logs'].add_argument('--follow', action='store_true', help='one host, as it is written')
    subs['logs'].add_argument('--worker', type=int, default=0, help='the host to follow')
    args = parser.parse_args(argv[:cut])
    args.command = argv[cut + 1 :]
    if args.command and args.verb != 'run':
        parser.error('expected a command after -- only for run')
    return args


VERBS = {
    'create': create,
    'setup': setup,
    'run': run,
    'logs': logs,
    'status': status,
    'stop': stop,
    'delete': stop,
}


def main(argv: list[str]) -> int:
    args = parse(argv)
    at = cloud.Cloud(args.dry_run, args.poll, args.settle)
    for number in cloud.SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        VERBS[args.verb](at, args)
        return 0
    except ValueError as error:
        cloud.say(f'error: {error}')
    except KeyboardInterrupt:
        cloud.say('interrupted')
    if args.verb != 'status' and at.record_path(args.name).exists():
        cloud.say(f'{args.name} is still there and may cost money until: {STOP} {args.name}')
    return 1


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
