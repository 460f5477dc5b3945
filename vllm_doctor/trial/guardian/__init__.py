"""The process between doctor and server: the server's parent, which takes it down whatever becomes of the doctor.

It is started by `python -I -S` before the server, in a session of its own, and waits on a pipe that closes when the
doctor dies. These modules import nothing but a few modules of the standard library: the whole process holds 10 MiB.
"""
