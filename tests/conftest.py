"""Settings of every test: a slow machine fails no property test but those that limit the time themselves."""

import signal

from hypothesis import settings

# Tests that a shell starts in the background (`pytest &`, nohup) ignore these signals, and so would all they start.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
