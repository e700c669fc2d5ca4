"""The PyTorch halves of `speed.py`: each runs in a fresh process and prints one JSON object."""
