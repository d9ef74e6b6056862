"""Questions for an export, a month of simulated history to ask them of, and a picture of the answers."""
