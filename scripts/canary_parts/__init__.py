"""The parts that `make_canary.py` puts together: the tokens and what is said with them, and the weights."""
