"""What is served over a broker: the training of a job, and the server half of a trained model."""
