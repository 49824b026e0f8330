"""Machines of a test's own, on this one: each with its network, processes, home, /tmp and name.

Linux namespaces, so that `ray up`, `ray stop` and sshd do what they do on real machines and touch
nothing outside. What is shared lies in /srv, as on an NFS share. They end with the test.
"""

import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NETWORK = "10.87.0."
HOME = Path.home()

MACHINE = f"""
set -e
mount --bind "$1" /srv
mount -t tmpfs none /run
mkdir -p /run/home /run/work /run/sshd /run/code
mount --rbind "{ROOT}" /run/code
mount -t overlay none -o "lowerdir={HOME},upperdir=/run/home,workdir=/run/work" "{HOME}"
mount -t tmpfs -o mode=1777 none /tmp
mount -t tmpfs -o mode=1777 none /dev/shm
mkdir -p "{ROOT}"
mount --rbind /run/code "{ROOT}"
hostname "$2"
: > "/srv/up-$2"
ip link set lo up
shift 2
exec "$@"
"""
SSHD = (
    "/usr/sbin/sshd -D -e -f /dev/null -h /srv/key -o AuthorizedKeysFile=/srv/key.pub "
    "-o StrictModes=no -o PidFile=none -o LogLevel=ERROR"
)
IN_SHARE = ["env", "-C", "/srv", "PYTHONPATH=/srv"]
NAMESPACES = ["--net", "--mount", "--pid", "--uts", "--ipc"]


def skip_where_machines_cannot_be() -> None:
    """Skip, and say what is missing."""
    needed = ["unshare", "nsenter", "setpriv", "ip", "ssh", "ssh-keygen", "rsync", "/usr/sbin/sshd"]
    if missing := [each for each in needed if not shutil.which(each)]:
        pytest.skip(f"needs {', '.join(missing)} (Debian: openssh-server, rsync, iproute2)")
    tried = subprocess.run(
        ["unshare", *NAMESPACES, "--fork", "--mount-proc", "ip", "link", "add", "br0", "type", "bridge"],
        capture_output=True, text=True,
    )  # fmt: skip
    if tried.returncode:
        pytest.skip(f"needs root and network namespaces: {tried.stderr.strip()}")


@dataclass
class Machine:
    """A running machine; commands on it are run in /srv, where Python finds modules too."""

    name: str
    process: subprocess.Popen[bytes]
    pid: int

    def run(self, *command: object, **how: object) -> subprocess.CompletedProcess[str]:
        line = ["nsenter", "-t", self.pid, "--all", *IN_SHARE, *command]
        return subprocess.run([str(each) for each in line], text=True, **how)  # type: ignore[call-overload, no-any-return]


def start(name: str, share: Path, command: str) -> Machine:
    """A machine whose first process is a command; without a network as yet."""
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", *NAMESPACES, "--fork", "--kill-child",
         "--mount-proc", "sh", "-c", MACHINE, "sh", share, name, *command.split()],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    # Before its folders are its own, a command there would meet this machine's.
    while process.poll() is None and not (share / f"up-{name}").exists():
        time.sleep(0.02)
    return Machine(name, process, int(children.read_text().split()[0]))


def connect(desk: Machine, machines: Sequence[Machine]) -> dict[str, str]:
    """Put machines on one private network, whose switch is at the desk; name -> address."""

    def ip(at: Machine, line: str) -> None:
        subprocess.run(["nsenter", "-t", str(at.pid), "-n", "ip", *line.split()], check=True)

    ip(desk, "link add br0 type bridge")
    ip(desk, f"addr add {NETWORK}1/24 dev br0")
    ip(desk, "link set br0 up")
    addresses = {}
    for number, each in enumerate(machines, 2):
        addresses[each.name] = f"{NETWORK}{number}"
        ip(desk, f"link add v{number} type veth peer name eth0 netns {each.pid}")
        ip(desk, f"link set v{number} master br0 up")
        ip(each, f"addr add {addresses[each.name]}/24 dev eth0")
        ip(each, "link set eth0 up")
        ip(each, f"route add default via {NETWORK}1")  # leads nowhere; tells Ray its own address
    return addresses


def end(machines: Sequence[Machine]) -> None:
    """Every process of them ends with the first."""
    for each in machines:
        each.process.kill()
        each.process.wait()


def pack(into: Path) -> None:
    """What `git archive` makes, of the files as they are."""
    parts = ["lth_core", "tracking", "sweeps", "pyproject.toml", "requirements.lock", "Makefile"]
    subprocess.run(["tar", "-czf", into, "--exclude=__pycache__", *parts], cwd=ROOT, check=True)
