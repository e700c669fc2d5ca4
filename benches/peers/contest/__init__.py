"""The parts of `speed.py`: processes, data, works and the table. Nothing here imports torch, so that it stays small."""
