"""Make the measurements that the documentation quotes, one command each."""
