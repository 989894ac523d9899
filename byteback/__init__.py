"""byteback: maintenance-free backups of whole machines over OpenSSH and rsync."""

__version__ = "1.0.0"
