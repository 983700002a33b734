"""How a trial is measured: by training, a surrogate, a latency table."""
