"""A stand-in for Replicate's HTTP API that runs the two doors under Cog's own servers."""
