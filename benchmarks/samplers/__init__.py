"""Compare solvers, time grids and learnt samplers on trained supernets; needs trainers/ alone, on a CPU or a GPU."""
