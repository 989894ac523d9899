"""byteback-clients on a real store, with a real client of it."""
