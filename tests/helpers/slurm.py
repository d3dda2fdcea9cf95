"""A real Slurm of one node on this machine: munged, slurmctld and slurmd of Debian's packages.

    apt-get install -y slurmd slurmctld munge

needs the rights of root. Everything lies in a folder of the caller's; the daemons listen on free
ports and end with `stop`.
"""

import contextlib
import os
import pathlib
import platform
import shutil
import socket
import subprocess
import time

PROGRAMS = ('munged', 'slurmctld', 'slurmd', 'sbatch', 'squeue')
CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/affinity
SchedulerType=sched/backfill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=5
MinJobAge=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing():
    """The reason why no Slurm can be started here, or ''."""
    path = os.environ['PATH'] + ':/usr/sbin:/sbin'
    absent = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if absent:
        return f'no {absent[0]}: apt-get install -y slurmd slurmctld munge'
    return '' if os.geteuid() == 0 else 'slurmd needs the rights of root'


def _free_ports():
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(('127.0.0.1', 0))
        return [each.getsockname()[1] for each in (one, two)]


@contextlib.contextmanager
def running(folder):
    """Runs the daemons while the block runs; yields the variables that name their cluster."""
    folder = pathlib.Path(folder)
    for name in ('state', 'spool'):
        (folder / name).mkdir(parents=True, mode=0o755)
    (folder / 'munge.key').write_bytes(os.urandom(128))
    (folder / 'munge.key').chmod(0o400)
    facts = {'host': platform.node(), 'ports': _free_ports(), 'folder': folder}
    conf = CONF.format(cores=os.cpu_count(), **facts)
    (folder / 'slurm.conf').write_text(conf)
    (folder / 'cgroup.conf').write_text('# the defaults\n')
    env = {
        'SLURM_CONF': str(folder / 'slurm.conf'),
        'PATH': os.environ['PATH'] + ':/usr/sbin:/sbin',
    }
    munged = ['munged', '--foreground', '--force', f'--socket={folder}/munge.socket']
    munged += [f'--{name}-file={folder}/munge.{name}' for name in ('key', 'pid', 'seed', 'log')]
    conf = ['-f', env['SLURM_CONF']]
    daemons = []
    try:
        for command in (munged, ['slurmctld', '-D', *conf], ['slurmd', '-D', *conf]):
            with open(folder / f'{command[0]}.out', 'w') as out:
                daemons.append(
                    subprocess.Popen(command, env=os.environ | env, stdout=out, stderr=out)
                )
            time.sleep(1)
        _wait_until_idle(env, folder, daemons)
        yield env
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
        for daemon in daemons:
            daemon.wait(timeout=60)


def _wait_until_idle(env, folder, daemons):
    deadline, said = time.monotonic() + 120, ''
    while time.monotonic() < deadline and all(daemon.poll() is None for daemon in daemons):
        command = ['sinfo', '--noheader', '--format=%T']
        done = subprocess.run(command, env=os.environ | env, capture_output=True, text=True)
        said = done.stdout.strip() or done.stderr
        if said == 'idle':
            return
        time.sleep(0.5)
    logs = '\n'.join(path.read_text()[-2000:] for path in folder.glob('*.out'))
    raise RuntimeError(f'Slurm did not start: {said}\n{logs}')
