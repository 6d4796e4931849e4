"""The machine and its processes: devices, memory, signals, and collectives between processes."""
