"""
Runs a program under the system call rules of a systemd unit, without systemd: SystemCallFilter, RestrictAddressFamilies
and MemoryDenyWriteExecute, as a seccomp filter that answers EPERM. What is named and the kernel does not have is passed
over, as systemd does.

    python confined.py NAMES FAMILIES PROGRAM [ARGUMENT ...]

NAMES is a file with the system calls that are left, one on each line; FAMILIES holds numbers, separated by commas.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from pathlib import Path

ALLOW, REFUSE = 0x7FFF0000, 0x00050001  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM)
EQUAL, MASKED = 4, 7  # SCMP_CMP_EQ, SCMP_CMP_MASKED_EQ
WRITABLE_CODE = mmap.PROT_WRITE | mmap.PROT_EXEC


class Comparison(ctypes.Structure):
    """struct scmp_arg_cmp: `MASKED` takes mask and value, `EQUAL` a value."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def confine(names: list[str], families: list[int]) -> None:
    """For this process and all that it becomes."""
    library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(REFUSE))

    def allow(name: str, *comparisons: Comparison) -> None:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number < 0:
            return
        array = (Comparison * len(comparisons))(*comparisons)
        failed = library.seccomp_rule_add_array(context, ALLOW, number, len(comparisons), array)
        if failed:
            raise OSError(-failed, f"rule for {name}")

    for name in names:
        if name == "socket":
            for family in families:
                allow(name, Comparison(0, EQUAL, family, 0))
        elif name == "mmap":
            for protection in (0, mmap.PROT_WRITE, mmap.PROT_EXEC):
                allow(name, Comparison(2, MASKED, WRITABLE_CODE, protection))
        elif name in {"mprotect", "pkey_mprotect"}:
            allow(name, Comparison(2, MASKED, mmap.PROT_EXEC, 0))
        else:
            allow(name)
    failed = library.seccomp_load(context)
    if failed:
        raise OSError(-failed, "seccomp_load")


if __name__ == "__main__":
    confine(Path(sys.argv[1]).read_text().split(), [int(each) for each in sys.argv[2].split(",")])
    os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606 - no shell
