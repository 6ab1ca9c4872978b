"""Codecs of tensors on the wire: fewer bytes at a stated error, in numpy alone."""
