"""Sample by denoising: noise schedule, times, solvers, plans, labels and the sampler."""
