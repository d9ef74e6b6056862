"""
What to do about what a check has found, in lines that can be copied.

Where the answer depends on this machine, its sockets, accounts and programs are looked at; libvirt is not asked.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
import shutil
import stat
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from shlex import quote

import libvirt

from collectors.domain import AGENT_CHANNEL

CHANNEL_XML = f"<channel type='unix'><target type='virtio' name='{AGENT_CHANNEL}'/></channel>"

INSTALL_AGENT = (
    "in a Linux guest: install the package qemu-guest-agent, then systemctl enable --now qemu-guest-agent",
    "in a Windows guest: run virtio-win-guest-tools.exe from the virtio-win disk",
)
WAKE_AGENT = (
    "in the guest: systemctl restart qemu-guest-agent",
    "it may hang on a filesystem (NFS whose server is away) or in a freeze hook: journalctl -u qemu-guest-agent",
)
ALLOW_COMMANDS = (
    "in the guest allow them: block-rpcs or allow-rpcs (blacklist before QEMU 7.2) in /etc/qemu/qemu-ga.conf,",
    "or FILTER_RPC_ARGS or BLACKLIST_RPC in /etc/sysconfig/qemu-ga; then systemctl restart qemu-guest-agent",
)
UPDATE_AGENT = ("in the guest: update the package qemu-guest-agent (in Windows the virtio-win guest tools)",)

_REFUSALS = {
    libvirt.VIR_ERR_OPERATION_DENIED: ("agents can be asked over libvirt's read-write socket only, not over ...-ro",),
    libvirt.VIR_ERR_ACCESS_DENIED: (
        "grant this user connect:search-domains, domain:read and domain:write (polkit: org.libvirt.api.domain.write)",
    ),
}
_NOT_LET_IN = {
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
}
_SOCKET = re.compile(r"connect socket to '([^']+)'")


def virsh(uri: str, *arguments: str) -> str:
    """A command line."""
    return " ".join(["virsh", "-c", quote(uri), *map(quote, arguments)])


def add_channel(uri: str, name: str, xml: str, *, running: bool, kept: bool) -> tuple[str, ...]:
    """
    How to give a domain its channel. A running machine takes one only if it has a controller for it, and a controller
    cannot be plugged in: libvirt then refuses ("no virtio-serial controllers are available") and changes nothing.
    """
    live = running and ET.fromstring(xml).find("devices/controller[@type='virtio-serial']") is not None  # noqa: S314 - libvirt's
    flags = (["--config"] if kept else []) + (["--live"] if live else [])
    lines = ["put this into a file channel.xml:", f"  {CHANNEL_XML}"]
    if not flags:
        return (*lines, "and among the devices of the XML from which the domain is created; this one cannot take it")
    lines.append(virsh(uri, "attach-device", name, "channel.xml", *flags))
    if running and not live:
        lines.append("it is there after the next start; a reboot will not do:")
        lines += [virsh(uri, "shutdown", name), f"{virsh(uri, 'start', name)}, once it is off"]
    return tuple(lines)


def refused(code: int) -> tuple[str, ...]:
    """For a connection that stands and may not do what is asked; empty for other errors."""
    return _REFUSALS.get(code, ())


def restart_daemon(uri: str) -> tuple[str, ...]:
    """For a daemon that hangs or went away."""
    if _is_local(uri):
        return ("restart it, guests run on: systemctl restart virtqemud (or libvirtd)",)
    return (f"does {virsh(uri, 'list')} answer? {_remote_hint(uri)}".rstrip(),)


def unreachable(uri: str, code: int, message: str) -> tuple[str, ...]:
    """For a connection that could not be had."""
    if code in _NOT_LET_IN:
        return (
            "polkit lets in root and, on most distributions, members of the group libvirt:",
            f"usermod -aG libvirt {quote(_me())}, then log in again;",
            "or write a rule for the action org.libvirt.unix.manage into /etc/polkit-1/rules.d",
        )
    if lines := refused(code):
        return lines
    if not (match := _SOCKET.search(message)):
        return (f"does {virsh(uri, 'list')} work as {_me()}? {_remote_hint(uri)}".rstrip(),)
    path = Path(match[1])
    if "Permission denied" in message:
        return _permission(path)
    if "refused" in message:
        return (f"its daemon has ended: systemctl restart {_daemon(path) or 'virtqemud'}",)
    if str(path) in uri:
        return (f"nobody listens at {path}: correct the path in libvirt.uris, or start what should be there",)
    if daemon := _daemon(path):
        return (f"systemctl enable --now {daemon}.socket",)
    return (
        "install libvirt (Debian: apt install libvirt-daemon-system qemu-system; Fedora: dnf install libvirt),",
        "or set GUESTWIRE_LIBVIRT__URIS to where it is, e.g. qemu+ssh://root@HOST/system",
    )


def _permission(path: Path) -> tuple[str, ...]:
    """Who may use a socket: its group, if that may write, else its owner."""
    for folder in reversed(path.parents):
        if not os.access(folder, os.X_OK):
            path = folder
            break
    found, me = path.stat(), _me()
    needed = stat.S_IXGRP if path.is_dir() else stat.S_IWGRP
    owner = _name(lambda: pwd.getpwuid(found.st_uid).pw_name, found.st_uid)
    group = _name(lambda: grp.getgrgid(found.st_gid).gr_name, found.st_gid)
    whose = f"{path} is {owner}'s, group {group}, mode {stat.filemode(found.st_mode)}"
    if not found.st_mode & needed or group == "root":
        return (f"{whose}: run as {owner}",)
    if found.st_gid not in (*os.getgroups(), os.getegid()) and me in _members(found.st_gid):
        return (f"{whose}: {me} is in that group since this session began; log in again",)
    return (f"{whose}: usermod -aG {quote(group)} {quote(me)}, then log in again",)


def _members(group: int) -> list[str]:
    try:
        return grp.getgrgid(group).gr_mem
    except KeyError:
        return []


def _me() -> str:
    return _name(lambda: pwd.getpwuid(os.geteuid()).pw_name, os.geteuid())


def _name(look_up: Callable[[], str], number: int) -> str:
    """An account's name; its number where nobody named it, as in a container."""
    try:
        return look_up()
    except KeyError:
        return str(number)


def _daemon(path: Path) -> str:
    """Which installed daemon serves a socket; empty when none is."""
    wanted = ("virtqemud", "libvirtd") if path.name.startswith("virtqemud") else ("libvirtd", "virtqemud")
    programs = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    return next((name for name in wanted if shutil.which(name, path=programs)), "")


def _is_local(uri: str) -> bool:
    return "+" not in uri.partition(":")[0] or "+unix" in uri


def _remote_hint(uri: str) -> str:
    scheme = uri.partition(":")[0]
    if "ssh" in scheme:
        return "it needs ssh without a password (a key), a known host, and libvirt's group over there"
    if "tls" in scheme:
        return "it needs the certificates of libvirt's pkipath, and virtproxyd-tls.socket over there"
    return ""
