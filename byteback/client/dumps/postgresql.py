"""Dumps every database of every PostgreSQL cluster of this machine."""

from __future__ import annotations

import logging
import pwd
from dataclasses import dataclass
from pathlib import Path

from byteback.client.dumps import dump
from byteback.errors import NotSetUpError, ToolError, quote
from byteback.system import accounts, process

logger = logging.getLogger(__name__)

DIRECTORY = dump.DIRECTORY / "postgresql"
CONFIGURATION = Path("/etc/postgresql")
# A session that holds a table's lock longer stops the dump, and so the backup.
LOCK_WAIT_MS = 30 * 60 * 1000
DATABASES = (
    "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate "
    "ORDER BY datname"
)


@dataclass(frozen=True)
class Cluster:
    """One PostgreSQL server: on Debian there may be several beside each other."""

    name: str | None  # "15/main"; None where the system knows no such thing
    owner: str

    @property
    def directory(self) -> Path:
        """The directory of its dumps."""
        return DIRECTORY / (self.name or "default").replace("/", "-")

    def words(self, *words: str) -> list[str]:
        """A command line that runs as the cluster's owner."""
        return ["runuser", "-u", self.owner, "--", *words]

    def environment(self) -> dict[str, str]:
        """Names the cluster to Debian's wrapper of the programs; bytes stay bytes."""
        chosen = {"PGCLUSTER": self.name} if self.name else {}
        home = pwd.getpwnam(self.owner).pw_dir
        return {**chosen, "HOME": home, "PGCLIENTENCODING": "SQL_ASCII"}


def dump_all() -> None:
    """Dump roles and tablespaces (``globals.sql``) and each database (``NAME.dump``).

    Raises ToolError with PostgreSQL's own words, NotSetUpError if there is nothing to
    dump: then this hook should not be here.
    """
    clusters = find_clusters()
    if not clusters:
        raise NotSetUpError(
            "no PostgreSQL cluster is here",
            hint="take this hook out of /etc/byteback/pre-backup.d",
        )
    for cluster in clusters:
        _dump(cluster)


def find_clusters() -> list[Cluster]:
    """The clusters to dump. Raises ToolError for one that should run and does not.

    One that is down on purpose needs no dump: its files do not change.
    """
    if not process.has_program("pg_lsclusters"):
        present = (
            process.has_program("pg_dump")
            and accounts.find_user("postgres") is not None
        )
        return [Cluster(None, "postgres")] if present else []
    found = []
    for line in process.run(["pg_lsclusters", "--no-header"]).text.splitlines():
        version, name, _port, status, owner = line.split()[:5]
        if status.startswith("online"):
            found.append(Cluster(f"{version}/{name}", owner))
        elif _starts_by_itself(version, name):
            raise ToolError(
                f"the PostgreSQL cluster {quote(f'{version}/{name}')} is {status}",
                hint="start it; if it shall be down, write 'manual' into "
                f"{CONFIGURATION}/{version}/{name}/start.conf",
            )
    return found


def _starts_by_itself(version: str, name: str) -> bool:
    try:
        text = (CONFIGURATION / version / name / "start.conf").read_text("utf-8")
    except FileNotFoundError:
        return True
    words = [line.split("#", 1)[0].strip() for line in text.splitlines()]
    return "auto" in words or not any(words)


def _dump(cluster: Cluster) -> None:
    dump.make_directory(DIRECTORY)
    directory, environment = cluster.directory, cluster.environment()
    dump.make_directory(directory)
    globals_only = cluster.words("pg_dumpall", "--globals-only", "--no-password")
    dump.write_output(globals_only, directory / "globals.sql", environment)
    kept = {"globals.sql"}
    for database in _databases(cluster):
        file = f"{dump.file_name(database)}.dump"
        dump.write_output(
            cluster.words(
                *("pg_dump", "--format=custom", "--compress=0", "--no-password"),
                *(f"--lock-wait-timeout={LOCK_WAIT_MS}", "--dbname"),
                format_connection(database),
            ),
            directory / file,
            environment,
        )
        kept.add(file)
    dump.forget_others(directory, kept)


def _databases(cluster: Cluster) -> list[str]:
    asked = process.run(
        cluster.words(
            *("psql", "--no-psqlrc", "--no-password", "--quiet", "--tuples-only"),
            *("--no-align", "--record-separator-zero", "--dbname=postgres"),
            *("--command", DATABASES),
        ),
        extra_env=cluster.environment(),
    )
    return [name for name in asked.text.split("\0") if name]


def format_connection(database: str) -> str:
    """A connection string that means this database and nothing else.

    A plain name would not do: users may call theirs ``host=elsewhere``, which pg_dump
    takes for a connection string of its own (libpq, PQconnectdbParams).
    """
    escaped = database.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"
