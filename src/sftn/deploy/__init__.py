"""Deployment of trained networks: export to self-contained files, and prediction with these files."""
