"""What a machine is, and the commands that make, list, reach and delete it. Runs none of them.

A machine comes from the Cloud TPU API (v4 to v6e) or from Compute Engine groups (v5p and newer), or
is reached by plain ssh. Commands and flags are those of the Google Cloud CLI 528; what never ran on
the cloud is marked UNTRIED.
"""

import dataclasses
import json
import re
import shlex
import typing

LABEL = 'hbt-launch'
FLAT = {1: '1x1', 4: '2x2', 8: '2x4', 16: '4x4', 32: '4x8', 64: '8x8', 128: '8x16', 256: '16x16'}
CUBE = {4: '2x2x1', 8: '2x2x2', 16: '2x2x4', 32: '2x4x4', 64: '4x4x4', 128: '4x4x8'}
CUBE |= {256: '4x8x8', 512: '8x8x8', 1024: '8x8x16', 2048: '8x16x16'}
IMAGES = 'ubuntu-os-accelerator-images'


class Version(typing.NamedTuple):
    """A generation of TPU: what a type's number counts, and what serves it (empty: nothing)."""

    cores: int  # counted per chip in the name of a type: v5p-8 and v6e-4 have four chips each
    shapes: dict  # chips -> topology
    runtime: str = ''  # of the Cloud TPU API
    machine: str = ''  # of Compute Engine, by chips of a host
    image: str = ''


VERSIONS = {
    'v4': Version(2, CUBE, 'tpu-ubuntu2204-base'),
    'v5litepod': Version(1, FLAT, 'v2-alpha-tpuv5-lite'),
    'v5p': Version(
        2, CUBE, 'v2-alpha-tpuv5', 'ct5p-hightpu-{}t', 'ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e'
    ),
    'v6e': Version(
        1, FLAT, 'v2-alpha-tpuv6e', 'ct6e-standard-{}t', 'ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e'
    ),
    'tpu7x': Version(2, CUBE, '', 'tpu7x-standard-{}t', 'ubuntu-accel-2404-amd64-tpu-tpu7x'),
}
KINDS = {  # what is created -> (its commands, flag of its place)
    'TPU VM': ('compute tpus tpu-vm', 'zone'),
    'queued resource': ('compute tpus queued-resources', 'zone'),
    'workload policy': ('compute resource-policies', 'region'),
    'instance template': ('compute instance-templates', ''),
    'instance group': ('compute instance-groups managed', 'zone'),
    'instance': ('compute instances', 'zone'),
}
STATES = {  # what the cloud calls it -> what it means here; any other word: waiting
    **dict.fromkeys(('READY', 'ACTIVE', 'RUNNING'), 'ready'),
    **dict.fromkeys(('PREEMPTED', 'TERMINATED', 'STOPPING', 'STOPPED', 'DELETING'), 'gone'),
    **dict.fromkeys(('SUSPENDING', 'SUSPENDED', 'FAILED', 'HIDING', 'HIDDEN'), 'gone'),
}


@dataclasses.dataclass
class Machine:
    """One TPU VM, one slice of many hosts, or one host reached by ssh; kept as JSON."""

    name: str
    type: str  # such as v6e-16; by ssh the extra of jax: tpu, cuda12, cuda13, or cpu
    zone: str = ''
    route: str = 'api'  # api, gce or ssh
    host: str = ''  # by ssh: [user@]host
    project: str = ''
    spot: bool = False
    queued: bool = False
    bucket: str = ''
    extra: str = ''  # further flags of the command that creates the VMs
    jax: str = ''  # version; empty: the newest that hbt allows
    date: str = ''  # packages newer than this are not installed, so that every host has the same
    data: tuple[str, ...] = ()
    command: tuple[str, ...] = ()  # arguments of Python in the newest run
    stopping: bool = False  # whoever follows a run must not create the machine again

    @property
    def version(self) -> Version:
        return VERSIONS[self.type.rpartition('-')[0]]

    @property
    def chips(self) -> int:
        return int(self.type.rpartition('-')[2]) // self.version.cores

    @property
    def hosts(self) -> int:
        if self.route == 'ssh' or self.chips in (1, 4) or self.type in ('v5litepod-8', 'v6e-8'):
            return 1
        return self.chips // 4

    @property
    def packages(self) -> str:
        """What pip is told to install jax by."""
        extra = self.type if self.route == 'ssh' else 'tpu'
        pin = f'=={self.jax}' if self.jax else ''
        return f'jax{pin}' if extra == 'cpu' else f'jax[{extra}]{pin}'


def check(m: Machine) -> None:
    """ValueError for a machine that cannot be, before anything is asked of the cloud."""
    if not re.fullmatch(r'[a-z]([a-z0-9-]{0,38}[a-z0-9])?', m.name):
        expected = 'up to 40 of a-z, 0-9 and -, a letter first'
        raise ValueError(f'NAME: expected {expected}, got {m.name!r}')
    if m.route == 'ssh':
        if m.type not in ('tpu', 'cuda12', 'cuda13', 'cpu') or not m.host or m.host[0] == '-':
            raise ValueError(f'--host: expected a host and --type=cuda13, cuda12, tpu or cpu: {m}')
        return
    version, _, size = m.type.rpartition('-')
    if version not in VERSIONS or not size.isdecimal():
        raise ValueError(f'--type: expected {", ".join(VERSIONS)} and a size, got {m.type!r}')
    sizes = [chips * m.version.cores for chips in m.version.shapes]
    if int(size) not in sizes:
        raise ValueError(f'--type: {version} comes in {", ".join(map(str, sizes))}, got {size}')
    if not re.fullmatch(r'[a-z]+-[a-z]+\d+-[a-z]', m.zone):
        raise ValueError(f'--zone: expected one such as us-east5-b, got {m.zone!r}')
    served = [r for r, s in (('api', m.version.runtime), ('gce', m.version.machine)) if s]
    if m.route not in served:
        raise ValueError(f'--route: {version} is served by {" and ".join(served)}, not {m.route}')
    if m.queued and m.route == 'gce':
        raise ValueError('--queued: only with --route=api; a group waits for its VMs anyway')
    if not re.fullmatch(r'[a-z0-9][a-z0-9._-]*|', m.bucket):
        raise ValueError(f'--bucket: expected the name alone, such as my-bucket, got {m.bucket!r}')
    if not m.bucket and (m.spot or m.hosts > 1):
        raise ValueError(
            f'--bucket: needed for {m.hosts} hosts, --spot={m.spot}: checkpoints must lie where '
            'every host sees them and where they outlive the VMs'
        )


def resources(m: Machine) -> list[tuple[str, list[str]]]:
    """What makes up the machine, in order: (kind, command that creates it)."""
    zone, region = f'--zone={m.zone}', f'--region={m.zone[:-2]}'
    label, spot = f'--labels={LABEL}={m.name}', ['--spot'] if m.spot else []
    extra, runtime = shlex.split(m.extra), m.version.runtime if m.route != 'ssh' else ''
    if m.route == 'ssh':
        return []
    if m.route == 'api':
        kind = 'queued resource' if m.queued else 'TPU VM'
        own = [f'--node-id={m.name}', f'--runtime-version={runtime}'] if m.queued else []
        own = own or [f'--version={runtime}']
        own += [f'--accelerator-type={m.type}', zone, label, *spot, *extra]
        return [(kind, command(m, f'{KINDS[kind][0]} create', m.name, *own))]
    topology = m.version.shapes[m.chips]
    policy = command(m, 'compute resource-policies create workload-policy', m.name, region)
    policy += ['--type=HIGH_THROUGHPUT', f'--accelerator-topology={topology}']
    # UNTRIED: taken from Google's pages and from published recipes for v6e and TPU7x.
    template = command(m, 'compute instance-templates create', m.name, label)
    template += [f'--machine-type={machine_type(m)}', '--maintenance-policy=TERMINATE']
    template += [f'--image-family={m.version.image}', f'--image-project={IMAGES}']
    template += ['--scopes=cloud-platform', '--boot-disk-size=200GB']
    if m.type.startswith('tpu7x'):
        template += ['--boot-disk-type=hyperdisk-balanced']
    if m.spot:
        template += ['--provisioning-model=SPOT', '--instance-termination-action=STOP']
    group = command(m, 'compute instance-groups managed create', m.name, zone)
    group += [f'--template={m.name}', f'--size={m.hosts}', f'--base-instance-name={m.name}']
    group += ['--default-action-on-vm-failure=do-nothing']
    commands = [('instance template', template + extra), ('instance group', group)]
    if m.hosts > 1:  # a slice: its VMs are wired together
        group += [f'--workload-policy={m.name}']
        commands.insert(0, ('workload policy', policy))
    return commands


def checks(m: Machine) -> list[list[str]]:
    """Commands that fail where zone, type or software version do not exist; they change nothing."""
    zone = f'--zone={m.zone}'
    if m.route == 'api':
        kinds = {'accelerator-types': m.type, 'versions': m.version.runtime}
        return [command(m, f'compute tpus tpu-vm {k} describe', v, zone) for k, v in kinds.items()]
    if m.route == 'ssh':
        return [reach(m, '', 'true')]
    image = command(m, 'compute images describe-from-family', m.version.image)
    image = [x for x in image if not x.startswith('--project=')] + [f'--project={IMAGES}']
    return [command(m, 'compute machine-types describe', machine_type(m), zone), image]


def machine_type(m: Machine) -> str:
    return m.version.machine.format(m.chips if m.hosts == 1 else 4)


def command(m: Machine, words: str, *rest: str) -> list[str]:
    project = [f'--project={m.project}'] if m.project else []
    return ['gcloud', *words.split(), *rest, *project]


def listing(m: Machine, kind: str) -> list[str]:
    """Lists all of a kind, as JSON; `-` as the zone of `m` means all zones."""
    words, _ = KINDS[kind]
    zone = [f'--zone={m.zone}'] if words.startswith('compute tpus') else []
    return command(m, f'{words} list', *zone, '--format=json')


def deletion(m: Machine, kind: str, name: str) -> list[str]:
    words, scope = KINDS[kind]
    where = {'zone': f'--zone={m.zone}', 'region': f'--region={m.zone[:-2]}', '': '--global'}[scope]
    force = ['--force'] if kind == 'queued resource' else []  # its VMs too
    return command(m, f'{words} delete', name, where, '--quiet', *force)


class Item(typing.NamedTuple):
    """A line of a listing."""

    name: str
    zone: str
    state: str
    label: str


def items(kind: str, text: str) -> list[Item]:
    """Reads a listing. ValueError where it is not JSON of the expected form."""
    result = []
    for item in json.loads(text):
        parts = item['name'].split('/')
        zone = parts[-3] if len(parts) > 3 else item.get('zone', '').split('/')[-1]
        state, labels = item.get('state', item.get('status', '')), item.get('labels', {})
        if kind == 'queued resource':
            state = state.get('state', '') if isinstance(state, dict) else state
            labels = item.get('tpu', {}).get('nodeSpec', [{}])[0].get('node', {}).get('labels', {})
        if kind == 'instance template':
            labels = item.get('properties', {}).get('labels', {})
        result.append(Item(parts[-1], zone, state, labels.get(LABEL, '')))
    return result


def reach(m: Machine, host: str, script: str) -> list[str]:
    """Runs a script of the shell on one host, in its home."""
    if m.route == 'ssh':
        return ['ssh', '-o', 'BatchMode=yes', m.host, script]
    if m.route == 'api':
        where = [m.name, f'--zone={m.zone}', f'--worker={host}']
        return command(m, 'compute tpus tpu-vm ssh', *where, f'--command={script}')
    return command(m, 'compute ssh', host, f'--zone={m.zone}', f'--command={script}')


def copying(m: Machine, host: str, path: str, target: str) -> list[str]:
    """Copies a file into the home of one host."""
    if m.route == 'ssh':
        return ['scp', '-o', 'BatchMode=yes', path, f'{m.host}:{target}']
    if m.route == 'api':
        where = [f'--zone={m.zone}', f'--worker={host}']
        return command(m, 'compute tpus tpu-vm scp', path, f'{m.name}:{target}', *where)
    return command(m, 'compute scp', path, f'{host}:{target}', f'--zone={m.zone}')
