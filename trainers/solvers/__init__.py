"""Ship higher-order solvers, found by name: UniPC, DPM-Solver++(3M), iPNDM and DEIS."""
