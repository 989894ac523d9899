"""One module for each outside program or kernel interface; failures are typed."""
