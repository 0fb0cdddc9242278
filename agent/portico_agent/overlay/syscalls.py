"""The few Linux calls that Python 3.11 does not offer, through libc. Each raises OSError with the call's name in it."""

import ctypes
import os
from collections.abc import Iterable

CLONE_NEWNS = 0x00020000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_LAST_CAP_TRIED = 63
_CAPABILITY_VERSION_3 = 0x20080522
_SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41, "riscv64": 41, "ppc64le": 203, "s390x": 217}

_NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP"
)
CAPABILITIES = {name: number for number, name in enumerate(_NAMES.split())}
"""Numbers of the capabilities we name; the kernel's later ones are only ever dropped."""

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.syscall.restype = ctypes.c_long


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    _check(
        _libc.mount(
            os.fsencode(source), os.fsencode(target), os.fsencode(kind) or None, flags, os.fsencode(options) or None
        ),
        f"mount {kind or source} on {target}",
    )


def umount(target: str, flags: int = 0) -> None:
    _check(_libc.umount2(os.fsencode(target), flags), f"umount {target}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def setns(descriptor: int, kind: int) -> None:
    _check(_libc.setns(descriptor, kind), "setns")


def pivot_root(new_root: str, put_old: str) -> None:
    number = _SYS_PIVOT_ROOT.get(os.uname().machine)
    if number is None:
        raise OSError(f"pivot_root: its number on {os.uname().machine} is not known here")
    _check(_libc.syscall(ctypes.c_long(number), os.fsencode(new_root), os.fsencode(put_old)), "pivot_root")


def prctl(option: int, value: int = 0) -> int:
    result = int(_libc.prctl(option, value, 0, 0, 0))
    _check(result, f"prctl {option}")
    return result


def become_subreaper() -> None:
    """Orphans below this process become its children, as they would PID 1's."""
    prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> None:
    prctl(_PR_SET_PDEATHSIG, signal_number)


def hide_process() -> None:
    """Not dumpable: memory, environment and descriptors in /proc need CAP_SYS_PTRACE, whoever the reader is."""
    prctl(_PR_SET_DUMPABLE, 0)


def drop_capabilities(keep: Iterable[str]) -> None:
    """Leave this process and all it will ever start no more than `keep`, set-user-id programs included.

    For root the bounding set is what counts at exec: whoever becomes root in here (sudo) gets these and no others.
    A capability the kernel has already taken from us is no error.
    """
    kept = {CAPABILITIES[name] for name in keep}
    if not _permitted():
        return  # a plain user without a namespace of its own: nothing to give up, and no right to
    for number in range(_LAST_CAP_TRIED + 1):
        if number not in kept and _in_bounding_set(number):
            prctl(_PR_CAPBSET_DROP, number)
    _libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    held = _permitted() & sum(1 << number for number in kept)
    low, high = held & 0xFFFFFFFF, held >> 32
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    _check(_libc.capset(header, data), "capset")


def _in_bounding_set(number: int) -> bool:
    return bool(_libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1)


def _permitted() -> int:
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    data = (ctypes.c_uint32 * 6)()
    _check(_libc.capget(header, data), "capget")
    return int(data[1]) | int(data[4]) << 32


def wipe_environment(name: str) -> None:
    """Overwrite a variable's value where the kernel shows it in /proc/<pid>/environ; Python's own copy is the caller's
    to remove."""
    prefix = os.fsencode(name) + b"="
    environment = ctypes.POINTER(ctypes.c_void_p).in_dll(_libc, "environ")
    index = 0
    while address := environment[index]:
        text = ctypes.string_at(address)
        if text.startswith(prefix):
            ctypes.memset(address + len(prefix), 0x2A, len(text) - len(prefix))
        index += 1
