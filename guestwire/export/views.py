"""
The present state, and what history says of spans of time: views over the tables, in SQL.

Facts are present when they are the last of their kind in the last epoch, their guest is not gone, they are about the
guest that has the name now (its uid), and they came after any guest of the name was gone.
"""

from __future__ import annotations

import msgspec


class View(msgspec.Struct, frozen=True):
    """A view: its name, what it answers, and its query."""

    name: str
    meaning: str
    query: str


def _now(table: str, meaning: str) -> View:
    return View(
        f"{table}_now",
        meaning,
        f"SELECT {table}.* FROM {table} JOIN present USING (epoch, revision)",  # noqa: S608 - names of ours
    )


VIEWS = (
    View(
        "present",
        "The last message of each kind of facts about each guest that exists: epoch and revision, to join by.",
        """
        WITH epochs AS (SELECT max(epoch) AS epoch FROM events),
        latest AS (
            SELECT epoch, max(revision) AS revision, cluster, namespace, name, kind, arg_max(uid, revision) AS uid
            FROM events SEMI JOIN epochs USING (epoch)
            GROUP BY epoch, cluster, namespace, name, kind
        ),
        guest AS (
            SELECT cluster, namespace, name, arg_max(uid, revision) AS uid, arg_max(phase, revision) AS phase,
                   coalesce(max(revision) FILTER (phase = 'Gone'), 0) AS gone
            FROM agents SEMI JOIN epochs USING (epoch)
            GROUP BY cluster, namespace, name
        )
        SELECT latest.epoch, latest.revision, latest.kind
        FROM latest JOIN guest USING (cluster, namespace, name, uid)
        WHERE guest.phase <> 'Gone' AND latest.revision > guest.gone
        """,
    ),
    View(
        "guests",
        "A row for each guest that exists: its agent's state and its system.",
        """
        SELECT agents.* EXCLUDE (observed_at, version), agents.observed_at AS last_heard,
               systems.* EXCLUDE (epoch, revision, observed_at, cluster, namespace, name, uid, host, agent_version),
               systems.observed_at AS system_observed_at,
               coalesce(agents.version, systems.agent_version) AS agent_version
        FROM agents JOIN present USING (epoch, revision)
        LEFT JOIN (SELECT systems.* FROM systems JOIN present USING (epoch, revision)) AS systems
            USING (cluster, namespace, name)
        """,
    ),
    _now("filesystems", "Filesystems of guests that exist, as last read."),
    _now("users", "Who is logged in, as last read."),
    _now("interfaces", "Network devices of guests that exist."),
    _now("addresses", "Addresses of guests that exist, as last read."),
    View(
        "sessions",
        "Everyone who was ever logged in: from when, seen until when, and when the list came without them (NULL: still "
        "there, as far as known).",
        """
        WITH lists AS (
            SELECT epoch, revision, lead(observed_at) OVER guest AS next_at
            FROM (
                SELECT epoch, revision, observed_at, cluster, namespace, name FROM events WHERE kind = 'userlist'
                UNION ALL BY NAME
                SELECT epoch, revision, observed_at, cluster, namespace, name FROM agents WHERE phase = 'Gone'
            )
            WINDOW guest AS (PARTITION BY cluster, namespace, name ORDER BY epoch, revision)
        )
        SELECT cluster, namespace, name, uid, user_name, domain, login_time, min(observed_at) AS first_seen,
               max(observed_at) AS last_seen, arg_max_null(next_at, (epoch, revision)) AS ended_at
        FROM users JOIN lists USING (epoch, revision)
        GROUP BY cluster, namespace, name, uid, user_name, domain, login_time
        """,
    ),
)

PRESENT = tuple(view.name for view in VIEWS if view.name == "guests" or view.name.endswith("_now"))
"""Those that say what is; beside Parquet files they are kept as files of their own."""


def statements() -> list[str]:
    """What makes the views, in order."""
    return [f"CREATE OR REPLACE VIEW {view.name} AS {view.query}" for view in VIEWS]
