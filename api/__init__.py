"""
The read API: NATS to REST.

Filled from the stream by guestwire.follower, served from memory; the only package that imports the web framework.

    cache      the present value of every guest, as answers ready to be written
    answers    an answer: status, header lines, bytes; what makes it conditional
    status     errors, as Kubernetes Status objects
    discovery  what API clients read first
    metrics    what there is to measure
    app        routes
    protocol   answers a cache hit before the application is asked
    server     the process
"""
