"""What a site of real devices is made of, and kept by: the commands and flags of `cpsl fleet`."""
