"""
The read API: NATS to REST.

Filled from the stream by guestwire.follower, served from memory; the only package that imports the web framework.

    cache      the present value of every guest, as answers ready to be written
    answers    an answer: status, header lines, bytes; what makes it conditional
    status     errors, as Kubernetes Status objects
    discovery  what API clients read first
    metrics    what there is to measure
    app        routes; names, as paths give them
    guests     the resource: get, list, watch, Table; lists, watch and live on streams, history
    fleet      the order of changes, in which every list, watch and page is a position
    protocol   answers a cache hit before the application is asked
    server     the process

Who may read, where reading is not open to everybody:

    security       the settings made into parts
    authorization  what is asked for, and the memory of decisions
    identity       who asks
    readers        tokens and certificates of a file
    front_proxy    users of a cluster, through its API server; cluster, the way to that
    tls, files     certificates, and files that are read again
"""
