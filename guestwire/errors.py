"""
Errors, named by their consequence.

    GuestwireError
      ConfigError          before anything runs: one line that names the path, exit status 2
      TransientError       retry, after `delay` seconds when it says so
        NotConnected       reconnect, then retry (libvirt, NATS, API server)
          Unanswered       asked, and nothing was heard; whom we are connected to may be cut off himself
        AgentUnresponsive  the guest's fault: back off for this guest, never for the process
      PermanentError       the same input will fail again
        ContractError      undecodable, or a subject that is not ours
        AgentRefused       the agent answered, with an error (unknown or disabled command, frozen)
        Rejected           the API server refused the content (400, 403, 422 that is no conflict)

A foreign library's exceptions are translated by the module that owns that edge, with `from`, and nowhere else.
"""

from __future__ import annotations


class GuestwireError(Exception):
    """Anything this project raises on purpose."""


class ConfigError(GuestwireError):
    """Settings are wrong; the message is one line that names the path and says what to do."""


class TransientError(GuestwireError):
    """Worth a retry."""

    def __init__(self, message: str = "", *, delay: float | None = None) -> None:
        super().__init__(message)
        self.delay = delay
        """Seconds to wait, where the other side said so."""


class NotConnected(TransientError):  # noqa: N818 - a state of affairs, as libvirt and NATS call it
    """The other side is away."""


class Unanswered(NotConnected):
    """Nothing was heard, though the connection stands as far as anybody knows."""


class AgentUnresponsive(TransientError):  # noqa: N818
    """A guest agent did not answer in time, or is not there."""


class PermanentError(GuestwireError):
    """The same input fails again."""


class ContractError(PermanentError):
    """A message or subject that does not follow the contract."""


class AgentRefused(PermanentError):  # noqa: N818
    """The agent answered with an error."""


class Rejected(PermanentError):  # noqa: N818
    """The API server refused the content of a request."""
