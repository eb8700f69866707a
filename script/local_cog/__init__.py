"""Run the two doors under Cog's own HTTP server, without Docker."""
