"""Tests that need no root and take seconds."""
