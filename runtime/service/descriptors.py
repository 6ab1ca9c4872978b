"""As many open files as this system lets a program have: every connection is one."""

import contextlib

MANY = 65_536


def allow_many() -> None:
    """Raise this process's own limit as far as it may, for itself and all that it starts.

    Many systems begin at 1024, which a broker of a thousand devices exceeds; Windows has no such
    limit.
    """
    try:
        import resource  # noqa: PLC0415  Not on Windows.
    except ModuleNotFoundError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MANY if hard == resource.RLIM_INFINITY else min(MANY, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # Some systems allow less than they say.
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
