"""`cpsl-agent infer`: the device half of a trained model, the rest computed over the bus."""
