"""Parts that architectures and defences are built from: ODE solvers, kernels, generators."""
