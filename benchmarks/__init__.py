"""The measurements that the documentation quotes, each one command."""
