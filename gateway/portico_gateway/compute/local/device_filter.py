"""Which devices a control group of version 2 may open: a small program in the kernel, since there is no file for it.

User code cannot make or mount devices; the agent could, for it mounts the tool's root. With this it still opens nothing
but null, zero, full, random, urandom, tty, ptmx and terminals.
"""

import ctypes
import os
import struct

DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2), (136, None))
"""Character devices by major and minor number; None = every minor."""
_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_CHARACTER = 2
_LOAD_WORD, _AND, _JUMP_IF_EQUAL, _JUMP_IF_NOT, _MOVE, _EXIT = 0x61, 0x57, 0x15, 0x55, 0xB7, 0x95
_VERDICT, _CONTEXT, _KIND, _MAJOR, _MINOR = 0, 1, 2, 3, 4  # registers
_LICENSE = b"Apache-2.0\0"


def restrict_devices(group: str) -> None:
    """Attach the filter to the group in folder `group`; it goes away with the group. Raises OSError."""
    code = program()
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(_LICENSE)
    load = struct.pack(
        "=IIQQ",
        _TYPE_CGROUP_DEVICE,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(licence),
    )
    loaded = _bpf(_PROG_LOAD, load)
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _bpf(_PROG_ATTACH, struct.pack("=IIII", folder, loaded, _ATTACH_CGROUP_DEVICE, 0))
    finally:
        os.close(folder)
        os.close(loaded)


def program() -> bytes:
    """The filter's instructions: 1 for a character device of the list, else 0."""
    code = [
        _instruction(_LOAD_WORD, _KIND, _CONTEXT, 0),
        _instruction(_AND, _KIND, value=0xFFFF),  # the upper half says what is asked: make, read or write
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
        _instruction(_MOVE, _VERDICT, value=0),
        _instruction(_JUMP_IF_EQUAL, _KIND, offset=1, value=_CHARACTER),
        _instruction(_EXIT),
    ]
    for major, minor in DEVICES:
        checks = 1 if minor is None else 2
        code.append(_instruction(_JUMP_IF_NOT, _MAJOR, offset=checks + 1, value=major))
        if minor is not None:
            code.append(_instruction(_JUMP_IF_NOT, _MINOR, offset=2, value=minor))
        code += [_instruction(_MOVE, _VERDICT, value=1), _instruction(_EXIT)]
    return b"".join([*code, _instruction(_EXIT)])


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, target | source << 4, offset, value)


def _bpf(command: int, attributes: bytes) -> int:
    number = _BPF.get(os.uname().machine)
    if number is None:
        raise OSError(f"bpf: its number on {os.uname().machine} is not known here")
    libc = ctypes.CDLL(None, use_errno=True)
    padded = ctypes.create_string_buffer(attributes, 120)
    libc.syscall.restype = ctypes.c_long
    result = int(libc.syscall(ctypes.c_long(number), ctypes.c_long(command), padded, ctypes.c_long(120)))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"bpf {command}: {os.strerror(ctypes.get_errno())}")
    return result
