"""btrfs by way of btrfs-progs and ioctls: subvolumes, space, new file systems.

The server calls it. It trusts the kernel's answers.
"""
