"""Train a supernet by the sandwich rule, in one process or several, with exact resumption from a checkpoint."""
