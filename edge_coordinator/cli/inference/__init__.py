"""`cpsl infer`: predictions by a trained model in two halves."""
