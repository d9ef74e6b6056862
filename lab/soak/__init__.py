"""
The soak: the whole pipeline under constant change and random faults, and at the end a comparison with the truth.

Two guests are real, on a real libvirt daemon. Two hundred are simulated, behind `collectors.host.Host`: what is true
about them is kept by the soak's own process (`truth`), which no fault ends, and told over a socket (`truth_server`) to
a process that runs the real collector and publisher on it (`collect`, `simulated_host`). Everything behind them is
real: NATS, the API server, and the pipeline's processes (`pipeline`).

What happens, to the guests (`truth`, `real_guests`) and to the processes (`faults`), follows from a seed. When it has
stopped, every consumer (`consumers`) has to agree with what the guests say now (`expected`, `comparison`), and no
process may have grown (`growth`). `run` puts it together.
"""
