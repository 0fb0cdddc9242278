"""A network of its own without the right to make links: a small helper process carries packets for the run.

pasta or slirp4netns runs beside the run as an ordinary program of this machine, so what it dials is dialled by this
machine. Both are told not to reach the machine's loopback; its other addresses they cannot tell from the internet.
The helper ends with the run's namespace. Standard library only: the launcher uses it.
"""

import os
import subprocess
import tempfile
from pathlib import Path

from portico_gateway.compute.local.boot_plan import NetworkPlan
from portico_gateway.compute.local.network import NetworkFault
from portico_gateway.compute.local.processes import ProcessIdentity, identify, is_alive, kill

NAMESERVER = {"pasta": "169.254.1.53", "slirp": "10.0.2.3"}
"""The address in the studio that the helper answers for names on, with the machine's own resolver behind it."""
READY_TIMEOUT = 10.0  # seconds until the helper says that the network is up; it takes some 20 ms
PID_FILE = "network.pid"


def attach(plan: NetworkPlan, pid: int, run_dir: Path) -> None:
    """Start the helper for the network namespace of process `pid`. Raises NetworkFault."""
    helper = _pasta(pid, run_dir) if plan.kind == "pasta" else _slirp(pid)
    found = identify(helper)
    if found is None:
        raise NetworkFault(f"'{plan.kind}' ended at once: no network for the studio")
    (run_dir / PID_FILE).write_text(f"{found.pid} {found.started} {found.boot}")


def detach(run_dir: Path) -> bool:
    """End the run's helper if it still runs; False when there was none."""
    try:
        pid, started, boot = (run_dir / PID_FILE).read_text().split()
        found = ProcessIdentity(int(pid), int(started), boot)
    except (OSError, ValueError):
        return False
    (run_dir / PID_FILE).unlink(missing_ok=True)
    return is_alive(found) and kill(found)


def _pasta(pid: int, run_dir: Path) -> int:
    with tempfile.TemporaryDirectory() as folder:
        pid_file = Path(folder, "pid")
        Path(folder).chmod(0o777)  # as root pasta becomes 'nobody' before it writes the file
        command = ["pasta", "--quiet", "--config-net", "--ipv4-only", "--no-map-gw", "--ns-ifname", "eth0"]
        command += ["--dns-forward", NAMESERVER["pasta"], "-t", "none", "-u", "none", "-T", "none", "-U", "none"]
        if os.geteuid() == 0:
            command += ["--runas", "0"]
        command += ["--pid", str(pid_file), str(pid)]
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=READY_TIMEOUT
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise NetworkFault(f"'pasta' could not be started: {error}") from None
        if done.returncode != 0:
            raise NetworkFault(f"'pasta' failed: {done.stderr.strip()[:300]}")
        return int(pid_file.read_text())


def _slirp(pid: int) -> int:
    ready, tell_ready = os.pipe()
    command = ["slirp4netns", "--configure", "--disable-host-loopback", "--mtu", "1500"]
    command += ["--ready-fd", str(tell_ready), str(pid), "eth0"]
    if os.geteuid() != 0:
        command[1:1] = ["--userns-path", f"/proc/{pid}/ns/user"]
    try:
        helper = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(tell_ready,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(ready)
        os.close(tell_ready)
        raise NetworkFault(f"'slirp4netns' could not be started: {error}") from None
    os.close(tell_ready)
    with open(ready, "rb") as file:
        said = file.read(1)
    if said != b"1":
        raise NetworkFault("'slirp4netns' gave up: no network for the studio")
    helper.returncode = 0  # it outlives the launcher on purpose
    return helper.pid
