"""Accuracy and speed, measured: each program prints one line of figures, last."""
