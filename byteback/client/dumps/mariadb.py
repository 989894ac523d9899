"""Dumps every database of the MariaDB or MySQL server of this machine."""

from __future__ import annotations

import pwd

from byteback.client.dumps import dump as dumps
from byteback.errors import NotSetUpError
from byteback.system import process

DIRECTORY = dumps.DIRECTORY / "mariadb"
# In hexadecimal: a name may hold line breaks, too. Those three make themselves.
DATABASES = (
    "SELECT HEX(schema_name) FROM information_schema.schemata WHERE "
    "LOWER(schema_name) NOT IN ('information_schema', 'performance_schema', 'sys')"
)
# --single-transaction sees such tables as they are when their turn comes.
WITHOUT_TRANSACTIONS = (
    "SELECT DISTINCT HEX(t.table_schema) FROM information_schema.tables t "
    "LEFT JOIN information_schema.engines e ON t.engine = e.engine "
    "WHERE t.table_type = 'BASE TABLE' AND COALESCE(e.transactions, 'NO') <> 'YES'"
)
USERS = "+users.sql"  # no database's file: its plus sign would be encoded
CONTENTS = ("--quick", "--hex-blob", "--routines", "--triggers", "--events")


def dump_all() -> None:
    """Dump each database (``NAME.sql``) and, from MariaDB, the users (``+users.sql``).

    Connects as root through the server's socket, or as root's ~/.my.cnf says. Raises
    ToolError with the server's own words, NotSetUpError if no client is installed.
    """
    client = _program("mariadb", "mysql")
    dump = _program("mariadb-dump", "mysqldump")
    environment = {"HOME": pwd.getpwuid(0).pw_dir}  # which systemd does not set
    databases = _names(client, DATABASES, environment)
    locked = set(_names(client, WITHOUT_TRANSACTIONS, environment)) - {"mysql"}
    dumps.make_directory(DIRECTORY)
    kept = set()
    for database in databases:
        file = f"{dumps.file_name(database)}.sql"
        argv = dump_argv(dump, database, lock=database in locked)
        dumps.write_output(argv, DIRECTORY / file, environment)
        kept.add(file)
    if dump == "mariadb-dump":
        users = [dump, "--system=users", "--insert-ignore"]  # IF NOT EXISTS
        dumps.write_output(users, DIRECTORY / USERS, environment)
        kept.add(USERS)
    dumps.forget_others(DIRECTORY, kept)


def dump_argv(dump: str, database: str, *, lock: bool) -> list[str]:
    """The command line that dumps one database so that it can be read back.

    With ``lock`` no client can write to that database meanwhile.
    """
    how = "--lock-tables" if lock else "--single-transaction"
    return [
        *(dump, how, *CONTENTS, "--default-character-set=utf8mb4"),
        *("--databases", "--", database),
    ]


def _names(client: str, query: str, environment: dict[str, str]) -> list[str]:
    asked = process.run(
        [client, "--batch", "--skip-column-names", f"--execute={query}"],
        extra_env=environment,
    )
    lines = asked.text.split()
    return [bytes.fromhex(line).decode("utf-8", "surrogateescape") for line in lines]


def _program(*names: str) -> str:
    for name in names:
        if process.has_program(name):
            return name
    raise NotSetUpError(
        f"neither {' nor '.join(names)} is installed here",
        hint="take this hook out of /etc/byteback/pre-backup.d",
    )
