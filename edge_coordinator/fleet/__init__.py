"""A site with certificates: an authority, one identity for each program, and who may say what."""
