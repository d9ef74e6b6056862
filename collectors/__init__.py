"""
libvirt and guest agents -> snapshots.

Only this package imports libvirt. What leaves it is a `GuestSnapshot`: everything known about a guest, encoded once.
"""
