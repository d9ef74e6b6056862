"""NATS -> VMI status: what guest agents know, shown where Kubernetes' users look."""
