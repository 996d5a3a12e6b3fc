"""Show a running search to observers of its user, such as Weights & Biases or TensorBoard."""
