"""
Whether a guest agent is fit for KubeVirt: by the commands it has enabled (pkg/virt-handler/guestagent.go).

The list of versions that KubeVirt compares while it has no commands yet is not taken over: commands that are not known
yet are unknown, which is not unsupported.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

SUPPORTED = "This guest agent is supported"
NO_BASIC = "This guest agent doesn't support required basic commands"
NO_PUBLIC_KEY = "This guest agent doesn't support required public key commands"
NO_PASSWORD = "This guest agent doesn't support required password commands"  # noqa: S105 - a sentence

BASIC = frozenset(
    (
        "guest-ping",
        "guest-get-time",
        "guest-info",
        "guest-shutdown",
        "guest-network-get-interfaces",
        "guest-get-fsinfo",
        "guest-get-host-name",
        "guest-get-users",
        "guest-get-timezone",
        "guest-get-osinfo",
    )
)
PUBLIC_KEY = frozenset(
    ("guest-ssh-get-authorized-keys", "guest-ssh-add-authorized-keys", "guest-ssh-remove-authorized-keys")
)
OLD_PUBLIC_KEY = frozenset(
    (
        "guest-exec-status",
        "guest-exec",
        "guest-file-open",
        "guest-file-close",
        "guest-file-read",
        "guest-file-write",
    )
)
PASSWORD = frozenset(("guest-set-user-password",))


def support(vmi: Mapping[str, Any], commands: Collection[str]) -> tuple[bool, str]:
    """Whether the enabled commands do for this VMI, and KubeVirt's sentence about it; SSH keys before passwords."""
    enabled = frozenset(commands)
    credentials = (vmi.get("spec") or {}).get("accessCredentials") or ()
    if not enabled >= BASIC:
        return False, NO_BASIC
    if _through_agent(credentials, "sshPublicKey") and not (enabled >= PUBLIC_KEY or enabled >= OLD_PUBLIC_KEY):
        return False, NO_PUBLIC_KEY
    if _through_agent(credentials, "userPassword") and not enabled >= PASSWORD:
        return False, NO_PASSWORD
    return True, SUPPORTED


def _through_agent(credentials: Collection[Mapping[str, Any]], kind: str) -> bool:
    methods = ((each.get(kind) or {}).get("propagationMethod") or {} for each in credentials)
    return any("qemuGuestAgent" in method for method in methods)
