"""The only code that touches the machine; each probe returns facts, never judges and never prints."""
