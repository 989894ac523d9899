"""byteback-backup as cron and people run it, on a server that is this machine too."""
