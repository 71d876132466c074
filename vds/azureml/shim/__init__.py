"""A directory to put before others on PYTHONPATH: there `import azureml` finds vds's names."""
