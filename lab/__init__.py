"""A whole small world on one machine, of real parts: guest, libvirt daemon, NATS server, kube-apiserver.

The demo and the tests start their world from here. Everything is synchronous: each part is a small class with
`start`, `stop` and `kill`, is a context manager, listens on free ports or inside its own directory, and leaves nothing
behind, even when the process that owns it is killed.

What does not belong here: anything the product needs at run time.
"""
