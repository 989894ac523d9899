"""Making room: what goes, what stays, and a disc that is full."""
