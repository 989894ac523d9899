"""One thin module for each program: parse, call one function, print."""
