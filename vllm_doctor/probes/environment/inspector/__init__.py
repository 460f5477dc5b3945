"""What the examined interpreter runs: reads the environment as files, standard library only, Python 3.8 and later.

Nothing here imports `re`, `json`, `typing`, `email` or `importlib.metadata` (each costs as much CPU time as all of the
reading), nothing executes code of the environment, and nothing imports the rest of the doctor.
"""
