"""Run a program for which bpf(2), or one command of it, fails as if a container or another kernel refused it.

    forbid_bpf.py ERRNO COMMAND PROGRAM [ARGUMENT...]      COMMAND: its number, or `all`

Imports nothing of the package: it is run as a file. seccomp(2); the layout of seccomp_data is that of seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2
_LOAD_WORD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _FAIL = 0x7FFF0000, 0x00050000
_NUMBER_AT, _FIRST_ARGUMENT_AT = 0, 16
_BPF = {"x86_64": 321, "aarch64": 280}
_INSTRUCTION = struct.Struct("=HBBI")


def instructions(error: int, command: int | None) -> bytes:
    """A filter: bpf(2), of this command if there is one, fails with `error`."""
    number = _BPF[os.uname().machine]
    code = [(_LOAD_WORD, 0, 0, _NUMBER_AT)]
    if command is None:
        code += [(_IF_EQUAL, 0, 1, number)]
    else:
        code += [(_IF_EQUAL, 0, 3, number), (_LOAD_WORD, 0, 0, _FIRST_ARGUMENT_AT), (_IF_EQUAL, 0, 1, command)]
    return b"".join(
        _INSTRUCTION.pack(*each) for each in [*code, (_RETURN, 0, 0, _FAIL | error), (_RETURN, 0, 0, _ALLOW)]
    )


def forbid(error: int, command: int | None) -> None:
    """Forbid it to this process and whatever it runs."""
    octets = instructions(error, command)
    code = ctypes.create_string_buffer(octets, len(octets))
    program = struct.pack("=H6xQ", len(octets) // _INSTRUCTION.size, ctypes.addressof(code))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


if __name__ == "__main__":
    _, name, which, *words = sys.argv
    forbid(getattr(errno, name), None if which == "all" else int(which))
    os.execvp(words[0], words)
