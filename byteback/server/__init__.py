"""What runs on the backup server, where every input is hostile."""
