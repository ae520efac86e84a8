"""The NVIDIA GPUs of this machine: which there are, which are free, and which job holds which."""
