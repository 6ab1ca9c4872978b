"""What in a URL lets one in, and how it is shown without that."""


def without_password(text: str, *, instead: str = "") -> str:
    """Return what may be a broker's URL with `instead` for the colon and any password in it."""
    credentials = credentials_of(text)
    user, colon, _ = credentials.partition(":")
    if not colon:
        return text
    before, _, after = text.rpartition(f"{credentials}@")
    return f"{before}{user}{instead}@{after}"


def credentials_of(text: str) -> str:
    """Return what stands between the scheme and the last @, whatever characters it has."""
    _, scheme_end, rest = text.partition("://")
    return (rest if scheme_end else text).rpartition("@")[0]
