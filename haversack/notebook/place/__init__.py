"""What a job finds on its machine: `/content`, its Python environment, the `kaggle` command."""
