"""Models that an attack fits: normal equations and small networks."""
