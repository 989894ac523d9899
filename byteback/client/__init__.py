"""What runs, as root, on the machine that is being backed up."""
