"""Patterns for file names, as in Ruby's Dir.glob: parsing, and matching by automaton.

Searches call it on both machines. Patterns are hostile input.
"""
