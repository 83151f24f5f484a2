"""The teacher: loss gradients of a decoder, sketched into one feature vector a sample."""
