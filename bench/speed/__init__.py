"""How fast this machine trains: the parts of the benchmark `train`."""
