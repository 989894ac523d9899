"""Backups that send changes alone: never wrong, and cheap."""
