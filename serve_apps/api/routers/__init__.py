"""The routes: reads (graph), events (push), operate (everything about the system), status (health, metrics)."""
