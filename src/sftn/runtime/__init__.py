"""The machine and its processes: devices, signals, memory, collectives."""
