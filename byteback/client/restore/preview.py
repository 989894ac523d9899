"""Tells what a restore will do, before the question whether it shall."""

from __future__ import annotations

from collections.abc import Sequence

from byteback.client.restore import bring
from byteback.client.restore.bring import Task
from byteback.errors import escape
from byteback.model.size import format_count

NAMES_SHOWN = 3  # of what is restored
REPLACED_SHOWN = 20


def changes_anything(tasks: Sequence[Task]) -> bool:
    """True if something is not yet as it is in the backup."""
    return any(task.outlook is None or task.outlook.changes for task in tasks)


def replaces_anything(tasks: Sequence[Task]) -> bool:
    """True if something that is there now will be replaced."""
    return any(task.outlook and task.outlook.replaced for task in tasks)


def describe(tasks: Sequence[Task]) -> str:
    """The files that will be restored, that are replaced, and that stay."""
    lines = [_describe_names(task) for task in tasks]
    replaced = [line for task in tasks for line in _describe_replaced(task)]
    lines += replaced[:REPLACED_SHOWN]
    if len(replaced) > REPLACED_SHOWN:
        lines.append(
            f"and replaces {len(replaced) - REPLACED_SHOWN} more: "
            "--dry-run lists them all"
        )
    if not replaced:
        lines.append("replaces no file that is there")
    kept = sum(len(task.outlook.kept) for task in tasks if task.outlook)
    if kept:
        lines.append(f"keeps {format_count(kept, 'name')} newer than in the backup")
    return "\n".join([*lines, *(s for task in tasks for s in bring.cannot_come(task))])


def _describe_names(task: Task) -> str:
    entries = task.batch.entries
    what = ", ".join(escape(entry.path) for entry in entries[:NAMES_SHOWN])
    more = len(entries) - NAMES_SHOWN
    if more > 0:
        what += f" and {more} more"
    return f"{task.batch.snapshot}: {what}"


def _describe_replaced(task: Task) -> list[str]:
    if task.outlook is None:
        return []
    return [
        f"replaces {escape(str(task.batch.directory / name))}"
        + (", which is newer" if name in task.outlook.newer else "")
        for name in task.outlook.replaced
    ]
