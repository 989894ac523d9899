"""rsync: its output, its exit statuses, its options and its fake-super attributes.

Both machines call it. Attributes and output are parsed as hostile input.
"""
