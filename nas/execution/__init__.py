"""Where trials run: Ray or this process; workers, cores, devices, signals."""
