"""Models made elsewhere: their files in, a supernet's directory out, and back."""
