"""The same as the commands do, from Python: in a script, a service or a notebook."""
